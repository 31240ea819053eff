"""Every fact that SPECTRUM tells, by type and version (INTERFACES §4): the one place where an event is defined.

The JSON Schemas, the AsyncAPI document and the golden fixtures are made from here. A fact that is not listed can't be told.
What was published stays as it was: `core.events.compatibility` says which changes keep a version, anything else is a new version
with an upcaster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from spectrum.core.jobs.table import Health, Reason

PREFIX = "io.spectrum."
FACTS = "spectrum.events.v1"  # the topic
SCHEMAS = "urn:spectrum:schema:"  # before the type, in the attribute `dataschema`


class Subject(StrEnum):
    """What an event can be about."""

    INSTANCE = "instance"
    WORKER = "worker"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an event's data: a JSON Schema, and whether it is always there."""

    schema: Mapping[str, Any]
    required: bool = True


@dataclass(frozen=True, slots=True)
class EventType:
    """A fact in one version. `name` is `noun.fact`."""

    name: str
    subject: Subject
    says: str
    data: Mapping[str, Member] = field(default_factory=dict)
    version: int = 1

    @property
    def type(self) -> str:
        return f"{PREFIX}{self.name}.v{self.version}"

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of its data. Readers ignore members that they do not know."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"{SCHEMAS}{self.type}",
            "title": self.type,
            "description": self.says,
            "type": "object",
            "properties": {name: dict(member.schema) for name, member in self.data.items()},
            "required": [name for name, member in self.data.items() if member.required],
        }


def _text(description: str, **rest: Any) -> Member:
    return Member({"type": "string", "description": description, **rest})


def _id(prefix: str, description: str) -> Member:
    return _text(description, pattern=f"^{prefix}_[0-9a-f-]{{36}}$")


def _whole(description: str) -> Member:
    return Member({"type": "integer", "minimum": 0, "description": description})


def _one_of(kind: Iterable[StrEnum], description: str) -> dict[str, Any]:
    return {"type": "string", "enum": [member.value for member in kind], "description": description}


_JOB_ID = {"job_id": _id("job", "The job that brought it about.")}
_JOB = {
    "job_id": _id("job", "The job."),
    "operation": _text("What is done to the instance, such as create."),
    "generation": _whole("The generation of the instance's spec that the job works towards."),
}
_REASON = Member({"anyOf": [_one_of(Reason, "Why it did not succeed."), {"type": "null"}]})
_RESIDUE = Member(
    {
        "type": "array",
        "items": {"type": "string"},
        "description": "The keys of what is left behind on the target.",
    }
)
_ENDED = {**_JOB, "reason": _REASON, "residue": _RESIDUE}
_STEP = {"job_id": _JOB["job_id"], "step": _text("The name of the step in the job's plan.")}
_ATTEMPT = {**_STEP, "attempt": _whole("The number of the attempt.")}
_FAILED_STEP = {**_STEP, "code": _text("A word for what went wrong, such as exit-1.")}
_WORKER_ID = {"worker_id": _id("wrk", "The worker.")}
_HEALTH = Member(_one_of(Health, "How it is now."))
_BEFORE = Member(_one_of(Health, "How it was before."))
_RELEASE = {
    "product": _text("The product."),
    "version": _text("The version of the release."),
    "digest": _text("What the release is known by: the SHA-256 of its document."),
}


def _of(subject: Subject, noun: str, facts: Mapping[str, tuple[str, Mapping[str, Member]]]) -> tuple[EventType, ...]:
    return tuple(EventType(f"{noun}.{fact}", subject, says, data) for fact, (says, data) in facts.items())


CATALOGUE: tuple[EventType, ...] = (
    *_of(
        Subject.INSTANCE,
        "instance",
        {
            "created": ("The instance is there for the first time, and answers.", _JOB_ID),
            "running": ("The instance runs.", _JOB_ID),
            "stopped": ("The instance is stopped; its data stays.", _JOB_ID),
            "deleting": ("The instance is about to be deleted.", _JOB_ID),
            "deleted": ("The instance is deleted; its data is kept until it is purged.", _JOB_ID),
            "undeleted": ("The instance was deleted, and is back.", _JOB_ID),
            "purged": ("Nothing of the instance is left.", _JOB_ID),
            "failed": ("The instance could not be created, and nothing of it is left but its name.", _JOB_ID),
            "quarantined": (
                "Automation leaves the instance alone until it is resolved.",
                {**_JOB_ID, "residue": _RESIDUE},
            ),
            "health_changed": (
                "The instance is healthier or less healthy than before.",
                {"health": _HEALTH, "before": _BEFORE},
            ),
        },
    ),
    *_of(
        Subject.INSTANCE,
        "job",
        {
            "submitted": ("A job was accepted.", _JOB),
            "claimed": (
                "A worker has taken the job.",
                {
                    **_JOB,
                    **_WORKER_ID,
                    "fence": _whole("The right under which the worker holds it; it only grows."),
                    "first": Member({"type": "boolean", "description": "Whether nobody had it before."}),
                },
            ),
            "rescued": (
                "The job was taken from a worker that was lost, and goes on in its direction.",
                {
                    **_JOB,
                    "why": _text("What became of the worker or its attempt."),
                    "worker_id": Member({"type": "string", "description": "The worker that had it."}),
                },
            ),
            "cancelling": ("Somebody asked to cancel the job.", _JOB),
            "unwinding": ("What the job did is being undone.", {**_JOB, "reason": _REASON}),
            "succeeded": ("The job has reached its end, and that was verified.", _ENDED),
            "failed": ("The job has failed, and was undone as far as its residue says.", _ENDED),
            "cancelled": ("The job was cancelled, and undone.", _ENDED),
        },
    ),
    *_of(
        Subject.INSTANCE,
        "step",
        {
            "unknown": ("Nobody knows yet what became of an attempt.", _ATTEMPT),
            "adopted": ("What an unknown attempt had made was found, and taken over.", _STEP),
            "failed": ("A step failed for good.", _FAILED_STEP),
            "undo_failed": ("A step could not be undone: it is part of the residue.", _FAILED_STEP),
        },
    ),
    *_of(
        Subject.WORKER,
        "worker",
        {
            "enrolled": ("A worker joined.", {**_WORKER_ID, "pool_id": _id("pol", "The pool that it works for.")}),
            "lost": (
                "Nothing was heard of a worker for as long as its lease lasts: its jobs go on elsewhere.",
                _WORKER_ID,
            ),
            "revoked": ("A worker is refused from now on.", _WORKER_ID),
        },
    ),
    *_of(Subject.RELEASE, "release", {"published": ("A release can be had from now on.", _RELEASE)}),
)

BY_TYPE: Mapping[str, EventType] = {each.type: each for each in CATALOGUE}
LATEST: Mapping[str, EventType] = {each.name: each for each in sorted(CATALOGUE, key=lambda each: each.version)}


def type_of(name: str) -> str:
    """The full type of a fact, in the version that is written today. Raises KeyError for one that is not listed."""
    return LATEST[name].type
