"""Bodies of the worker protocol: what is wrong is refused before it costs much, and says where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spectrum.core.errors import Problem
from spectrum.core.jobs.commands import Intent
from spectrum.core.jobs.table import Phase
from spectrum.transports import wire
from spectrum.transports.protocol import NEWS_LIMIT, Chunk, News

NEWS = {"organization_id": "org_1", "instance_id": "ins_1", "job_id": "job_1", "fence": 1, "number": 1}
DONE = {"step": "web", "phase": "do", "token": 1, "result": "done"}
WRONG = [0] * 1_000


def refusal(shape: Any, body: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        wire.decode(shape, json.dumps(body).encode())
    assert refused.value.slug == "malformed"
    return refused.value


def failed_with(evidence: Any) -> dict[str, Any]:
    failure = {"kind": "fatal", "code": "x", "message": "m", "evidence": evidence}
    return {**NEWS, "outcomes": [{**DONE, "result": "error", "failure": failure}]}


@pytest.mark.parametrize(
    ("shape", "body", "place"),
    [
        (News, {**NEWS, "outcomes": WRONG}, "/outcomes/0"),
        (News, {**NEWS, "intents": WRONG}, "/intents/0"),
        (News, {**NEWS, "reopen": WRONG}, "/reopen/0"),
        (News, failed_with(WRONG), "/outcomes/0/failure/evidence/0"),
        (wire.Reports, {"reports": [{**NEWS, "outcomes": WRONG}] * 9}, "/reports/0/outcomes/0"),
        (wire.Heartbeat, {"incarnation": 1, "number": 1, "claim_seen": 1, "held": WRONG}, "/held/0"),
        (wire.Observations, {"sightings": WRONG}, "/sightings/0"),
        (wire.Start, {"boot": "b", "operations": {"stop": ["x"] * 1_000}}, "/operations/stop/0"),
        (Chunk, {"request_id": "req_1", "number": 1, "lines": WRONG}, "/lines/0"),
    ],
)
def test_a_list_of_what_is_wrong_is_given_up_at_its_first_item(shape: Any, body: Any, place: str) -> None:
    assert [where.pointer for where in refusal(shape, body).errors] == [place]


def test_a_body_that_is_wrong_in_more_places_than_anybody_reads_is_refused_without_them() -> None:
    body = {"boot": "b", "operations": {str(number): 0 for number in range(1_000)}}
    assert refusal(wire.Start, body).errors == ()


@pytest.mark.parametrize(
    ("list_of", "item"), [("outcomes", DONE), ("intents", {"step": "web", "phase": "do"}), ("reopen", "web")]
)
def test_one_report_says_so_much_and_no_more(list_of: str, item: Any) -> None:
    as_much: News = wire.decode(News, json.dumps({**NEWS, list_of: [item] * NEWS_LIMIT}).encode())
    assert len(getattr(as_much, list_of)) == NEWS_LIMIT
    [where] = refusal(News, {**NEWS, list_of: [item] * (NEWS_LIMIT + 1)}).errors
    assert where.pointer == f"/{list_of}"


def test_what_is_encoded_is_read_as_it_was() -> None:
    news = wire.decode(
        News, json.dumps({**NEWS, "outcomes": [DONE], "intents": [{"step": "disk", "phase": "do"}]}).encode()
    )
    assert news.intents == (Intent("disk", Phase.DO),)
    assert wire.decode(News, wire.encode(news)) == news
    assert wire.apart(wire.together([wire.encode(news)])) == [news]
