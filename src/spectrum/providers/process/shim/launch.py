"""The last act before a service's own program: becomes the account, closes everything, sets the limits, and is replaced by it."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from . import durable
from .durable import Identity
from .files import drop_privileges

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as shells do, POSIX XCU 2.8.2
OPEN_FILES = 65_536

KEEPER = r"""
unit=$1 python=$2 code=$3; shift 3
field() { shift 21; start=$1; }
for group; do echo 0 > "$group/cgroup.procs"; done 2>/dev/null
read -r line < "/proc/$$/stat"; field $line
read -r boot < /proc/sys/kernel/random/boot_id
echo "$$ $start $boot" > "$unit/keeper"
"$python" -I -S "$code" launch "$unit"
echo "$?" > "$unit/exit.new" && mv -f "$unit/exit.new" "$unit/exit"
"""
"""The keeper: the parent of one service or hook, a shell of about 1 MB in a session of its own. It writes down who it is before
anything runs and how it ended after, so that a supervisor that was killed meanwhile learns both. It holds the slot's lock."""


def main(unit: str) -> int:
    """Never returns where the program starts; else the exit code that says why it didn't."""
    spec = json.loads(durable.read(os.path.join(unit, "spec.json")) or "{}")
    os.setsid()
    myself = Identity.of(os.getpid())
    with open(os.path.join(unit, "main"), "w", encoding="ascii") as file:
        file.write(str(myself))
    source = os.open(spec["stdin"] or os.devnull, os.O_RDONLY)
    os.dup2(source, 0)
    if spec["stdout"]:
        os.dup2(os.open(spec["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), 1)
    _limits()
    os.chdir("/")
    drop_privileges(spec["uid"], spec["gid"], spec["account"])
    return _become(spec["command"], spec["environment"], spec["working_dir"])


def _limits() -> None:
    """As many open files as allowed, no core dumps (they hold secrets). Never RLIMIT_AS: it breaks PostgreSQL."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES), hard)
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _become(command: list[str], environment: dict[str, str], working_dir: str) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    try:
        os.chdir(working_dir)
        os.execvpe(command[0], command, environment)  # noqa: S606 - the product's own command, no shell
    except FileNotFoundError as error:
        print(f"{error.filename or command[0]}: not found (PATH={environment.get('PATH', '')})", file=sys.stderr)  # noqa: T201
        return NOT_FOUND
    except OSError as error:
        print(f"{error.filename or command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return NOT_EXECUTABLE
