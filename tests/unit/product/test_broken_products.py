"""Broken products are refused with every mistake, where it is and what to do. The expected text stands beside each file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spectrum.core.errors import Problem, Where
from spectrum.core.product.publish import read_product
from tests.unit.product.support import REPOSITORY, files

BROKEN = sorted((REPOSITORY / "tests/golden/broken-products").glob("*.yaml"))
FILES = {"loose.txt": "requests>=2\n"}


def told(problem: Problem) -> str:
    return "\n".join([problem.detail, *map(line, problem.errors)]) + "\n"


def line(where: Where) -> str:
    place = f"{where.file}:{where.line}" if where.line else where.file
    hint = f"\n    {where.hint}" if where.hint else ""
    return f"{place} {where.pointer or '/'}: {where.message}{hint}"


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_product_is_refused_with_every_mistake_and_its_place(path: Path) -> None:
    with pytest.raises(Problem) as caught:
        read_product(path.read_text(), path.name, files(FILES))
    expected = path.with_suffix(".txt")
    if os.environ.get("SPECTRUM_TEST_UPDATE_GOLDEN"):
        expected.write_text(told(caught.value))
    assert caught.value.slug == "invalid-product"
    assert told(caught.value) == expected.read_text()


def test_there_are_enough_of_them_to_mean_something() -> None:
    assert len(BROKEN) >= 60
