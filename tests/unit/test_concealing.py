"""No secret in what is told of an instance, however its programs print it."""

from __future__ import annotations

from spectrum.core.concealing import LINE, conceal, conceal_failure, conceal_lines
from spectrum.core.errors import ErrorClass, Failure


def test_a_secret_is_blotted_out_of_every_text_of_a_failure() -> None:
    failure = Failure(
        ErrorClass.INVALID,
        "hook-failed",
        "login as admin:hunter22 failed",
        detail="hunter22",
        evidence=("DSN=postgres://app:hunter22@db", "bye"),
    )

    told = conceal_failure(failure, ["hunter22"])

    assert "hunter22" not in str(told.as_json())
    assert told.evidence == ("DSN=postgres://app:[secret]@db", "bye")


def test_a_secret_of_several_lines_is_found_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIB\n-----END KEY-----"

    assert conceal(["loading", "MIIEvQIB"], [key]) == ["loading", "[secret]"]


def test_of_two_secrets_one_of_which_is_part_of_the_other_both_are_hidden() -> None:
    assert conceal("pass pass-and-more", ["pass", "pass-and-more"]) == "[secret] [secret]"


def test_what_is_too_short_to_tell_leaves_the_text_readable() -> None:
    assert conceal({"n": 1, "text": "a banana"}, ["a"]) == {"n": 1, "text": "a banana"}


def test_a_long_line_is_cut_after_the_secrets_in_it_were_blotted_out() -> None:
    told = conceal_lines(["x" * (LINE - 4) + "hunter22" * 3, "bye"], ["hunter22"])
    assert told == ["x" * (LINE - 4) + "[sec", "bye"]
