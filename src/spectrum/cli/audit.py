"""`spectrum audit …`: who did what; exports of it, and whether a file still is what was exported."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.errors import ERROR, UsageError
from spectrum.cli.session import Session
from spectrum.core.errors import SpectrumError, Where

if TYPE_CHECKING:
    from spectrum.cli.output import Columns
    from spectrum.core.audit import Broken, Genuine, Known, Verified

NOUN = "audit"
STREAM = "-"

COLUMNS: Columns = (
    ("ID", lambda r: r.id),
    ("TIME", lambda r: r.recorded_at),
    ("ACTOR", lambda r: r.actor),
    ("ACTION", lambda r: r.action),
    ("SUBJECT", lambda r: r.subject),
    ("NUMBER", lambda r: r.seal.number if r.seal else None),
)

_KEY = re.compile(r"[0-9a-f]{64}")
_HEAD = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")


class NotAsSealed(SpectrumError):
    """A file is not the export that it was."""

    exit_code = ERROR
    hint = "compare with a new one: spectrum audit export FILE"

    def __init__(self, file: str, broken: Broken) -> None:
        super().__init__(str(broken))
        self.message = "This is not what was sealed and exported."
        self.errors = (Where(broken.message, file=file, line=broken.line),)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "Who did what, and proof of it.")
    verb(group, "list", Kind.READ, NOUN)(list_records)
    verb(group, "export", Kind.READ, NOUN)(export)
    verb(group, "verify", Kind.LOCAL, NOUN)(verify)


def list_records(
    session: Session,
    subject: Annotated[str | None, typer.Option(help="Only about the thing with this id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only what was done so, such as token.create.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
) -> None:
    """List audit records, oldest first."""
    found = session.client.audit.list(subject=subject, actor=actor, action=action)
    session.show_all(islice(found, limit), COLUMNS)


def export(
    session: Session,
    file: Annotated[str, typer.Argument(help="Where to write it; - is stdout.", metavar="[FILE]")] = STREAM,
    after: Annotated[int, typer.Option(help="Only records with a higher number than this.", min=0)] = 0,
) -> None:
    """Write the sealed records and the signed head of their chain, one JSON document a line."""
    lines = session.client.audit.export(after=after)
    last = _write(lines, sys.stdout.buffer) if file == STREAM else _write_file(lines, Path(file))
    head = json.loads(last)["head"]
    session.say(f"Exported up to record {head['number']}. Keep what is needed to trust it apart from it:")
    session.say(f"spectrum audit verify {file} --key {head['key_id']} --head {head['number']}:{head['hash']}")


def verify(
    session: Session,
    file: Annotated[str, typer.Argument(help="What `spectrum audit export` wrote; - is stdin.", metavar="FILE")],
    key: Annotated[str | None, typer.Option(help="The key that must have signed it, as export told it.")] = None,
    head: Annotated[
        str | None, typer.Option(help="A record that must be in it, as NUMBER:HASH.", metavar="NUMBER:HASH")
    ] = None,
) -> None:
    """Check that an export is unchanged and complete, without a server."""
    from spectrum.core import audit

    if key is not None and _KEY.fullmatch(key) is None:
        raise UsageError(f"{key!r} is not a key", "Give the 64 hexadecimal digits that `spectrum audit export` told")
    known = _known(head)
    try:
        with _opened(file) as lines:
            found = audit.verify(lines, _genuine(), key, known)
    except audit.Broken as broken:
        raise NotAsSealed(file, broken) from None
    session.show_data(found.as_json(), lambda: _text(found, key is not None), found.hash)
    if key is None:
        session.say("note: whose key signed it is the file's own word. Give --key to be sure of that, too")


def _known(head: str | None) -> Known | None:
    from spectrum.core.audit import Known

    if head is None:
        return None
    match = _HEAD.fullmatch(head)
    if match is None:
        raise UsageError(f"{head!r} is not a record", "Give its number and its hash, as NUMBER:HASH")
    return Known(int(match[1]), match[2])


def _genuine() -> Genuine:
    try:
        from spectrum.core.signing import genuine
    except ModuleNotFoundError:
        hint = "pip install 'spectrum-orchestrator[worker]'"
        raise UsageError("Signatures can't be checked: the package cryptography is not installed", hint) from None
    return genuine


@contextlib.contextmanager
def _opened(file: str) -> Iterator[Iterable[bytes]]:
    if file == STREAM:
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as lines:
            yield lines
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "Check the path and its mode") from None


def _write(lines: Iterable[bytes], out: BinaryIO) -> bytes:
    """Returns the last line."""
    last = b""
    for last in lines:
        out.write(last)
    out.flush()
    return last


def _write_file(lines: Iterable[bytes], path: Path) -> bytes:
    """The file is there once it is whole."""
    half = path.with_name(f"{path.name}.part")
    try:
        with half.open("wb") as out:
            last = _write(lines, out)
        half.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "Name another FILE") from None
    finally:
        half.unlink(missing_ok=True)
    return last


def _text(found: Verified, key_known: bool) -> str:
    from spectrum.cli.output import fields

    whole = "" if found.first == 1 else " (what came before is not in this file)"
    pairs: tuple[tuple[str, Any], ...] = (
        ("Organization", found.organization_id),
        ("Records", f"{found.first} to {found.last}{whole}" if found.first <= found.last else "none"),
        ("Head", f"{found.last}:{found.hash}"),
        ("Sealed", found.sealed_at),
        ("Key", f"{found.key_id} ({'the one that you know' if key_known else 'not compared'})"),
    )
    return fields(pairs)
