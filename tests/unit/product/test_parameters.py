"""Parameters: which values are accepted, told precisely, and never at the price of a secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.errors import Problem, Where
from spectrum.core.product.parameters import MAX_MATCHED, Parameter, check_pattern, hostile_samples
from spectrum.core.product.render import secrets_to_generate, validate_parameters
from tests.unit.product.support import product, release

BLOCK = {
    "parameters": {
        "title": {"type": "string", "default": "Demo", "pattern": "[A-Z][a-z$$]*", "mutable": True},
        "size": {"type": "integer", "default": 2, "minimum": 1, "maximum": 9, "mutable": True},
        "region": {"type": "string", "enum": ["eu", "us"]},
        "ratio": {"type": "number", "default": 0.5, "maximum": 1},
        "debug": {"type": "boolean", "default": False, "mutable": True},
        "notes": {"type": "string", "default": "", "multiline": True, "max_length": 20, "mutable": True},
        "password": {"type": "string", "secret": True, "mutable": True, "generate": {"length": 20, "alphabet": "hex"}},
        "license": {"type": "string", "secret": True, "pattern": "[A-Z-]{4,40}"},
    },
    "plans": {"small": {"default": True}, "large": {"parameters": {"size": 8}}},
}
DEMO = release(product({"web": {"image": "demo"}}, BLOCK))
GIVEN = {"region": "eu", "license": "ABCD"}


def refused(given: dict[str, Any], previous: dict[str, Any] | None = None, plan: str = "small") -> tuple[Where, ...]:
    with pytest.raises(Problem) as caught:
        validate_parameters(DEMO, plan, given, previous)
    assert caught.value.slug == "invalid-parameter"
    return caught.value.errors


def test_values_come_from_the_default_then_the_plan_then_the_instance() -> None:
    assert validate_parameters(DEMO, "small", GIVEN)["size"] == 2
    assert validate_parameters(DEMO, "large", GIVEN)["size"] == 8
    assert validate_parameters(DEMO, "large", {**GIVEN, "size": 3})["size"] == 3


def test_every_mistake_is_told_with_its_pointer() -> None:
    found = refused({"region": "mars", "size": 10, "titel": "x", "debug": "yes", "ratio": True, "notes": "a\0b"})
    assert {where.pointer: where.message for where in found} == {
        "/parameters/region": "region must be one of eu, us, found 'mars'",
        "/parameters/size": "size must be at most 9, found 10",
        "/parameters/titel": "demo has no parameter 'titel'",
        "/parameters/debug": "debug must be a boolean, found 'yes'",
        "/parameters/ratio": "ratio must be a number, found True",
        "/parameters/notes": "notes must not hold control characters or line breaks",
        "/parameters/license": "license has no default and was not given",
    }
    assert next(where for where in found if where.pointer.endswith("titel")).hint == "Did you mean 'title'?"


def test_an_unknown_plan_is_refused() -> None:
    (found,) = refused({}, plan="medium")
    assert found.pointer == "/plan"


def test_no_message_holds_a_secret() -> None:
    for value in ("hunter2", "hunter2\n", 17.25, "x" * 5_000, ["hunter2"]):
        for where in refused(
            {"region": "eu", "license": value, "password": value if value != "hunter2" else "hunter2\r"}
        ):
            assert "hunter2" not in str(where)
            assert "17.25" not in str(where)


def test_missing_secrets_are_generated_once() -> None:
    values = validate_parameters(DEMO, "small", GIVEN)
    (generation,) = secrets_to_generate(DEMO, values)
    assert (generation.parameter, generation.length, generation.alphabet) == ("password", 20, "0123456789abcdef")
    kept = validate_parameters(DEMO, "small", {}, {**values, "password": "made"})
    assert kept["password"] == "made"
    assert kept["license"] == "ABCD"
    assert secrets_to_generate(DEMO, kept) == ()


def test_an_immutable_parameter_keeps_its_value_and_refuses_another() -> None:
    before = validate_parameters(DEMO, "small", GIVEN)
    assert validate_parameters(DEMO, "small", {}, before)["region"] == "eu"
    assert validate_parameters(DEMO, "small", {"region": "eu"}, before)["region"] == "eu"
    (found,) = refused({"region": "us"}, before)
    assert (found.pointer, found.message) == ("/parameters/region", "region can't be changed once the instance exists")


def test_a_mutable_parameter_that_is_left_out_returns_to_its_default() -> None:
    before = validate_parameters(DEMO, "small", {**GIVEN, "size": 5})
    assert validate_parameters(DEMO, "small", {}, before)["size"] == 2
    assert validate_parameters(DEMO, "small", {"size": 6}, before)["size"] == 6


def test_a_pattern_covers_the_whole_value_and_reads_two_dollars_as_one() -> None:
    title = DEMO.parameters["title"]
    assert title.check("Ab$") == "Ab$"
    for value in ("Ab!", "xAb", "Ab\n"):
        with pytest.raises(ValueError, match="must"):
            title.check(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("size", "3", 3), ("ratio", "0.25", 0.25), ("debug", "true", True), ("title", "Ab", "Ab"), ("ratio", "-1", -1)],
)
def test_a_person_types_values_as_text(name: str, text: str, expected: object) -> None:
    assert DEMO.parameters[name].from_text(text) == expected


@pytest.mark.parametrize(
    ("name", "text"), [("size", "3.5"), ("size", "many"), ("debug", "1"), ("ratio", "nan"), ("ratio", "1e3")]
)
def test_text_of_the_wrong_type_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        DEMO.parameters[name].from_text(text)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers())))
def test_any_value_is_accepted_in_its_type_or_refused_in_words(value: object) -> None:
    for parameter in DEMO.parameters.values():
        try:
            accepted = parameter.check(value)
        except ValueError as error:
            assert str(error).startswith("must")
        else:
            assert parameter.check(accepted) == accepted


def test_hostile_samples_obey_the_parameters_own_rules() -> None:
    for parameter in DEMO.parameters.values():
        for sample in hostile_samples(parameter):
            assert parameter.check(sample) == sample
    assert "'" in hostile_samples(Parameter.from_json("free", {"type": "string"}))
    assert not any("\n" in str(sample) for sample in hostile_samples(Parameter.from_json("free", {"type": "string"})))


SLOW_PATTERNS = r"""
(a+)+  (a|b)*  ((a+)b)*  (a*)*  (a{1,9}){1,9}  .*.*.*.*  (?=a)  (a)\1  (?P<x>a)  (?i)a  (  a{999999999999}
"""
ORDINARY_PATTERNS = r"""
[^%\r\n]{1,60}  [a-z0-9.-]+  [^@]+@[^@]+\.[a-z]{2,}  \d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}  (a|b)  (?:ab)*  [(+*)]+  \(+  a?b?c?  x{2}
"""


@pytest.mark.parametrize("pattern", [*SLOW_PATTERNS.split(), "(?:a|a)" * 30, "(?:a|b|c)" * 20])
def test_a_pattern_that_could_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|repeti|not supported"):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", [*ORDINARY_PATTERNS.split(), "|".join("abcdefgh" * 10)])
def test_an_ordinary_pattern_is_accepted(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [".*.*.*x", "[ab]*[ab]*[ab]*c", "(?:ab)*(?:ab)*(?:ab)*c", "(?:a|ab)(?:b|ba)" * 10 + "c"]
)
def test_the_longest_value_is_decided_on_by_the_worst_accepted_pattern(pattern: str) -> None:
    check_pattern(pattern)
    parameter = Parameter.from_json("p", {"type": "string", "pattern": pattern})
    with pytest.raises(ValueError, match="must match"):
        parameter.check("ab" * (MAX_MATCHED // 2))
    with pytest.raises(ValueError, match="characters"):
        parameter.check("a" * (MAX_MATCHED + 1))
