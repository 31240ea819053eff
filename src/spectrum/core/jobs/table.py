"""The transition tables of DESIGN §3: the only definition of what may follow what.

The guards in `decide`, the CHECK constraints of the schema and the diagram in `docs/` all come from here.
A pair that is not listed is a 409 without a version bump.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    CANCELLING = "cancelling"
    UNWINDING = "unwinding"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
OWNABLE = frozenset({JobState.RUNNING, JobState.CANCELLING, JobState.UNWINDING})


class JobTrigger(StrEnum):
    """What happens to a job. The first words of each row of DESIGN's table."""

    PROMOTE = "promote"  # nothing before it any more, planned
    REFUSE = "refuse"  # promotion found it invalid, held or deleted
    SUPERSEDE = "supersede"  # promotion found a newer request
    CLAIM = "claim"
    ALL_DONE = "all done"
    STEP_FAILED = "step failed"
    ACKNOWLEDGE = "acknowledge"
    UNWOUND = "unwound"
    RELEASE = "release"
    CANCEL = "cancel"
    LOST = "owner lost"
    POISON = "poison"
    DEADLINE = "deadline"


class Case(StrEnum):
    """On what the next state depends. TOUCHED: some step has an intent. The reason is the first one that was given."""

    ALWAYS = "always"
    TOUCHED = "touched"
    UNTOUCHED = "untouched"
    REASON_CANCEL = "first reason is a cancel"
    REASON_OTHER = "first reason is another"


class Ownership(StrEnum):
    OWNED = "owned"
    UNOWNED = "unowned"
    ANY = "any"


_S, _T, _C = JobState, JobTrigger, Case

_undo_or_cancel = {_C.TOUCHED: _S.UNWINDING, _C.UNTOUCHED: _S.CANCELLED}
_undo_or_fail = {_C.TOUCHED: _S.UNWINDING, _C.UNTOUCHED: _S.FAILED}

JOBS: dict[tuple[JobState, JobTrigger], dict[Case, JobState]] = {
    (_S.WAITING, _T.PROMOTE): {_C.ALWAYS: _S.READY},
    (_S.WAITING, _T.REFUSE): {_C.ALWAYS: _S.FAILED},
    (_S.WAITING, _T.SUPERSEDE): {_C.ALWAYS: _S.CANCELLED},
    (_S.WAITING, _T.CANCEL): {_C.ALWAYS: _S.CANCELLED},
    (_S.WAITING, _T.DEADLINE): {_C.ALWAYS: _S.FAILED},
    (_S.READY, _T.CLAIM): {_C.ALWAYS: _S.RUNNING},
    (_S.READY, _T.CANCEL): _undo_or_cancel,
    (_S.READY, _T.DEADLINE): _undo_or_fail,
    (_S.RUNNING, _T.ALL_DONE): {_C.ALWAYS: _S.SUCCEEDED},
    (_S.RUNNING, _T.STEP_FAILED): _undo_or_fail,
    (_S.RUNNING, _T.RELEASE): {_C.ALWAYS: _S.READY},
    (_S.RUNNING, _T.CANCEL): {_C.ALWAYS: _S.CANCELLING},
    (_S.RUNNING, _T.LOST): {_C.ALWAYS: _S.READY},
    (_S.RUNNING, _T.POISON): _undo_or_fail,
    (_S.RUNNING, _T.DEADLINE): _undo_or_fail,
    (_S.CANCELLING, _T.ALL_DONE): {_C.ALWAYS: _S.SUCCEEDED},
    (_S.CANCELLING, _T.ACKNOWLEDGE): _undo_or_cancel,
    (_S.CANCELLING, _T.RELEASE): _undo_or_cancel,
    (_S.CANCELLING, _T.CANCEL): {_C.ALWAYS: _S.CANCELLING},
    (_S.CANCELLING, _T.LOST): _undo_or_cancel,
    (_S.CANCELLING, _T.DEADLINE): _undo_or_cancel,
    (_S.UNWINDING, _T.CLAIM): {_C.ALWAYS: _S.UNWINDING},
    (_S.UNWINDING, _T.RELEASE): {_C.ALWAYS: _S.UNWINDING},
    (_S.UNWINDING, _T.CANCEL): {_C.ALWAYS: _S.UNWINDING},
    (_S.UNWINDING, _T.LOST): {_C.ALWAYS: _S.UNWINDING},
    (_S.UNWINDING, _T.UNWOUND): {_C.REASON_CANCEL: _S.CANCELLED, _C.REASON_OTHER: _S.FAILED},
    (_S.UNWINDING, _T.DEADLINE): {_C.ALWAYS: _S.FAILED},
}

