"""Files that hold keys: made once and whole, readable by their owner alone, refused otherwise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from spectrum.core.errors import SpectrumError


class KeyFileError(SpectrumError):
    """A key file can't be used as it is; the message says what to do."""


def create_once(path: Path, text: str) -> None:
    """Make the file (mode 0600) unless it is there. Of several processes one makes it, and the others leave it alone.

    It is written beside its place and linked there, so that it appears whole or not at all. Raises KeyFileError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        _write_new(beside, text)
        try:
            path.hardlink_to(beside)
        except FileExistsError:
            return
        finally:
            beside.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(f"The key file {path} can't be made: {error}") from None


def read_private(path: Path) -> str:
    """The text of a file that belongs to us and that nobody else can read. Raises KeyFileError.

    Owner and mode are those of the file that was opened, whatever happens to its name meanwhile.
    """
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid():
                raise KeyFileError(f"The key file {path} belongs to another user. Run as its owner, or move it away.")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise KeyFileError(f"The key file {path} can be read by others. Run: chmod 600 {path}")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"The key file {path} can't be read: {error}") from None


def _write_new(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
