"""What a worker does its work to: one contract, and a sibling module for each kind of target. Siblings do not know each other."""

from __future__ import annotations

from spectrum.core.errors import ErrorClass, Fault
from spectrum.providers.protocol import Provider


def open_provider(url: str) -> Provider:
    """The provider of a target. Raises `Fault(invalid)` for a kind that there is none for."""
    match url.partition(":")[0]:
        case "process":
            from spectrum.providers.process.provider import ProcessProvider

            return ProcessProvider.open(url)
        case kind:
            raise Fault(
                ErrorClass.INVALID, "unknown-target", f"There is no provider for {kind}:// targets. Known: process."
            )
