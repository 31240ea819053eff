"""The root of a service on disk: files written, volumes linked in, as the instance's account (to root its folders are hostile).

Runs as a short process of its own: reads an order from stdin, drops to the account, does it, and answers on stdout.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

from . import durable
from .refusals import INVALID, TRANSIENT, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .accounts import Account


def drop_privileges(uid: int, gid: int, name: str) -> None:
    """Become the account for good; nothing to do where we are it already."""
    os.umask(0o077)
    if os.geteuid() != 0 or uid == 0:
        return
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def inside(root: str, target: str) -> str:
    """The path of `target` (absolute inside the service, or with the root in front already) under the root.

    Raises Refusal for one that leads out of it.
    """
    below = target[len(root) :] if target.startswith(root + "/") else target
    parts = [part for part in below.split("/") if part not in ("", ".")]
    if ".." in parts or not parts or "\0" in target:
        raise Refusal(
            INVALID, "bad-target", f"target {target!r} must be an absolute path inside the service, without '..'"
        )
    return os.path.join(root, *parts)


def fill(command: str, argument: dict[str, Any], account: Account) -> None:
    """Have a separate process, which drops to the account first, make or clear a folder or fill a root. Raises Refusal."""
    order = {**argument, "account": {"uid": account.uid, "gid": account.gid, "name": account.name}}
    done = subprocess.run(
        [*command.split("\n"), "fill"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        env={},
        check=False,
    )
    if done.returncode:
        raise Refusal(
            TRANSIENT,
            "files-not-written",
            f"the files of the service could not be written: {done.stderr.strip()[-500:]}",
        )
    answer = json.loads(done.stdout)
    if answer.get("class"):
        raise Refusal(answer["class"], answer["code"], answer["message"])


def main() -> int:
    import shutil  # noqa: F401 - before the account is entered: it may not be able to read this interpreter's library

    order = json.load(sys.stdin)
    account = order["account"]
    drop_privileges(account["uid"], account["gid"], account["name"])
    try:
        if "make" in order:
            os.makedirs(order["make"], mode=0o700, exist_ok=True)
        elif "clear" in order:
            clear(order["clear"])
        else:
            _prepare(order)
        answer: dict[str, Any] = {}
    except Refusal as refusal:
        answer = refusal.as_json()
    except OSError as error:
        answer = Refusal(TRANSIENT, "files-not-written", f"{error.filename}: {error.strerror}").as_json()
    json.dump(answer, sys.stdout)
    return 0


def _prepare(order: dict[str, Any]) -> None:
    root = order["root"]
    if order["fresh"]:
        clear(root)
    os.makedirs(root, mode=0o700, exist_ok=True)
    for folder in ("tmp", *order["folders"]):
        os.makedirs(inside(root, folder), mode=0o700, exist_ok=True)
    for mount in sorted(order["mounts"], key=lambda mount: str(mount["target"])):
        _mount(root, mount["target"], mount["folder"])
    for folder in order["emptied"]:
        clear(inside(root, folder))
        os.makedirs(inside(root, folder), mode=0o700, exist_ok=True)
    for file in order["files"]:
        _file(root, file)


def _mount(root: str, target: str, folder: str) -> None:
    """A volume is a link to its folder, so that its data outlives the root."""
    if not os.path.isdir(folder):
        raise Refusal(
            INVALID, "no-such-volume", f"the volume for {target} is missing: it must be made before the service"
        )
    path = inside(root, target)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if os.path.islink(path):
        if os.readlink(path) == folder:
            return
        os.unlink(path)
    elif os.path.isdir(path):
        try:
            os.rmdir(path)
        except OSError:
            raise Refusal(
                INVALID, "target-in-use", f"target {target} of a volume already holds files; choose another"
            ) from None
    os.symlink(folder, path)


def _file(root: str, file: dict[str, Any]) -> None:
    path = inside(root, file["target"])
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if os.path.isdir(path) and not os.path.islink(path):
        raise Refusal(INVALID, "target-in-use", f"target {file['target']} of a file is a folder; choose another")
    durable.write(path, file["content"], 0o400 if file["secret"] else file["mode"] | stat.S_IRUSR)


def clear(path: str) -> None:
    """Remove a tree without following a link out of it, whatever the modes inside are."""
    import shutil

    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        try:
            shutil.rmtree(path)
        except PermissionError:
            _open_up(path)
            shutil.rmtree(path)


def _open_up(path: str) -> None:
    os.chmod(path, 0o700)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _open_up(entry.path)
