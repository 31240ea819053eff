"""Who may do what: tokens as text, principals, and the one rule `allow` over a policy that is data.

A scope names a set of actions. A role will be another such name, given to a person instead of to a token: it joins
`GRANTS`, and nothing else changes.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from spectrum.core.errors import Problem, Where
from spectrum.core.ids import PLATFORM, OrganizationId

TOKEN_ENTROPY = 38  # random bytes: six for the key id, thirty-two for the secret

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET = 43  # base62 digits of 256 bits
_CHECKSUM = 6  # base62 digits of a CRC-32
_TOKEN = re.compile(
    rf"(sp[kj])_([0-9a-f]{{12}})_(?:([0-9a-f]{{64}})_)?([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})"
)


class Action(StrEnum):
    """Everything that the API lets somebody do."""

    ORGANIZATIONS_READ = "organizations:read"
    ORGANIZATIONS_CREATE = "organizations:create"
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"
    PRODUCTS_READ = "products:read"
    PRODUCTS_PUBLISH = "products:publish"
    TARGETS_READ = "targets:read"
    TARGETS_WRITE = "targets:write"
    WORKERS_READ = "workers:read"
    WORKERS_WRITE = "workers:write"
    INSTANCES_READ = "instances:read"
    INSTANCES_WRITE = "instances:write"
    INSTANCES_LOGS = "instances:logs"
    JOBS_READ = "jobs:read"
    JOBS_CANCEL = "jobs:cancel"
    EVENTS_READ = "events:read"
    AUDIT_READ = "audit:read"

    @property
    def changes(self) -> bool:
        return not self.value.endswith((":read", ":logs"))


PLATFORM_ONLY = frozenset({Action.ORGANIZATIONS_CREATE})
SHARED = frozenset({Action.TARGETS_READ, Action.WORKERS_READ})  # of the platform's own: readable by all (DESIGN §3.18)

# What a token of the platform may do to other organizations: make them and let them in, but not look inside.
ACROSS = frozenset({Action.ORGANIZATIONS_CREATE, Action.ORGANIZATIONS_READ, Action.TOKENS_READ, Action.TOKENS_WRITE})

# What each scope lets its holder do. `admin` is all there is inside of the organization.
GRANTS: dict[str, frozenset[Action]] = {
    "admin": frozenset(Action),
    "read": frozenset(action for action in Action if not action.changes and action is not Action.AUDIT_READ),
    "deploy": frozenset(
        {
            Action.PRODUCTS_READ,
            Action.PRODUCTS_PUBLISH,
            Action.TARGETS_READ,
            Action.INSTANCES_READ,
            Action.INSTANCES_WRITE,
            Action.INSTANCES_LOGS,
            Action.JOBS_READ,
            Action.JOBS_CANCEL,
            Action.EVENTS_READ,
        }
    ),
    **{action.value: frozenset({action}) for action in Action},
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `actor` is how audit rows name them; `organization` is the one whose rows they work on."""

    actor: str
    organization: OrganizationId
    scopes: frozenset[str]

    @property
    def platform(self) -> bool:
        return self.organization == PLATFORM

    @property
    def actions(self) -> frozenset[Action]:
        """What the scopes grant. A scope that this version does not know grants nothing."""
        return frozenset[Action]().union(*(GRANTS.get(scope, frozenset[Action]()) for scope in self.scopes))


@dataclass(frozen=True, slots=True)
class Subject:
    """What an action is about: at least whose it is."""

    organization: OrganizationId
    type: str = ""
    id: str = ""


def allow(principal: Principal, action: Action, subject: Subject) -> bool:
    """Whether `principal` may do `action` to `subject`. The only place where this is decided."""
    if action in PLATFORM_ONLY and not principal.platform:
        return False
    if action not in principal.actions:
        return False
    if subject.organization == principal.organization:
        return True
    if principal.platform:
        return action in ACROSS
    return subject.organization == PLATFORM and action in SHARED


def require(principal: Principal, action: Action, subject: Subject | None = None) -> None:
    """Raises Problem `forbidden` unless it is allowed; without a subject, on the principal's own organization."""
    if not allow(principal, action, subject or Subject(principal.organization)):
        what = "a token of the platform" if action in PLATFORM_ONLY else f"the scope {action.value}"
        raise Problem("forbidden", f"This takes {what}, which {principal.actor} does not have.")


def check_scopes(scopes: Iterable[str], granted_by: Principal) -> frozenset[str]:
    """The scopes of a new token. Raises Problem for one that is unknown, or that grants more than its maker has."""
    wanted = frozenset(scopes)
    if unknown := sorted(wanted - GRANTS.keys()):
        raise Problem(
            "invalid-parameter",
            f"There is no scope {', '.join(unknown)}. Known are: {', '.join(sorted(GRANTS))}.",
            (Where("unknown scope", "/scopes"),),
        )
    for scope in sorted(wanted):
        if excess := GRANTS[scope] - granted_by.actions:
            raise Problem(
                "forbidden",
                f"The scope {scope} grants {min(excess).value}, which {granted_by.actor} does not have itself.",
            )
    return wanted


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as it is handed over: `spk_` for the API, `spj_` to join. Only its hash is kept.

    `prefix` is the part that may be shown. A join token carries the id of the cell's signing key, by which the worker
    knows its cell.
    """

    text: str
    prefix: str
    cell_key: str | None = None

    def __repr__(self) -> str:
        return f"TokenText({self.prefix}…)"

    @property
    def hash(self) -> bytes:
        """SHA-256: enough for 256 random bits, which nobody guesses."""
        return hashlib.sha256(self.text.encode()).digest()


def make_token(entropy: bytes) -> TokenText:
    """A new API token from `TOKEN_ENTROPY` random bytes."""
    return _assemble("spk", entropy, None)


def make_join_token(entropy: bytes, cell_key: str) -> TokenText:
    """A new join token from `TOKEN_ENTROPY` random bytes, for the cell that signs with `cell_key`."""
    return _assemble("spj", entropy, cell_key)


def read_token(text: str) -> TokenText | None:
    """The token in a text, or None where it is none: a wrong checksum is a typing error, and costs no look-up."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None or (match[1] == "spj") is not (match[3] is not None):
        return None
    if _checksum(match[0][:-_CHECKSUM]) != match[5]:
        return None
    return TokenText(match[0], f"{match[1]}_{match[2]}", match[3])


def _assemble(kind: str, entropy: bytes, cell_key: str | None) -> TokenText:
    if len(entropy) < TOKEN_ENTROPY:
        raise ValueError(f"a token takes {TOKEN_ENTROPY} random bytes, not {len(entropy)}")
    prefix = f"{kind}_{entropy[:6].hex()}"
    secret = _base62(int.from_bytes(entropy[6:TOKEN_ENTROPY], "big"), _SECRET)
    start = "_".join([prefix, *([cell_key] if cell_key else []), secret])
    return TokenText(start + _checksum(start), prefix, cell_key)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM)


def _base62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        text = _BASE62[digit] + text
    return text
