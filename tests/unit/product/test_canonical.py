"""The canonical document: one shape for every way of writing, stable under reading again, and valid Compose."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML

from spectrum.core.errors import Problem
from spectrum.core.product.publish import read_stored
from spectrum.core.product.release import Release
from spectrum.core.product.report import Json
from tests.unit.product import composego
from tests.unit.product.strategies import products
from tests.unit.product.support import EXAMPLES, HEAD, errors, example, product, release

COMPOSE_SCHEMA = jsonschema.Draft7Validator(get_builtin_schema("vendor.compose-spec"))
SCALARS = """services:
  web:
    image: x
    environment: {A: true, B: 1.0, C: 0x10, D: 1e3, E: yes, F: 010, G: 1.50, H: '1.50'}
"""
slow = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def service(text: str, **contents: str) -> Json:
    return release(text + HEAD, contents).document["services"]["web"]


def web(**spec: Any) -> Json:
    text = product({"web": {"image": "demo", **spec}}, configs={"c": {"content": "x"}}, volumes={"data": None})
    return release(text).document["services"]["web"]


@slow
@given(products())
def test_reading_the_canonical_document_again_changes_nothing(data: dict[str, Any]) -> None:
    first = release(json.dumps(data, ensure_ascii=False))
    again = read_stored(first.canonical).release
    assert again.document == first.document
    assert again.digest == first.digest


@slow
@given(products())
def test_what_is_accepted_is_valid_compose_before_and_after(data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False)
    accepted = release(text)
    COMPOSE_SCHEMA.validate(data)
    COMPOSE_SCHEMA.validate(accepted.document)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "written.yaml", Path(folder) / "stored.yaml"]
        paths[0].write_text(text)
        paths[1].write_text(accepted.canonical)
        composego.load(paths, {})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_is_valid_compose_before_and_after(path: Path, tmp_path: Path) -> None:
    COMPOSE_SCHEMA.validate(YAML(typ="safe", pure=True).load(path.read_text()))
    COMPOSE_SCHEMA.validate(example(path).document)
    stored = tmp_path / "compose.yaml"
    stored.write_text(example(path).canonical)
    composego.load([path], {})
    composego.load([stored], {})


def test_a_plain_compose_file_with_a_name_and_a_version_is_a_product() -> None:
    text = "services: {web: {image: nginx, ports: ['8080:80'], volumes: ['data:/data']}}\nvolumes: {data: }\n"
    accepted = release(text + HEAD)
    assert accepted.block["plans"] == {"default": {"default": True}}
    assert accepted.block["endpoints"] == {"web": {"service": "web", "port": 80, "path": "/", "primary": True}}
    assert accepted.block["outputs"] == {"url": {"value": "${INSTANCE_WEB_URL:-}", "audience": "customer"}}
    assert [kind.value for kind in accepted.kinds] == ["docker"]


def test_several_public_ports_become_endpoints_named_by_port() -> None:
    accepted = release("services: {web: {image: nginx, ports: ['80', '443']}}\n" + HEAD)
    assert sorted(accepted.endpoints) == ["web-443", "web-80"]
    assert accepted.endpoints["web-80"].primary


def test_short_and_long_forms_become_one() -> None:
    short = web(
        ports=["127.0.0.1::80"],
        volumes=["data:/data:ro"],
        configs=["c"],
        environment=["A=1", "B=x=y"],
        labels=["l=1"],
        tmpfs="/run",
        command="run --to 'a b'",
        mem_limit="1G",
        pids_limit=5,
        healthcheck={"test": "exit 0"},
    )
    long = web(
        ports=[{"target": 80, "host_ip": "127.0.0.1"}],
        volumes=[{"type": "volume", "source": "data", "target": "/data", "read_only": True}],
        configs=[{"source": "c", "target": "/c"}],
        environment={"A": 1, "B": "x=y"},
        labels={"l": "1"},
        tmpfs=["/run"],
        command=["run", "--to", "a b"],
        deploy={"resources": {"limits": {"memory": "1G", "pids": 5}}},
        healthcheck={"test": ["CMD-SHELL", "exit 0"]},
    )
    assert short == long


def test_scalars_of_the_environment_are_written_as_compose_writes_them() -> None:
    found = service(SCALARS)["environment"]
    assert found == {"A": "true", "B": "1", "C": "16", "D": "1000", "E": "yes", "F": "8", "G": "1.5", "H": "1.50"}


def test_compose_reads_those_scalars_the_same(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(SCALARS)
    (project,) = composego.load([path], {})
    assert project["services"]["web"]["environment"] == service(SCALARS)["environment"]


def test_anchors_and_merge_keys_work_and_other_extensions_are_ignored() -> None:
    text = """
x-common: &common {image: nginx, environment: {A: "1"}}
services:
  web: {<<: *common, user: "5", x-note: ignored}
"""
    assert service(text) == {"image": "nginx", "environment": {"A": "1"}, "user": "5"}


def test_extends_merges_by_composes_override_rules() -> None:
    base = """
services:
  base:
    image: nginx
    command: [a, b]
    environment: {A: "1", B: "1"}
    expose: ["1"]
    volumes: ["data:/data"]
    healthcheck: {test: exit 0, interval: 5s}
