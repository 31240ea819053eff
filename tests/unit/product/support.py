"""What the tests of the product format share: reading products from text, and the samples they render with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from spectrum.core.errors import Problem, Where
from spectrum.core.product.facts import Instance
from spectrum.core.product.parameters import Value
from spectrum.core.product.publish import Reading, read_product, sample_facts
from spectrum.core.product.release import Release, TargetKind
from spectrum.core.product.render import Rendered, render, secrets_to_generate, validate_parameters

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = [
    REPOSITORY / name / "compose.yaml" for name in ("examples/kinto", "examples/radicale", "tests/products/hello")
]
HEAD = 'x-spectrum: {format: 1, product: demo, version: "1"}\n'
INSTANCE = Instance("acme", "ins_01900000-0000-7000-8000-000000000001")


def folder(path: Path) -> Callable[[str], str]:
    return lambda name: (path / name).read_text(encoding="utf-8")


def files(contents: Mapping[str, str]) -> Callable[[str], str]:
    def read(name: str) -> str:
        if name not in contents:
            raise FileNotFoundError(2, "No such file or directory", name)
        return contents[name]

    return read


def reading(text: str, **contents: str) -> Reading:
    return read_product(text, "compose.yaml", files(contents))


def release(text: str, contents: Mapping[str, str] | None = None) -> Release:
    return read_product(text, "compose.yaml", files(contents or {})).release


def example(path: Path) -> Release:
    return read_product(path.read_text(), path.name, folder(path.parent)).release


def product(services: Mapping[str, Any], block: Mapping[str, Any] | None = None, **tables: Any) -> str:
    """A product file as text, in JSON (which is YAML)."""
    head = {"format": 1, "product": "demo", "version": "1"}
    return json.dumps({"services": services, "x-spectrum": {**head, **(block or {})}, **tables}, ensure_ascii=False)


def errors(text: str, contents: Mapping[str, str] | None = None) -> tuple[Where, ...]:
    with pytest.raises(Problem) as caught:
        release(text, contents)
    assert caught.value.slug == "invalid-product"
    return caught.value.errors


def values(of: Release, given: Mapping[str, object] | None = None, plan: str | None = None) -> dict[str, Value]:
    accepted = validate_parameters(of, plan or of.default_plan, given or {})
    return accepted | {item.parameter: item.alphabet[:1] * item.length for item in secrets_to_generate(of, accepted)}


def rendered(
    of: Release,
    kind: TargetKind = TargetKind.DOCKER,
    given: Mapping[str, object] | None = None,
    plan: str | None = None,
) -> Rendered:
    chosen = plan or of.default_plan
    return render(of, chosen, values(of, given, chosen), sample_facts(of, kind), kind, INSTANCE)
