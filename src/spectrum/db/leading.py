"""Terms of leadership: PostgreSQL says who leads, and a leader's writes hold its term against a successor (fencing)."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum.core.errors import SpectrumError
from spectrum.db.losses import answerable
from spectrum.db.pools import Connection, Pool
from spectrum.db.sql import query

_TAKE = query("lead_take")
_RENEW = query("lead_renew")
_RESIGN = query("lead_resign")
_HOLD = query("lead_hold")


class LeadLost(SpectrumError):
    """Another copy has begun a newer term: nothing was written under this one."""


@dataclass(frozen=True, slots=True)
class Leading:
    """The lead named `name`, for one copy; `holder` is one start of it.

    A term lasts `term_seconds` without being renewed, and others wait for `padding_seconds` more. Methods raise `Unavailable`
    where PostgreSQL does not answer.
    """

    system: Pool
    name: str
    holder: str
    term_seconds: float
    padding_seconds: float

    async def take(self) -> int | None:
        """Begin a term; None while somebody else leads."""
        with answerable():
            term: int | None = await self.system.fetchval(
                _TAKE, self.name, self.holder, self.term_seconds, self.padding_seconds
            )
        return term

    async def renew(self, term: int) -> None:
        """Go on leading. Raises `LeadLost`."""
        with answerable():
            if await self.system.fetchval(_RENEW, self.name, term, self.term_seconds) is None:
                raise LeadLost(f"{self.name}: term {term} is over")

    async def resign(self, term: int) -> None:
        """Let somebody else lead at once."""
        with answerable():
            await self.system.execute(_RESIGN, self.name, term)

    async def hold(self, connection: Connection, term: int) -> None:
        """Within a transaction, before anything is written: nobody begins another term until it ends. Raises `LeadLost`."""
        if await connection.fetchval(_HOLD, self.name, term) is None:
            raise LeadLost(f"{self.name}: term {term} is over")
