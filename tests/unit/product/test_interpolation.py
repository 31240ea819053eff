"""Interpolation is Compose's: against a plain reference, and against compose-go itself."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.product.interpolation import InterpolationError, Reference, escape, interpolate, parse, references
from tests.unit.product import composego

VARIABLES = {"a": "1", "empty": "", "INSTANCE_NAME": "acme", "dollar": "$a", "brace": "}{"}

literals = st.text(st.sampled_from("abx {}-:\n$"), max_size=5).map(lambda text: text.replace("$", "$$"))
words = st.text(st.sampled_from("xyz -:+?"), max_size=4)
names = st.sampled_from(["a", "empty", "INSTANCE_NAME", "dollar", "brace", "missing"])


@st.composite
def references_with_meaning(draw: st.DrawFn, depth: int = 0) -> tuple[str, str]:
    """A reference as text, and what it stands for by the words of the Compose specification."""
    name = draw(names)
    operator = draw(st.sampled_from(["", ":-", "-", ":+", "+"]))
    if not operator:
        return "${" + name + "}", VARIABLES.get(name, "")
    if depth < 3 and draw(st.booleans()):
        word, meaning = draw(references_with_meaning(depth=depth + 1))
    else:
        word = meaning = draw(words)
    text = "${" + name + operator + word + "}"
    there = bool(VARIABLES.get(name)) if operator.startswith(":") else name in VARIABLES
    if operator.endswith("-"):
        return text, VARIABLES[name] if there else meaning
    return text, meaning if there else ""


@given(
    st.lists(
        st.one_of(references_with_meaning(), literals.map(lambda text: (text, text.replace("$$", "$")))), max_size=6
    )
)
def test_a_text_means_what_its_parts_mean(parts: list[tuple[str, str]]) -> None:
    text = "".join(text for text, _ in parts)
    assert interpolate(text, VARIABLES.get) == "".join(meaning for _, meaning in parts)


@given(st.text())
def test_an_escaped_text_stands_for_itself(text: str) -> None:
    assert interpolate(escape(text), VARIABLES.get) == text
    assert not list(references(parse(escape(text))))


@given(st.text(st.sampled_from("${}a:-?+ \n_"), max_size=30))
def test_any_text_is_a_template_or_refused_but_never_a_crash(text: str) -> None:
    try:
        parse(text)
    except InterpolationError as error:
        assert "$$" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a", "1"),
        ("$a-b", "1-b"),
        ("$$a", "$a"),
        ("$$$a", "$1"),
        ("$", "$"),
        ("5$ and $5", "5$ and $5"),
        ("${a:-x} and ${missing:-y}", "1 and y"),
        ("${empty-x}${empty:-x}", "x"),
        ("${empty+x}${empty:+y}${a:+z}", "xz"),
        ('${missing:-{"k": 1}}', '{"k": 1}'),
        ("${missing:-${empty:-${a}}}", "1"),
        ("${dollar}", "$a"),
        ("${missing}", ""),
        ("${a:-x}\n${missing:-y}", "1\ny"),
    ],
)
def test_the_grammar(text: str, expected: str) -> None:
    assert interpolate(text, VARIABLES.get) == expected


@pytest.mark.parametrize("text", ["${", "${}", "${1a}", "${a", "${a!}", "${a:}", "${a:-x\n}", "${ a}"])
def test_what_is_no_variable_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(InterpolationError, match=r"\$\$"):
        interpolate(text, VARIABLES.get)


def test_a_required_variable_says_what_is_missing() -> None:
    assert interpolate("${a:?set it}", VARIABLES.get) == "1"
    with pytest.raises(InterpolationError, match="missing has no value: set it"):
        interpolate("${missing?set it}", VARIABLES.get)
    with pytest.raises(InterpolationError, match="empty has no value: acme decides"):
        interpolate("${empty:?$INSTANCE_NAME decides}", VARIABLES.get)


def test_nested_references_are_all_found() -> None:
    found = list(references(parse("${a:-${b:-$c}} ${d}")))
    assert [reference.name for reference in found] == ["a", "b", "c", "d"]
    assert [reference.has_default for reference in found] == [True, True, False, False]
    assert found[-1] == Reference("d")


@pytest.mark.parametrize("text", ["${a:-" * 30 + "}" * 30, "$a" * 2_000])
def test_a_text_that_would_cost_too_much_is_refused(text: str) -> None:
    with pytest.raises(InterpolationError, match="more than"):
        parse(text)


def test_compose_itself_reads_the_same(tmp_path: Path) -> None:
    """Odd templates, accepted by us, mean the same to compose-go, which accepts them too."""
    chance = random.Random(20261123)
    pieces = [
        "$",
        "{",
        "}",
        "${a",
        "${missing",
        "${empty",
        ":-",
        "-",
        ":+",
        "+",
        "x",
        " ",
        "$$",
        "}",
        "$a",
        "{}",
        '"',
        "\n",
    ]
    expected: dict[str, str] = {}
    texts: dict[str, str] = {}
    while len(texts) < 400:
        text = "".join(chance.choices(pieces, k=chance.randint(1, 9)))
        try:
            expected[f"V{len(texts)}"] = interpolate(text, {"a": "1", "empty": ""}.get)
        except InterpolationError:
            continue
        texts[f"V{len(texts)}"] = text
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps({"services": {"web": {"image": "x", "environment": texts}}}))
    (project,) = composego.load([path], {"a": "1", "empty": ""})
    theirs = project["services"]["web"]["environment"]
    assert {key: texts[key] for key in texts if theirs[key] != expected[key]} == {}


def test_compose_itself_refuses_the_same(tmp_path: Path) -> None:
    for index, text in enumerate(["${", "${}", "${a!}", "${a:-x\n}"]):
        path = tmp_path / f"{index}.yaml"
        path.write_text(json.dumps({"services": {"web": {"image": "x", "environment": {"V": text}}}}))
        with pytest.raises(AssertionError, match="invalid interpolation format"):
            composego.load([path], {})
