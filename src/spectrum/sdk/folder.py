"""A product on the publisher's disk: its Compose file and the files that it refers to, none from outside its folder."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from spectrum.core.errors import Where
from spectrum.core.product.publish import Reading, read_product
from spectrum.sdk.errors import ClientError

LARGEST = 2 * 1024 * 1024  # bytes per file


@dataclass(frozen=True, slots=True)
class Bundle:
    """What publishing sends: the texts of all files by relative path; `file` is the Compose file of them."""

    product: str
    version: str
    digest: str
    file: str
    files: dict[str, str] = field(repr=False)
    notes: tuple[Where, ...] = ()


class Folder:
    """The folder of a product, as what reads its files sees it; remembers what was read."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.files: dict[str, str] = {}

    def read(self, name: str) -> str:
        """The text of a file inside. Raises OSError (also for what lies outside, and for a link out), or ValueError."""
        path = Path(os.path.normpath(self.root / name))
        if Path(name).is_absolute() or not path.is_relative_to(self.root):
            raise PermissionError(errno.EACCES, "it lies outside the product's folder", name)
        if not path.resolve().is_relative_to(self.root):
            raise PermissionError(errno.EACCES, "it is a link out of the product's folder", name)
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", name)
        if state.st_size > LARGEST:
            raise OSError(errno.EFBIG, f"it is larger than {LARGEST // 2**20} MiB", name)
        text = path.read_text(encoding="utf-8")
        self.files[name] = text
        return text


def collect(file: Path) -> Bundle:
    """Read and check a product as the server will. Raises Problem(invalid-product), or `ClientError` if it cannot be read."""
    folder = Folder(file.parent)
    try:
        text = folder.read(file.name)
    except OSError as error:
        raise ClientError(f"{file} cannot be read: {error.strerror or error}", "Check the path") from None
    except ValueError:
        raise ClientError(f"{file} is no UTF-8 text", "Save it as UTF-8") from None
    reading: Reading = read_product(text, file.name, folder.read)
    release = reading.release
    return Bundle(release.product, release.version, release.digest, file.name, folder.files, reading.notes)
