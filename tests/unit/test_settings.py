"""The environment: what is understood, and how a mistake in it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spectrum.settings import (
    Address,
    ClientSettings,
    Kafka,
    LogFormat,
    Mechanism,
    ServerSettings,
    SettingsError,
    WorkerSettings,
    is_loopback,
    load,
)


@pytest.fixture(autouse=True)
def a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("SPECTRUM_")]:
        monkeypatch.delenv(name)


def test_without_variables_the_server_listens_on_this_machine_alone() -> None:
    settings = load(ServerSettings)
    assert str(settings.listen) == "127.0.0.1:8420"
    assert settings.base_url == "http://127.0.0.1:8420"
    assert settings.master_key_path == Path(".spectrum/master.key")
    assert (settings.bus, settings.log_format) == ("poll", LogFormat.JSON)


def test_the_defaults_are_those_of_the_design() -> None:
    tuning = load(ServerSettings).tuning
    assert (tuning.lease, tuning.heartbeat, tuning.observation_interval) == (15, 5, 10)


def test_variables_are_read_by_the_part_they_belong_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SPECTRUM_HOME": "/srv/spectrum",
        "SPECTRUM_LISTEN": "[::1]:9000",
        "SPECTRUM_PUBLIC_URL": "https://cell.example/",
        "SPECTRUM_DATABASE_URL": "postgresql://user:hidden@db/spectrum",
        "SPECTRUM_LEASE_SECONDS": "30",
        "SPECTRUM_URL": "http://127.0.0.1:9000",
        "SPECTRUM_TOKEN": "spk_hidden",
        "SPECTRUM_TARGETS": "process:///srv/a, docker:///run/docker.sock",
    }.items():
        monkeypatch.setenv(name, value)
    server, worker, client = load(ServerSettings), load(WorkerSettings), load(ClientSettings)
    assert server.listen == Address("::1", 9000)
    assert server.base_url == "https://cell.example"
    assert server.tuning.heartbeat == 10
    assert worker.targets == ("process:///srv/a", "docker:///run/docker.sock")
    assert worker.key_path == Path("/srv/spectrum/worker.key")
    assert client.token is not None
    assert client.token.get_secret_value() == "spk_hidden"
    assert "hidden" not in repr(server) + repr(client)


def test_a_misspelt_variable_is_refused_with_the_nearest_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRUM_LISTENN", "127.0.0.1:1")
    with pytest.raises(SettingsError, match=r"SPECTRUM_LISTENN is not .* Did you mean SPECTRUM_LISTEN\?"):
        load(ClientSettings)


def test_an_unknown_variable_that_resembles_none_is_answered_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRUM_QQQQQQQQQQQQQQQQ", "1")
    with pytest.raises(SettingsError, match="Known are: SPECTRUM_BUS, SPECTRUM_CONTEXT"):
        load(ServerSettings)


def test_variables_for_tests_are_always_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRUM_TEST_REQUIRE", "postgres")
    load(ServerSettings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SPECTRUM_LISTEN", "8420", "HOST:PORT"),
        ("SPECTRUM_LISTEN", "host:99999", "Port out of range"),
        ("SPECTRUM_PUBLIC_URL", "http://cell.example", "plain http is refused off loopback"),
        ("SPECTRUM_PUBLIC_URL", "cell.example", "must be a web address"),
        ("SPECTRUM_PUBLIC_URL", "https://me:hidden@cell.example", "must not hold a user"),
        ("SPECTRUM_DATABASE_URL", "mysql://me:hidden@x/y", "must be a PostgreSQL address"),
        ("SPECTRUM_BUS", "rabbit", "must be poll, kafka"),
        ("SPECTRUM_LEASE_SECONDS", "1", "greater than or equal to 3"),
        ("SPECTRUM_RATE_LIMIT", "-1", "greater than or equal to 0"),
        ("SPECTRUM_LOG_FORMAT", "xml", "'json' or 'console'"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: .*{message}") as caught:
        load(ServerSettings)
    assert "hidden" not in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRUM_BUS", "rabbit")
    monkeypatch.setenv("SPECTRUM_NONSENSE", "1")
    with pytest.raises(SettingsError, match=r"SPECTRUM_NONSENSE[\s\S]*SPECTRUM_BUS"):
        load(ServerSettings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "api.localhost"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.com", "localhost.example.com", "::"])
def test_other_machines_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


KAFKA_FILES = {"SPECTRUM_KAFKA_USERNAME": "spectrum", "SPECTRUM_KAFKA_PASSWORD_FILE": "/run/password"}


def kafka_of(monkeypatch: pytest.MonkeyPatch, bus: str, **variables: str) -> Kafka | None:
    monkeypatch.setenv("SPECTRUM_BUS", bus)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load(ServerSettings).kafka


@pytest.mark.parametrize(
    ("bus", "brokers", "tls"),
    [
        ("kafka", "127.0.0.1:9092", False),
        ("kafka://127.0.0.1:19092", "127.0.0.1:19092", False),
        ("kafka://[::1]:9092/", "[::1]:9092", False),
        ("kafka://b1.example,b2.example:19092", "b1.example:9092,b2.example:19092", True),
        ("kafka://127.0.0.1,b2.example", "127.0.0.1:9092,b2.example:9092", True),
    ],
)
def test_the_bus_names_brokers_and_off_loopback_they_are_spoken_to_over_tls(
    monkeypatch: pytest.MonkeyPatch, bus: str, brokers: str, tls: bool
) -> None:
    kafka = kafka_of(monkeypatch, bus)
    assert kafka is not None
    assert (str(kafka), kafka.tls) == (brokers, tls)


def test_tls_can_be_switched_off_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    off = kafka_of(monkeypatch, "kafka://b1.example", SPECTRUM_KAFKA_TLS="false", **KAFKA_FILES)
    on = kafka_of(monkeypatch, "kafka", SPECTRUM_KAFKA_TLS="true")
    assert off is not None and on is not None
    assert (off.tls, off.username, off.mechanism, on.tls) == (False, "spectrum", Mechanism.SCRAM_SHA_512, True)


def test_without_kafka_its_variables_are_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kafka_of(monkeypatch, "poll", SPECTRUM_KAFKA_USERNAME="spectrum") is None


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        (
            {"SPECTRUM_KAFKA_USERNAME": "me"},
            "SPECTRUM_KAFKA_USERNAME and SPECTRUM_KAFKA_PASSWORD_FILE go together",
        ),
        (
            {"SPECTRUM_KAFKA_KEY_FILE": "/run/key"},
            "SPECTRUM_KAFKA_CERTIFICATE_FILE and SPECTRUM_KAFKA_KEY_FILE go together",
        ),
        (
            {"SPECTRUM_KAFKA_TLS": "no", "SPECTRUM_KAFKA_CA_FILE": "/run/ca"},
            "SPECTRUM_KAFKA_CA_FILE is for TLS, which is not used: set SPECTRUM_KAFKA_TLS=true",
        ),
        (
            {"SPECTRUM_KAFKA_TLS": "no", "SPECTRUM_KAFKA_MECHANISM": "PLAIN", **KAFKA_FILES},
            "SPECTRUM_KAFKA_MECHANISM=PLAIN would send the password readable to all",
        ),
    ],
)
def test_what_does_not_go_together_for_kafka_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        kafka_of(monkeypatch, "kafka://b1.example", **variables)


@pytest.mark.parametrize(
    "bus", ["kafka://", "kafka://me@b1", "kafka://b1/topic", "kafka://b1:many", "http://b1", "kafka://b1,"]
)
def test_a_bus_that_names_no_brokers_is_refused(monkeypatch: pytest.MonkeyPatch, bus: str) -> None:
    with pytest.raises(SettingsError, match="SPECTRUM_BUS: must be poll, kafka or kafka://HOST:PORT"):
        kafka_of(monkeypatch, bus)