ENDS_OWNERSHIP = frozenset({_T.RELEASE, _T.LOST, _T.POISON, _T.DEADLINE})
"""Triggers after which the fence is raised and the owner is gone."""

NEEDS_OWNERSHIP: dict[JobTrigger, Ownership] = {
    _T.CLAIM: Ownership.UNOWNED,
    _T.ALL_DONE: Ownership.OWNED,
    _T.STEP_FAILED: Ownership.OWNED,
    _T.ACKNOWLEDGE: Ownership.OWNED,
    _T.UNWOUND: Ownership.OWNED,
    _T.RELEASE: Ownership.OWNED,
    _T.LOST: Ownership.OWNED,
    _T.POISON: Ownership.OWNED,
}
"""What a trigger asks of the owner; those not named ask nothing."""


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    UNKNOWN = "unknown"
    REPLACING = "replacing"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    SKIPPED = "skipped"
    UNDO_FAILED = "undo_failed"


SATISFIED = frozenset({StepState.DONE, StepState.SKIPPED})
"""What satisfies the steps that need it, and where every step of a job that succeeds ends."""

UNWOUND = frozenset({StepState.UNDONE, StepState.SKIPPED, StepState.UNDO_FAILED})
"""Where every step of an unwinding job ends."""


class StepTrigger(StrEnum):
    INTENT = "intent"
    OK = "ok"
    ABSENT = "absent"  # an unknown attempt's effect was proven not to be there
    UNDECIDABLE = "undecidable"
    RETRYABLE = "retryable"
    FATAL = "failed for good"
    TIMEOUT = "timeout"
    CLAIM = "claim"
    UNWIND = "unwind"
    SKIP = "skip"  # its condition is false
    REOPEN = "reopen"  # the unwound post-condition does not hold for its slot


class StepCase(StrEnum):
    ALWAYS = "always"
    TOUCHED = "touched"
    UNTOUCHED = "untouched"
    BUDGET_LEFT = "budget left"
    BUDGET_USED = "budget used up"
    REVERSIBLE = "reversible"
    IRREVERSIBLE = "irreversible"


_P, _G, _W = StepState, StepTrigger, StepCase

_budget = {_W.BUDGET_LEFT: _P.RETRYING, _W.BUDGET_USED: _P.FAILED}
_undo_or_skip = {_W.TOUCHED: _P.UNDOING, _W.UNTOUCHED: _P.SKIPPED}

