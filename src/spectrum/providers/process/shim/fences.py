"""The fence record: the highest fence of an instance and the highest token of each slot, durable, kept after purge."""

from __future__ import annotations

from . import durable
from .refusals import FATAL, Refusal, Stale


class FenceRecord:
    """Lies outside the instance's folder, so that a late call to a purged instance is still refused (DESIGN §3.15)."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            stored = durable.read_json(path) or {}
            self.fence = int(stored.get("fence", 0))
            self.tokens = {str(slot): int(token) for slot, token in stored.get("tokens", {}).items()}
        except (ValueError, AttributeError) as error:
            message = f"the fence record {path} is damaged ({error}); put it back from a backup before this instance is touched"
            raise Refusal(FATAL, "fence-record-damaged", message) from error

    def check(self, fence: int, slot: str, token: int) -> None:
        """Raises Stale for a fence or token that is lower than one seen. Token 0 is an observation."""
        if fence < self.fence:
            raise Stale(f"fence {fence} is lower than {self.fence}, which this instance has seen")
        seen = self.tokens.get(slot, 0)
        if token and token < seen:
            raise Stale(f"token {token} is lower than {seen}, which slot {slot} has seen")

    def record(self, fence: int, slot: str, token: int) -> None:
        """Make both durable. Nothing is written where both were seen before."""
        if fence == self.fence and token <= self.tokens.get(slot, 0):
            return
        tokens = {**self.tokens, slot: token} if token > self.tokens.get(slot, 0) else self.tokens
        durable.write_json(self.path, {"fence": fence, "tokens": tokens})
        self.fence = fence
        self.tokens = tokens
