"""What operations are made of: actions with their do and undo, and the nodes of the usual slots.

Slots: `instance/base`, `<volume>/volume`, `<service>/container`, `<service>/<hook>`. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spectrum.core.errors import Actor, ErrorClass, Fault
from spectrum.core.jobs.table import Wants
from spectrum.core.observation import Observed, Presence, SlotHealth, record_of
from spectrum.core.plan import Given, Node, Plan, PlanError
from spectrum.core.product.outline import HookOutline, Outline, ServiceOutline
from spectrum.operations.context import Action, Context, Output

BASE = "instance/base"
START_SECONDS = 60.0  # for a service without a health check
COMPLETE_SECONDS = 600.0  # for a service whose end others wait for, as for a hook
CHECK_SECONDS = 10.0  # one attempt at a check goes on looking for so long
LOOK_SECONDS = 0.5
PLENTY = 100_000  # tries: the step's deadline is the bound
UNWIND_SECONDS = 3600.0


# ---- actions


async def _stock(context: Context) -> Output:
    await context.stock()
    return {}


async def _ensure(context: Context) -> Output:
    return record_of(await context.ensure())


async def _remove(context: Context) -> Output:
    await context.remove()
    return {}


async def _restore(context: Context) -> Output:
    await context.restore()
    return {}


async def _run_hook(context: Context) -> Output:
    await context.ensure()
    return await _await_hook(context)


async def _await_hook(context: Context) -> Output:
    """Until the hook has ended. What it printed is the evidence."""
    slot = context.step.slot or ""
    while True:
        seen = await context.look(slot)
        if seen.exit is not None:
            break
        await context.pause(LOOK_SECONDS)
    if seen.exit.code != 0:
        message = f"Hook {slot} ended with exit code {seen.exit.code}."
        raise Fault(ErrorClass.INVALID, "hook-failed", message, actor=Actor.VENDOR, evidence=seen.exit.tail)
    return {"exit_code": 0, "tail": list(seen.exit.tail[-5:])}


async def _healthy(context: Context) -> Output:
    await _look_until_well(context)
    return {}


async def _verify_running(context: Context) -> Output:
    """The post-condition: every service is healthy, and the instance answers through its own endpoint."""
    await _look_until_well(context)
    for endpoint in context.step.arguments["endpoints"]:
        answer = await context.ask(endpoint)
        if not 200 <= answer.status < 400:
            what = answer.problem or f"it answered {answer.status}"
            raise Fault(ErrorClass.TRANSIENT, "endpoint-not-ready", f"Endpoint {endpoint}: {what}.", actor=Actor.VENDOR)
    return {**await context.describe(), "health": "healthy"}


async def _look_until_well(context: Context) -> None:
    """Return once all services of the step are healthy, or have ended as they are meant to.

    Raises `Fault` with the last log lines of those that are not: invalid once one of them can't be any more, transient after
    `CHECK_SECONDS`.
    """
    waited = 0.0
    while True:
        seen = await context.survey()
        states = {slot: seen.get(slot) for slot in _containers(context)}
        wrong = {slot: why for slot, one in states.items() if (why := _what_is_wrong(context, slot, one))}
        if not wrong:
            return
        ended = [slot for slot in wrong if (one := states[slot]) is not None and one.ended]
        if ended or waited >= CHECK_SECONDS:
            break
        await context.pause(LOOK_SECONDS)
        waited += LOOK_SECONDS
    named = ended or list(wrong)
    message = "; ".join(f"{slot.split('/')[0]} {wrong[slot]}" for slot in named)
    tail = tuple(line for slot in named if (one := states[slot]) is not None for line in one.tail)
    kind, code = (ErrorClass.INVALID, "service-ended") if ended else (ErrorClass.TRANSIENT, "not-healthy")
    raise Fault(kind, code, f"{message}.", actor=Actor.VENDOR, evidence=tail)


def _what_is_wrong(context: Context, slot: str, seen: Observed | None) -> str:
    service, arguments = slot.split("/")[0], context.step.arguments
    if seen is None or seen.presence is not Presence.PRESENT:
        return "is not there"
    how = f" (exit code {seen.exit.code})" if seen.exit is not None else ""
    if seen.ended:
        well = seen.exit is not None and seen.exit.code == 0 and service in arguments["may_end"]
        return "" if well else f"has ended{how} and is not started again"
    if service in arguments["must_end"]:
        return "has not completed"
    if not seen.running:
        return f"has ended{how}" if how else "is not running"
    return "" if seen.health is SlotHealth.HEALTHY else f"is {seen.health}"


async def _verify_stopped(context: Context) -> Output:
    seen = await context.survey()
    if alive := [slot for slot in _containers(context) if (one := seen.get(slot)) and one.running]:
        raise Fault(ErrorClass.TRANSIENT, "still-running", f"{', '.join(alive)} still runs.")
    return {**await context.describe(), "health": "unknown"}


def _containers(context: Context) -> list[str]:
    return [f"{service}/container" for service in context.step.arguments["services"]]


async def _verify_gone(context: Context) -> Output:
    """Gone is what was seen gone twice (research: deletes that were reported done and were not)."""
    for sighting in (1, 2):
        seen = await context.survey()
        if left := sorted(slot for slot, one in seen.items() if one.presence is not Presence.ABSENT):
            raise Fault(ErrorClass.TRANSIENT, "still-there", f"{', '.join(left)} is still there.")
        if sighting == 1:
            await context.pause(LOOK_SECONDS)
    return {"facts": {}, "services": []}


async def _verify_as_wanted(context: Context) -> Output:
    """Every slot is what the effects table wants it to be."""
    seen = await context.survey()
    for slot, key in context.step.arguments["wanted"].items():
        one = seen.get(slot)
        there = one is not None and one.presence is Presence.PRESENT
        if (key is None and there) or (key is not None and not (there and one is not None and one.key == key)):
            raise Fault(ErrorClass.TRANSIENT, "not-as-wanted", f"{slot} is not yet as it is wanted.")
    return {}


ACTIONS: Mapping[str, Action] = {
    "stock": Action(do=_stock),
    "ensure": Action(do=_ensure, undo=_restore, wants=Wants.PRESENT),
    "remove": Action(do=_remove, undo=_restore, wants=Wants.ABSENT),
    "hook": Action(do=_run_hook, undo=_restore, adopt=_await_hook, wants=Wants.PRESENT),
    "healthy": Action(do=_healthy),
    "verify-running": Action(do=_verify_running),
    "verify-stopped": Action(do=_verify_stopped),
    "verify-gone": Action(do=_verify_gone),
    "verify-as-wanted": Action(do=_verify_as_wanted),
}


# ---- nodes


def outline_of(given: Given) -> Outline:
    """The release's outline.

    Raises `PlanError` where the release can't run on this kind of target.
    """
    if not isinstance(given.outline, Outline):
        raise PlanError(f"this release does not run on {given.target_kind} targets")
    return given.outline


def stock() -> Node:
    return Node("stock", "stock", attempt_seconds=900.0, step_seconds=1800.0)


def base(needs: tuple[str, ...] = ()) -> Node:
    return Node("prepare", "ensure", BASE, Wants.PRESENT, needs)


def volume(name: str) -> Node:
    return Node(f"volume-{name}", "ensure", f"{name}/volume", Wants.PRESENT, ("prepare",))


def start(service: ServiceOutline, needs: tuple[str, ...]) -> Node:
    return Node(f"start-{service.name}", "ensure", f"{service.name}/container", Wants.PRESENT, needs)


def stop(service: ServiceOutline, needs: tuple[str, ...]) -> Node:
    seconds = service.stop_grace + 30.0
    return Node(
        f"stop-{service.name}",
        "remove",
        f"{service.name}/container",
        Wants.ABSENT,
        needs,
        destructive=True,
        attempt_seconds=seconds,
        step_seconds=seconds * 5,
    )


def healthy(service: ServiceOutline) -> Node:
    limit = COMPLETE_SECONDS if service.completes else (service.start_limit or START_SECONDS) + CHECK_SECONDS
    arguments = _to_be_well([service])
    return _check(f"healthy-{service.name}", "healthy", (f"start-{service.name}",), arguments, limit)


def hook(outline: HookOutline, needs: tuple[str, ...]) -> Node:
    return Node(
        f"{outline.name}-{outline.service}",
        "hook",
        f"{outline.service}/{outline.name}",
        Wants.PRESENT,
        needs,
        attempt_seconds=outline.timeout + 60.0,
        step_seconds=outline.timeout + 120.0,
    )


def _check(name: str, action: str, needs: tuple[str, ...], arguments: Mapping[str, Any], limit: float) -> Node:
    """A step without an effect, tried until its deadline."""
    return Node(
        name,
        action,
        needs=needs,
        arguments=arguments,
        tries=PLENTY,
        attempt_seconds=CHECK_SECONDS * 3,
        step_seconds=limit,
        retry_cap=1.0,
    )


def verify_running(outline: Outline, needs: tuple[str, ...]) -> Node:
    """All services, and the primary endpoint (or every one, where none is)."""
    endpoints = [e.name for e in outline.endpoints if e.primary] or [e.name for e in outline.endpoints]
    limit = max((service.start_limit or START_SECONDS for service in outline.services), default=START_SECONDS)
    arguments = {**_to_be_well(outline.services), "endpoints": endpoints}
    return _check("verify", "verify-running", needs, arguments, limit + 2 * CHECK_SECONDS)


def _to_be_well(services: Iterable[ServiceOutline]) -> Mapping[str, list[str]]:
    """The services of a check, and how each is well."""
    services = list(services)
    return {
        "services": [each.name for each in services],
        "may_end": [each.name for each in services if each.may_end],
        "must_end": [each.name for each in services if each.completes],
    }


def verify_stopped(outline: Outline, needs: tuple[str, ...]) -> Node:
    arguments = {"services": [service.name for service in outline.services]}
    return _check("verify", "verify-stopped", needs, arguments, START_SECONDS)


def verify_gone(needs: tuple[str, ...]) -> Node:
    return _check("verify", "verify-gone", needs, {}, START_SECONDS * 5)


def verify_as_wanted(wanted: Mapping[str, str | None], needs: tuple[str, ...]) -> Node:
    return _check("verify", "verify-as-wanted", needs, {"wanted": dict(wanted)}, START_SECONDS)


# ---- groups of nodes


def starting(outline: Outline, needs: tuple[str, ...] = (), *, hooks_on: str = "", volumes: bool = False) -> list[Node]:
    """Start every service once what it needs is there; the hooks on `hooks_on` run before their service starts.

    `volumes`: the plan makes the volumes too.
    """
    nodes: list[Node] = []
    for service in outline.services:
        before = (*needs, *(f"volume-{name}" for name in service.volumes if volumes), *_met(outline, service))
        hooks = [hook(each, before) for each in outline.hooks if each.service == service.name and hooks_on in each.on]
        nodes += hooks
        nodes.append(start(service, before + tuple(each.name for each in hooks)))
        if any(need.service == service.name for other in outline.services for need in other.needs):
            nodes.append(healthy(service))
    return nodes


def _met(outline: Outline, service: ServiceOutline) -> tuple[str, ...]:
    started = [need for need in service.needs if need.condition == "service_started"]
    others = [need for need in service.needs if need.condition != "service_started"]
    return tuple(f"start-{need.service}" for need in started) + tuple(f"healthy-{need.service}" for need in others)


def stopping(outline: Outline) -> list[Node]:
    """Stop every service, those that need it first."""
    nodes: list[Node] = []
    for service in reversed(outline.services):
        users = [other.name for other in outline.services if any(need.service == service.name for need in other.needs)]
        nodes.append(stop(service, tuple(f"stop-{name}" for name in users)))
    return nodes


def removing(given: Given) -> list[Node]:
    """Remove whatever the instance has or may have: services and hooks first, then volumes, then the base."""
    known = {effect.slot for effect in given.effects}
    if isinstance(given.outline, Outline):
        known |= {f"{service.name}/container" for service in given.outline.services}
        known |= {f"{name}/volume" for name in given.outline.volumes}
    units = sorted(slot for slot in known if slot != BASE and not slot.endswith("/volume"))
    volumes = sorted(slot for slot in known if slot.endswith("/volume"))
    first = [_take_away(slot, ()) for slot in units]
    then = [_take_away(slot, names(first)) for slot in volumes]
    return [*first, *then, _take_away(BASE, names([*first, *then]))]


def _take_away(slot: str, needs: tuple[str, ...]) -> Node:
    return Node(
        f"remove-{slot.replace('/', '-')}",
        "remove",
        slot,
        Wants.ABSENT,
        needs,
        irreversible=True,
        destructive=True,
        tries=PLENTY,
        attempt_seconds=120.0,
        step_seconds=3600.0,
    )


def names(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(node.name for node in nodes)


def as_plan(nodes: list[Node]) -> Plan:
    """The plan, with time for every step in turn."""
    return Plan(tuple(nodes), sum(node.step_seconds for node in nodes) + 60.0, UNWIND_SECONDS)
