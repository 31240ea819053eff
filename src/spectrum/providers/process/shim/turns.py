"""Who may act now: calls on one slot one after another, and no call of an older fence in flight once a newer one was let in."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from .refusals import Stale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fences import FenceRecord


class Turns:
    """Check, record and act are one: a call is checked against the fence record when its turn comes, and recorded before it acts.

    A newer fence waits until the calls of older ones have ended, and from then on keeps further ones of them out: when its first
    answer arrives, nothing older can have an effect any more (P4).
    """

    def __init__(self, fences: FenceRecord) -> None:
        self.fences = fences
        self.changed = threading.Condition()
        self.newest = fences.fence
        self.busy: dict[str, int] = {}  # slot -> fence of the call that acts on it; "" is the whole instance

    def _may_go(self, slot: str, fence: int) -> bool:
        if any(other < fence for other in self.busy.values()) or "" in self.busy:
            return False
        return slot not in self.busy if slot else not self.busy

    @contextmanager
    def take(self, slot: str, fence: int, token: int, alone: bool = False) -> Iterator[None]:
        """Hold the slot (or, `alone`, the whole instance) for the length of a call. Raises Stale."""
        name = "" if alone else slot
        with self.changed:
            while True:
                if fence < self.newest:
                    raise Stale(f"fence {fence} is lower than {self.newest}, which this instance has seen")
                self.fences.check(fence, slot, token)
                self.newest = fence
                if self._may_go(name, fence):
                    break
                self.changed.wait()
            self.fences.record(fence, slot, token)
            self.busy[name] = fence
        try:
            yield
        finally:
            with self.changed:
                del self.busy[name]
                self.changed.notify_all()

    def idle(self) -> bool:
        with self.changed:
            return not self.busy
