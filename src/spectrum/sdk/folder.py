"""A product on the publisher's disk: its Compose file and the files that it refers to, none from outside its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from spectrum.sdk.errors import ClientError

LARGEST = 2 * 1024 * 1024  # bytes per file


@dataclass(frozen=True, slots=True)
class Bundle:
    """What publishing sends: the texts of all files by relative path; `file` is the Compose file of them."""

    product: str
    version: str
    file: str
    files: dict[str, str] = field(repr=False)


def read_inside(folder: Path, name: str) -> str:
    """The text of a file of the product: no `..`, no absolute path, no link out of the folder, UTF-8.

    Raises `ClientError` with what to do.
    """
    root = folder.resolve()
    path = Path(os.path.normpath(root / name))
    if Path(name).is_absolute() or not path.is_relative_to(root) or not path.resolve().is_relative_to(root):
        raise ClientError(f"{name} lies outside the product's folder {folder}", "Copy it into the folder")
    try:
        if path.stat().st_size > LARGEST:
            raise ClientError(f"{path} is larger than {LARGEST // 2**20} MiB", "Ship it as an artifact instead")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ClientError(f"{path} is not UTF-8 text", "Save it as UTF-8") from None
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}", "Check the path and its mode") from None
