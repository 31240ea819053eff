"""The state of one instance on disk: what is wanted in which slot, replaced as a whole at every change. It holds no secret."""

from __future__ import annotations

import os
import threading

from . import durable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1


class Journal:
    """`slots` keeps the order in which slots were first asked for: services start in it, and stop against it.

    `down`: stopped by `spectrum down`; nothing starts by itself until it is revived, and nothing that is wanted is forgotten.
    """

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "journal.json")
        self.lock = threading.RLock()
        stored = durable.read_json(self.path) or {}
        self.down = bool(stored.get("down", False))
        self.slots: dict[str, dict[str, Any]] = stored.get("slots", {})

    def _save(self) -> None:
        durable.write_json(self.path, {"format": FORMAT, "down": self.down, "slots": self.slots})

    def set_down(self, down: bool) -> None:
        with self.lock:
            if self.down != down:
                self.down = down
                self._save()

    def put(self, slot: str, record: dict[str, Any]) -> None:
        with self.lock:
            self.slots[slot] = record
            self._save()

    def change(self, slot: str, **fields: Any) -> None:
        """Change fields of a slot's record; nothing to do where the slot is gone."""
        with self.lock:
            if slot in self.slots:
                self.slots[slot].update(fields)
                self._save()

    def drop(self, slot: str) -> None:
        with self.lock:
            if self.slots.pop(slot, None) is not None:
                self._save()

    def forget(self) -> None:
        """The last act of a purge."""
        with self.lock:
            self.slots.clear()
            durable.unlink(self.path)
