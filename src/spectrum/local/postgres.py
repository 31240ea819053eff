"""The part that keeps PostgreSQL running: `python -m spectrum.local.postgres HOME PORT`.

The server outlives this process on purpose (no commit may hang on a watcher); a new one adopts it. SIGTERM stops both.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from spectrum.db.embedded import Embedded, EmbeddedError, Server
from spectrum.local import identity
from spectrum.local.home import Home, write
from spectrum.local.logs import say


def main() -> None:
    home = Home(Path(sys.argv[1]))
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        database = Embedded(home.database, port=int(sys.argv[2]))
        server = database.start()
        write(home.database_url, server.url() + "\n")
        say(f"PostgreSQL {server.pid} listens on port {server.port}")
        if not _ended_before(wake, server):
            database.stop()
            return
    except EmbeddedError as error:
        say(str(error))
        raise SystemExit(1) from None
    say(f"PostgreSQL {server.pid} has ended; see {database.place.log}")
    raise SystemExit(1)


def _ended_before(wake: int, server: Server) -> bool:
    """Whether the server ended by itself before this process was asked to stop it."""
    process = identity.identify(server.pid)
    descriptor = identity.open_pidfd(process) if process else None
    if descriptor is None:
        return True
    watch = select.poll()
    watch.register(wake, select.POLLIN)
    watch.register(descriptor, select.POLLIN)
    return wake not in {ready for ready, _ in watch.poll()}


if __name__ == "__main__":
    main()
