"""From what a customer's environment is asked to be to a spec: release, plan, target, parameters, and sealed secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectrum.core.errors import Problem, Where
from spectrum.core.ids import ReleaseId
from spectrum.core.jobs.commands import Secret
from spectrum.core.jobs.model import Spec
from spectrum.core.jobs.table import Desired
from spectrum.core.product.parameters import Value
from spectrum.core.product.release import Release
from spectrum.core.product.render import secrets_to_generate, validate_parameters
from spectrum.core.product.report import nearest, plain_text
from spectrum.core.sealing import ENTROPY_BYTES, Context, Keyring
from spectrum.db.pools import Connection
from spectrum.db.sql import query
from spectrum.db.visits import Row
from spectrum.ports import Entropy

_RELEASE_CHOICE = query("release_choice")
_TARGET_CHOICES = query("target_choices")

USUAL_TARGET = "local"
BYTE = 256


@dataclass(frozen=True, slots=True)
class Order:
    """What an environment is asked to be. None: nothing is said about it."""

    product: str
    release: str | None = None
    plan: str | None = None
    target: str | None = None
    labels: Mapping[str, str] | None = None
    parameters: Mapping[str, Any] | None = None
    desired_state: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The release and the target that an order means."""

    release_id: ReleaseId
    release: Release
    plan: str
    target: Row

    def spec(self, values: Mapping[str, Value]) -> Spec:
        """The spec with these parameters; secrets are left out."""
        release = self.release
        open_values = {name: value for name, value in values.items() if not release.parameters[name].secret}
        return Spec(release.product, release.version, self.release_id, self.plan, open_values, Desired.RUNNING)


async def choose(connection: Connection, organization: str, order: Order) -> Choice:
    """The newest release, its default plan and the usual target, where nothing else is asked for.

    Raises Problem `invalid-parameter` with a pointer to what does not exist or does not fit.
    """
    row = await connection.fetchrow(_RELEASE_CHOICE, organization, order.product, order.release)
    if row is None:
        raise await _no_release(connection, organization, order)
    release = Release(row["document"])
    plan = order.plan or release.default_plan
    release.plan(plan)
    target = await _target(connection, organization, order.target)
    kind = target["url"].partition(":")[0]
    if kind not in release.kinds:
        what = f"{release.product} {release.version} does not run on {kind} targets such as {target['name']}"
        hint = f"It runs on: {', '.join(release.kinds)}."
        raise Problem("invalid-parameter", f"{what}.", (Where(what, "/target", hint=hint),))
    return Choice(ReleaseId(row["id"]), release, plan, target)


async def _no_release(connection: Connection, organization: str, order: Order) -> Problem:
    known = await connection.fetchrow(_RELEASE_CHOICE, organization, order.product, None)
    if known is None:
        what = f"there is no product {order.product!r} with a release"
        where = Where(what, "/product", hint="See: spectrum product list")
    else:
        what = f"there is no release {order.product}@{order.release}"
        where = Where(what, "/release", hint=f"See: spectrum product releases {order.product}")
    return Problem("invalid-parameter", f"{what[0].upper()}{what[1:]}.", (where,))


async def _target(connection: Connection, organization: str, name: str | None) -> Row:
    found = await connection.fetch(_TARGET_CHOICES, organization, name)
    usual = [row for row in found if row["name"] == USUAL_TARGET]
    if name is not None and found:
        return found[0]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    return _refuse_target(name, [row["name"] for row in await connection.fetch(_TARGET_CHOICES, organization, None)])


def _refuse_target(name: str | None, known: list[str]) -> Row:
    if not known:
        what, hint = "there is no target to run instances on", "Add one: spectrum target add NAME URL"
    elif name is None:
        what, hint = "there are several targets, and none is named local: say which one", nearest("", known)
    else:
        what, hint = f"there is no target {name!r}", nearest(name, known)
    raise Problem("invalid-parameter", f"target: {what}.", (Where(what, "/target", hint=hint),))


def check_desired_state(wanted: str | None) -> None:
    """What a new instance can be. Raises Problem `invalid-parameter`, `operation-not-available`."""
    if wanted == "suspended":
        raise Problem("operation-not-available", "This version can't suspend instances.")
    if wanted not in (None, Desired.RUNNING.value):
        what = "a new instance is started: its post-condition is that it answers"
        hint = "Leave desired_state out, and stop the instance once it runs."
        raise Problem("invalid-parameter", f"desired_state: {what}.", (Where(what, "/desired_state", hint=hint),))


def complete(release: Release, plan: str, given: Mapping[str, Any], entropy: Entropy) -> dict[str, Value]:
    """Every parameter of a new instance, missing secrets made. Raises Problem `invalid-parameter`."""
    values = validate_parameters(release, plan, given)
    made = {each.parameter: draw(entropy, each.alphabet, each.length) for each in secrets_to_generate(release, values)}
    return {**values, **made}


def draw(entropy: Entropy, alphabet: str, length: int) -> str:
    """A text of `length` characters, each drawn evenly from `alphabet`: bytes that would favour some are thrown away."""
    fair = BYTE - BYTE % len(alphabet)
    drawn: list[str] = []
    while len(drawn) < length:
        drawn += [alphabet[byte % len(alphabet)] for byte in entropy.token(2 * length) if byte < fair]
    return "".join(drawn[:length])


def seal(
    release: Release, values: Mapping[str, Value], instance_id: str, keyring: Keyring, entropy: Entropy
) -> tuple[Secret, ...]:
    """The secret parameters among `values` in their first version, as they are stored."""
    sealed = []
    for name in sorted(name for name in values if release.parameters[name].secret):
        text = plain_text(values[name]).encode()
        box = keyring.seal(text, Context("secrets", instance_id, name), entropy.token(ENTROPY_BYTES))
        sealed.append(Secret(name, 1, box.key_id, box.data))
    return tuple(sealed)
