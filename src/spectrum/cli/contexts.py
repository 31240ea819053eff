"""The servers that a person has signed in to: ~/.config/spectrum/contexts.json, mode 0600."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spectrum.cli.errors import UsageError, why


@dataclass(frozen=True, slots=True)
class Context:
    url: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Contexts:
    current: str = ""
    contexts: dict[str, Context] = field(default_factory=dict)

    def named(self, name: str) -> Context:
        """Raises `UsageError` where there is none."""
        if name not in self.contexts:
            raise UsageError(f"There is no context {name}", "spectrum context list")
        return self.contexts[name]


def path() -> Path:
    """XDG base directories: $XDG_CONFIG_HOME, else ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "spectrum" / "contexts.json"


def load() -> Contexts:
    """What is stored; empty if nothing is. Raises `UsageError` if the file is not the caller's own, or not readable."""
    file = path()
    try:
        with file.open() as stream:
            state = os.fstat(stream.fileno())
            if state.st_uid != os.geteuid() or state.st_mode & 0o022:
                raise UsageError(f"{file} is not used: it is not yours alone to write", f"chown and chmod 600 {file}")
            data: dict[str, Any] = json.load(stream)
            return Contexts(data["current"], {name: Context(**entry) for name, entry in data["contexts"].items()})
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} cannot be read: {why(error)}", f"Remove {file} and sign in again") from None


def store(contexts: Contexts) -> None:
    """Replace the file at once; readable by its owner only."""
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(asdict(contexts), stream, indent=1)
    new.replace(file)
