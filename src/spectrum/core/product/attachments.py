"""What is attached to a service (ports, volumes, configs, secrets), brought from Compose's short and long forms into one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from spectrum.core.product.report import Cursor, Json

MAX_PATH = 1_000

_SHORT_PORT = re.compile(
    r"(?:(?:(?P<host>\[[0-9a-fA-F:.]+\]|[0-9]+(?:\.[0-9]+){3}):)?(?P<published>[0-9]*):)?"
    r"(?P<target>[0-9]+)(?:/(?P<protocol>\w+))?",
    re.ASCII,
)
_RANGE = re.compile(r"[0-9]+-[0-9]+")
_MODE = re.compile(r"0?o?[0-7]{3,4}")

_BIND_HINT = "Use a named volume for data, or `configs` for files."
_TCP_HINT = "Only TCP ports are supported."


def absolute_path(cursor: Cursor) -> str | None:
    """A path inside the service: absolute, without `..`."""
    text = cursor.fixed("a path")
    if text is None:
        return None
    if not text.startswith("/") or ".." in text.split("/") or len(text) > MAX_PATH:
        cursor.refuse(
            f"{text!r} is no absolute path inside the service", "Write it like /etc/app/app.conf, without `..`."
        )
        return None
    return posixpath.normpath("/" + text.lstrip("/"))


def port_number(cursor: Cursor, text: str) -> int | None:
    if text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    hint = "List each port by itself." if _RANGE.search(text) else ""
    cursor.refuse(f"{text!r} is no port from 1 to 65535", hint)
    return None


def ports(cursor: Cursor) -> Json:
    found = [_long_port(item) if isinstance(item.value, Mapping) else _short_port(item) for item in cursor.sequence()]
    return [port for port in found if port]


def _short_port(item: Cursor) -> Json:
    text = item.fixed("a port")
    if text is None:
        return None
    match = _SHORT_PORT.fullmatch(text)
    if match is None:
        hint = "List each port by itself." if _RANGE.search(text) else 'Write it like "8080" or "127.0.0.1::8080".'
        item.refuse(f"{text!r} is no port", hint)
        return None
    return _port(
        item, match["target"], match["published"] or "", (match["host"] or "").strip("[]"), match["protocol"] or "tcp"
    )


def _long_port(item: Cursor) -> Json:
    fields = item.fields(("target", "published", "host_ip", "protocol"))
    if "target" not in fields:
        item.refuse("the port has no target", "Give `target`, the port that the service listens on.")
        return None
    values = {
        key: field.fixed("a port" if key in ("target", "published") else "a text") for key, field in fields.items()
    }
    if None in values.values():
        return None
    target, published, host, protocol = (
        values.get(key) or "" for key in ("target", "published", "host_ip", "protocol")
    )
    return _port(item, target, published, host, protocol or "tcp")


def _port(item: Cursor, target: str, published: str, host: str, protocol: str) -> Json:
    number = port_number(item, target)
    if protocol != "tcp":
        item.refuse(f"the protocol {protocol!r} is not supported", _TCP_HINT)
        return None
    if published and published != "0" and port_number(item, published) is None:
        return None
    if number is None:
        return None
    port: dict[str, Json] = {"target": number, "protocol": "tcp"}
    return port | ({"published": published} if published else {}) | ({"host_ip": host} if host else {})


def expose(cursor: Cursor) -> Json:
    found = []
    for item in cursor.sequence():
        text = item.fixed("a port")
        if text is None:
            continue
        number, _, protocol = text.partition("/")
        if protocol not in ("", "tcp"):
            item.refuse(f"the protocol {protocol!r} is not supported", _TCP_HINT)
        elif (port := port_number(item, number)) is not None:
            found.append(str(port))
    return list(dict.fromkeys(found))


def volumes(cursor: Cursor) -> Json:
    found = [
        _long_volume(item) if isinstance(item.value, Mapping) else _short_volume(item) for item in cursor.sequence()
    ]
    return [volume for volume in found if volume]


def _short_volume(item: Cursor) -> Json:
    text = item.fixed("a volume")
    if text is None:
        return None
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not rest:
        item.refuse(f"the volume {text!r} has no name", "Name it, so that its data can be found again: data:/path.")
        return None
    if source[:1] in "./~":
        item.refuse(f"{text!r} mounts a folder of the host", _BIND_HINT)
        return None
    if options not in ("", "ro", "rw"):
        item.refuse(f"the option {options!r} is not supported", "Only `ro` and `rw` are.")
    place = absolute_path(Cursor(type(item.node)(target, item.node.file, item.node.line), item.pointer, item.report))
    return _volume(source, place, options == "ro")


def _long_volume(item: Cursor) -> Json:
    fields = item.fields(("type", "source", "target", "read_only"))
    kind = fields["type"].fixed() if "type" in fields else "volume"
    if kind != "volume":
        hint = "Use the service's `tmpfs`." if kind == "tmpfs" else _BIND_HINT
        item.refuse(f"a mount of type {kind!r} is not supported here", hint)
        return None
    if "source" not in fields or "target" not in fields:
        item.refuse(
            "the volume needs a source and a target", "Give the volume's name as `source` and a path as `target`."
        )
        return None
    read_only = fields["read_only"].boolean() if "read_only" in fields else False
    return _volume(fields["source"].fixed(), absolute_path(fields["target"]), bool(read_only))


def _volume(source: str | None, target: str | None, read_only: bool) -> Json:
    if source is None or target is None:
        return None
    return {"type": "volume", "source": source, "target": target} | ({"read_only": True} if read_only else {})


def configs(cursor: Cursor) -> Json:
    return _grants(cursor, secret=False)


def secrets(cursor: Cursor) -> Json:
    return _grants(cursor, secret=True)


def _grants(cursor: Cursor, *, secret: bool) -> Json:
    found = [_grant(item, secret=secret) for item in cursor.sequence()]
    return [grant for grant in found if grant]


def _grant(item: Cursor, *, secret: bool) -> Json:
    if not isinstance(item.value, Mapping):
        source = item.fixed("a name")
        return source and {"source": source, "target": _grant_target(source, secret)}
    fields = item.fields(("source", "target", "uid", "gid", "mode"))
    if "source" not in fields:
        item.refuse("the entry has no source", "Give the name of an entry under the top-level key as `source`.")
        return None
    source = fields["source"].fixed("a name")
    target: str | None = _grant_target(source or "", secret)
    if "target" in fields:
        written = fields["target"].fixed("a path") or ""
        relative = secret and "/" not in written and written not in ("", ".", "..")
        target = f"/run/secrets/{written}" if relative else absolute_path(fields["target"])
    owner = {key: _numeric_id(fields[key]) for key in ("uid", "gid") if key in fields}
    mode = {"mode": _mode(fields["mode"], secret)} if "mode" in fields else {}
    grant = {"source": source, "target": target, **owner, **mode}
    return None if None in grant.values() else grant


def _grant_target(source: str, secret: bool) -> str:
    return f"/run/secrets/{source}" if secret else f"/{source}"


def _numeric_id(cursor: Cursor) -> str | None:
    number = cursor.integer(0, 2**31 - 1)
    return None if number is None else str(number)


def _mode(cursor: Cursor, secret: bool) -> str | None:
    """An octal mode as text, the way Compose writes it back."""
    value = cursor.value
    if isinstance(value, str) and _MODE.fullmatch(value):
        value = int(value.replace("o", ""), 8)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o777:
        cursor.refuse("the mode is no octal number up to 0777", "Write it like 0440.")
        return None
    if secret and value & 0o007:
        cursor.refuse(f"the mode {value:04o} lets everybody read a secret", "Write 0400, or 0440 with a `gid`.")
        return None
    return f"{value:04o}"
