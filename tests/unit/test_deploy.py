"""The Compose file of the whole system, read by Compose's own parser, and held against what SPECTRUM accepts."""

from __future__ import annotations

import xml.etree.ElementTree as Tree
from functools import cache
from typing import Any

import pytest

from spectrum.local.kafka import POM
from spectrum.settings import KNOWN, ServerSettings
from tests.unit.product.composego import load
from tests.unit.product.support import REPOSITORY

COMPOSE = REPOSITORY / "deploy/compose.yaml"


@cache
def project() -> dict[str, Any]:
    (found,) = load([COMPOSE], {"POSTGRES_PASSWORD": "test-password"})
    return found


def services() -> dict[str, Any]:
    return dict(project()["services"])


def test_the_official_parser_accepts_it_and_knows_every_service() -> None:
    assert set(services()) == {"postgres", "kafka", "token", "topics", "server", "setup", "worker"}


def test_every_variable_is_one_that_is_known_and_the_bus_is_kafka_without_tls() -> None:
    for name, service in services().items():
        given = {key: value for key, value in (service.get("environment") or {}).items() if key.startswith("SPECTRUM_")}
        assert set(given) <= KNOWN, name
        if "SPECTRUM_BUS" in given:
            kafka = ServerSettings(bus=given["SPECTRUM_BUS"], kafka_tls=given["SPECTRUM_KAFKA_TLS"]).kafka
            assert (str(kafka), kafka is not None and kafka.tls) == ("kafka:9092", False)


def test_kafka_runs_without_another_program_that_controls_it_in_the_version_that_tests_run() -> None:
    kafka = services()["kafka"]
    assert kafka["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    space = "{http://maven.apache.org/POM/4.0.0}"
    versions = [each.text for each in Tree.parse(POM).iter(f"{space}version")]
    assert kafka["image"].rpartition(":")[2] in versions


def test_nothing_but_the_api_is_published_and_that_on_loopback() -> None:
    published = {name: service["ports"] for name, service in services().items() if service.get("ports")}
    assert list(published) == ["server"]
    assert [each["host_ip"] for each in published["server"]] == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["server", "worker"])
def test_control_plane_and_worker_do_not_wait_for_kafka(name: str) -> None:
    assert "kafka" not in services()[name]["depends_on"]
