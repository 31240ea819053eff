"""System accounts: one per instance where we are root, real entries in passwd (initdb refuses a uid without one)."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import time

from . import durable
from .refusals import FATAL, TRANSIENT, Refusal

FULL_MAP = 4_294_967_295
WIDE = (1_900_000_000, 1_900_999_999)  # free in systemd's table of uids, https://systemd.io/UIDS-GIDS
NARROW = (60_578, 61_183)  # free in the same table; for user namespaces that map 65,536 ids
PATIENCE = 60.0  # seconds that other users of the passwd file are waited for
ID_TAKEN = 4  # exit codes of useradd(8) and groupadd(8)
NAME_TAKEN = 9
USERDEL_MISSING = 6


class Account:
    """Whom the instance's processes run as. `own` is true where the account is this instance's alone."""

    __slots__ = ("gid", "name", "own", "uid")

    def __init__(self, name: str, uid: int, gid: int, own: bool) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.own = own

    @property
    def own_uid(self) -> int | None:
        """The uid where it is the instance's alone: whatever runs under it is the instance's."""
        return self.uid if self.own else None


def ourselves() -> Account:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return Account(name, os.geteuid(), os.getegid(), own=False)


def _range() -> tuple[int, int]:
    """The uids to choose from: high ones where this user namespace maps them all (user_namespaces(7))."""
    lines = [line.split() for line in (durable.read("/proc/self/uid_map") or "").splitlines()]
    full = any(int(line[2]) >= FULL_MAP for line in lines if len(line) == 3)
    return WIDE if full else NARROW


def _run(*command: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError:
        message = (
            f"{command[0]} is missing; as root an instance needs an account of its own: install the shadow utilities"
        )
        raise Refusal(FATAL, "no-useradd", message) from None
    except subprocess.TimeoutExpired:
        raise Refusal(TRANSIENT, "accounts-busy", f"{command[0]} did not answer within 60 s") from None
    return done.returncode, done.stderr.strip()


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def find(name: str, comment: str) -> Account | None:
    """The account, if it is there and is this instance's (its comment says whose it is)."""
    entry = _user(name)
    if entry is None or entry.pw_gecos != comment:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid, own=True)


def _is_anothers(name: str, comment: str) -> bool:
    entry = _user(name)
    return entry is not None and entry.pw_gecos != comment


def name_for(instance: str, comment: str) -> str:
    """A name that is free or already this instance's: `spi-` and the random end of its id."""
    for number in range(100):
        name = f"spi-{instance[-12:]}" + (f"-{number}" if number else "")
        if not _is_anothers(name, comment):
            return name
    raise Refusal(FATAL, "no-account-name", f"every account name for {instance} is taken by somebody else")


def _taken(uid: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(uid)
        except KeyError:
            continue
        return True
    return False


def create(name: str, comment: str, home: str) -> Account | None:
    """Make the account, or find it already made; None if somebody else took the name meanwhile.

    Safe beside other users of the passwd file: their locks are waited out.
    Raises Refusal: fatal where the tools are missing, transient where the passwd file stays locked.
    """
    low, high = _range()
    uid = low + int.from_bytes(os.urandom(4), "big") % (high - low + 1)
    problem = ""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (account := find(name, comment)) is not None:
            return account
        while _taken(uid):
            uid = low + (uid + 1 - low) % (high - low + 1)
        code, problem = _add_group(name, uid)
        if not code:
            code, problem = _run(
            "useradd", "--no-log-init", "--no-create-home", "--gid", name, "--shell", "/usr/sbin/nologin",
            "--home-dir", home, "--comment", comment, "--uid", str(uid), name,
        )  # fmt: skip
        if code == ID_TAKEN:
            uid += 1
        elif code == NAME_TAKEN and _is_anothers(name, comment):
            return None
        elif code and code != NAME_TAKEN:
            _pause()
    raise Refusal(TRANSIENT, "accounts-busy", f"account {name} could not be made: {problem}")


def _pause() -> None:
    """A while of random length, so that two that wait for one lock don't meet again."""
    time.sleep(0.05 + os.urandom(1)[0] / 512)


def _add_group(name: str, gid: int) -> tuple[int, str]:
    """A group of the account's own, with the same number; one that a killed attempt left is taken over."""
    return (0, "") if _has_group(name) else _run("groupadd", "--gid", str(gid), name)


def remove(name: str, comment: str) -> None:
    """Remove the account and its group. Already so is success; an account that isn't this instance's is left alone."""
    problem = ""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if find(name, comment) is None:
            _drop_orphan(name)
            return
        code, problem = _run("userdel", name)
        if code not in (0, USERDEL_MISSING):
            _pause()
    raise Refusal(TRANSIENT, "accounts-busy", f"account {name} could not be removed: {problem}")


def _drop_orphan(name: str) -> None:
    """An attempt that was killed half way leaves the group without the user."""
    if _has_group(name) and _user(name) is None:
        _run("groupdel", name)


def drop_shared_memory(uid: int) -> None:
    """Remove what a killed process leaves in the kernel: the uid's POSIX shared memory and System V objects."""
    try:
        entries = list(os.scandir("/dev/shm"))  # noqa: S108 - the kernel's place, shm_overview(7)
    except OSError:
        entries = []
    for entry in entries:
        if entry.stat(follow_symlinks=False).st_uid == uid and not entry.is_dir(follow_symlinks=False):
            durable.unlink(entry.path)
    for kind in ("shm", "msg", "sem"):
        _drop_system_v(kind, uid)


def _drop_system_v(kind: str, uid: int) -> None:
    import ctypes

    lines = (durable.read(f"/proc/sysvipc/{kind}") or "").splitlines()
    if not lines:
        return
    columns = lines[0].split()
    remove_id = 0  # IPC_RMID, ipc(2)
    libc = ctypes.CDLL(None)
    for line in lines[1:]:
        row = dict(zip(columns, line.split(), strict=False))
        if int(row["uid"]) == uid:
            number = int(row[f"{kind}id"])
            if kind == "sem":
                libc.semctl(number, 0, remove_id)
            else:
                getattr(libc, f"{kind}ctl")(number, remove_id, None)
