"""The nouns of the API as objects with verbs: `client.instances.create(…)`, `client.jobs.wait(…)`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, takewhile
from typing import Any, TypeVar
from urllib.parse import quote

from spectrum.core.audit import head_line, header_line, line
from spectrum.core.ids import is_id
from spectrum.sdk import models
from spectrum.sdk.errors import ClientError, JobFailed, ProblemError, Unreachable, WaitTimeout
from spectrum.sdk.wire import AGAIN, PATIENCE, Answer, Call, Wire

M = TypeVar("M", bound=models.Model)

POLL = 30.0  # seconds that one long poll may take
OUTAGE = 300.0  # seconds for which a wait puts up with a server that does not answer
EXPORT_PAGE = 200  # records


class Resource:
    """What the nouns share: reading one, and reading all pages of a list."""

    path = ""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def _at(self, name: str, suffix: str = "") -> str:
        return f"{self.path}/{quote(name, safe='')}{suffix}"

    def _read(self, model: type[M], path: str, **query: Any) -> M:
        return model.model_validate(self._wire.call(Call("GET", path, query)).body)

    def _pages(self, model: type[M], path: str, **query: Any) -> Iterator[M]:
        """Every item of every page, read as far as the caller goes on."""
        return map(model.model_validate, self._items(path, **query))

    def _items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The same as the server sent them."""
        cursor: str | None = None
        while True:
            page = self._wire.call(Call("GET", path, {**query, "cursor": cursor})).body
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _write(self, model: type[M], path: str, body: Any, key: str | None) -> M:
        return model.model_validate(self._wire.call(Call("POST", path, body=body, key=key)).body)


class Jobs(Resource):
    path = "/v1/jobs"

    def list(
        self, *, instance: str | None = None, state: str | None = None, operation: str | None = None
    ) -> Iterator[models.Job]:
        """Jobs, newest first."""
        return self._pages(models.Job, self.path, instance=instance, state=state, operation=operation)

    def get(self, job_id: str) -> models.Job:
        return self._read(models.Job, self._at(job_id))

    def why(self, job_id: str) -> models.Why:
        """What the job waits for, since when, until when at most, and who could unblock it."""
        return self._read(models.Why, self._at(job_id, "/why"))

    def cancel(self, job_id: str, *, key: str | None = None) -> models.Job:
        """Ask the job to stop and to undo what it did. Raises `ProblemError` (409) where it is too late."""
        return self._write(models.Job, self._at(job_id, ":cancel"), None, key)

    def follow(self, job_id: str, *, timeout: float | None = None, interval: float = POLL) -> Iterator[models.Job]:
        """The job as it is now, each time it has changed, and once more where the next look finds it as it was, until it is done.

        A long poll ends with the job, so `interval` (seconds) is how often progress is seen before that. A server that
        restarts or is away for a while is put up with. Raises `WaitTimeout` once `timeout` seconds have passed.
        """
        start = time.monotonic()
        seen: models.Job | None = None
        lasting = False
        for job in self._polls(job_id, start, timeout, min(interval, POLL)):
            changed = job != seen
            if changed or not lasting:
                yield job
            if job.done:
                return
            seen, lasting = job, not changed

    def wait(self, job_id: str, *, timeout: float | None = None) -> models.Job:
        """The job once it has succeeded. Raises `JobFailed` if it ended otherwise, `WaitTimeout` if it did not end."""
        *_, last = self.follow(job_id, timeout=timeout)
        return settled(last)

    def _polls(self, job_id: str, start: float, timeout: float | None, interval: float) -> Iterator[models.Job]:
        answered = start
        hold = 0.0  # the first look is at once
        while True:
            asked = time.monotonic()
            try:
                job = self._poll(job_id, hold)
                answered = time.monotonic()
                yield job
            except (Unreachable, ProblemError) as error:
                if not _passing(error) or time.monotonic() - answered > OUTAGE:
                    raise
            left = None if timeout is None else timeout - (time.monotonic() - start)
            if left is not None and left <= 0:
                raise WaitTimeout(
                    f"Job {job_id} was not done after {timeout:.1f} s; it goes on", f"spectrum job watch {job_id}"
                )
            _pause(asked, hold, left)
            hold = interval if left is None else max(0.0, min(interval, left))

    def _poll(self, job_id: str, hold: float) -> models.Job:
        query = {"wait": _wait_text(hold)} if hold else {}
        return models.Job.model_validate(self._wire.call(Call("GET", self._at(job_id), query, hold=hold)).body)


