"""`spectrum topics …`: the topics in Kafka, made and checked where the server's settings are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.errors import ERROR, UsageError
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.settings import Kafka
    from spectrum.transports.kafka.topics import Topic


def register(app: typer.Typer) -> None:
    group = nouns(app, "topics", "Topics in Kafka, for facts and hints.")
    verb(group, "check", Kind.LOCAL)(check)
    verb(group, "create", Kind.LOCAL)(create)


def check(session: Session) -> None:
    """Say what is wrong with the topics in the Kafka of SPECTRUM_BUS; exit code 1 if something is."""
    kafka = _kafka()
    from spectrum.transports.kafka import topics

    _show(session, topics.check(kafka))


def create(
    session: Session,
    partitions: Annotated[
        int, typer.Option(help="How many can be read side by side. More later would turn the order around.", min=1)
    ] = 12,
    replicas: Annotated[
        int | None, typer.Option(help="How many brokers keep each; by default three, or as many as there are.", min=1)
    ] = None,
    pools: Annotated[
        list[str] | None,
        typer.Option(
            "--pool", help="Also for hints to this pool of workers: its id, as the logs name it; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Make the topics that are missing in the Kafka of SPECTRUM_BUS. What is there stays as it is."""
    kafka = _kafka()
    from spectrum.core.events.catalogue import FACTS
    from spectrum.transports.kafka import topics
    from spectrum.transports.protocol import hints_topic

    names = (FACTS, *map(hints_topic, pools or ()))
    _show(session, [each for name in names for each in topics.create(kafka, partitions, replicas, name, dry_run)])


def _kafka() -> Kafka:
    from spectrum.settings import ServerSettings, load

    try:
        import confluent_kafka  # noqa: F401
    except ModuleNotFoundError as error:
        from spectrum.cli.server import missing

        raise missing(error, "server") from None
    kafka = load(ServerSettings).kafka
    if kafka is None:
        raise UsageError("SPECTRUM_BUS names no Kafka", "export SPECTRUM_BUS=kafka://HOST:9092, as for the server")
    return kafka


def _show(session: Session, found: Sequence[Topic]) -> None:
    session.show_data({"items": [asdict(topic) for topic in found]}, lambda: _text(found))
    for topic in found:
        for fault in topic.faults:
            session.say(f"error: {topic.name}: {fault}")
    if any(topic.faults for topic in found):
        raise typer.Exit(ERROR)


def _text(found: Sequence[Topic]) -> str:
    from spectrum.cli.output import cell, table

    rows = [(each.name, cell(each.partitions), cell(each.replicas), cell(dict(each.settings))) for each in found]
    return table(("NAME", "PARTITIONS", "REPLICAS", "SETTINGS"), rows)
