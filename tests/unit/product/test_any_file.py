"""Whatever a file holds, it is accepted or refused in words: never a crash, never an accepted product that can't be read again."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spectrum.core.errors import Problem
from spectrum.core.product.publish import read_product, read_stored
from tests.unit.product.strategies import products
from tests.unit.product.support import files

WORDS = [
    "",
    "$",
    "${",
    "${x",
    "web",
    "app",
    "db",
    "../x",
    "/x",
    "x.txt",
    "80",
    "1s",
    "null",
    "\u2028",
    "a b",
    "\ud83d\ude00",
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)),
    max_leaves=6,
)
FULL: dict[str, Any] = {
    "name": "full",
    "include": [],
    "services": {
        "web": {
            "image": "x",
            "build": {"context": ".", "args": {"A": "1"}},
            "extends": {"service": "db"},
            "env_file": ["x.txt"],
            "networks": ["default"],
            "depends_on": {"db": {"condition": "service_healthy"}},
            "ports": [{"target": 80, "published": "80", "host_ip": "127.0.0.1", "protocol": "tcp"}, "81"],
            "expose": ["9"],
            "volumes": [{"type": "volume", "source": "data", "target": "/data"}, "data:/more:ro"],
            "configs": [{"source": "c", "target": "/c", "uid": "1", "gid": "1", "mode": "0440"}, "d"],
            "secrets": [{"source": "s", "target": "s2"}],
            "deploy": {"resources": {"limits": {"memory": "1G", "cpus": "1", "pids": 9}}},
            "healthcheck": {"test": ["CMD", "true"], "interval": "1s", "retries": 3},
            "x-spectrum": {"process": {"artifact": ["app"], "command": ["run"]}, "docker": {"labels": {"a": "b"}}},
        },
        "db": {"image": "y", "command": "run", "x-spectrum": {"artifact": "app"}, "healthcheck": {"test": "true"}},
    },
    "configs": {"c": {"content": "${title:-x}"}, "d": {"file": "x.txt"}, "e": {"environment": "title"}},
    "secrets": {"s": {"environment": "password"}, "t": {"file": "x.txt"}},
    "volumes": {"data": None},
    "networks": {"default": None},
    "x-spectrum": {
        "format": 1,
        "product": "full",
        "version": "1",
        "description": "x",
        "parameters": {
            "title": {
                "type": "string",
                "default": "x",
                "pattern": "[a-z]+",
                "min_length": 1,
                "max_length": 9,
                "mutable": True,
            },
            "size": {"type": "integer", "enum": [1, 2], "default": 1},
            "password": {"type": "string", "secret": True, "generate": {"length": 12, "alphabet": "hex"}},
        },
        "plans": {
            "a": {
                "default": True,
                "parameters": {"size": 2},
                "services": {"web": {"deploy": {"resources": {"limits": {"pids": 1}}}}},
            }
        },
        "endpoints": {
            "api": {"service": "web", "port": 80, "path": "/", "health": "/h", "scheme": "http", "primary": True}
        },
        "outputs": {"url": "${INSTANCE_API_URL:-}", "user": {"value": "x", "audience": "operator"}},
        "artifacts": {
            "app": {"requirements": {"content": ""}, "python": ">=3.11", "path": ["bin"]},
            "tar": {"url": "https://example.com/x", "sha256": "0" * 64},
            "own": {"folder": "/opt/x"},
        },
        "hooks": {
            "migrate": {"service": "web", "command": ["m"], "on": ["create"], "timeout": "1m"},
            "restore": {"service": "db", "command": "r", "stdin": "f", "while_stopped": ["web"]},
        },
        "upgrade": {"from": ">=1", "strategy": "stop-start", "soak": "1s", "downgrade": False},
        "retention": {"deleted": "1d", "backups": "2d"},
        "env_secrets": "allowed",
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    result = copy.copy(data)
    result[path[0]] = replaced(data[path[0]], path[1:], value)
    return result


def read(text: str) -> None:
    try:
        accepted = read_product(text, "compose.yaml", files({"x.txt": "A=1\n"})).release
    except Problem as problem:
        assert problem.slug == "invalid-product"
        assert problem.errors
        assert all(where.message for where in problem.errors)
    else:
        assert read_stored(accepted.canonical).release.digest == accepted.digest


def test_the_full_file_is_accepted_as_it_stands() -> None:
    accepted = read_product(json.dumps(FULL), "compose.yaml", files({"x.txt": "A=1\n"})).release
    assert read_stored(accepted.canonical).release.digest == accepted.digest


@pytest.mark.parametrize("value", [None], ids=repr)
def test_nothing_in_place_of_anything_is_accepted_or_refused(value: object) -> None:
    for path in places(FULL):
        read(json.dumps(replaced(FULL, path, value), ensure_ascii=False))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_anything_in_place_of_something_is_accepted_or_refused(data: st.DataObject) -> None:
    whole = data.draw(st.one_of(st.just(FULL), products()))
    path = data.draw(st.sampled_from(places(whole)))
    read(json.dumps(replaced(whole, path, data.draw(values)), ensure_ascii=False))


@settings(max_examples=200)
@given(st.text(st.sampled_from("abx: -[]{}&*!|>'\"#%@`\n\t,?0~<"), max_size=60))
@example("a: b: c")
@example("? ")
@example("&a")
@example("!<>")
@example("%YAML 9.9\n---\na: b")
def test_any_text_is_refused_in_words(text: str) -> None:
    read(text)
