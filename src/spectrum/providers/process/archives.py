"""Archives: fetched, checked against their SHA-256, and unpacked without a way out of their folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx2

from spectrum.core.errors import Actor, ErrorClass, Fault
from spectrum.core.product.resources import Artifact

CHUNK = 1024 * 1024
TIMEOUT = 60.0  # seconds without a byte


def _invalid(code: str, message: str) -> Fault:
    return Fault(ErrorClass.INVALID, code, message, actor=Actor.VENDOR)


async def fetch(artifact: Artifact, place: Path) -> None:
    """Write the archive to `place`. Raises Fault: invalid for a wrong hash or kind of URL, dependency where it can't be had."""
    digest = hashlib.sha256()
    try:
        with await asyncio.to_thread(place.open, "wb") as file:
            async for chunk in _content(artifact.url):
                digest.update(chunk)
                file.write(chunk)
    except (httpx2.HTTPError, FileNotFoundError) as error:
        raise Fault(
            ErrorClass.DEPENDENCY, "archive-unreachable", f"archive {artifact.url} can't be read: {error}"
        ) from error
    if digest.hexdigest() != artifact.sha256.removeprefix("sha256:").lower():
        message = f"archive {artifact.url} has SHA-256 {digest.hexdigest()}, not {artifact.sha256} as the product says"
        raise _invalid("archive-hash", message)


async def _content(url: str) -> AsyncIterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme in ("file", ""):
        async for chunk in _read(Path(unquote(parts.path))):
            yield chunk
    elif parts.scheme == "https":
        async with (
            httpx2.AsyncClient(follow_redirects=True, timeout=TIMEOUT) as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            async for chunk in response.aiter_bytes(CHUNK):
                yield chunk
    else:
        raise _invalid("archive-url", f"archive {url!r} must be an https URL or a file on the target")


async def _read(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


def unpack(archive: Path, folder: Path) -> None:
    """Into `folder`, readable by everybody. Raises Fault (invalid) for members that lead out of it, and for other formats."""
    if tarfile.is_tarfile(archive):
        _unpack_tar(archive, folder)
    elif zipfile.is_zipfile(archive):
        _unpack_zip(archive, folder)
    else:
        raise _invalid("archive-format", "the archive is neither a tar (plain, gz, bz2, xz) nor a zip")
    make_readable(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        message = "this Python unpacks tar archives unsafely (PEP 706): use 3.11.4 or later"
        raise Fault(ErrorClass.FATAL, "python-too-old", message, actor=Actor.OPERATOR)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise _invalid("archive-unsafe", f"the archive can't be unpacked safely: {error}") from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        for member in bundle.infolist():
            parts = PurePosixPath(member.filename)
            mode = member.external_attr >> 16
            if parts.is_absolute() or ".." in parts.parts or stat.S_ISLNK(mode):
                raise _invalid(
                    "archive-unsafe", f"member {member.filename!r} of the archive leads out of it or is a link"
                )
            path = Path(bundle.extract(member, folder))
            if mode & 0o111 and path.is_file():
                path.chmod(0o755)


def make_readable(folder: Path) -> None:
    """Readable and, where its owner may execute it, executable by every account; writable by none but the owner."""
    for parent, _, names in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
