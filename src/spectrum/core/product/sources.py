"""The files that a product may read at publish (env_file, include, extends, file:): inside its own folder, through a given seam."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from spectrum.core.product.interpolation import escape
from spectrum.core.product.report import Cursor, shown

MAX_FILE = 256 * 1024

Read = Callable[[str], str]
"""Gives a file's text by its path relative to the product's folder. Raises OSError or ValueError; follows no link out."""

_KEY = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(=|:\s)[ \t]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


class Sources:
    """Reads files for the entries that name them, relative to the file in which the entry stands."""

    def __init__(self, root: str, read: Read) -> None:
        self.read = read
        self.folders = {root: ""}

    def path(self, cursor: Cursor, text: str) -> str | None:
        """The path relative to the product's folder, or None after a refusal."""
        parts = text.split("/")
        if not text or ":" in text or "\\" in text or "\0" in text or text[0] in "/~" or ".." in parts:
            cursor.refuse(
                f"{shown(text)} lies outside the product's folder",
                "Name a file in the folder, without `..`; no URL, no absolute path.",
            )
            return None
        return posixpath.normpath(posixpath.join(self.folders.get(cursor.node.file, ""), text))

    def text(self, cursor: Cursor) -> tuple[str, str] | None:
        """Path and text of the file that the cursor names."""
        name = cursor.fixed("a file's name")
        path = self.path(cursor, name) if name is not None else None
        if path is None:
            return None
        try:
            text = self.read(path)
        except OSError as error:
            cursor.refuse(
                f"{path} can't be read: {error.strerror or type(error).__name__}", "Is it in the product's folder?"
            )
            return None
        except ValueError:
            cursor.refuse(f"{path} is no UTF-8 text")
            return None
        if len(text) > MAX_FILE or "\0" in text:
            cursor.refuse(
                f"{path} is larger than {MAX_FILE // 1024} KiB or no text", "Put it into the image or the artifact."
            )
            return None
        self.folders[path] = posixpath.dirname(path)
        return path, text


def environment(cursor: Cursor, path: str, text: str) -> dict[str, str]:
    """The variables of an env file as templates (Compose's dotenv rules: comments, quotes, export; '…' is literal)."""
    result: dict[str, str] = {}
    position = 0
    while position < len(text):
        if blank := re.compile(r"\s*(#[^\n]*)?(\n|$)").match(text, position):
            if blank.end() == position:
                break
            position = blank.end()
            continue
        key = _KEY.match(text, position)
        value = _env_value(text, key.end()) if key else None
        if key is None or value is None:
            line = text.count("\n", 0, position) + 1
            cursor.refuse(f"line {line} of {path} is no KEY=VALUE", "Give it a value, or close its quotes.")
            break
        result[key[1]], position = value
    return result


def _env_value(text: str, start: int) -> tuple[str, int] | None:
    """A value as a template, and the position after its line."""
    quote = text[start : start + 1]
    if quote == "'":
        end = text.find("'", start + 1)
        return (escape(text[start + 1 : end]), _next_line(text, end)) if end >= 0 else None
    if quote == '"':
        match = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, start)
        if match is None:
            return None
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match[1]), _next_line(text, match.end())
    end = text.find("\n", start)
    line = text[start : end if end >= 0 else len(text)]
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip(), end + 1 if end >= 0 else len(text)


def _next_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return end + 1 if end >= 0 else len(text)
