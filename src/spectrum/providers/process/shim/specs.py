"""From a resource, as it came over the socket, to what a unit needs to run it; refuses what can't work before anything is made."""

from __future__ import annotations

import os

from .files import inside
from .processes import MARKER
from .refusals import INVALID, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .instance import Instance

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _environment(home: Instance, slot: str, service: dict[str, Any], root: str) -> dict[str, str]:
    """A clean one: nothing of ours or of the worker's."""
    path = ":".join([*service["path"], service["environment"].get("PATH", SYSTEM_PATH)])
    return {
        "HOME": root,
        "USER": home.account.name,
        "LOGNAME": home.account.name,
        "LANG": "C.UTF-8",
        "TMPDIR": os.path.join(root, "tmp"),
        **service["environment"],
        "PATH": path,
        MARKER: f"{home.mark}/{slot}",
    }


def _must_be_found(command: list[str], path: str) -> None:
    if not command or not command[0]:
        raise Refusal(INVALID, "no-command", "the service has no command; a process target can't take it from an image")
    name = command[0]
    if "/" in name or any(os.access(os.path.join(folder, name), os.X_OK) for folder in path.split(":") if folder):
        return
    message = f"command {name!r} was not found on PATH={path}; name an artifact that brings it"
    raise Refusal(INVALID, "command-not-found", message)


def service_spec(home: Instance, slot: str, service: dict[str, Any]) -> dict[str, Any]:
    """Raises Refusal (invalid) with what is wrong in the product."""
    root = home.root(service["name"])
    environment = _environment(home, slot, service, root)
    command = [*(service["entrypoint"] or []), *service["command"]]
    _must_be_found(command, environment["PATH"])
    numbers = home.ports()
    missing = [port for port in service["ports"] if port not in numbers]
    if missing:
        raise Refusal(INVALID, "unknown-port", f"ports {', '.join(missing)} were not asked for when the base was made")
    return {
        "command": command,
        "environment": environment,
        "working_dir": inside(root, service["working_dir"]) if service["working_dir"].strip("/") else root,
        "uid": home.account.uid,
        "gid": home.account.gid,
        "account": home.account.name,
        "root": root,
        "ports": {port: numbers[port] for port in service["ports"]},
        "mounts": [mount["volume"] for mount in service["mounts"]],
        "restart": service["restart"],
        "restart_attempts": service["restart_attempts"],
        "health": service["health"],
        "stop_signal": service["stop_signal"]
        if service["stop_signal"].startswith("SIG")
        else "SIG" + service["stop_signal"],
        "stop_grace": service["stop_grace"],
        "limits": service["limits"],
        "read_only": service["read_only"] or any(mount["read_only"] for mount in service["mounts"]),
        "stdin": "",
        "stdout": "",
        "timeout": 0.0,
        "hook": False,
        "log": service["name"],
    }


def hook_spec(home: Instance, slot: str, hook: dict[str, Any]) -> dict[str, Any]:
    """The surroundings of its service, its own command, no restart. `stdin` is the path of a file on the target."""
    spec = service_spec(home, slot, {**hook["service"], "command": hook["command"], "entrypoint": None})
    if hook["stdin"] is not None and not os.path.isfile(hook["stdin"]):
        raise Refusal(
            INVALID, "no-stdin", f"stdin {hook['stdin']!r} of hook {hook['name']} is not a file on the target"
        )
    return {
        **spec,
        "restart": "no",
        "health": None,
        "ports": {},
        "hook": True,
        "timeout": hook["timeout"],
        "stdin": hook["stdin"] or "",
        "stdout": "" if hook["stdout"] is None else os.path.join(home.unit_folder(slot), "output"),
        "log": f"{hook['service']['name']}/{hook['name']}",
    }


def file_order(home: Instance, service: dict[str, Any], root: str, fresh: bool) -> dict[str, Any]:
    """What the root of a service must hold before it starts."""
    working_dir = service["working_dir"]
    return {
        "root": root,
        "fresh": fresh,
        "folders": [working_dir] if working_dir.strip("/") else [],
        "emptied": service["tmpfs"],
        "mounts": [{"target": mount["target"], "folder": home.volume(mount["volume"])} for mount in service["mounts"]],
        "files": service["files"],
    }
