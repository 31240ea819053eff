"""The documents that come from code are what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import generate
from spectrum.core.jobs.table import JOBS, STEPS
from spectrum.sdk.folder import collect

LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)(?:#[^)]*)?\)")


def test_no_document_is_stale() -> None:
    assert generate.stale() == [], "run `make docs`"


def test_every_transition_is_in_the_diagram_and_in_the_table() -> None:
    text = generate.state_machine()
    for table in (JOBS, STEPS):
        for (state, trigger), cases in table.items():
            for following in cases.values():
                assert f"    {state.value} --> {following.value} : " in text
            assert f"| {state.value} | {trigger.value} |" in text


def test_the_openapi_document_holds_instances_and_jobs() -> None:
    paths = json.loads(generate.openapi())["paths"]
    assert {"/v1/instances", "/v1/instances/{instance}:{verb}", "/v1/jobs/{job_id}/why"} <= paths.keys()


def test_the_list_of_commands_shows_what_is_a_commands_own_and_tells_shared_options_once() -> None:
    text = generate.commands()
    assert "`spectrum instance create NAME` · Make an instance." in text
    assert "`spectrum login URL` · Sign in" in text
    assert text.count("`--dry-run`") == 1


def test_the_tutorials_product_is_valid_and_has_the_digest_that_is_printed_there(tmp_path: Path) -> None:
    text = (generate.FOLDER / "tutorial.md").read_text(encoding="utf-8")
    for name, block in (("server.py", "python"), ("compose.yaml", "yaml")):
        found = re.search(rf"```{block}\n(.*?)```", text, re.DOTALL)
        assert found
        (tmp_path / name).write_text(found[1], encoding="utf-8")
    (tmp_path / "requirements.txt").touch()
    bundle = collect(tmp_path / "compose.yaml")
    assert f"\n{bundle.product}@{bundle.version} is valid ({bundle.digest[:19]})\n" in text
    assert text.count(f"{bundle.digest[:19]}") == 2


def test_every_link_between_documents_leads_somewhere() -> None:
    root = generate.FOLDER.parent
    documents = [*root.glob("*.md"), *generate.FOLDER.rglob("*.md")]
    links = [(file, link) for file in documents for link in LINK.findall(file.read_text(encoding="utf-8"))]
    assert links
    assert [f"{file.name}: {link}" for file, link in links if not (file.parent / link).exists()] == []


def test_every_decision_has_a_number_of_its_own_and_is_listed() -> None:
    folder = generate.FOLDER / "adr"
    names = sorted(file.name for file in folder.glob("[0-9]*.md"))
    assert len({name[:4] for name in names}) == len(names)
    assert [name for name in names if f"({name})" not in (folder / "README.md").read_text(encoding="utf-8")] == []


def test_a_document_that_was_changed_by_hand_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path / "docs")
    assert generate.main([]) == 0 and generate.stale() == []
    changed = generate.FOLDER / "openapi.json"
    changed.write_text(changed.read_text() + " ")
    assert generate.main(["--check"]) == 1
    assert "docs/openapi.json" in capsys.readouterr().err