STEPS: dict[tuple[StepState, StepTrigger], dict[StepCase, StepState]] = {
    (_P.PENDING, _G.INTENT): {_W.ALWAYS: _P.RUNNING},
    (_P.PENDING, _G.RETRYABLE): _budget,
    (_P.PENDING, _G.FATAL): {_W.ALWAYS: _P.FAILED},
    (_P.PENDING, _G.UNWIND): _undo_or_skip,
    (_P.PENDING, _G.SKIP): {_W.ALWAYS: _P.SKIPPED},
    (_P.RUNNING, _G.OK): {_W.ALWAYS: _P.DONE},
    (_P.RUNNING, _G.RETRYABLE): _budget,
    (_P.RUNNING, _G.FATAL): {_W.ALWAYS: _P.FAILED},
    (_P.RUNNING, _G.TIMEOUT): {_W.ALWAYS: _P.UNKNOWN},
    (_P.RUNNING, _G.CLAIM): {_W.ALWAYS: _P.UNKNOWN},
    (_P.RUNNING, _G.UNWIND): _undo_or_skip,
    (_P.RETRYING, _G.INTENT): {_W.ALWAYS: _P.RUNNING},
    (_P.RETRYING, _G.RETRYABLE): _budget,
    (_P.RETRYING, _G.FATAL): {_W.ALWAYS: _P.FAILED},
    (_P.RETRYING, _G.UNWIND): _undo_or_skip,
    (_P.UNKNOWN, _G.INTENT): {_W.ALWAYS: _P.RUNNING},
    (_P.UNKNOWN, _G.OK): {_W.ALWAYS: _P.DONE},
    (_P.UNKNOWN, _G.ABSENT): {_W.ALWAYS: _P.UNKNOWN},
    (_P.UNKNOWN, _G.UNDECIDABLE): {_W.REVERSIBLE: _P.REPLACING, _W.IRREVERSIBLE: _P.FAILED},
    (_P.UNKNOWN, _G.RETRYABLE): {_W.ALWAYS: _P.UNKNOWN},
    (_P.UNKNOWN, _G.FATAL): {_W.ALWAYS: _P.FAILED},
    (_P.UNKNOWN, _G.TIMEOUT): {_W.ALWAYS: _P.UNKNOWN},
    (_P.UNKNOWN, _G.UNWIND): _undo_or_skip,
    (_P.REPLACING, _G.INTENT): {_W.ALWAYS: _P.REPLACING},
    (_P.REPLACING, _G.OK): {_W.ALWAYS: _P.PENDING},
    (_P.REPLACING, _G.RETRYABLE): {_W.ALWAYS: _P.REPLACING},
    (_P.REPLACING, _G.FATAL): {_W.ALWAYS: _P.FAILED},
    (_P.REPLACING, _G.TIMEOUT): {_W.ALWAYS: _P.REPLACING},
    (_P.REPLACING, _G.UNWIND): _undo_or_skip,
    (_P.DONE, _G.UNWIND): _undo_or_skip,
    (_P.FAILED, _G.UNWIND): _undo_or_skip,
    (_P.UNDOING, _G.INTENT): {_W.ALWAYS: _P.UNDOING},
    (_P.UNDOING, _G.OK): {_W.ALWAYS: _P.UNDONE},
    (_P.UNDOING, _G.RETRYABLE): {_W.ALWAYS: _P.UNDOING},
    (_P.UNDOING, _G.FATAL): {_W.ALWAYS: _P.UNDO_FAILED},
    (_P.UNDOING, _G.TIMEOUT): {_W.ALWAYS: _P.UNDOING},
    (_P.UNDONE, _G.REOPEN): {_W.ALWAYS: _P.UNDOING},
}


class Lifecycle(StrEnum):
    """What an instance is; what is happening to it is its active job."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    DELETED = "deleted"
    PURGED = "purged"
    FAILED = "failed"  # a create that did not come to be


class Hold(StrEnum):
    NONE = "none"
    QUARANTINED = "quarantined"
    FROZEN = "frozen"


class Health(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Desired(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"


class Wants(StrEnum):
    """What a step wants of its slot."""

    PRESENT = "present"
    ABSENT = "absent"
    NOTHING = "nothing"  # a step without an effect: a check, or work that is content-addressed


class Phase(StrEnum):
    DO = "do"
    UNDO = "undo"
    REPLACE = "replace"  # taking the old key away


class Cause(StrEnum):
    FIRST = "first"
    RETRY = "retry"
    RESCUE = "rescue"


class Reason(StrEnum):
    """Why a job does not go forward any more: the first reason stays."""

    CANCELLED = "cancelled"
    STEP_FAILED = "step-failed"
    DEADLINE = "deadline"
    POISON = "poison"
    INSTANCE_HELD = "instance-held"
    INSTANCE_DELETED = "instance-deleted"
    NOT_ALLOWED = "not-allowed-now"
    SUPERSEDED = "superseded"
    INVALID = "invalid"


class WaitsFor(StrEnum):
    LEASE = "lease"
    QUEUE = "queue"
    RETRY = "retry"
    BREAKER = "breaker"
    BRAKE = "brake"
    LIMIT = "limit"
    WORKER = "worker"
    SOAK = "soak"
    WINDOW = "window"
    APPROVAL = "approval"
    CHILD = "child"
