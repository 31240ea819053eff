"""Resolve: look at a quarantined instance again, bring every slot to what it is wanted to be, and lift the hold."""

from __future__ import annotations

from spectrum.core.jobs.table import Lifecycle, Wants
from spectrum.core.plan import Given, Node, Operation, Plan
from spectrum.operations import steps


def plan(given: Given) -> Plan:
    wanted = given.wanted(effect.slot for effect in given.effects)
    unwanted = [_remove(slot) for slot, key in wanted.items() if key is None and slot != steps.BASE]
    present = _present(wanted)
    if wanted.get(steps.BASE, "") is None:
        unwanted.append(_remove(steps.BASE, steps.names(unwanted)))
    nodes = unwanted + present
    nodes.append(steps.verify_as_wanted(wanted, steps.names(nodes)))
    return steps.as_plan(nodes)


def _remove(slot: str, needs: tuple[str, ...] = ()) -> Node:
    name = f"remove-{slot.replace('/', '-')}"
    return Node(name, "remove", slot, Wants.ABSENT, needs, destructive=True, tries=steps.PLENTY)


def _present(wanted: dict[str, str | None]) -> list[Node]:
    """Base first, then volumes, then the rest."""
    order = sorted(
        (slot for slot, key in wanted.items() if key), key=lambda s: (s != steps.BASE, s.split("/")[1] != "volume", s)
    )
    nodes: list[Node] = []
    for slot in order:
        name = f"ensure-{slot.replace('/', '-')}"
        nodes.append(
            Node(name, "ensure", slot, Wants.PRESENT, steps.names(nodes), key=wanted[slot], tries=steps.PLENTY)
        )
    return nodes


OPERATION = Operation(
    name="resolve",
    version=1,
    allowed=frozenset(Lifecycle) - {Lifecycle.PURGED, Lifecycle.CREATING},
    plan=plan,
    actions=steps.ACTIONS,
    on_hold=True,
    clears_hold=True,
    needs_hold=True,
)
