"""A product file read into its canonical document: Compose's supported subset, assembled from all its files, in one shape.

The canonical document is a valid Compose file itself, and reading it again gives the same document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from spectrum.core.product import extension, service, sources
from spectrum.core.product.document import Node, parse
from spectrum.core.product.interpolation import escape
from spectrum.core.product.merge import merged
from spectrum.core.product.report import Cursor, Json, Report, nearest

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
MAX_INCLUDES = 20
MAX_CONTENT = 256 * 1024

TOP_LEVEL = ("version", "name", "include", "services", "configs", "secrets", "volumes", "networks", "x-spectrum")
_TOP_HINTS = {"models": "Products run services only.", "jobs": "Use x-spectrum.hooks."}
_SERVICE_KEYS = (*service.FIELDS, *service.SHORT_LIMITS, *service.ASSEMBLED, "x-spectrum")
_OVERRIDE_KEYS = (
    "artifact",
    *(k for k in (*service.FIELDS, *service.SHORT_LIMITS) if k not in service.NOT_IN_OVERRIDES),
)
_NAMED = r"A name starts with a letter and has at most 40 of a-z, 0-9, - and _."


def read_document(node: Node, read: sources.Read) -> tuple[dict[str, Json], Report]:
    """The canonical document of a product's main file, and the report of every mistake found on the way.

    `read` gives the other files of the product's folder. Raises Problem(invalid-product) where one of them is broken YAML.
    """
    report = Report()
    assembly = _Assembly(sources.Sources(node.file, read), report)
    root = Cursor(node, "", report)
    parts = assembly.project(root)
    document: dict[str, Json] = {key: parts[key] for key in ("services", "configs", "secrets", "volumes")}
    if "services" not in root.fields_given():
        root.refuse("the file has no services", "Give at least one service.")
    if (block := root.mapping().get("x-spectrum")) is None:
        root.refuse("the file has no x-spectrum", "Add x-spectrum: {format: 1, product: NAME, version: VERSION}.")
    else:
        document["x-spectrum"] = extension.normalize(block, document, assembly.sources)
        document["name"] = _project_name(root.mapping().get("name")) or document["x-spectrum"].get("product", "")
    return document, report


def _project_name(cursor: Cursor | None) -> str | None:
    text = cursor.fixed("a name") if cursor and not cursor.is_null else None
    if cursor and text is not None and not _PROJECT_NAME.fullmatch(text):
        cursor.refuse(f"{text!r} is no name of a Compose project", "Use a-z, 0-9, - and _.")
    return text


class _Assembly:
    """One reading of a product: its files, and what `include` and `extends` bring together."""

    def __init__(self, files: sources.Sources, report: Report) -> None:
        self.sources = files
        self.report = report
        self.included = 0

    def project(self, root: Cursor) -> dict[str, dict[str, Json]]:
        fields = root.fields(TOP_LEVEL, _TOP_HINTS)
        parts: dict[str, dict[str, Json]] = {key: {} for key in ("services", "configs", "secrets", "volumes")}
        if "include" in fields:
            self.include(fields["include"], parts)
        own = {
            "services": self.services(fields["services"]) if "services" in fields else {},
            "configs": self.each(fields.get("configs"), self.config),
            "secrets": self.each(fields.get("secrets"), self.secret),
            "volumes": self.volumes(fields.get("volumes")),
        }
        if "networks" in fields:
            _check_networks(fields["networks"])
        for key, entries in own.items():
            for name in entries.keys() & parts[key].keys():
                fields[key].mapping()[name].refuse(f"{name!r} is included and given again", "Rename one of them.")
            parts[key].update(entries)
        return parts

    def include(self, cursor: Cursor, parts: dict[str, dict[str, Json]]) -> None:
        for item in cursor.sequence():
            path = _path(item)
            self.included += 1
            if self.included > MAX_INCLUDES:
                item.refuse(f"more than {MAX_INCLUDES} files are included, or they include each other")
                return
            found = self.sources.text(path) if path else None
            if found is None:
                continue
            root = Cursor(parse(found[1], found[0]), "", self.report)
            if "x-spectrum" in root.mapping():
                item.refuse(f"{found[0]} is a product of its own", "Only the product's main file has an x-spectrum.")
            for key, entries in self.project(root).items():
                for name in entries.keys() & parts[key].keys():
                    item.refuse(f"{name!r} comes from two included files", "Rename one of them.")
                parts[key].update(entries)

    def each(self, cursor: Cursor | None, one: Callable[[Cursor], Json]) -> dict[str, Json]:
        found = {}
        for name, item in (cursor.mapping() if cursor else {}).items():
            if not _FILE_NAME.fullmatch(name):
                item.refuse(f"{name!r} is no usable name", "Use letters, digits, ., - and _.")
            found[name] = one(item)
        return {name: value for name, value in found.items() if value is not None}

    def volumes(self, cursor: Cursor | None) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for name, item in (cursor.mapping() if cursor else {}).items():
            if not service.SERVICE_NAME.fullmatch(name):
                item.refuse(f"{name!r} is no name of a volume", _NAMED)
            elif not item.is_null:
                item.fields(
                    (), {"external": "A volume belongs to its instance.", "name": "Names are made by SPECTRUM."}
                )
            found[name] = {}
        return found

    def config(self, cursor: Cursor) -> Json:
        fields = cursor.fields(("content", "file", "environment"), {"external": "A config belongs to its product."})
        if len(fields) != 1:
            cursor.refuse("a config needs exactly one of content, file and environment")
            return None
        if "environment" in fields:
            name = fields["environment"].fixed("a parameter's name")
            return name and {"environment": name}
        if "file" in fields:
            found = self.sources.text(fields["file"])
            return found and {"content": escape(found[1])}
        text = fields["content"].text()
        if text is not None and len(text) > MAX_CONTENT:
            fields["content"].refuse(f"longer than {MAX_CONTENT // 1024} KiB", "Put it into the image or the artifact.")
        return None if text is None else {"content": text}

    def secret(self, cursor: Cursor) -> Json:
        fields = cursor.fields(
            ("environment", "file", "x-spectrum"), {"external": "Use a secret parameter: {environment: NAME}."}
        )
        text = fields.pop("x-spectrum").fields(("content",)).get("content") if "x-spectrum" in fields else None
        if len(fields) != 1:
            cursor.refuse("a secret needs exactly one of environment and file")
            return None
        if "environment" in fields:
            name = fields["environment"].fixed("a parameter's name")
            return name and {"environment": name}
        if text is not None:
            return {"file": fields["file"].fixed(), "x-spectrum": {"content": text.text()}}
        found = self.sources.text(fields["file"])
        return found and {"file": found[0], "x-spectrum": {"content": escape(found[1])}}

    def services(self, cursor: Cursor) -> dict[str, Json]:
        entries = cursor.mapping()
        if not entries:
            cursor.refuse("the file has no services", "Give at least one service.")
        found = {}
        for name, item in entries.items():
            if not service.SERVICE_NAME.fullmatch(name):
                item.refuse(f"{name!r} is no name of a service", _NAMED)
            found[name] = self.service(item, entries, (f"{item.node.file}:{name}",))
            if not (found[name].keys() | item.fields_given()) & {"image", "build"}:
                item.refuse(
                    "the service has neither image nor build",
                    "Give it an image; a process target needs none, but Compose does.",
                )
        return found

    def service(self, cursor: Cursor, siblings: Mapping[str, Cursor], seen: tuple[str, ...]) -> dict[str, Json]:
        fields = cursor.fields(_SERVICE_KEYS, service.HINTS)
        own = service.normalize(fields)
        if "env_file" in fields:
            own["environment"] = self.env_file(fields["env_file"]) | own.get("environment", {})
        if "x-spectrum" in fields and (overrides := _overrides(fields["x-spectrum"])):
            own["x-spectrum"] = overrides
        if "extends" not in fields:
            return own
        return merged(self.extended(fields["extends"], cursor, siblings, seen), own)

    def extended(
        self, item: Cursor, child: Cursor, siblings: Mapping[str, Cursor], seen: tuple[str, ...]
    ) -> dict[str, Json]:
        """The canonical form of the service that `extends` names, read under the child's pointer."""
        fields = item.fields(("service", "file")) if isinstance(item.value, Mapping) else {"service": item}
        name = fields["service"].fixed() if "service" in fields else None
        if name is None:
            item.refuse("extends names no service", "Write {service: NAME, file: FILE}.")
            return {}
        if "file" in fields:
            found = self.sources.text(fields["file"])
            if found is None:
                return {}
            root = Cursor(parse(found[1], found[0]), "", Report())
            base = root.mapping().get("services")
            siblings = base.mapping() if base else {}
        if name not in siblings:
            item.refuse(f"there is no service {name!r} to extend", nearest(name, siblings))
            return {}
        node = siblings[name].node
        if (mark := f"{node.file}:{name}") in seen:
            item.refuse(f"{name!r} extends itself in the end", "Remove one `extends`.")
            return {}
        return self.service(Cursor(node, child.pointer, self.report), siblings, (*seen, mark))

    def env_file(self, cursor: Cursor) -> dict[str, str]:
        result: dict[str, str] = {}
        for item in cursor.one_or_more():
            path = _path(item)
            if path and (found := self.sources.text(path)):
                result |= sources.environment(item, *found)
        return result


