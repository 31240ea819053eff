"""Whether a whole installation keeps its secrets: in its files, its rows, what it told, and the command lines of the host."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from spectrum.control.secrets import load_or_create
from spectrum.core.sealing import Context, Sealed
from spectrum.local.home import Home
from spectrum.ports import SystemEntropy
from tests.canaries import Canaries

PACE = 0.2  # seconds between two looks at processes and at new secrets
_SECRETS = "SELECT instance_id, name, version, key_id, ciphertext FROM secrets"


@dataclass
class Watch:
    """Collects an installation's secrets while it runs, and where they might be seen."""

    home: Home
    canaries: Canaries = field(default_factory=Canaries)
    said: list[str] = field(default_factory=list)
    commands: set[bytes] = field(default_factory=set)
    opened: set[tuple[str, str, int]] = field(default_factory=set)
    _own: dict[str, Path] = field(
        default_factory=dict
    )  # the one file where each of the installation's own secrets may stand

    @contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(PACE):
                self.look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def look(self) -> None:
        """Note what processes are called with, and take every secret of an instance that is new for a canary."""
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                self.commands.add(place.read_bytes())
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # it is not up yet, or was killed
            asyncio.run(self._open_secrets())

    async def _open_secrets(self) -> None:
        connection = await asyncpg.connect(self._database(), timeout=5)
        try:
            rows = await connection.fetch(_SECRETS)
        finally:
            await connection.close()
        keyring = load_or_create(self.home.master_key, SystemEntropy()).keyring
        for row in rows:
            place = (row["instance_id"], row["name"], row["version"])
            if place not in self.opened:
                text = keyring.open(Sealed(row["key_id"], row["ciphertext"]), Context("secrets", *place)).decode()
                self.canaries.plant(text, f"{row['name']} of {row['instance_id']}")
                self.opened.add(place)

    def _database(self) -> str:
        address = urlsplit(self.home.database_url.read_text().strip())
        return address._replace(path="/spectrum").geturl()

    # ---- the search

    def leaks_while_up(self) -> list[str]:
        """What of the secrets stands in a row, was told, or was on a command line."""
        self.look()
        self._plant_own()
        rows = asyncio.run(self.canaries.found_in_database(self._database()))
        told = [f"an answer: {name}" for text in self.said for name in self.canaries.found_in(text)]
        called = [f"{command[:80]!r}: {name}" for command in self.commands for name in self.canaries.found_in(command)]
        return [*rows, *told, *called]

    def leaks_in_files(self, *folders: Path) -> list[str]:
        """What of the secrets stands in a file where it does not belong. PostgreSQL's files hold still once it is down."""
        return [
            f"{path}: {name}"
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
            for name in self.canaries.found_in(path.read_bytes())
            if not self._belongs(name, path)
        ]

    def _belongs(self, name: str, path: Path) -> bool:
        """The installation's own in their one file, an instance's in its own folders; of the demo `up` tells the password."""
        name = name.partition(",")[0]
        return path in (self._own.get(name), self.home.demo_password) or name.rpartition(" ")[2] in str(path)

    def _plant_own(self) -> None:
        keys = json.loads(self.home.master_key.read_text())
        own = {
            "the first token": (self.home.token.read_text().strip(), self.home.token),
            "the join token": (self.home.join_token.read_text().strip(), self.home.join_token),
            "the cell's key": (keys["cell"], self.home.master_key),
            **{f"the master key {key_id}": (key, self.home.master_key) for key_id, key in keys["master"].items()},
            "PostgreSQL's password": (
                urlsplit(self.home.database_url.read_text()).password or "",
                self.home.database_url,
            ),
        }
        for name, (text, path) in own.items():
            self.canaries.plant(text, name)
            self._own[name] = path
