"""Rendering: what an instance is made of, for each kind of target, and that no secret gets where it must not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from spectrum.core.errors import Problem
from spectrum.core.product.facts import Instance
from spectrum.core.product.outline import Need, Outline, outline
from spectrum.core.product.publish import sample_facts
from spectrum.core.product.release import TargetKind
from spectrum.core.product.render import Rendered, artifacts_of, render, render_base, validate_parameters
from spectrum.core.product.resources import Base, Limits, Mount, PortRequest, RestartPolicy, Volume
from tests.unit.product import composego
from tests.unit.product.strategies import products
from tests.unit.product.support import EXAMPLES, INSTANCE, example, product, reading, release, rendered, values

slow = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
KINTO = example(EXAMPLES[0])


@slow
@given(products())
def test_a_secret_reaches_secret_files_and_nothing_else(data: dict[str, Any]) -> None:
    accepted = release(json.dumps(data, ensure_ascii=False))
    parameters = {**values(accepted, {"token": "TOKEN-9f2c"}), "password": "PASSWORD-7b1d"}
    for kind in accepted.kinds:
        result = render(accepted, "small", parameters, sample_facts(accepted, kind), kind, INSTANCE)
        assert not any(secret in text for secret in ("TOKEN-9f2c", "PASSWORD-7b1d") for text in open_texts(result))
        for service in result.services.values():
            assert all(file.mode & 0o007 == 0 for file in service.files if file.secret)
        assert "TOKEN-9f2c" not in repr(result)
        assert "PASSWORD-7b1d" not in repr(result)


def open_texts(result: Rendered) -> list[str]:
    """Everything in a rendering but the contents of secret files."""
    services = {
        name: dataclasses.replace(service, files=tuple(file for file in service.files if not file.secret))
        for name, service in result.services.items()
    }
    hooks = {
        name: dataclasses.replace(hook, service=services[hook.service.name]) for name, hook in result.hooks.items()
    }
    cleaned = dataclasses.replace(result, services=services, hooks=hooks)
    return [json.dumps(dataclasses.asdict(cleaned), default=str)]


@slow
@given(products())
def test_every_accepted_product_renders_for_every_plan_and_target(data: dict[str, Any]) -> None:
    accepted = release(json.dumps(data, ensure_ascii=False))
    for kind in accepted.kinds:
        planned = outline(accepted, kind)
        assert Outline.from_json(json.loads(json.dumps(planned.as_json()))) == planned
        for plan in accepted.plans:
            result = rendered(accepted, kind, {"token": "x"}, plan)
            assert {service.name for service in planned.services} == set(result.services)
            assert set(planned.volumes) == set(result.volumes)


def test_a_value_arrives_as_it_was_given_and_is_never_read_again() -> None:
    text = product(
        {
            "web": {
                "image": "demo",
                "command": ["run", "${title:-x}", "--title=${title:-x}"],
                "environment": {"TITLE": "${title:-x}"},
                "configs": ["c"],
            }
        },
        {"parameters": {"title": {"type": "string"}}},
        configs={"c": {"content": "title = ${title:-x}\n"}},
    )
    for title in (
        "a b",
        "'; rm -rf /",
        "$HOME ${INSTANCE_NAME:-x} $$",
        '"quoted"',
        "%(x)s",
        "é☃",
        "--flag",
        "x" * 4_000,
    ):
        service = rendered(release(text), given={"title": title}).services["web"]
        assert service.command == ("run", title, f"--title={title}")
        assert service.environment == {"TITLE": title}
        assert service.files[0].content == f"title = {title}\n"


def test_target_and_plan_are_laid_over_the_service_in_that_order() -> None:
    limits = {"resources": {"limits": {"memory": "1G", "cpus": "1", "pids": 5}}}
    accepted = release(
        product(
            {
                "web": {
                    "image": "demo",
                    "entrypoint": ["/entry"],
                    "command": ["serve"],
                    "environment": {"A": "1", "B": "1"},
                    "deploy": limits,
                    "x-spectrum": {
                        "process": {
                            "command": ["start"],
                            "environment": {"B": "2"},
                            "deploy": {"resources": {"limits": {"memory": "2G"}}},
                        },
                    },
                }
            },
            {"plans": {"s": {"default": True}, "l": {"services": {"web": {"cpus": 3}}}}},
        )
    )
    docker = rendered(accepted, TargetKind.DOCKER, plan="l").services["web"]
    process = rendered(accepted, TargetKind.PROCESS, plan="l").services["web"]
    assert (docker.entrypoint, docker.command, docker.image) == (("/entry",), ("serve",), "demo")
    assert (process.entrypoint, process.command, process.image) == (None, ("/entry", "start"), "")
    assert (docker.environment, process.environment) == ({"A": "1", "B": "1"}, {"A": "1", "B": "2"})
    assert (docker.limits, process.limits) == (Limits(1 << 30, 3.0, 5), Limits(2 << 30, 3.0, 5))


def test_limits_may_come_from_parameters_and_zero_is_no_limit() -> None:
    accepted = release(
        product(
            {"web": {"image": "demo", "mem_limit": "${memory:-1G}", "cpus": "${cpus:-1}", "pids_limit": -1}},
            {
                "parameters": {
                    "memory": {"type": "string", "enum": ["64M", "0"]},
                    "cpus": {"type": "number", "minimum": 0, "maximum": 4},
                }
            },
        )
    )
    assert rendered(accepted, given={"memory": "64M", "cpus": 0.5}).services["web"].limits == Limits(
        64 << 20, 0.5, None
    )
    assert rendered(accepted, given={"memory": "0", "cpus": 0}).services["web"].limits == Limits()


def test_kinto_as_processes() -> None:
    result = rendered(KINTO, TargetKind.PROCESS)
    root = "/var/lib/spectrum/sample/db"
    db, web = result.services["db"], result.services["web"]
    ports = (PortRequest("db", 5432, False), PortRequest("web", 8888, True))
    assert result.base == Base("acme", ports, ("db", "web"))
    assert result.volumes == {"dbdata": Volume("dbdata")}
    assert db.command == ("sh", f"{root}/db-start.sh")
    assert db.environment["PGDATA"] == f"{root}/var/lib/postgresql/data"
    assert db.mounts == (Mount("dbdata", "/var/lib/postgresql"),)
    assert {file.target: (file.mode, file.secret) for file in db.files} == {
        "/db-start.sh": (0o444, False),
        "/run/secrets/db_password": (0o400, True),
    }
    assert 'if [ ! -s "$PGDATA/PG_VERSION" ]' in db.files[0].content
    assert "-p 21000 -k ''" in db.files[0].content
    assert (db.stop_signal, db.stop_grace, db.restart) == ("SIGINT", 60.0, RestartPolicy.UNLESS_STOPPED)
    assert db.health is not None
    assert db.health.test == ("pg_isready", "-h", "127.0.0.1", "-p", "21000", "-U", "kinto")
    assert web.command[-2:] == ("--port", "21001")
    assert (web.files[0].secret, web.files[0].mode) == (True, 0o400)
    assert [artifact.name for artifact in web.artifacts] == ["kinto"]
    assert "--hash=sha256:" in web.artifacts[0].requirements
    assert [(endpoint.url, endpoint.health_url, endpoint.primary) for endpoint in result.endpoints] == [
        ("http://127.0.0.1:21001/v1/", "http://127.0.0.1:21001/v1/__heartbeat__", True)
    ]
    assert {output.name: (output.value, output.audience) for output in result.outputs} == {
        "url": ("http://127.0.0.1:21001/v1/", "customer"),
        "storage": ("127.0.0.1:21000", "operator"),
    }
    assert result.hooks["backup"].stdout == "kinto.dump"
    assert result.hooks["backup"].command[2].startswith("PGPASSWORD=$(cat $POSTGRES_PASSWORD_FILE) pg_dump")
    assert [artifact.name for artifact in artifacts_of(KINTO, TargetKind.PROCESS)] == ["kinto", "postgres"]
    assert artifacts_of(KINTO, TargetKind.DOCKER) == ()


def test_kinto_in_containers() -> None:
    db = rendered(KINTO, TargetKind.DOCKER).services["db"]
    assert (db.command, db.image, db.artifacts) == ((), "postgres:18", ())
    assert db.environment["PGDATA"] == "/var/lib/postgresql/data"
    assert [file.target for file in db.files] == ["/run/secrets/db_password"]


def test_kintos_outline_is_what_planning_needs() -> None:
    planned = outline(KINTO, TargetKind.PROCESS)
    assert [service.name for service in planned.services] == ["db", "web"]
    assert planned.services[1].needs == (Need("db", "service_healthy"),)
    assert [service.stateful for service in planned.services] == [True, False]
    assert planned.stateful
    assert planned.services[0].stop_grace == 60.0
    assert planned.services[0].start_limit == 60.0 + 5 * (5.0 + 3.0)
    migrate = planned.hook("migrate")
    assert migrate is not None
    assert (migrate.service, migrate.on, migrate.timeout) == ("web", ("create", "upgrade"), 600.0)
    assert planned.hook("restore").while_stopped == ("web",)  # type: ignore[union-attr]
    assert planned.hook("seed") is None
    assert {generation.parameter: generation.length for generation in planned.secrets} == {
        "db_password": 32,
        "hmac_secret": 64,
    }
    assert planned.digest == KINTO.digest


def test_services_stand_in_the_order_of_their_needs() -> None:
    spec = {"image": "x"}
    services = {
        "a": {**spec, "depends_on": {"c": {"condition": "service_completed_successfully"}}},
        "b": {**spec, "depends_on": ["a"]},
        "c": spec,
        "d": spec,
    }
    planned = outline(release(product(services)), TargetKind.DOCKER)
    assert [service.name for service in planned.services] == ["c", "a", "b", "d"]
    assert [service.name for service in planned.services if service.completes] == ["c"]


def test_the_base_is_known_before_there_are_facts() -> None:
    base = render_base(KINTO, TargetKind.DOCKER, Instance("acme", "ins_x"))
    assert [(port.service, port.port, port.public) for port in base.ports] == [("db", 5432, False), ("web", 8888, True)]


def test_a_product_without_a_process_side_does_not_render_as_processes() -> None:
    accepted = release(product({"web": {"image": "demo"}}))
    with pytest.raises(Problem) as caught:
        render(accepted, "default", {}, sample_facts(accepted, TargetKind.PROCESS), TargetKind.PROCESS, INSTANCE)
    assert "does not run on process targets" in caught.value.errors[0].message


def test_a_missing_secret_is_told_and_not_rendered_as_its_default() -> None:
    parameters = validate_parameters(KINTO, "small", {})
    with pytest.raises(Problem) as caught:
        render(KINTO, "small", parameters, sample_facts(KINTO, TargetKind.DOCKER), TargetKind.DOCKER, INSTANCE)
    assert "db_password, hmac_secret" in caught.value.errors[0].message


def test_facts_that_lack_a_port_are_told() -> None:
    facts = dataclasses.replace(sample_facts(KINTO, TargetKind.PROCESS), ports={})
    with pytest.raises(Problem, match="INSTANCE_DB_PORT"):
        render(KINTO, "small", values(KINTO), facts, TargetKind.PROCESS, INSTANCE)


def test_secrets_in_the_environment_of_containers_are_allowed_only_if_the_product_says_so_and_then_pointed_out() -> (
    None
):
    services = {"web": {"image": "demo", "environment": {"P": "${password:-x}"}}}
    block = {"parameters": {"password": {"type": "string", "secret": True}}, "env_secrets": "allowed"}
    accepted = reading(product(services, block))
    assert [note.pointer for note in accepted.notes] == ["/services/web/environment/P"]
    assert rendered(accepted.release, given={"password": "s"}).services["web"].environment == {"P": "s"}


def test_what_a_vendor_should_know_is_noted() -> None:
    notes = reading(
        product(
            {"web": {"image": "x", "ports": ["80:80"], "x-spectrum": {"process": {}}}, "db": {"image": "y"}},
            secrets={"s": {"file": "s.txt"}},
        ),
        **{"s.txt": "shared"},
    ).notes
    assert [note.pointer for note in notes] == ["/secrets/s", "/services", "/services/web/ports"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_compose_loads_an_example_as_we_render_it_for_docker(path: Path) -> None:
    """With every variable unset, compose-go must come to the commands, files and variables that we come to with defaults."""
    accepted = example(path)
    (project,) = composego.load([path], {})
    result = rendered(accepted, TargetKind.DOCKER)
    for name, service in result.services.items():
        theirs = project["services"][name]
        assert tuple(theirs["command"] or ()) == service.command
        assert theirs.get("environment", {}) == service.environment
        assert service.health is not None
        assert tuple(theirs["healthcheck"]["test"][1:]) == service.health.test
        assert int(theirs.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory", 0)) == (
            service.limits.memory or 0
        )
        assert [port["target"] for port in theirs.get("ports", ())] == [
            port.port for port in service.ports if port.public
        ]


def test_compose_reads_ports_the_same(tmp_path: Path) -> None:
    texts = ["80", "8080:80", "127.0.0.1::82", "127.0.0.1:8083:83", "[::1]:8084:84", "85/tcp"]
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps({"services": {"web": {"image": "x", "ports": texts}}}))
    theirs = composego.load([path], {})[0]["services"]["web"]["ports"]
    ours = release(product({"web": {"image": "x", "ports": texts}})).document["services"]["web"]["ports"]
    keys = ("target", "published", "host_ip", "protocol")
    assert [{key: port[key] for key in keys if key in port} for port in theirs] == ours


def test_compose_merges_a_target_override_as_we_do(tmp_path: Path) -> None:
    base = {
        "image": "x",
        "command": ["a"],
        "environment": ["A=1", "B=1"],
        "expose": ["1"],
        "labels": {"l": "1"},
        "tmpfs": "/run",
    }
    override = {
        "command": ["b"],
        "environment": {"B": "2"},
        "expose": ["2"],
        "labels": ["m=2"],
        "healthcheck": {"test": "exit 0"},
    }
    accepted = release(product({"web": {**base, "x-spectrum": {"docker": override}}}))
    paths = [tmp_path / "base.yaml", tmp_path / "both.yaml"]
    paths[0].write_text(json.dumps({"services": {"web": base}}))
    paths[1].write_text(
        json.dumps({"services": {"web": {"extends": {"file": "base.yaml", "service": "web"}, **override}}})
    )
    theirs = composego.load([paths[1]], {})[0]["services"]["web"]
    ours = accepted.services(TargetKind.DOCKER)["web"]
    for key in ("command", "environment", "expose", "labels", "tmpfs", "healthcheck"):
        assert theirs[key] == ours[key], key
