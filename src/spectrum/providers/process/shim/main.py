"""The command line of the supervisor and of its short helpers: `supervise TARGET INSTANCE`, `launch UNIT`, `fill`."""

from __future__ import annotations

import os
import signal
import sys

SET_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS, prctl(2)
READY, OCCUPIED = b"r", b"o"


def main(arguments: list[str], folder: str) -> int:
    match arguments:
        case ["launch", unit]:
            from . import launch

            return launch.main(unit)
        case ["fill"]:
            from . import files

            return files.main()
        case ["supervise", target, instance]:
            return _detach(target, instance, folder)
        case _:
            print("usage: supervise TARGET INSTANCE | launch UNIT | fill", file=sys.stderr)  # noqa: T201
            return 2


def _detach(target: str, instance: str, folder: str) -> int:
    """Fork the supervisor off and wait until it answers, or until it is clear that another one does."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        said = os.read(reader, 4096)
        if said[:1] in (READY, OCCUPIED, b""):  # nothing said: killed before it was ready, whoever needs it tries again
            return 0
        print(said.decode("utf-8", "replace"), file=sys.stderr)  # noqa: T201
        return 1
    os.close(reader)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    _supervise(target, instance, folder, writer)
    return 0


def _supervise(target: str, instance: str, folder: str, writer: int) -> None:
    from .server import Held, Server
    from .unit import own_command

    try:
        _refuse_new_privileges()
        server = Server(target, instance, own_command(folder))
        server.open()
    except Held:
        os.write(writer, OCCUPIED)
        return
    except Exception as problem:
        os.write(writer, f"{type(problem).__name__}: {problem}".encode()[:4000])
        raise
    os.write(writer, READY)
    os.close(writer)
    server.serve()


def _refuse_new_privileges() -> None:
    """For this process and all that it starts: no set-user-id program gives an instance more than it has (no_new_privs)."""
    import ctypes

    ctypes.CDLL(None).prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
