"""The tree of commands: every noun with its verbs, and the verbs that need no noun."""

from __future__ import annotations

import typer

from spectrum.cli import (
    about,
    audit,
    context,
    event,
    instance,
    job,
    organization,
    product,
    server,
    system,
    target,
    token,
    topics,
    worker,
)

HELP = "Gives every customer an environment of its own: instances of your product, provisioned and operated for you."


def build() -> typer.Typer:
    """The whole command. The order of registration is the order of `spectrum --help`."""
    app = typer.Typer(
        name="spectrum",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: Rich alone would take two thirds of the time
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in (system, server, context, about):
        module.register(app)
    for noun in (product, instance, job, event, audit, target, worker, token, organization, topics):
        noun.register(app)
    return app
