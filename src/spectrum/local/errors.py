"""What keeps an installation on this machine from working, in one sentence with its remedy."""

from __future__ import annotations

from spectrum.core.errors import SpectrumError


class LocalError(SpectrumError):
    """`message` says what is wrong and where, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}. {hint}")
        self.message = message
        self.hint = hint
