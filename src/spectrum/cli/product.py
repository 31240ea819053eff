"""`spectrum product …`: check, publish and look at products and their releases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum.cli.command import Kind, nouns, verb
from spectrum.cli.errors import place_lines
from spectrum.cli.session import Session

if TYPE_CHECKING:
    from spectrum.cli.output import Columns
    from spectrum.core.errors import Where
    from spectrum.sdk.folder import Bundle
    from spectrum.sdk.models import Product, Release

NOUN = "product"
COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")

File = Annotated[Path, typer.Argument(help="A Compose file with an x-spectrum block, or its folder.", metavar="FILE")]

COLUMNS: Columns = (
    ("NAME", lambda p: p.name),
    ("LATEST", lambda p: p.latest),
    ("RELEASES", lambda p: p.releases),
)
RELEASE_COLUMNS: Columns = (
    ("RELEASE", lambda r: f"{r.product}@{r.version}"),
    ("DIGEST", lambda r: r.digest[:19]),
    ("CREATED", lambda r: r.created_at),
)


def register(app: typer.Typer) -> None:
    group = nouns(app, NOUN, "What is offered, and its releases.")
    verb(group, "validate", Kind.LOCAL, NOUN)(validate)
    verb(group, "publish", Kind.WRITE, NOUN)(publish)
    verb(group, "list", Kind.READ, NOUN)(list_products)
    verb(group, "show", Kind.READ, NOUN)(show)
    verb(group, "releases", Kind.READ, NOUN)(releases)


def validate(session: Session, file: File) -> None:
    """Check a product file as publishing does, without a server."""
    bundle = _collect(session, file)
    data = {
        "product": bundle.product,
        "version": bundle.version,
        "digest": bundle.digest,
        "files": sorted(bundle.files),
    }
    label = f"{bundle.product}@{bundle.version}"
    session.show_data(data, lambda: f"{label} is valid ({bundle.digest[:19]})\n", label)


def publish(session: Session, file: File) -> None:
    """Publish a release. The same text again is the same release."""
    bundle = _collect(session, file)
    release = session.client.products.publish(bundle.product, bundle.file, bundle.files, key=session.key)
    session.show(release, RELEASE_COLUMNS)


def list_products(session: Session) -> None:
    """List products."""
    session.show_all(session.client.products.list(), COLUMNS)


def show(
    session: Session, name: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.", metavar="NAME[@VERSION]")]
) -> None:
    """Show a product, or one release of it."""
    product, _, version = name.partition("@")
    if version:
        release = session.client.products.release(product, version)
        session.show(release, RELEASE_COLUMNS, lambda: _long_release(release))
    else:
        found = session.client.products.get(product)
        session.show(found, COLUMNS, lambda: _long(found))


def releases(session: Session, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """List the releases of a product, newest first."""
    session.show_all(session.client.products.releases(name), RELEASE_COLUMNS)


def _collect(session: Session, file: Path) -> Bundle:
    from spectrum.sdk.folder import collect

    if file.is_dir():
        file = next((file / name for name in COMPOSE_NAMES if (file / name).exists()), file / COMPOSE_NAMES[0])
    bundle = collect(file)
    _say_notes(session, bundle.notes)
    return bundle


def _say_notes(session: Session, notes: tuple[Where, ...]) -> None:
    for note in notes:
        session.say("\n".join(["note:", *place_lines(note)]))


def _long(product: Product) -> str:
    from spectrum.cli.output import fields

    return fields(
        (
            ("Name", product.name),
            ("Latest", product.latest),
            ("Releases", product.releases),
            ("Created", product.created_at),
        )
    )


def _long_release(release: Release) -> str:
    from spectrum.cli.output import fields, rows_section

    head = fields(
        (
            ("Product", release.product),
            ("Version", release.version),
            ("Digest", release.digest),
            ("Created", release.created_at),
            ("Plans", ", ".join(_plan_name(plan) for plan in release.plans)),
        )
    )
    rows = [_parameter_row(name, declared) for name, declared in release.parameters.items()]
    return head + rows_section("Parameters", ("NAME", "TYPE", "DEFAULT", "MUTABLE"), rows)


def _parameter_row(name: str, declared: Any) -> tuple[str, ...]:
    from spectrum.cli.output import cell

    known = declared if isinstance(declared, dict) else {}
    default = "(secret)" if known.get("secret") else cell(known.get("default"))
    return (name, str(known.get("type", "-")), default, cell(bool(known.get("mutable"))))


def _plan_name(plan: Any) -> str:
    if not isinstance(plan, dict):
        return str(plan)
    return f"{plan.get('name', plan)} (default)" if plan.get("default") else str(plan.get("name", plan))
