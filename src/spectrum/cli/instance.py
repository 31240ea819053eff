"""`spectrum instance …`: make, look at, change and end instances."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.errors import UsageError, why
from spectrum.cli.session import Output, Session, duration

if TYPE_CHECKING:
    from spectrum.cli.output import Columns
    from spectrum.sdk.models import Instance, Job

NOUN = "instance"
SPEC = ("product", "release", "plan", "target", "labels", "parameters", "desired_state")

Name = Annotated[str, typer.Argument(help="The instance's name or id.", metavar="NAME")]

COLUMNS: Columns = (
    ("NAME", lambda i: i.name),
    ("PRODUCT", lambda i: f"{i.product}@{i.release}" if i.release else i.product),
    ("PLAN", lambda i: i.plan),
    ("TARGET", lambda i: i.target),
    ("LIFECYCLE", lambda i: i.lifecycle),
    ("HEALTH", lambda i: i.health),
    ("HOLD", lambda i: i.hold),
    ("URL", lambda i: i.url),
)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "Customers' environments.")
    verb(group, "create", Kind.JOB, NOUN)(create)
    verb(group, "apply", Kind.JOB, NOUN)(apply)
    verb(group, "list", Kind.READ, NOUN)(list_instances)
    for name in ("show", "describe"):
        verb(group, name, Kind.READ, NOUN)(show)
    verb(group, "wait", Kind.JOB, NOUN)(wait)
    verb(group, "logs", Kind.READ, NOUN)(logs)
    for name, function in _ACTIONS.items():
        verb(group, name, Kind.JOB, NOUN)(function)


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="A DNS label.", metavar="NAME")],
    product: Annotated[str, typer.Option(help="The product, as NAME or NAME@VERSION.")],
    plan: Annotated[str | None, typer.Option(help="A plan of the release; by default its default.")] = None,
    target: Annotated[str | None, typer.Option(help="Where it runs.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="A parameter: key=value, or key=@file.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label: key=value.")] = None,
) -> None:
    """Make an instance."""
    product_name, _, release = product.partition("@")
    spec: dict[str, Any] = {"product": product_name}
    optional = {"release": release, "plan": plan, "target": target, "labels": _pairs(label, "--label")}
    spec |= {key: value for key, value in optional.items() if value}
    if given := _pairs(param, "--param"):
        spec["parameters"] = _typed(session, product_name, release, given)
    if session.options.dry_run:
        _show_plan(session, "create", name, spec)
    else:
        _finish(session, session.client.instances.create(name, spec, key=session.key))


def apply(
    session: Session,
    file: Annotated[str, typer.Option("--file", "-f", help="A YAML or JSON file with name and spec; - is stdin.")],
) -> None:
    """Make an instance be as a file says; nothing is done where it already is."""
    for document in _documents(file):
        name = document.pop("name", None)
        unknown = sorted(set(document) - set(SPEC))
        if not isinstance(name, str) or unknown:
            wrong = f"{', '.join(unknown)} is not known" if unknown else "it has no name"
            raise UsageError(f"{file} does not describe an instance: {wrong}", f"Use name, {', '.join(SPEC)}")
        if session.options.dry_run:
            _show_plan(session, "apply", name, document)
            continue
        job = session.client.instances.apply(name, document, key=session.key)
        if job is None:
            session.say(f"Instance {name} is as {file} says")
            session.show(session.client.instances.get(name), COLUMNS)
        else:
            _finish(session, job)


def list_instances(
    session: Session,
    product: Annotated[str | None, typer.Option(help="Only of this product.")] = None,
    target: Annotated[str | None, typer.Option(help="Only on this target.")] = None,
    lifecycle: Annotated[str | None, typer.Option(help="Only in this state, such as running.")] = None,
    hold: Annotated[str | None, typer.Option(help="Only with this hold, such as quarantined.")] = None,
    health: Annotated[str | None, typer.Option(help="Only with this health, such as unhealthy.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label: key=value.")] = None,
) -> None:
    """List instances."""
    found = session.client.instances.list(
        product=product, target=target, lifecycle=lifecycle, hold=hold, health=health, label=label
    )
    session.show_all(found, COLUMNS)


def show(session: Session, name: Name) -> None:
    """Show everything about an instance."""
    instance = session.client.instances.get(name)
    session.show(instance, COLUMNS, lambda: _long(instance))


def wait(session: Session, name: Name) -> None:
    """Wait until no job works on an instance and it is where it should be."""
    from spectrum.sdk.errors import ClientError, ExitCode

    instance = session.client.instances.wait(name, timeout=session.seconds)
    session.show(instance, COLUMNS)
    if instance.hold == "quarantined":
        error = ClientError(f"Instance {name} is quarantined", f"spectrum instance resolve {name}")
        error.exit_code = ExitCode.QUARANTINED
        raise error
    if instance.lifecycle == "failed":
        error = ClientError(f"Instance {name} could not be made", f"spectrum job list --instance {name}")
        error.exit_code = ExitCode.JOB_FAILED
        raise error


def logs(
    session: Session,
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines until Ctrl-C.")] = False,
    since: Annotated[str | None, typer.Option(help="Only newer lines: 10m, or a time (RFC 3339).")] = None,
    service: Annotated[str | None, typer.Option(help="Only of this service.")] = None,
    tail: Annotated[int | None, typer.Option(help="Only the last N lines.")] = None,
) -> None:
    """Print what an instance's services logged, oldest first."""
    start = _moment(since) if since else None
    lines = session.client.instances.logs(name, service=service, since=start, tail=tail, follow=follow)
    for line in lines:
        if session.options.output is Output.JSON:
            sys.stdout.write(line.model_dump_json() + "\n")
        else:
            sys.stdout.write(f"{line.service}  {line.text}\n" if service is None else f"{line.text}\n")
        sys.stdout.flush()


