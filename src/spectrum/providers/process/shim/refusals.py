"""How a supervisor says no: the failure classes of the provider contract, as they travel over the socket."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TRANSIENT = "transient"
CONFLICT = "conflict"
INVALID = "invalid"
FATAL = "fatal"


class Refusal(Exception):
    """A call that did not work, classified once; `code` is for programs, the message for people."""

    def __init__(self, kind: str, code: str, message: str, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.evidence = list(evidence)

    def as_json(self) -> dict[str, Any]:
        return {"class": self.kind, "code": self.code, "message": str(self), "evidence": self.evidence}


class Stale(Refusal):
    """A fence or token below one that was seen: the caller has lost its right."""

    def __init__(self, message: str) -> None:
        super().__init__(FATAL, "stale-fence", message)
