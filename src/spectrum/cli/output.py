"""How data is printed: aligned columns for people, JSON and YAML as the API sent it, names for pipes."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from spectrum.cli.session import Output
from spectrum.sdk.models import Model

Column = tuple[str, Callable[[Any], object]]
Columns = Sequence[Column]
"""Heading and value; the first column is the name."""

_GOOD = frozenset({"running", "healthy", "succeeded", "done", "active", "ok"})
_BAD = frozenset({"failed", "unhealthy", "quarantined", "undo_failed", "crash-loop", "lost", "revoked", "missing"})
_BUSY = frozenset(
    {"creating", "ready", "waiting", "retrying", "unknown", "unwinding", "cancelling", "degraded", "starting"}
)

_HEADINGS = {"url": "URL"}


def many(form: Output, items: Sequence[Model], columns: Columns) -> str:
    match form:
        case Output.TABLE:
            return table([heading for heading, _ in columns], [_cells(item, columns) for item in items])
        case Output.JSON:
            return _json({"items": [item.as_json() for item in items]})
        case Output.YAML:
            return _yaml({"items": [item.as_json() for item in items]})
        case Output.NAME:
            return "".join(f"{_cells(item, columns)[0]}\n" for item in items)


def one(form: Output, item: Model, columns: Columns) -> str:
    match form:
        case Output.JSON:
            return _json(item.as_json())
        case Output.YAML:
            return _yaml(item.as_json())
        case Output.TABLE | Output.NAME:
            return many(form, [item], columns)


def streamed(form: Output, item: Model, columns: Columns) -> str:
    """One of many that come one after the other: a line, or in YAML a document. Nobody knows yet how wide the columns get."""
    match form:
        case Output.TABLE:
            return "  ".join(_cells(item, columns)) + "\n"
        case Output.JSON:
            return json.dumps(item.as_json(), ensure_ascii=False) + "\n"
        case Output.YAML:
            return f"---\n{_yaml(item.as_json())}"
        case Output.NAME:
            return f"{_cells(item, columns)[0]}\n"


def data(form: Output, value: Any, text: Callable[[], str], name: str) -> str:
    match form:
        case Output.JSON:
            return _json(value)
        case Output.YAML:
            return _yaml(value)
        case Output.TABLE:
            return text()
        case Output.NAME:
            return f"{name}\n" if name else text()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two blanks apart, no lines, nothing cut off: good for eyes, grep and awk."""
    if not rows:
        return "" if not sys.stdout.isatty() else "nothing\n"
    widths = [max(len(row[n]) for row in (headings, *rows)) for n in range(len(headings))]
    color = use_color(sys.stdout)
    lines = [_line(headings, widths, bold=color, color=False)]
    lines += [_line(row, widths, bold=False, color=color) for row in rows]
    return "".join(lines)


def fields(pairs: Sequence[tuple[str, object]]) -> str:
    """`Name:  value` lines, aligned; what is empty is left out."""
    shown = [(name, cell(value)) for name, value in pairs if value not in (None, "", (), {}, [])]
    width = max((len(name) for name, _ in shown), default=0) + 1
    color = use_color(sys.stdout)
    return "".join(f"{name + ':':<{width}}  {_painted(value, color)}\n" for name, value in shown)


def everything(item: Model) -> str:
    """All that is known of a thing, a line each."""
    return fields([(_HEADINGS.get(name, name.removesuffix("_at").capitalize()), value) for name, value in item])


def section(title: str, text: str) -> str:
    """A titled block, or nothing where there is nothing in it."""
    if not text:
        return ""
    return f"\n{title}\n" + "".join(f"  {line}\n" for line in text.splitlines())


def rows_section(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A titled table, or nothing where it has no row."""
    return section(title, table(headings, rows)) if rows else ""


def cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case dict():
            return ",".join(f"{key}={entry}" for key, entry in value.items()) or "-"
        case tuple() | list():
            return ",".join(str(entry) for entry in value) or "-"
        case _:
            return str(value)


def use_color(stream: Any) -> bool:
    """https://no-color.org: any non-empty NO_COLOR switches color off."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: Any) -> bool:
    """Whether a person looks on, with a terminal that can move its cursor."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def _cells(item: Model, columns: Columns) -> list[str]:
    return [cell(value(item)) for _, value in columns]


def _line(cells: Sequence[str], widths: Sequence[int], *, bold: bool, color: bool) -> str:
    padded = [text.ljust(width) for text, width in zip(cells, widths, strict=True)]
    padded[-1] = padded[-1].rstrip()
    if bold:
        return f"\033[1m{'  '.join(padded)}\033[0m\n"
    return "  ".join(_painted(text, color) for text in padded).rstrip(" ") + "\n"


def _painted(text: str, color: bool) -> str:
    word = text.strip()
    code = 32 if word in _GOOD else 31 if word in _BAD else 33 if word in _BUSY else 0
    return text.replace(word, f"\033[{code}m{word}\033[0m") if color and code else text


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None by mistake
    writer.width = 4096
    stream = io.StringIO()
    writer.dump(value, stream)
    return stream.getvalue()
