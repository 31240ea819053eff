"""Where to connect and as whom: URL and token, always from the same source (INTERFACES §5)."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from spectrum.cli import contexts
from spectrum.cli.environment import variable
from spectrum.cli.errors import NotSignedIn, UsageError, why

FOLDER = ".spectrum"


@dataclass(frozen=True, slots=True)
class Connection:
    """`source` says in words where it came from."""

    url: str
    token: str | None = field(repr=False)
    source: str


def discover(url: str | None, token_file: str | None, context: str | None) -> Connection:
    """The first of: flags, SPECTRUM_*, the nearest .spectrum/ upwards, the current context. Raises `UsageError`."""
    if url:
        return Connection(url, read_token(token_file) if token_file else None, "--url")
    if token_file:
        raise UsageError("--token-file is given without --url", "Add --url: a token belongs to one server")
    if context:
        return _from_context(context, "--context")
    return _from_environment() or _from_folder() or _from_current_context()


def read_token(path: str) -> str:
    """A token from a file, or from stdin for `-`; never from an argument, which every process list shows."""
    try:
        text = sys.stdin.readline() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The token file {path} cannot be read: {why(error)}", "Check the path and its mode") from None
    if not text.strip():
        raise UsageError(f"The token file {path} is empty", "Put the token into its first line")
    return text.strip()


def _from_environment() -> Connection | None:
    url, token, context = variable("URL"), variable("TOKEN"), variable("CONTEXT")
    if url:
        return Connection(url, token, "SPECTRUM_URL")
    if token:
        raise UsageError("SPECTRUM_TOKEN is set without SPECTRUM_URL", "Set both: a token belongs to one server")
    if context:
        return _from_context(context, "SPECTRUM_CONTEXT")
    if home := variable("HOME"):
        return _read_folder(Path(home))
    return None


def _from_folder() -> Connection | None:
    here = Path.cwd()
    for folder in (here, *here.parents):
        candidate = folder / FOLDER
        if candidate.is_symlink() or candidate.is_dir():
            return _read_folder(candidate)
    return None


def _read_folder(folder: Path) -> Connection:
    """Owner and mode are those of the folder that was opened, whatever happens to its name meanwhile."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise NotSignedIn(f"{folder} cannot be used: {error.strerror}", "spectrum up, or spectrum login URL") from None
    try:
        _refuse_untrusted(folder, os.fstat(descriptor))
        url = _read_file(descriptor, "url")
        token = _read_file(descriptor, "token")
    finally:
        os.close(descriptor)
    if not url:
        raise NotSignedIn(f"The installation in {folder} has not been started yet", "spectrum up")
    return Connection(url, token, str(folder))


def _refuse_untrusted(path: Path, state: os.stat_result) -> None:
    if state.st_uid != os.geteuid():
        hint = "Name a server yourself: --context or --url"
        raise NotSignedIn(f"{path} is not used: it belongs to user {state.st_uid}, not to you", hint)
    if stat.S_IMODE(state.st_mode) & 0o022:
        raise NotSignedIn(f"{path} is not used: others can write it", f"chmod go-w {path}")


def _read_file(folder: int, name: str) -> str | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor) as file:
        _refuse_untrusted(Path(FOLDER) / name, os.fstat(descriptor))
        return file.readline().strip() or None


def _from_context(name: str, source: str) -> Connection:
    found = contexts.load().named(name)
    return Connection(found.url, found.token, f"{source} {name}")


def _from_current_context() -> Connection:
    stored = contexts.load()
    if stored.current not in stored.contexts:
        hint = "go to the folder in which `make up` or `spectrum up` was run, or spectrum login URL --token-file FILE"
        raise NotSignedIn(f"No server is known in {Path.cwd()}", hint)
    return _from_context(stored.current, "context")