"""
    text = """
services:
  web:
    extends: {file: sub/base.yaml, service: base}
    command: [c]
    environment: [B=2]
    expose: ["2"]
    volumes: ["data:/data:ro"]
    healthcheck: {test: exit 1}
volumes: {data: }
"""
    assert release(text + HEAD, {"sub/base.yaml": base}).document["services"]["web"] == {
        "image": "nginx",
        "command": ["c"],
        "environment": {"A": "1", "B": "2"},
        "expose": ["1", "2"],
        "volumes": [{"type": "volume", "source": "data", "target": "/data", "read_only": True}],
        "healthcheck": {"test": ["CMD-SHELL", "exit 1"], "interval": "5s"},
    }


def test_files_are_read_relative_to_the_file_that_names_them() -> None:
    contents = {
        "sub/more.yaml": "services: {db: {image: postgres, env_file: db.env}}\nconfigs: {c: {file: c.conf}}\n",
        "sub/db.env": "A=1\n",
        "sub/c.conf": "costs 5$\n",
    }
    accepted = release("include: [sub/more.yaml]\nservices: {web: {image: nginx}}\n" + HEAD, contents)
    assert accepted.document["services"]["db"]["environment"] == {"A": "1"}
    assert accepted.document["configs"]["c"] == {"content": "costs 5$$\n"}


def test_an_env_file_is_read_by_dotenv_rules_and_the_environment_wins() -> None:
    env = """
# a comment
export A = 1   # not part of it
B='$literal # too'
C="two\\nlines and ${size:-2}"
D=
E=from file
"""
    text = """
services: {web: {image: nginx, env_file: [a.env], environment: {E: from service}}}
x-spectrum: {format: 1, product: demo, version: "1", parameters: {size: {type: integer, default: 2}}}
"""
    accepted = release(text, {"a.env": env}).document["services"]["web"]["environment"]
    assert accepted == {
        "A": "1",
        "B": "$$literal # too",
        "C": "two\nlines and ${size:-2}",
        "D": "",
        "E": "from service",
    }


def test_mistakes_in_other_files_name_that_file_and_its_line() -> None:
    base = "services:\n  base:\n    image: nginx\n    privileged: true\n"
    found = errors("services: {web: {extends: {file: base.yaml, service: base}}}\n" + HEAD, {"base.yaml": base})
    assert [(where.file, where.line, where.pointer) for where in found] == [
        ("base.yaml", 4, "/services/web/privileged")
    ]


def test_files_that_include_each_other_are_refused() -> None:
    found = errors("include: [a.yaml]\nservices: {web: {image: nginx}}\n" + HEAD, {"a.yaml": "include: [a.yaml]\n"})
    assert "include each other" in found[0].message


def test_the_same_thing_given_twice_by_an_include_is_refused() -> None:
    found = errors(
        "include: [a.yaml]\nservices: {web: {image: nginx}}\n" + HEAD, {"a.yaml": "services: {web: {image: x}}\n"}
    )
    assert "included and given again" in found[0].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a" * 600_000, "larger than"),
        ("a: " + "[" * 60 + "]" * 60, "levels deep"),
        ("", "empty"),
        ("a: *nothing", "no anchor"),
        ("a: &a [*a]", "no anchor"),
        ("a: .inf", "not a usable number"),
        ('a: "\\ud800"', "surrogate"),
        ("? [a]\n: b", "plain word"),
        ("a: !!int x", "is no int"),
        ("a: \x01", "not valid YAML"),
        ("\ta: b", "not valid YAML"),
    ],
)
def test_yaml_that_is_broken_or_meant_to_harm_is_refused(text: str, words: str) -> None:
    (found,) = errors(text)
    assert words in found.message


def test_a_stored_document_that_is_not_canonical_is_refused() -> None:
    accepted = release("services: {web: {image: nginx}}\n" + HEAD)
    for text in (json.dumps(accepted.document, indent=1), "nonsense", "[]", accepted.canonical.replace("nginx", "$x")):
        with pytest.raises(Problem) as caught:
            read_stored(text)
        assert caught.value.slug == "invalid-product"


def test_a_stored_release_is_known_by_its_digest() -> None:
    accepted = release("services: {web: {image: nginx}}\n" + HEAD)
    assert Release.from_stored(accepted.canonical, accepted.digest) == accepted
    with pytest.raises(Problem, match="not sha256:0"):
        Release.from_stored(accepted.canonical, "sha256:0")


def test_the_order_in_which_a_file_is_written_does_not_change_the_digest() -> None:
    one = release("services: {a: {image: x}, b: {image: y}}\n" + HEAD)
    other = release(HEAD + "services: {b: {image: y}, a: {image: x}}\n")
    assert one.digest == other.digest


def test_pinning_images_makes_another_release() -> None:
    accepted = release("services: {a: {image: x}, b: {build: ./b}}\n" + HEAD)
    pinned = accepted.pinned({"a": "x@sha256:1", "b": "sha256:2"})
    assert pinned.images == ("sha256:2", "x@sha256:1")
    assert pinned.digest != accepted.digest
    assert read_stored(pinned.canonical).release.digest == pinned.digest
