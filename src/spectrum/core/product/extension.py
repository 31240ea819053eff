"""The `x-spectrum` block: what makes a Compose file a product, in its canonical form and as typed values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spectrum.core.product import parameters as parameter_rules
from spectrum.core.product import quantities, service, sources
from spectrum.core.product.attachments import port_number
from spectrum.core.product.interpolation import InterpolationError, parse, references
from spectrum.core.product.parameters import ALPHABETS, Parameter, ParameterType
from spectrum.core.product.report import Cursor, Json, nearest, shown

PRODUCT_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
_RANGE = re.compile(r"(>=|>|<=|<|==|!=)\s*[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASHED = re.compile(r"--hash[= ]sha256:[0-9a-f]{64}")

HOOKS = ("migrate", "backup", "restore", "verify")
AUDIENCES = ("customer", "operator")
SCHEMES = ("http", "https", "tcp")
STRATEGIES = ("stop-start",)


def normalize(cursor: Cursor, document: Mapping[str, Json], files: sources.Sources) -> dict[str, Json]:
    """The canonical block, with defaults for plans, endpoints and outputs written out."""
    fields = cursor.fields(
        [
            "format",
            "product",
            "version",
            "description",
            "parameters",
            "plans",
            "endpoints",
            "outputs",
            "artifacts",
            "hooks",
            "upgrade",
            "retention",
            "env_secrets",
        ]
    )
    result: dict[str, Json] = {"format": 1}
    for key, read in {"product": _product, "version": _version}.items():
        if key not in fields:
            cursor.refuse(f"x-spectrum has no {key}", f"Add {key}.")
        elif value := read(fields[key]):
            result[key] = value
    if "format" not in fields or fields["format"].value != 1:
        fields.get("format", cursor).refuse("the format must be 1", "Add format: 1.")
    readers: dict[str, Callable[[Cursor], Json]] = {
        "description": _literal,
        "parameters": _parameters,
        "plans": _plans,
        "endpoints": _endpoints,
        "outputs": _outputs,
        "artifacts": lambda item: _artifacts(item, files),
        "hooks": _hooks,
        "upgrade": _upgrade,
        "retention": _retention,
        "env_secrets": lambda item: item.choice(("allowed", "refused")),
    }
    for key, reader in readers.items():
        if key in fields and (value := reader(fields[key])) is not None:
            result[key] = value
    return _with_defaults(result, document)


def _with_defaults(block: dict[str, Json], document: Mapping[str, Json]) -> dict[str, Json]:
    block.setdefault("parameters", {})
    block["plans"] = block.get("plans") or {"default": {"default": True}}
    if "endpoints" not in block:
        block["endpoints"] = _default_endpoints(document["services"])
    primary = next((name for name, endpoint in block["endpoints"].items() if endpoint.get("primary")), None)
    if "outputs" not in block and primary:
        block["outputs"] = {"url": {"value": f"${{INSTANCE_{fact_name(primary)}_URL:-}}", "audience": "customer"}}
    block.setdefault("outputs", {})
    return block


def _default_endpoints(services: Mapping[str, Json]) -> dict[str, Json]:
    """One endpoint for every public port; the first is the primary one."""
    result: dict[str, Json] = {}
    for name, spec in services.items():
        targets = list(dict.fromkeys(port["target"] for port in spec.get("ports", ())))
        for target in targets:
            label = name if len(targets) == 1 else f"{name}-{target}"
            result[label] = {"service": name, "port": target, "path": "/"} | ({} if result else {"primary": True})
    return result


def fact_name(name: str) -> str:
    """A service's or endpoint's name as it stands in a fact."""
    return name.upper().replace("-", "_")


def _product(cursor: Cursor) -> str | None:
    text = cursor.fixed("a product's name")
    if text is None or PRODUCT_NAME.fullmatch(text):
        return text
    cursor.refuse(f"{text!r} is no name of a product", "Use at most 40 of a-z, 0-9 and -, starting with a letter.")
    return None


def _version(cursor: Cursor) -> str | None:
    if not isinstance(cursor.value, str):
        cursor.refuse(
            f"the version {shown(cursor.value)} is no text", 'Quote it: YAML reads 1.10 as 1.1. version: "1.10"'
        )
        return None
    text = cursor.fixed("a version")
    if text is None or VERSION.fullmatch(text):
        return text
    cursor.refuse(f"{text!r} is no version", "Use at most 64 of letters, digits, ., +, _ and -.")
    return None


def _literal(cursor: Cursor) -> str | None:
    """A text without variables, in which a literal $ is written $$."""
    text = cursor.text()
    return text if text is not None and _check_literal(cursor, text) else None


def _check_literal(cursor: Cursor, text: str) -> bool:
    try:
        found = next(references(parse(text)), None)
    except InterpolationError as error:
        cursor.refuse(str(error))
        return False
    if found is not None:
        cursor.refuse(f"no variable is possible here: {found.name}", "Write a literal $ as $$.")
    return found is None


def _parameters(cursor: Cursor) -> Json:
    result = {}
    for name, item in cursor.mapping().items():
        if not parameter_rules.NAME.fullmatch(name):
            item.refuse(
                f"{name!r} is no name of a parameter",
                "Use lower-case letters, digits and _; upper-case names are facts.",
            )
        elif (found := _parameter(item, name)) is not None:
            result[name] = found
    return result


_PARAMETER_FIELDS = [
    "type",
    "default",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "min_length",
    "max_length",
    "mutable",
    "secret",
    "generate",
    "multiline",
    "description",
]
_ONLY_FOR = {
    "string": frozenset({"pattern", "min_length", "max_length", "secret", "generate", "multiline"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset[str](),
}


def _parameter(cursor: Cursor, name: str) -> Json:
    fields = cursor.fields(_PARAMETER_FIELDS)
    kind = fields["type"].choice(list(ParameterType)) if "type" in fields else None
    if kind is None:
        cursor.refuse("the parameter has no type", "Add type: string, integer, number or boolean.")
        return None
    result: dict[str, Json] = {"type": kind}
    special = frozenset[str]().union(*_ONLY_FOR.values())
    for key, item in fields.items():
        if key in special - _ONLY_FOR[kind]:
            item.refuse(f"{key} means nothing for type {kind}", "Remove it.")
        elif key != "type" and (value := _parameter_field(item, key)) is not None:
            result[key] = value
    return result if _coherent(cursor, name, result, fields) else None


def _parameter_field(item: Cursor, key: str) -> Json:
    match key:
        case "mutable" | "secret" | "multiline":
            return item.boolean()
        case "min_length" | "max_length":
            return item.integer(0, parameter_rules.MAX_MULTILINE)
        case "minimum" | "maximum":
            number = item.value
            if isinstance(number, int | float) and not isinstance(number, bool):
                return number
            item.refuse(f"expected a number, found {shown(number)}")
            return None
        case "enum":
            return [value for option in item.sequence() if (value := _plain(option)) is not None]
        case "default":
            return _plain(item)
        case "pattern":
            return _pattern(item)
        case "generate":
            return _generate(item)
        case _:
            return _literal(item)


def _plain(item: Cursor) -> Json:
    if isinstance(item.value, str):
        return _literal(item)
    return item.value if isinstance(item.value, int | float) else item.text()


def _pattern(item: Cursor) -> str | None:
    text = _literal(item)
    if text is None:
        return None
    try:
        parameter_rules.check_pattern(text.replace("$$", "$"))
    except ValueError as error:
        item.refuse(f"the pattern can't be used: {error}")
        return None
    return text


def _generate(item: Cursor) -> Json:
    fields = item.fields(("length", "alphabet"))
    length = fields["length"].integer(8, parameter_rules.MAX_MATCHED) if "length" in fields else 32
    alphabet = fields["alphabet"].choice(ALPHABETS) if "alphabet" in fields else "alphanumeric"
    return {"length": length, "alphabet": alphabet} if length and alphabet else None


def _coherent(cursor: Cursor, name: str, data: dict[str, Json], fields: Mapping[str, Cursor]) -> bool:
    """Whether the parameter agrees with itself: its default and its choices pass, a secret is generated or given."""
    parameter = Parameter.from_json(name, data)
    before = len(cursor.report.errors)
    if parameter.secret and parameter.default is not None:
        fields["default"].refuse(
            "a secret has no default: everybody could read it", "Use generate, or let it be given."
        )
    for least, most in (("minimum", "maximum"), ("min_length", "max_length")):
        if least in data and most in data and data[least] > data[most]:
            fields[least].refuse(
                f"no value is possible: {least} is {data[least]}, {most} is {data[most]}", "Swap them."
            )
            return False
    if parameter.generate and not parameter.secret:
        fields["generate"].refuse("only a secret is generated", "Add secret: true.")
    for key, values in (("default", [parameter.default]), ("enum", list(parameter.enum))):
        for value in values:
            try:
                _ = value is None or parameter.check(value)
            except ValueError as error:
                fields[key].refuse(f"the {key} {error}")
    if parameter.generate and not parameter.enum:
        sample = parameter.generate.alphabet[:1] * parameter.generate.length
        try:
            parameter.check(sample)
        except ValueError:
            fields["generate"].refuse(
                "a generated value would not pass the parameter's own rules", "Fit length, alphabet and pattern."
            )
    return len(cursor.report.errors) == before


def _is_word(cursor: Cursor, name: str, what: str) -> bool:
    """Whether `what`, which the cursor is at, may be called so."""
    if _WORD.fullmatch(name):
        return True
    cursor.refuse(f"{name!r} is no name of {what}", "Use a-z, 0-9, - and _, starting with a letter.")
    return False


def _plans(cursor: Cursor) -> Json:
    result: dict[str, Json] = {}
    for name, item in cursor.mapping().items():
        if _is_word(item, name, "a plan"):
            result[name] = {} if item.is_null else _plan(item)
    if not result:
        cursor.refuse("there is no plan", "Add one, or remove `plans` for a default one.")
        return None
    defaults = [name for name, plan in result.items() if plan.get("default")]
    if len(result) == 1:
        next(iter(result.values()))["default"] = True
    elif len(defaults) != 1:
        cursor.refuse(f"{len(defaults)} of {len(result)} plans are the default", "Mark exactly one with default: true.")
    return result


def _plan(cursor: Cursor) -> dict[str, Json]:
    fields = cursor.fields(("default", "description", "services", "parameters"))
    result: dict[str, Json] = {}
    if "default" in fields and fields["default"].boolean():
        result["default"] = True
    if "description" in fields:
        result["description"] = _literal(fields["description"])
    if "services" in fields:
        hints = dict.fromkeys(service.FIELDS, "A plan changes sizes and parameters only.")
        allowed = ("deploy", *service.SHORT_LIMITS)
        result["services"] = {
            name: service.normalize(item.fields(allowed, hints)) for name, item in fields["services"].mapping().items()
        }
    if "parameters" in fields:
        found = {name: _plain(item) for name, item in fields["parameters"].mapping().items()}
        result["parameters"] = {name: value for name, value in found.items() if value is not None}
    return result


def _endpoints(cursor: Cursor) -> Json:
    result: dict[str, Json] = {}
    for name, item in cursor.mapping().items():
        if _is_word(item, name, "an endpoint") and (endpoint := _endpoint(item)) is not None:
            result[name] = endpoint
    primary = [name for name, endpoint in result.items() if endpoint.get("primary")]
    if len(primary) > 1:
        cursor.refuse(f"{' and '.join(primary)} are both primary", "Mark one.")
    if result and not primary:
        next(iter(result.values()))["primary"] = True
    return result


def _endpoint(cursor: Cursor) -> Json:
    fields = cursor.fields(("service", "port", "path", "health", "scheme", "primary"))
    if missing := [key for key in ("service", "port") if key not in fields]:
        cursor.refuse(f"the endpoint has no {' and no '.join(missing)}", "Name a service and one of its `ports`.")
        return None
    result: dict[str, Json] = {
        "service": fields["service"].fixed(),
        "port": port_number(fields["port"], fields["port"].fixed("a port", numbers=True) or ""),
    }
    for key in ("path", "health"):
        if key in fields and (text := fields[key].text()) is not None:
            if not text.startswith("/"):
                fields[key].refuse(f"{shown(text)} does not start with /")
            result[key] = text
    result.setdefault("path", "/")
    if "scheme" in fields:
        result["scheme"] = fields["scheme"].choice(SCHEMES)
    if "primary" in fields and fields["primary"].boolean():
        result["primary"] = True
    return None if None in result.values() else result


def _outputs(cursor: Cursor) -> Json:
    result = {}
    for name, item in cursor.mapping().items():
        fields = item.fields(("value", "audience")) if isinstance(item.value, Mapping) else {"value": item}
        if not parameter_rules.NAME.fullmatch(name) or "value" not in fields:
            item.refuse(f"the output {name!r} needs a lower-case name and a value")
            continue
        value = fields["value"].text()
        audience = fields["audience"].choice(AUDIENCES) if "audience" in fields else "customer"
        if value is not None and audience:
            result[name] = {"value": value, "audience": audience}
    return result


def _artifacts(cursor: Cursor, files: sources.Sources) -> Json:
    entries = cursor.mapping().items()
    found = {name: _artifact(item, files) for name, item in entries if _is_word(item, name, "an artifact")}
    return {name: value for name, value in found.items() if value is not None}


def _artifact(cursor: Cursor, files: sources.Sources) -> Json:
    fields = cursor.fields(("requirements", "python", "url", "sha256", "folder", "path"))
    kinds = [key for key in ("requirements", "url", "folder") if key in fields]
    if len(kinds) != 1:
        cursor.refuse("an artifact needs exactly one of requirements, url and folder")
        return None
    result: dict[str, Json]
    match kinds[0]:
        case "requirements":
            result = {"requirements": _requirements(fields["requirements"], files)}
            if "python" in fields:
                result["python"] = fields["python"].fixed("a version range")
        case "url":
            result = {"url": _archive_url(fields["url"]), "sha256": _checksum(cursor, fields)}
        case _:
            result = {"folder": _folder(fields["folder"])}
    if "path" in fields:
        result["path"] = [path for item in fields["path"].sequence() if (path := _inside(item))]
    return None if None in result.values() else result


def _requirements(cursor: Cursor, files: sources.Sources) -> Json:
    """The text of a hash-pinned requirements file: read from the folder, or given in place (the stored form)."""
    if isinstance(cursor.value, Mapping):
        content = cursor.fields(("content",)).get("content")
        text = _literal(content) if content else None
        pinned = text
    else:
        found = files.text(cursor)
        text = found and found[1].replace("$", "$$")
        pinned = found and found[1]
    if pinned is None:
        return None
    for number, line in enumerate(pinned.replace("\\\n", " ").splitlines(), 1):
        bare = line.split(" #")[0].strip()
        if bare and not bare.startswith("#") and not _HASHED.search(bare):
            cursor.refuse(
                f"the requirement {shown(bare)} (entry {number}) is not pinned by a hash",
                "Make the file with: uv pip compile --generate-hashes",
            )
            return None
    return {"content": text}


def _archive_url(cursor: Cursor) -> str | None:
    text = cursor.fixed("a URL")
    if text is None or text.startswith("https://"):
        return text
    cursor.refuse(f"{shown(text)} is no https URL", "Archives are fetched over https and checked against sha256.")
    return None


def _checksum(cursor: Cursor, fields: Mapping[str, Cursor]) -> str | None:
    text = fields["sha256"].fixed("a SHA-256") if "sha256" in fields else ""
    if text is None or _SHA256.fullmatch(text):
        return text
    fields.get("sha256", cursor).refuse("an archive needs its SHA-256, 64 hexadecimal digits", "Add sha256: DIGEST.")
    return None


def _folder(cursor: Cursor) -> str | None:
    text = cursor.fixed("a folder")
    if text is None or (text.startswith("/") and ".." not in text.split("/")):
        return text
    cursor.refuse(f"{shown(text)} is no absolute path", "Name a folder that every target of the product has.")
    return None


def _inside(cursor: Cursor) -> str | None:
    text = cursor.fixed("a folder")
    if text is None or (text and not text.startswith("/") and ".." not in text.split("/")):
        return text
    cursor.refuse(f"{shown(text)} lies outside the artifact", "Write it like bin or lib/*/bin.")
    return None


def _hooks(cursor: Cursor) -> Json:
    result = {}
    for name, item in cursor.mapping().items():
        if name not in HOOKS:
            item.refuse(f"{name!r} is no hook", nearest(name, HOOKS))
        elif (hook := _hook(item, name)) is not None:
            result[name] = hook
    return result


_HOOK_FIELDS = {"migrate": ("on",), "backup": ("stdout",), "restore": ("stdin", "while_stopped"), "verify": ()}


def _hook(cursor: Cursor, name: str) -> Json:
    fields = cursor.fields(("service", "command", "timeout", *_HOOK_FIELDS[name]))
    required = ("service", "command", *(key for key in _HOOK_FIELDS[name] if key.startswith("std")))
    if missing := [key for key in required if key not in fields]:
        cursor.refuse(f"the hook has no {' and no '.join(missing)}", "Add it.")
        return None
    result: dict[str, Json] = {
        "service": fields["service"].fixed(),
        **service.normalize({"command": fields["command"]}),
    }
    result["timeout"] = service.duration(fields["timeout"]) if "timeout" in fields else "10m"
    for key in ("stdout", "stdin"):
        if key in fields:
            result[key] = _blob(fields[key])
    if name == "migrate":
        items = fields["on"].sequence() if "on" in fields else []
        result["on"] = [item.choice(("create", "upgrade")) for item in items] or ["create", "upgrade"]
    if "while_stopped" in fields:
        result["while_stopped"] = [item.fixed() for item in fields["while_stopped"].sequence()]
    if not result.get("command"):
        fields["command"].refuse("the command is empty")
        return None
    return None if None in result.values() else result


def _blob(cursor: Cursor) -> str | None:
    text = cursor.fixed("a file's name")
    if text is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        return text
    cursor.refuse(f"{shown(text)} is no file's name", "Write it like data.dump, without a path.")
    return None


def _upgrade(cursor: Cursor) -> Json:
    fields = cursor.fields(("from", "strategy", "soak", "downgrade"))
    result: dict[str, Json] = {}
    if "from" in fields and (text := fields["from"].fixed("a version range")) is not None:
        if all(_RANGE.fullmatch(part.strip()) for part in text.split(",")):
            result["from"] = text
        else:
            fields["from"].refuse(f"{text!r} is no version range", 'Write it like ">=25" or ">=25, <27".')
    if "strategy" in fields:
        result["strategy"] = fields["strategy"].choice(STRATEGIES)
    if "soak" in fields:
        result["soak"] = service.duration(fields["soak"])
    if "downgrade" in fields:
        result["downgrade"] = fields["downgrade"].boolean()
    return {key: value for key, value in result.items() if value is not None}


def _retention(cursor: Cursor) -> Json:
    fields = cursor.fields(("deleted", "backups"))
    return {key: value for key, item in fields.items() if (value := service.duration(item)) is not None}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A public port under a name. `health` is the path that answers 2xx once the instance is well; empty: `path`."""

    name: str
    service: str
    port: int
    path: str
    health: str
    scheme: str
    primary: bool

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Json]) -> Endpoint:
        path = data.get("path", "/")
        scheme = data.get("scheme", "http")
        return cls(
            name, data["service"], data["port"], path, data.get("health", path), scheme, data.get("primary", False)
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a deleted instance and a backup are kept, in seconds."""

    deleted: float = 7 * 86_400.0
    backups: float = 30 * 86_400.0

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Retention:
        return cls(**{key: quantities.seconds(value) for key, value in data.items()})
