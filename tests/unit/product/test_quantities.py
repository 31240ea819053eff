"""Durations, sizes and command lines are read as Compose reads them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.product.quantities import byte_size, processes, processors, seconds, signal_name, split_words
from tests.unit.product import composego


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("30s", 30),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1d", 86400),
        ("1w", 604800),
        ("1us", 1e-6),
    ],
)
def test_a_duration_is_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1s ", "-1s", "1 s", "1h-1m", "400d", "1m30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("1k", 1024),
        ("256M", 256 << 20),
        ("1.5gb", 3 << 29),
        ("1 GiB", 1 << 30),
        ("2TB", 2 << 40),
        ("7b", 7),
        ("0.5k", 512),
    ],
)
def test_a_size_is_read(text: str, expected: int) -> None:
    assert byte_size(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "10ib", "1MM", "1e3", "9999999P", "１k"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        byte_size(text)


def test_compose_reads_sizes_and_durations_the_same(tmp_path: Path) -> None:
    sizes = ["5", "1k", "256M", "1.5gb", "1 GiB", "2TB", "7b", "0.5k", "1.7m", "3kb"]
    durations = ["30s", "1m30s", "500ms", "1.5h", "1d", "1w2d", "2h45m0.5s"]
    services = {f"s{index}": {"image": "x", "mem_limit": text} for index, text in enumerate(sizes)}
    services |= {f"d{index}": {"image": "x", "stop_grace_period": text} for index, text in enumerate(durations)}
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps({"services": services}))
    (project,) = composego.load([path], {})
    theirs = project["services"]
    read = {text: int(theirs[f"s{index}"]["mem_limit"]) for index, text in enumerate(sizes)}
    assert read == {text: byte_size(text) for text in sizes}
    found = {text: seconds(theirs[f"d{index}"]["stop_grace_period"]) for index, text in enumerate(durations)}
    assert found == {text: seconds(text) for text in durations}


def test_processors_processes_and_signals_are_read() -> None:
    assert processors("0.5") == 0.5
    assert processes("-1") == -1
    assert [signal_name(text) for text in ("INT", "sigint", "SIGINT")] == ["SIGINT"] * 3
    for read, text in (
        (processors, "1.5.2"),
        (processors, "-1"),
        (processors, "1e999"),
        (processes, "many"),
        (signal_name, "SIGFOO"),
    ):
        with pytest.raises(ValueError, match=text):
            read(text)


@given(st.lists(st.text(st.sampled_from("ab '\"\\$;é"), max_size=6)))
def test_a_quoted_command_line_gives_back_its_words(words: list[str]) -> None:
    assert split_words(shlex.join(words)) == tuple(words)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a b", ("a", "b")),
        (r"a\ b", ("a b",)),
        (r'"a\n"', ("an",)),
        ("a'b'\"c\"", ("abc",)),
        ("''", ("",)),
        ("  ", ()),
        ("a\n b", ("a", "b")),
    ],
)
def test_compose_splits_words_the_same(line: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps({"services": {"web": {"image": "x", "command": f"run {line}"}}}))
    (project,) = composego.load([path], {})
    assert split_words(line) == expected
    assert tuple(project["services"]["web"]["command"][1:]) == expected


@pytest.mark.parametrize("line", ["a && b", "a > b", "a; b", "a | b", "`id`", "$(id)", "a 'b", "a\\"])
def test_a_command_line_that_only_a_shell_understands_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"shell|not closed"):
        split_words(line)