def _path(item: Cursor) -> Cursor | None:
    """The file that an entry names: `FILE` or `{path: FILE}`."""
    if not isinstance(item.value, Mapping):
        return item
    if "path" not in item.fields_given():
        item.refuse("the entry names no file", "Write {path: FILE}.")
    return item.fields(("path",)).get("path")


def _check_networks(cursor: Cursor) -> None:
    for name, item in cursor.mapping().items():
        if name != "default":
            item.refuse(f"the network {name!r} is not supported", "An instance has one network; remove it.")
        elif not item.is_null:
            item.fields(())


def _overrides(cursor: Cursor) -> dict[str, Json]:
    """A service's x-spectrum: what is different on a kind of target. `artifact` alone stands for {process: {artifact}}."""
    fields = cursor.fields(
        ("process", "docker", "artifact"), {key: f"Put {key} under `process` or `docker`." for key in _OVERRIDE_KEYS}
    )
    result: dict[str, Json] = {}
    for kind in ("process", "docker"):
        if kind not in fields:
            continue
        hints = dict.fromkeys(
            service.NOT_IN_OVERRIDES, "It is the same on every target; give it in the service itself."
        )
        keys = _OVERRIDE_KEYS if kind == "process" else _OVERRIDE_KEYS[1:]
        hints["artifact"] = "Artifacts are for processes; a container has its image."
        part = fields[kind].fields(keys, {**service.HINTS, **hints})
        result[kind] = service.normalize(part) | ({"artifact": _names(part["artifact"])} if "artifact" in part else {})
    if "artifact" in fields:
        result.setdefault("process", {}).setdefault("artifact", _names(fields["artifact"]))
    return result


def _names(cursor: Cursor) -> list[str]:
    return [name for item in cursor.one_or_more() if (name := item.fixed("an artifact's name"))]