class Instances(Resource):
    path = "/v1/instances"

    def list(
        self,
        *,
        product: str | None = None,
        target: str | None = None,
        lifecycle: str | None = None,
        hold: str | None = None,
        health: str | None = None,
        label: str | None = None,
    ) -> Iterator[models.Instance]:
        query = {
            "product": product,
            "target": target,
            "lifecycle": lifecycle,
            "hold": hold,
            "health": health,
            "label": label,
        }
        return self._pages(models.Instance, self.path, **query)

    def get(self, name: str) -> models.Instance:
        """By name or id. Raises `ProblemError` `not-found`."""
        return self._read(models.Instance, self._at(name))

    def find(self, name: str) -> models.Instance | None:
        return _found(lambda: self.get(name))

    def create(self, name: str, spec: Mapping[str, Any], *, key: str | None = None) -> models.Job:
        """Make an instance; `spec` holds product, release, plan, target, labels, parameters, desired_state."""
        return self._submit(_command("create", name, spec, key=key))

    def apply(
        self, name: str, spec: Mapping[str, Any], *, generation: int | None = None, key: str | None = None
    ) -> models.Job | None:
        """Make the instance be as `spec` says; None where it already is. `generation`: only while it is this one."""
        return self._submitted(self._wire.call(_command("apply", name, spec, generation=generation, key=key)))

    def act(self, verb: str, name: str, *, key: str | None = None) -> models.Job:
        """`verb` is delete, start, stop … A server that can't do it says so, and what it can: `operation-not-available`."""
        return self._submit(_command(verb, name, key=key))

    def start(self, name: str, *, key: str | None = None) -> models.Job:
        return self.act("start", name, key=key)

    def stop(self, name: str, *, key: str | None = None) -> models.Job:
        return self.act("stop", name, key=key)

    def restart(self, name: str, *, key: str | None = None) -> models.Job:
        return self.act("restart", name, key=key)

    def delete(self, name: str, *, key: str | None = None) -> models.Job:
        """Delete softly: `undelete` brings it back until its retention is over."""
        return self.act("delete", name, key=key)

    def undelete(self, name: str, *, key: str | None = None) -> models.Job:
        return self.act("undelete", name, key=key)

    def purge(self, name: str, *, key: str | None = None) -> models.Job:
        """Destroy a deleted instance with its data, for good."""
        return self.act("purge", name, key=key)

    def resolve(self, name: str, *, key: str | None = None) -> models.Job:
        """Look again at a quarantined instance, remove its residue and lift the hold."""
        return self.act("resolve", name, key=key)

    def plan(self, verb: str, name: str, spec: Mapping[str, Any] | None = None) -> models.Plan:
        """What `verb` (create, apply, delete, start, stop …) would do. Changes nothing."""
        return models.Plan.model_validate(self._wire.call(_command(verb, name, spec, query={"dry_run": True})).body)

    def wait(self, name: str, *, timeout: float | None = None, interval: float = 1.0) -> models.Instance:
        """The instance once no job works on it and it is where it should be.

        Raises `JobFailed` if a job that was waited for failed, `WaitTimeout` if it is not there in time.
        """
        start = time.monotonic()
        jobs = Jobs(self._wire)
        while True:
            asked = time.monotonic()
            instance = self.get(name)
            left = None if timeout is None else timeout - (asked - start)
            if instance.active_job_id:
                jobs.wait(instance.active_job_id, timeout=left)
            elif _arrived(instance):
                return instance
            elif left is not None and left <= 0:
                state = f"{instance.lifecycle}, {instance.health}"
                raise WaitTimeout(f"Instance {name} is {state} after {timeout:g} s", f"spectrum instance show {name}")
            else:
                _pause(asked, interval, left)

    def logs(
        self,
        name: str,
        *,
        service: str | None = None,
        since: datetime | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[models.LogLine]:
        """Log lines, oldest first (`application/x-ndjson`). With `follow` until the caller stops reading."""
        query = {"service": service, "since": since, "tail": tail, "follow": follow or None}
        with self._wire.lines(Call("GET", self._at(name, "/logs"), query)) as lines:
            for line in lines:
                yield models.LogLine.model_validate(line)

    def _submit(self, call: Call) -> models.Job:
        job = self._submitted(self._wire.call(call))
        if job is None:
            raise Unreachable(f"{call.method} {call.path} was answered without a job", "Check the URL")
        return job

    def _submitted(self, answer: Answer) -> models.Job | None:
        """The job of a 202: its body, or what Location names."""
        if isinstance(answer.body, Mapping) and is_id("job", str(answer.body.get("id"))):
            return models.Job.model_validate(answer.body)
        location = answer.headers.get("location", "")
        if "/jobs/" not in location:
            return None
        return Jobs(self._wire).get(location.rsplit("/", 1)[1])


class Products(Resource):
    path = "/v1/products"

    def list(self) -> Iterator[models.Product]:
        return self._pages(models.Product, self.path)

    def get(self, name: str) -> models.Product:
        return self._read(models.Product, self._at(name))

    def releases(self, name: str) -> Iterator[models.Release]:
        """Newest first."""
        return self._pages(models.Release, self._at(name, "/releases"))

    def release(self, name: str, version: str) -> models.Release:
        return self._read(models.Release, self._at(name, f"/releases/{quote(version, safe='')}"))

    def publish(
        self, name: str, file: str, files: Mapping[str, str], *, dry_run: bool = False, key: str | None = None
    ) -> models.Release:
        """Publish a release from the texts of the product's files by relative path; `file` is the Compose file of them.

        The same text again is the same release. Raises `ProblemError` `invalid-product` with file, line and hint.
        """
        body = {"file": file, "files": dict(files)}
        query = {"dry_run": dry_run or None}
        answer = self._wire.call(Call("POST", self._at(name, "/releases"), query, body, key=key))
        return models.Release.model_validate(answer.body)


class Targets(Resource):
    path = "/v1/targets"

    def list(self) -> Iterator[models.Target]:
        return self._pages(models.Target, self.path)

    def get(self, name: str) -> models.Target:
        return self._read(models.Target, self._at(name))

    def find(self, name: str) -> models.Target | None:
        return _found(lambda: self.get(name))

    def add(self, name: str, url: str, *, pool: str | None = None, key: str | None = None) -> models.Target:
        body = {"name": name, "url": url} | ({"pool": pool} if pool else {})
        return self._write(models.Target, self.path, body, key)

    def remove(self, name: str, *, gone: bool = False, key: str | None = None) -> None:
        """`gone` declares that the target is lost, with everything on it."""
        self._wire.call(Call("DELETE", self._at(name), {"gone": gone or None}, key=key))


class Workers(Resource):
    path = "/v1/workers"

    def list(self) -> Iterator[models.Worker]:
        return self._pages(models.Worker, self.path)

    def get(self, worker_id: str) -> models.Worker:
        return self._read(models.Worker, self._at(worker_id))

    def join_token(self, target: str, *, key: str | None = None) -> models.Token:
        """A token with which one worker may enrol in the pool of `target` within 15 minutes."""
        return self._write(models.Token, f"{self.path}:join-token", {"target": target}, key)

    def drain(self, worker_id: str, *, key: str | None = None) -> models.Worker:
        return self._write(models.Worker, self._at(worker_id, ":drain"), None, key)

    def revoke(self, worker_id: str, *, key: str | None = None) -> models.Worker:
        return self._write(models.Worker, self._at(worker_id, ":revoke"), None, key)


class Tokens(Resource):
    path = "/v1/tokens"

    def list(self) -> Iterator[models.Token]:
        return self._pages(models.Token, self.path)

    def create(
        self, name: str, *, scopes: tuple[str, ...] = (), expires_at: datetime | None = None, key: str | None = None
    ) -> models.Token:
        """The answer holds the secret, once."""
        body: dict[str, Any] = {"name": name}
        if scopes:
            body["scopes"] = list(scopes)
        if expires_at:
            body["expires_at"] = expires_at.isoformat()
        return self._write(models.Token, self.path, body, key)

    def revoke(self, token_id: str, *, key: str | None = None) -> None:
        self._wire.call(Call("DELETE", self._at(token_id), key=key))


class Organizations(Resource):
    path = "/v1/organizations"

    def list(self) -> Iterator[models.Organization]:
        return self._pages(models.Organization, self.path)

    def create(self, name: str, *, key: str | None = None) -> models.Organization:
        return self._write(models.Organization, self.path, {"name": name}, key)


class Events(Resource):
    path = "/v1/events"

    def list(self, *, after: int | str | None = None, subject: str | None = None) -> Iterator[models.Event]:
        """Facts in the order of the log, from the one after position `after`."""
        return self._pages(models.Event, self.path, after=after, subject=subject)

    def watch(
        self,
        *,
        after: int | None = None,
        subject: str | None = None,
        instance: str | None = None,
        types: Sequence[str] = (),
        lost: Callable[[ClientError], None] = lambda error: None,
    ) -> Iterator[models.Event]:
        """Facts as they happen, each once and in the order of the log: those after position `after`, or only new ones.

        `instance` is a name or an id; each of `types` a type, or the beginning of some up to a dot. Goes on by itself, without a
        gap, when the connection is lost; `lost` is told each time. Ends when the caller stops reading. Raises `ProblemError` where
        the server says no, `Unreachable` once it was away for five minutes, or for half a minute before it ever answered.
        """
        query = {"after": after, "subject": subject, "instance": instance, "type": tuple(types) or None}
        place, pause, patience = "", 1.0, PATIENCE
        away_since: float | None = None
        while True:
            call = Call("GET", "/v1/stream", query, headers={"Last-Event-ID": place} if place else {})
            try:
                with self._wire.messages(call) as messages:
                    for message in messages:
                        away_since, patience = None, OUTAGE
                        place, pause = message.id or place, message.retry or pause
                        if message.data:
                            yield models.Event.model_validate_json(message.data)
                rest = pause
            except (Unreachable, ProblemError) as error:
                away_since = away_since or time.monotonic()
                if not _passing(error) or time.monotonic() - away_since > patience:
                    raise
                lost(error)
                rest = max(pause, getattr(error, "retry_after", None) or 0.0)
            time.sleep(rest)


class Audit(Resource):
    path = "/v1/audit"

    def list(
        self,
        *,
        subject: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        after: int | None = None,
    ) -> Iterator[models.AuditRecord]:
        """Who did what, oldest first; with `after`, sealed records above that number, in the order of their chain."""
        return self._pages(models.AuditRecord, self.path, subject=subject, actor=actor, action=action, after=after)

    def head(self) -> models.AuditHead:
        """Where the chain of sealed records ends. Raises `ProblemError` (404) where nothing is sealed yet."""
        return self._read(models.AuditHead, f"{self.path}/head")

    def export(self, *, after: int = 0) -> Iterator[bytes]:
        """The lines of an export of the records above `after` up to the present head, page by page.

        What was exported verifies without a server (`spectrum.core.audit.verify`); it is not verified here.
        Raises `ClientError` where the chain ends before `after`.
        """
        head = self._wire.call(Call("GET", f"{self.path}/head")).body
        last: int = head["number"]
        if after > last:
            raise ClientError(
                f"There is no record {after} yet: the chain ends with record {last}", "spectrum audit list"
            )
        sealed = self._items(self.path, after=after, limit=EXPORT_PAGE)
        records = takewhile(lambda record: record["seal"]["number"] <= last, sealed)
        first = next(records, None)
        yield header_line(head["organization_id"], first["seal"]["number"] - 1 if first else last)
        yield from map(line, chain([first] if first else [], records))
        yield head_line(head)


def settled(job: models.Job) -> models.Job:
    """The same job if it succeeded; raises `JobFailed` if it did not."""
    if job.state != "succeeded":
        raise JobFailed(job)
    return job


def _command(
    verb: str,
    name: str,
    spec: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
    generation: int | None = None,
    key: str | None = None,
) -> Call:
    path = f"{Instances.path}/{quote(name, safe='')}"
    query = query or {}
    match verb:
        case "create":
            return Call("POST", Instances.path, query, {"name": name, **(spec or {})}, key=key)
        case "apply":
            headers = {} if generation is None else {"If-Match": f'"{generation}"'}
            return Call("PUT", path, query, dict(spec or {}), headers, key)
        case "delete":
            return Call("DELETE", path, query, key=key)
        case _:
            return Call("POST", f"{path}:{quote(verb, safe='')}", query, key=key)


def _arrived(instance: models.Instance) -> bool:
    if instance.hold != "none" or instance.lifecycle in ("deleted", "purged", "failed"):
        return True
    healthy = instance.lifecycle != "running" or instance.health == "healthy"
    return instance.lifecycle == instance.desired_state and healthy


def _found(read: Callable[[], M]) -> M | None:
    try:
        return read()
    except ProblemError as problem:
        if problem.status == 404:
            return None
        raise


def _passing(error: Unreachable | ProblemError) -> bool:
    """Whether a wait puts up with it: a server that is away or restarting."""
    return isinstance(error, Unreachable) or error.status in AGAIN


def _wait_text(seconds: float) -> str:
    """As the API reads durations: whole numbers."""
    return f"{seconds:.0f}s" if seconds >= 1 else f"{max(1, round(seconds * 1000))}ms"


def _pause(asked: float, hold: float, left: float | None) -> None:
    """Never ask in a hot loop: rest for what is left of a poll that was answered at once, at most a second."""
    rest = min(hold - (time.monotonic() - asked), 1.0, *(() if left is None else (left,)))
    if rest > 0:
        time.sleep(rest)
