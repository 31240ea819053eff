"""One row of every table for one organization, so that tests can ask of every table what each role sees of it."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from spectrum.core import ids
from spectrum.core.ids import PLATFORM

NOW = datetime(2026, 11, 23, 12, 0, 0, 0, UTC)
LATER = NOW + timedelta(hours=1)

_numbers = itertools.count(1)


def make_id(prefix: str, moment: datetime = NOW) -> str:
    return ids.make(prefix, moment, next(_numbers).to_bytes(10, "big"))


def bytes32() -> bytes:
    return next(_numbers).to_bytes(32, "big")


@dataclass
class Rows:
    """The rows of one organization, by table, in an order in which they can be inserted."""

    organization_id: str
    by_table: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, table: str, **columns: Any) -> dict[str, Any]:
        row = columns if table == "organizations" else {"organization_id": self.organization_id, **columns}
        self.by_table[table] = row
        return row

    def __getitem__(self, table: str) -> dict[str, Any]:
        return self.by_table[table]


def rows_of(name: str) -> Rows:
    rows = Rows(make_id("org"))
    rows.add("organizations", id=rows.organization_id, name=name)
    _access(rows)
    _where(rows)
    _instance(rows)
    _job(rows)
    return rows


def _access(rows: Rows) -> None:
    who = {"created_by": "tester", "created_at": NOW}
    rows.add("tokens", id=make_id("tok"), name="ci", prefix="spk_x", hash=bytes32(), scopes=["read"], **who)
    rows.add("quotas", key="instances", cap=10, used=1)
    key = {"method": "POST", "path": "/v1/instances", "key": "once", "request_digest": "d", "status": 202}
    rows.add("idempotency_keys", **key, body="{}", created_at=NOW, expires_at=LATER)
    rows.add("products", name="hello")
    release = {"product": "hello", "version": "1", "document": "{}", "sha256": bytes32(), "outline": "{}"}
    rows.add("releases", id=make_id("rel"), **release, publisher="tester", published_at=NOW)


def _where(rows: Rows) -> None:
    pool = rows.add("pools", id=make_id("pol"), name="default")["id"]
    target = rows.add("targets", id=make_id("tgt"), name="local", url="memory://", pool_id=pool)["id"]
    keys = {"signing_public_key": bytes32(), "sealing_public_key": bytes32()}
    worker = rows.add(
        "workers", id=make_id("wrk"), pool_id=pool, name="w1", **keys, protocol_version=1, enrolled_at=NOW
    )["id"]
    rows.add("join_tokens", hash=bytes32(), pool_id=pool, created_by="tester", expires_at=LATER)
    lease = {"worker_id": worker, "pool_id": pool, "incarnation": 1, "boot": "b", "started_at": NOW, "renewed_at": NOW}
    rows.add("leases", id=make_id("lea"), **lease)
    rows.add("breakers", target_id=target, call_kind="ensure")
    brake = {"reach": "target", "target_id": target, "reason": "test", "actor": "tester", "pulled_at": NOW}
    rows.add("brakes", id=make_id("brk"), **brake)
    rows.add("artifacts", target_id=target, digest="sha256:1", name="a", kind="python", made_at=NOW, used_at=NOW)


def _instance(rows: Rows) -> None:
    spec = json.dumps({"product": "hello", "version": "1"})
    instance = rows.add(
        "instances",
        id=make_id("ins"),
        name="acme",
        product="hello",
        release_id=rows["releases"]["id"],
        plan="small",
        target_id=rows["targets"]["id"],
        pool_id=rows["pools"]["id"],
        desired_state="running",
        lifecycle="creating",
        generation=1,
        requested=spec,
        counter=1,
        job_counter=1,
        created_at=NOW,
        updated_at=NOW,
    )["id"]
    times = {"created_at": NOW, "updated_at": NOW}
    place = {"instance_id": instance, "target_id": rows["targets"]["id"], "role": "active"}
    placement = rows.add("placements", id=make_id("plc"), **place, **times)["id"]
    effect = {"placement_id": placement, "slot": "web/container", "effect_key": "web.container.1.1"}
    proof = {"wanted": "present", "proven": False, "fence": 1, "token": 2}
    rows.add("effects", **effect, instance_id=instance, **proof, **times)
    secret = {"name": "password", "version": 1, "ciphertext": b"sealed", "key_id": "k1"}
    rows.add("secrets", instance_id=instance, **secret, created_at=NOW)


def _job(rows: Rows) -> None:
    instance = rows["instances"]["id"]
    job = rows.add(
        "jobs",
        id=make_id("job"),
        subject_type="instance",
        subject_id=instance,
        instance_id=instance,
        target_id=rows["targets"]["id"],
        number=1,
        operation="create",
        operation_version=1,
        pool_id=rows["pools"]["id"],
        generation=1,
        actor="tester",
        command_id="c1",
        state="ready",
        deadline=LATER,
        created_at=NOW,
    )["id"]
    step = {"job_id": job, "position": 1, "name": "prepare", "action": "prepare", "wants": "nothing", "phase": "do"}
    limits = {"tries_allowed": 5, "attempt_seconds": 60.0, "step_seconds": 300.0, "retry_cap": 30.0}
    step_id = rows.add("steps", id=make_id("stp"), **step, **limits, state="pending")["id"]
    attempt = {"job_id": job, "step_id": step_id, "number": 1, "phase": "do", "cause": "first", "fence": 1}
    rows.add("attempts", **attempt, token=2, intent_at=NOW)
    fact = {"subject": instance, "sequence": 1, "type": "instance.created", "data": "{}", "recorded_at": NOW}
    rows.add("events", id=make_id("evt"), epoch=1, **fact)
    entry = {"recorded_at": NOW, "actor": "tester", "action": "job.submitted", "subject": job}
    rows.add("audit", id=make_id("aud"), **entry)
    head = {"number": 1, "hash": bytes32(), "sealed_at": NOW, "key_id": "k", "signature": bytes(64)}
    rows.add("audit_heads", **head)
    blob = {"name": "log", "url": "file:///b", "size": 1, "created_at": NOW, "expires_at": LATER}
    rows.add("blobs", id=make_id("blb"), instance_id=instance, job_id=job, **blob)
    request = {"pool_id": rows["pools"]["id"], "target_id": rows["targets"]["id"], "instance_id": instance}
    asked = rows.add(
        "worker_requests", id=make_id("req"), **request, kind="logs", actor="tester", created_at=NOW, expires_at=LATER
    )["id"]
    rows.add("request_chunks", request_id=asked, number=1, lines="[]", size=2)
    rows.add("watches", instance_id=instance, pool_id=rows["pools"]["id"], look_at=NOW)


def platform_rows() -> Rows:
    """What the platform shares with every organization."""
    rows = Rows(PLATFORM)
    _where(rows)
    return rows


async def insert(connection: asyncpg.Connection[asyncpg.Record], rows: Rows) -> None:
    for table, row in rows.by_table.items():
        await insert_row(connection, table, row)


async def insert_row(connection: asyncpg.Connection[asyncpg.Record], table: str, row: dict[str, Any]) -> None:
    marks = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", *row.values())
