"""One service of a Compose file in its canonical form: every supported key in one shape, every other key refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from spectrum.core.product import attachments, quantities
from spectrum.core.product.report import Cursor, Json, join, shown

SERVICE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:[1-9][0-9]{0,3})?")
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")

_ISOLATION = "An instance is isolated from its host and neighbours; remove it."
_ONE = "An instance runs one of each service; size it with a plan."
HINTS: Mapping[str, str] = {
    "container_name": "Names are made by SPECTRUM, one per instance; remove it.",
    "network_mode": "Services of an instance share one network and reach each other by name; remove it.",
    "links": "Services reach each other by name; use depends_on for the order.",
    "external_links": "Services reach each other by name; use depends_on for the order.",
    "privileged": _ISOLATION,
    "cap_add": _ISOLATION,
    "devices": _ISOLATION,
    "pid": _ISOLATION,
    "ipc": _ISOLATION,
    "userns_mode": _ISOLATION,
    "security_opt": _ISOLATION,
    "volumes_from": "Name the same volume in both services.",
    "profiles": "Every service of a product runs; leave optional ones out.",
    "scale": _ONE,
    "replicas": _ONE,
    "reservations": "Only limits are supported: deploy.resources.limits.",
    "restart_policy": "Use the service's `restart`.",
    "logging": "Logs are kept and rotated by SPECTRUM; remove it.",
    "mem_reservation": "Only limits are supported: deploy.resources.limits.memory.",
    "platform": "Publish an image that fits the target.",
    "pull_policy": "Images are pinned to a digest when the product is published; remove it.",
    "hostname": "A service is reached by its own name; remove it.",
    "post_start": "Use x-spectrum.hooks.",
    "pre_stop": "Use stop_signal and stop_grace_period.",
    "develop": "Remove it; `docker compose watch` is for the vendor's own machine.",
    "ulimits": "Use deploy.resources.limits.",
}


def _words(cursor: Cursor) -> Json:
    """command and entrypoint. The string form is split here, before values come in, so that no value can add an argument."""
    if isinstance(cursor.value, tuple):
        words = [item.text() for item in cursor.sequence()]
        return None if None in words else words
    text = cursor.text()
    if text is None:
        return None
    if re.search(r"\$(?!\$)", text.replace("$$", "")):
        cursor.refuse(
            "a variable in a command of one string could add arguments",
            "Write the command as a list: [program, argument].",
        )
        return None
    try:
        return list(quantities.split_words(text))
    except ValueError as error:
        cursor.refuse(str(error), 'Write the command as a list; for a shell: [sh, -c, "…"].')
        return None


def _pairs(cursor: Cursor) -> Json:
    """environment and labels: a mapping, or a list of KEY=VALUE."""
    result: dict[str, str] = {}
    if isinstance(cursor.value, tuple):
        for item in cursor.sequence():
            text = item.text()
            key, separator, value = (text or "").partition("=")
            cursor.report.places.setdefault(join(cursor.pointer, key), (item.node.file, item.node.line))
            if text is not None and _named(item, key, bool(separator)):
                result[key] = value
        return result
    for key, item in cursor.mapping().items():
        if _named(item, key, not item.is_null) and (value_text := item.text(numbers=True)) is not None:
            result[key] = value_text
    return result


def _named(item: Cursor, key: str, has_value: bool) -> bool:
    if not key or not key.isprintable() or "$" in key or "=" in key:
        item.refuse(f"{shown(key)} is no usable name")
    elif not has_value:
        item.refuse(
            f"{key} has no value",
            "Compose would take it from the shell; give it a value or a parameter: ${name:-default}.",
        )
    else:
        return True
    return False


def environment(cursor: Cursor) -> Json:
    result = _pairs(cursor)
    for key in result:
        if not _VARIABLE_NAME.fullmatch(key):
            cursor.report.refuse(join(cursor.pointer, key), f"{shown(key)} is no name of a variable")
    return result


def _depends_on(cursor: Cursor) -> Json:
    if isinstance(cursor.value, tuple):
        names = [item.fixed("a service's name") for item in cursor.sequence()]
        return {name: {"condition": "service_started"} for name in names if name}
    result = {}
    for name, item in cursor.mapping().items():
        fields = item.fields(
            ("condition", "required"), {"restart": "A service is not restarted with those that it needs."}
        )
        if "required" in fields and fields["required"].value is not True:
            fields["required"].refuse(
                "every dependency of a product is required", "Remove `required`, or the dependency."
            )
        if "condition" not in fields:
            item.refuse(
                f"the dependency on {name!r} has no condition", "Write {condition: service_started}, or a list."
            )
        elif condition := fields["condition"].choice(CONDITIONS):
            result[name] = {"condition": condition}
    return result


def duration(cursor: Cursor) -> str | None:
    """A duration that is planned with, kept as it was written."""
    text = cursor.fixed("a duration")
    return text if text is not None and _reads(cursor, quantities.seconds, text) else None


def _reads(cursor: Cursor, read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError as error:
        cursor.refuse(str(error))
        return False
    return True


def _healthcheck(cursor: Cursor) -> Json:
    fields = cursor.fields(("test", "disable", "interval", "timeout", "retries", "start_period", "start_interval"))
    if "disable" in fields and fields["disable"].boolean():
        return {"disable": True}
    result: dict[str, Json] = {}
    if "test" in fields:
        result["test"] = _health_test(fields["test"])
        if result["test"] == ["NONE"]:
            return {"disable": True}
    for key in ("interval", "timeout", "start_period", "start_interval"):
        if key in fields:
            result[key] = duration(fields[key])
    if "retries" in fields:
        result["retries"] = fields["retries"].integer(1, 1000)
    return {key: value for key, value in result.items() if value is not None}


def _health_test(cursor: Cursor) -> Json:
    if isinstance(cursor.value, str):
        return ["CMD-SHELL", cursor.value]
    words = [item.text() for item in cursor.sequence()]
    match words:
        case ["NONE"] | ["CMD", _, *_] | ["CMD-SHELL", _] if None not in words:
            return words
        case [] | [None, *_]:
            return None
        case _:
            cursor.refuse(
                f"a test can't start with {shown(words[0])} like this",
                "Write [CMD, program, …], [CMD-SHELL, script] or [NONE].",
            )
            return None


def _deploy(cursor: Cursor) -> Json:
    resources = cursor.fields(("resources",), HINTS).get("resources")
    limits = resources.fields(("limits",), HINTS).get("limits") if resources else None
    if limits is None:
        return None
    fields = limits.fields(("memory", "cpus", "pids"), HINTS)
    found = {key: value for key in fields if (value := limit(fields[key], key)) is not None}
    return {"resources": {"limits": found}} if found else None


LIMIT_READERS: Mapping[str, Callable[[str], float]] = {
    "memory": quantities.byte_size,
    "cpus": quantities.processors,
    "pids": quantities.processes,
}


def limit(cursor: Cursor, key: str) -> Json:
    """One limit: a parameter may set it, so it may hold variables; otherwise it must read."""
    text = cursor.text(numbers=True)
    if text is None or "$" in text:
        return text
    if not _reads(cursor, LIMIT_READERS[key], text):
        return None
    return int(text) if key == "pids" else text


def _restart(cursor: Cursor) -> str | None:
    text = cursor.fixed("a restart policy")
    if text is None or _RESTART.fullmatch(text):
        return text
    cursor.refuse(f"{text!r} is no restart policy", "Write no, always, unless-stopped, on-failure or on-failure:3.")
    return None


def _stop_signal(cursor: Cursor) -> str | None:
    text = cursor.fixed("a signal's name")
    return quantities.signal_name(text) if text is not None and _reads(cursor, quantities.signal_name, text) else None


def _tmpfs(cursor: Cursor) -> Json:
    found = []
    for item in cursor.one_or_more():
        text = item.fixed("a path")
        if text is None:
            continue
        if not text.startswith("/") or ".." in text.partition(":")[0].split("/"):
            item.refuse(f"{text!r} is no absolute path inside the service", "Write it like /run.")
        else:
            found.append(text)
    return list(dict.fromkeys(found))


def _networks(cursor: Cursor) -> None:
    """Only the default network, which needs no word in the canonical form."""
    names = [item.fixed() for item in cursor.sequence()] if isinstance(cursor.value, tuple) else list(cursor.mapping())
    for name in names:
        if name not in (None, "default"):
            cursor.refuse(
                f"the network {name!r} is not supported", "An instance has one network; only `default` may be named."
            )


def _build(cursor: Cursor) -> Json:
    if isinstance(cursor.value, str):
        context = cursor.fixed("a folder")
        return context and {"context": context}
    fields = cursor.fields(("context", "dockerfile", "target", "args"))
    result: dict[str, Json] = {key: fields[key].fixed() for key in ("context", "dockerfile", "target") if key in fields}
    if "args" in fields:
        result["args"] = _pairs(fields["args"])
        for key, value in result["args"].items():
            if "$" in value:
                fields["args"].report.refuse(
                    join(fields["args"].pointer, key),
                    "an image is built before an instance exists: no variable is possible here",
                )
    return {"context": "."} | {key: value for key, value in result.items() if value is not None}


FIELDS: Mapping[str, Callable[[Cursor], Json]] = {
    "image": lambda cursor: cursor.fixed("an image"),
    "build": _build,
    "command": _words,
    "entrypoint": _words,
    "environment": environment,
    "ports": attachments.ports,
    "expose": attachments.expose,
    "volumes": attachments.volumes,
    "configs": attachments.configs,
    "secrets": attachments.secrets,
    "depends_on": _depends_on,
    "healthcheck": _healthcheck,
    "deploy": _deploy,
    "restart": _restart,
    "stop_signal": _stop_signal,
    "stop_grace_period": duration,
    "user": lambda cursor: cursor.fixed("a user"),
    "working_dir": attachments.absolute_path,
    "read_only": Cursor.boolean,
    "tmpfs": _tmpfs,
    "labels": _pairs,
    "init": Cursor.boolean,
    "networks": _networks,
}
SHORT_LIMITS: Mapping[str, str] = {"mem_limit": "memory", "cpus": "cpus", "pids_limit": "pids"}
ASSEMBLED = ("extends", "env_file")  # resolved around the service, by compose.py
NOT_IN_OVERRIDES = ("image", "build", *ASSEMBLED)


def normalize(fields: Mapping[str, Cursor]) -> dict[str, Json]:
    """The canonical form of a service's known keys (`FIELDS` and `SHORT_LIMITS`); works for a part of a service too."""
    result: dict[str, Json] = {}
    for key, read in FIELDS.items():
        if key in fields and (value := read(fields[key])) is not None:
            result[key] = value
    for key, name in SHORT_LIMITS.items():
        if key in fields and (value := limit(fields[key], name)) is not None:
            limits = result.setdefault("deploy", {"resources": {"limits": {}}})["resources"]["limits"]
            if limits.setdefault(name, value) != value:
                fields[key].refuse(f"{key} and deploy.resources.limits.{name} disagree", f"Remove {key}.")
    return result
