"""Where Kafka can't run, tests say what is missing and how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrum.core.errors import SpectrumError
from spectrum.local.kafka import check_programs
from tests import keeper


def test_without_java_or_maven_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SpectrumError,
        match=r"Kafka needs java and mvn, not found here\. Install .*apt-get install openjdk-17-jre-headless maven",
    ):
        check_programs("java", "mvn")


def test_a_java_that_is_too_old_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SpectrumError, match=r"Java is of version 11, Kafka needs 17 or later"):
        check_programs("java")


def test_what_is_missing_skips_a_test_and_fails_one_that_requires_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRUM_TEST_REQUIRE", "postgres")
    with pytest.raises(pytest.skip.Exception, match="no Kafka"):
        keeper.is_missing("kafka", "no Kafka")
    monkeypatch.setenv("SPECTRUM_TEST_REQUIRE", "postgres,kafka")
    with pytest.raises(pytest.fail.Exception, match="no Kafka"):
        keeper.is_missing("kafka", "no Kafka")
