"""Products that should be accepted, drawn at random, as data for a YAML file."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PARAMETERS: dict[str, Any] = {
    "title": {"type": "string", "default": "Demo", "mutable": True},
    "size": {"type": "integer", "default": 2, "minimum": 1, "maximum": 9},
    "memory": {"type": "string", "default": "64M", "enum": ["64M", "1G"], "mutable": True},
    "password": {"type": "string", "secret": True, "generate": {"length": 20}},
    "token": {"type": "string", "secret": True},
    "debug": {"type": "boolean", "default": False},
}
started = {"condition": "service_started"}
SERVICES = ("app", "db", "cache")

plain = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="$"), max_size=12
)
open_texts = st.one_of(
    plain,
    st.sampled_from(
        ["$$HOME", "${title:-Demo}", "a ${size:-2} b", "${INSTANCE_NAME:-x}", "${debug:-${size:-2}}", "${title:+yes}"]
    ),
)
secret_texts = st.sampled_from(["${password:-dev}", "x=${token:-dev}\n", "${debug:-${token:-dev}}"])
flags: st.SearchStrategy[Any] = st.booleans()
durations = st.sampled_from(["1s", "1m30s", "500ms", "2h", "0s"])
words = st.lists(open_texts, min_size=1, max_size=4)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


healthchecks = optional(
    test=st.one_of(words.map(lambda found: ["CMD", *found]), st.just("exit 0"), st.just(["CMD-SHELL", "exit 0"])),
    interval=durations,
    timeout=durations,
    retries=st.integers(1, 9),
    start_period=durations,
)
ports = st.lists(
    st.one_of(
        st.integers(1, 65535).map(str),
        st.integers(1, 65535).map(lambda port: f"127.0.0.1::{port}"),
        st.integers(1, 65535).map(lambda port: {"target": port, "protocol": "tcp"}),
    ),
    max_size=2,
    unique_by=str,
)
environment = st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), open_texts, max_size=3)
mounts: list[Any] = ["data:/data", "data:/data2:ro", {"type": "volume", "source": "data", "target": "/x"}]
config_grants: list[Any] = ["open", {"source": "closed", "target": "/etc/closed", "mode": "0440"}]
secret_grants: list[Any] = ["key", {"source": "key", "target": "other", "uid": "100"}]
volumes = st.lists(
    st.sampled_from(["data:/data", "data:/data2:ro", {"type": "volume", "source": "data", "target": "/x"}]),
    max_size=3,
    unique_by=str,
)
common = {
    "command": st.one_of(words, st.just("run --fast 'a b'")),
    "entrypoint": words,
    "environment": st.one_of(
        environment, environment.map(lambda pairs: [f"{key}={value}" for key, value in pairs.items()])
    ),
    "healthcheck": healthchecks,
    "labels": st.dictionaries(st.sampled_from(["a", "b.c", "d-e"]), open_texts, max_size=2),
    "restart": st.sampled_from(["no", "always", "on-failure:3", "unless-stopped"]),
    "stop_signal": st.sampled_from(["SIGINT", "SIGTERM"]),
    "stop_grace_period": durations,
    "working_dir": st.sampled_from(["/srv", "/"]),
    "read_only": st.booleans(),
    "init": st.booleans(),
    "tmpfs": st.one_of(st.just("/run"), st.just(["/run", "/tmp:size=64m"])),
    "user": st.sampled_from(["1000:1000", "app"]),
    "configs": st.lists(st.sampled_from(config_grants), max_size=2, unique_by=str),
    "deploy": st.just({"resources": {"limits": {"memory": "${memory:-64M}", "cpus": "0.5"}}}),
    "volumes": volumes,
}


@st.composite
def products(draw: st.DrawFn) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(SERVICES), min_size=1, unique=True)):
        spec = draw(optional(**common, ports=ports, expose=st.just(["9"])))
        spec["image"] = "demo:1"
        if services and draw(flags):
            spec["depends_on"] = draw(st.sampled_from([list(services), dict.fromkeys(services, started)]))
        if draw(flags):
            spec["x-spectrum"] = {"process": {**draw(optional(**common)), "command": ["run"]}}
        services[name] = spec
    return {
        "services": services,
        "configs": {"open": {"content": draw(open_texts)}, "closed": {"content": draw(secret_texts)}},
        "secrets": {"key": {"environment": "password"}},
        "volumes": {"data": {}},
        "x-spectrum": {
            "format": 1,
            "product": "demo",
            "version": "1",
            "parameters": PARAMETERS,
            "plans": {"small": {"default": True}, "big": {"parameters": {"size": 9}}},
        },
    }
