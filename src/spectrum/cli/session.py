"""What one run of a command works with: its shared options, its connection, and where data and messages go."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spectrum.cli.connection import discover
from spectrum.cli.errors import UsageError
from spectrum.core.errors import SpectrumError

if TYPE_CHECKING:
    from spectrum.cli.output import Columns
    from spectrum.sdk import Client
    from spectrum.sdk.models import Job, Model

MOMENT = 1.0  # seconds that may pass without a word
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Interrupted(Exception):
    """Ctrl-C while a job was waited for, which goes on."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


@dataclass(frozen=True, slots=True)
class Options:
    """The shared options of a command, as given."""

    output: Output = Output.TABLE
    context: str | None = None
    url: str | None = None
    token_file: str | None = None
    yes: bool = False
    idempotency_key: str | None = None
    wait: bool = True
    timeout: str | None = None
    dry_run: bool = False


class Session:
    """Data goes to stdout, messages go to stderr."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seconds = None if options.timeout is None else duration(options.timeout)
        self._wrote = False

    @cached_property
    def client(self) -> Client:
        found = discover(self.options.url, self.options.token_file, self.options.context)
        return connect(found.url, found.token)

    @cached_property
    def _key(self) -> str:
        return self.options.idempotency_key or str(uuid.uuid4())

    @property
    def key(self) -> str:
        """The Idempotency-Key of this command's one changing request."""
        self._wrote = True
        return self._key

    def unanswered(self, error: SpectrumError) -> bool:
        """Whether the changing request was sent and nobody said what became of it."""
        if not self._wrote:
            return False
        from spectrum.sdk import Unreachable

        return isinstance(error, Unreachable)

    def say(self, text: str) -> None:
        say(text)

    def show_all(self, items: Iterable[Model], columns: Columns) -> None:
        from spectrum.cli import output

        sys.stdout.write(output.many(self.options.output, list(items), columns))

    def show(self, item: Model, columns: Columns, text: Callable[[], str] | None = None) -> None:
        """One thing; `text` makes its long form for people."""
        from spectrum.cli import output

        if text is not None and self.options.output is Output.TABLE:
            sys.stdout.write(text())
        else:
            sys.stdout.write(output.one(self.options.output, item, columns))

    def show_data(self, data: Any, text: Callable[[], str], name: str = "") -> None:
        """Something that is no resource of the API."""
        from spectrum.cli import output

        sys.stdout.write(output.data(self.options.output, data, text, name))

    def confirm(self, question: str) -> None:
        """Ask before what cannot be undone. Without a terminal there is nobody to ask. Raises `UsageError`."""
        if self.options.yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"{question} Nobody can be asked without a terminal", "the same command with --yes")
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("Nothing was done", "the same command, answered with y")

    def finish(self, job: Job) -> Job:
        """Follow a job to its end on stderr. Raises `JobFailed`, `WaitTimeout`, `Interrupted`."""
        from spectrum.cli.progress import follow

        return follow(self, job)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()


def connect(url: str, token: str | None) -> Client:
    """A client of a program, which says what went wrong once, at its end, and logs no retries.

    Who waits for longer than a moment is told for what.
    """
    import stamina.instrumentation

    from spectrum.sdk import Client

    told = False

    def tell(details: stamina.instrumentation.RetryDetails) -> None:
        nonlocal told
        if details.waited_so_far >= MOMENT and not told:
            told = True
            say(f"{url} is not ready; trying again")

    stamina.instrumentation.set_on_retry_hooks((tell,))
    return Client(url, token)


def say(text: str) -> None:
    """A message to who looks on."""
    sys.stdout.flush()  # where both go to one file, in the order in which they were said
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m`, `2h`. Raises `UsageError`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a time", "Give one such as 30s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]