def start(session: Session, name: Name) -> None:
    """Start a stopped instance."""
    _act(session, "start", name)


def stop(session: Session, name: Name) -> None:
    """Stop an instance; its data stays."""
    _act(session, "stop", name)


def restart(session: Session, name: Name) -> None:
    """Stop and start an instance's services."""
    _act(session, "restart", name)


def delete(session: Session, name: Name) -> None:
    """Delete an instance; `undelete` brings it back until its retention is over."""
    _act(session, "delete", name)


def undelete(session: Session, name: Name) -> None:
    """Bring a deleted instance back."""
    _act(session, "undelete", name)


def purge(session: Session, name: Name) -> None:
    """Destroy a deleted instance and its data, for good."""
    if not session.options.dry_run:
        session.confirm(f"Destroy instance {name} and its data for good?")
    _act(session, "purge", name)


def resolve(session: Session, name: Name) -> None:
    """Look again at a quarantined instance, remove its residue, lift the hold."""
    _act(session, "resolve", name)


_ACTIONS = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "delete": delete,
    "undelete": undelete,
    "purge": purge,
    "resolve": resolve,
}


def _act(session: Session, what: str, name: str) -> None:
    if session.options.dry_run:
        _show_plan(session, what, name)
    else:
        _finish(session, session.client.instances.act(what, name, key=session.key))


def _finish(session: Session, job: Job) -> None:
    """Wait if wanted; print the instance as it is then, or the job that goes on or has left nothing."""
    from spectrum.cli.job import COLUMNS as JOB_COLUMNS

    if not session.options.wait:
        session.say(f"The job goes on. Watch it: spectrum job watch {job.id}")
        session.show(job, JOB_COLUMNS)
        return
    job = session.finish(job)
    instance = session.client.instances.find(job.subject.id)
    if instance is None:
        session.show(job, JOB_COLUMNS)
    else:
        session.show(instance, COLUMNS)


def _show_plan(session: Session, what: str, name: str, spec: dict[str, Any] | None = None) -> None:
    from spectrum.cli.output import table

    plan = session.client.instances.plan(what, name, spec)
    rows = [(step.name, ",".join(step.needs) or "-", step.slot or "-") for step in plan.steps]
    text = table(("STEP", "NEEDS", "SLOT"), rows) + f"plan {plan.plan_hash}\n"
    session.show_data(plan.as_json(), lambda: text, plan.plan_hash)


def _long(instance: Instance) -> str:
    from spectrum.cli.output import cell, fields, rows_section, section

    head = fields(
        (
            ("Name", instance.name),
            ("Id", instance.id),
            ("URL", instance.url),
            ("Product", f"{instance.product}@{instance.release}"),
            ("Plan", instance.plan),
            ("Target", instance.target),
            ("Lifecycle", instance.lifecycle),
            ("Desired", instance.desired_state),
            ("Health", instance.health),
            ("Hold", instance.hold),
            ("Generation", f"{instance.generation} (accepted {cell(instance.accepted_generation)})"),
            ("Active job", instance.active_job_id),
            ("Labels", instance.labels),
            ("Created", instance.created_at),
            ("Deleted", instance.deleted_at),
            ("Purge due", instance.purge_at),
        )
    )
    services = [(s.name, s.state, s.health, str(s.restarts), cell(s.ports)) for s in instance.services]
    conditions = [(c.type, c.status, c.reason, c.message) for c in instance.conditions]
    actions = [(a.verb, cell(a.allowed), cell(a.reason)) for a in instance.actions]
    return "".join(
        (
            head,
            section("Endpoints", fields([(e.name, e.url) for e in instance.endpoints])),
            rows_section("Services", ("NAME", "STATE", "HEALTH", "RESTARTS", "PORTS"), services),
            section("Parameters", fields([(k, _parameter(v)) for k, v in instance.parameters.items()])),
            section("Outputs", fields(list(instance.outputs.items()))),
            rows_section("Conditions", ("TYPE", "STATUS", "REASON", "MESSAGE"), conditions),
            rows_section("Actions", ("VERB", "ALLOWED", "REASON"), actions),
        )
    )


def _parameter(value: Any) -> Any:
    if isinstance(value, dict) and value.get("secret"):
        return f"(secret, version {value.get('version', 1)})"
    return value


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text} has no value", f"Write it as {option} key=value")
        pairs[key] = _contents(value[1:]) if value.startswith("@") and option == "--param" else value
    return pairs


def _contents(path: str) -> str:
    """A value from a file, so that a secret need not be an argument; the line break that editors add is dropped."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The value in {path} cannot be read: {why(error)}", "Check the path") from None
    return text.removesuffix("\n")


def _typed(session: Session, product: str, release: str, given: dict[str, str]) -> dict[str, Any]:
    """Values in the types that the release declares; what it does not know goes as it is, for the server to refuse."""
    version = release or session.client.products.get(product).latest
    declared = session.client.products.release(product, version).parameters if version else {}
    return {key: _cast(key, value, declared.get(key)) for key, value in given.items()}


def _cast(key: str, text: str, declared: Any) -> Any:
    kind = declared.get("type") if isinstance(declared, dict) else None
    try:
        match kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case _:
                return text
    except (ValueError, KeyError):
        raise UsageError(f"Parameter {key} is of type {kind} and {text!r} is not", f"--param {key}=…") from None


def _documents(file: str) -> list[dict[str, Any]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        documents = [document for document in YAML(typ="safe", pure=True).load_all(text) if document is not None]
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UsageError(f"{file} cannot be read: {why(error)}", "Check the path, and that it is YAML") from None
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise UsageError(f"{file} does not describe an instance", f"Use name, {', '.join(SPEC)}")
    return documents


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
