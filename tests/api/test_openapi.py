"""The OpenAPI document says of every operation who may call it and how it says no."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Response

from spectrum.api import models
from spectrum.api.routing import Route
from spectrum.core.access import Action
from tests import golden
from tests.api.fakes import served

pytestmark = pytest.mark.anyio


async def document() -> dict[str, Any]:
    async with served() as (http, _, _):
        found: dict[str, Any] = (await http.get("/openapi.json")).json()
    found["paths"] = {path: item for path, item in found["paths"].items() if not path.startswith("/v1/things")}
    return found


def operations(found: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, item) for path, items in found["paths"].items() for method, item in items.items()]


async def test_who_may_call_what_changes_only_on_purpose() -> None:
    lines = [
        f"{method.upper():6} {path} {item['x-spectrum-action']}" for method, path, item in operations(await document())
    ]
    golden.check("actions.txt", "\n".join(sorted(lines, key=lambda line: line.split()[1:])) + "\n")


async def test_every_operation_has_problems_and_signs_in() -> None:
    found = await document()
    assert found["openapi"].startswith("3.1.")
    for method, path, item in operations(found):
        assert item["security"] == [{"token": []}], path
        assert Action(item["x-spectrum-action"]).changes is (method != "get"), path
        for status in ("400", "401", "403", "422", "500", "503"):
            assert "application/problem+json" in item["responses"][status]["content"], (path, status)
        assert ("404" in item["responses"]) or "{" not in path
        keyed = any(parameter["name"] == "Idempotency-Key" for parameter in item.get("parameters", ()))
        assert keyed is (method != "get"), path


async def test_every_reference_in_the_document_leads_somewhere() -> None:
    found = await document()
    schemas = found["components"]["schemas"]
    for reference in _references(found):
        assert reference.removeprefix("#/components/schemas/") in schemas
    assert "HTTPValidationError" not in schemas


def test_a_route_that_does_not_say_what_it_does_is_refused() -> None:
    router = APIRouter(route_class=Route)

    async def handler() -> Response:
        return Response()

    with pytest.raises(TypeError, match="does not declare its @operation"):
        router.add_api_route("/v1/open", handler)


@pytest.mark.parametrize("model", [models.Instance, models.Job, models.Step, models.Attempt])
def test_instance_and_job_have_the_fields_of_the_interface(model: type[models.Shown]) -> None:
    names = [info.alias or name for name, info in model.model_fields.items()]
    assert names == FIELDS[model.__name__].split()


FIELDS = {
    "Instance": """id name organization_id product release plan target labels generation accepted_generation desired_state
        lifecycle hold health observed_at parameters outputs endpoints services conditions active_job_id actions created_at
        updated_at deleted_at purge_at""",
    "Job": """id operation operation_version subject parent_id generation version state done fence worker_id waiting error
        residue plan_hash progress deadline created_at started_at finished_at steps""",
    "Step": "id name needs slot state effect_key deadline retry_at attempts",
    "Attempt": "number phase cause fence token worker_id outcome intent_at outcome_at error",
}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []
