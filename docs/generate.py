"""The documents that come from code: the OpenAPI document of the API, the diagrams of the transition tables, the commands.

`python -m docs.generate` writes them; with `--check` it names those that no longer are what the code says, and ends with 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import typer

from docs import contracts
from docs.dashboard import dashboard
from sim import ledger
from spectrum.api.app import create_app
from spectrum.cli.app import build
from spectrum.cli.command import SHARED
from spectrum.core.jobs.table import (
    ENDS_OWNERSHIP,
    JOBS,
    NEEDS_OWNERSHIP,
    STEPS,
    TERMINAL,
    Case,
    JobState,
    StepCase,
    StepState,
)

FOLDER = Path(__file__).parent

Table = Mapping[tuple[Any, Any], Mapping[Any, Any]]


def openapi() -> str:
    """The OpenAPI 3.1 document, as the API serves it at /openapi.json."""
    app = create_app(cast(Any, None))  # no handler is called, so no service is asked
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def state_machine() -> str:
    """What may follow what, for jobs and their steps."""
    step_ends = (StepState.DONE, StepState.SKIPPED, StepState.UNDONE, StepState.UNDO_FAILED)
    owned = ", ".join(f"*{trigger}* ({needed})" for trigger, needed in NEEDS_OWNERSHIP.items())
    return f"""\
# The state machine of jobs and steps

Made from the transition tables in `spectrum.core.jobs.table` by `make docs`: change them there. A pair that is not listed is
refused with 409 and changes nothing. In brackets: on what the next state depends; *touched* is a job or step with an intent.

## Jobs

{_diagram(JOBS, JobState, JobState.WAITING, [state for state in JobState if state in TERMINAL])}

Who must own the job for it: {owned}. After {_listed(trigger.value for trigger in ENDS_OWNERSHIP)} the fence is raised and nobody
owns the job.

{_table(JOBS, "job")}
## Steps

A step that is done stays done when its job succeeds; when its job unwinds, it goes on to be undone.

{_diagram(STEPS, StepState, StepState.PENDING, step_ends)}

{_table(STEPS, "step")}"""


def _diagram(table: Table, states: type[StrEnum], first: StrEnum, last: Iterable[StrEnum]) -> str:
    lines = [f"    [*] --> {first.value}"]
    for source in states:
        by_target: dict[StrEnum, list[str]] = {}
        for trigger, case, target in _moves(table, source):
            by_target.setdefault(target, []).append(_labelled(trigger, case))
        lines += [f"    {source.value} --> {target.value} : {', '.join(why)}" for target, why in by_target.items()]
    lines += [f"    {state.value} --> [*]" for state in last]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def _table(table: Table, what: str) -> str:
    lines = [f"| {what} | what happens | next |", "|---|---|---|"]
    for (source, trigger), cases in table.items():
        following = "; ".join(
            target.value if case.value == "always" else f"{case.value}: {target.value}"
            for case, target in cases.items()
        )
        lines.append(f"| {source.value} | {trigger.value} | {following} |")
    return "\n".join(lines) + "\n"


def _moves(table: Table, source: StrEnum) -> Iterator[tuple[StrEnum, Case | StepCase, StrEnum]]:
    for (state, trigger), cases in table.items():
        if state is source:
            yield from ((trigger, case, target) for case, target in cases.items())


def _labelled(trigger: StrEnum, case: Case | StepCase) -> str:
    return trigger.value if case.value == "always" else f"{trigger.value} [{case.value}]"


def _listed(words: Iterable[str]) -> str:
    *most, last = sorted(f"*{word}*" for word in words)
    return f"{', '.join(most)} or {last}" if most else last


# ---- the commands


def commands() -> str:
    """Every command of the CLI with its arguments and options; those that all commands share are told once."""
    root = _command(build())
    sections = [_noun(name, command) for name, command in root.commands.items() if _verbs(command)]
    plain = [_verb(name, command) for name, command in root.commands.items() if not _verbs(command)]
    return (
        f"""\
# The commands of `spectrum`

Made from the command line's own code by `make docs`: change it there. What all commands do alike, and the exit codes, are told in
[jobs and holds](jobs-and-holds.md#exit-codes-of-spectrum).

Data goes to stdout, messages go to stderr. Where to connect: `--url` with `--token-file`, or `--context`; else `SPECTRUM_URL` and
`SPECTRUM_TOKEN`, `SPECTRUM_CONTEXT`, or `SPECTRUM_HOME`; else the nearest `.spectrum/` upwards from the current folder; else the
context of the last `spectrum login`.

Shared options, where they make sense:

{_shared(root)}

## On this machine, and signing in

{"".join(plain)}
{"".join(sections)}""".rstrip()
        + "\n"
    )


def _shared(root: Any) -> str:
    most = _verbs(root.commands["instance"])["start"]  # a command that starts a job takes them all
    return "\n".join(_option(each) for each in most.params if _is_shared(each))


def _noun(name: str, group: Any) -> str:
    verbs = "".join(_verb(f"{name} {verb}", command) for verb, command in _verbs(group).items())
    return f"## {name}\n\n{group.help}\n\n{verbs}\n"


def _verb(name: str, command: Any) -> str:
    own = [each for each in command.params if not _is_shared(each)]
    arguments = "".join(f" {each.metavar or each.name.upper()}" for each in own if not _is_option(each))
    options = "".join(f"  {_option(each)}\n" for each in own if _is_option(each))
    return f"* `spectrum {name}{arguments}` · {command.help}\n{options}"


def _option(option: Any) -> str:
    needed = " (needed)" if option.required else ""
    return f"* `{' '.join((*option.opts, *option.secondary_opts))}`{needed} {option.help}"


def _is_shared(parameter: Any) -> bool:
    return bool(SHARED.get(parameter.name) == parameter.help)


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _verbs(command: Any) -> dict[str, Any]:
    return dict(getattr(command, "commands", {}))


def _command(app: typer.Typer) -> Any:
    return typer.main.get_command(app)


def documents() -> dict[str, str]:
    """Everything that is made from code, by its path in this folder."""
    return {
        "openapi.json": openapi(),
        "state-machine.md": state_machine(),
        "cli.md": commands(),
        "proof.md": ledger.render(),
        "../deploy/grafana/spectrum.json": dashboard(),
        **{f"events/{name}": text for name, text in contracts.documents().items()},
    }


def stale() -> list[str]:
    """The documents that are not what the code says, and those of events that are not told."""
    made = documents()
    known = {*made, f"events/{contracts.PUBLISHED.name}"}
    left = [name for path in contracts.FOLDER.glob("*.json") if (name := f"events/{path.name}") not in known]
    return [name for name, text in made.items() if not _is(FOLDER / name, text)] + left


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        for name in (wrong := stale()):
            print(f"docs/{name} is not what the code says: run `make docs`", file=sys.stderr)
        for why in (broken := contracts.broken()):
            print(f"{why}: make it a new version with an upcaster", file=sys.stderr)
        return 1 if wrong or broken else 0
    for name in stale():
        (FOLDER / name).unlink(missing_ok=True)
    for name, text in documents().items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
