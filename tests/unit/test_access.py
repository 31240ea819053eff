"""Tokens as text, and the one rule that says who may do what."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.core.access import (
    ACROSS,
    GRANTS,
    PLATFORM_ONLY,
    SHARED,
    TOKEN_ENTROPY,
    Action,
    Principal,
    Subject,
    allow,
    check_scopes,
    make_join_token,
    make_token,
    read_token,
    require,
)
from spectrum.core.errors import Problem
from spectrum.core.ids import PLATFORM, OrganizationId

OURS = OrganizationId("org_00000000-0000-7000-8000-000000000001")
THEIRS = OrganizationId("org_00000000-0000-7000-8000-000000000002")
CELL = "ab" * 32


def principal(*scopes: str, organization: OrganizationId = OURS) -> Principal:
    return Principal("token:tok_1", organization, frozenset(scopes))


@given(st.binary(min_size=TOKEN_ENTROPY, max_size=TOKEN_ENTROPY))
def test_a_token_is_read_back_from_its_text(entropy: bytes) -> None:
    token, join = make_token(entropy), make_join_token(entropy, CELL)
    assert read_token(f" {token.text}\n") == token
    assert read_token(join.text) == join
    assert join.cell_key == CELL
    assert token.hash != join.hash


@given(data=st.data())
def test_a_token_with_a_typing_error_is_none(data: st.DataObject) -> None:
    text = make_join_token(bytes(range(TOKEN_ENTROPY)), CELL).text
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("0aZ_-x").filter(lambda c: c != text[place]))
    assert read_token(text[:place] + letter + text[place + 1 :]) is None


@given(st.text(max_size=150))
def test_any_other_text_is_no_token(text: str) -> None:
    assert read_token(text) is None


def test_a_token_does_not_show_in_a_repr() -> None:
    token = make_token(bytes(range(TOKEN_ENTROPY)))
    assert token.text not in repr(token)
    assert token.prefix in repr(token)


@pytest.mark.parametrize("action", list(Action))
def test_without_its_scope_nothing_is_allowed(action: Action) -> None:
    everything_else = principal(*(scope for scope in GRANTS if action not in GRANTS[scope]))
    assert not allow(everything_else, action, Subject(OURS))
    with pytest.raises(Problem, match="forbidden"):
        require(principal(), action)


@pytest.mark.parametrize("action", sorted(set(Action) - PLATFORM_ONLY))
def test_its_own_scope_is_enough_inside_of_the_organization_and_no_further(action: Action) -> None:
    assert allow(principal(action.value), action, Subject(OURS))
    assert not allow(principal(action.value, "admin"), action, Subject(THEIRS))
    assert allow(principal(action.value), action, Subject(PLATFORM)) is (action in SHARED)


def test_only_the_platform_makes_organizations() -> None:
    assert not allow(principal("admin"), Action.ORGANIZATIONS_CREATE, Subject(OURS))
    assert allow(principal("admin", organization=PLATFORM), Action.ORGANIZATIONS_CREATE, Subject(THEIRS))
    assert not allow(principal("read", organization=PLATFORM), Action.ORGANIZATIONS_CREATE, Subject(THEIRS))


@pytest.mark.parametrize("action", list(Action))
def test_the_platform_lets_organizations_in_and_does_not_look_inside(action: Action) -> None:
    assert allow(principal("admin", organization=PLATFORM), action, Subject(THEIRS)) is (action in ACROSS)


def test_reading_scopes_change_nothing() -> None:
    assert not any(action.changes for action in GRANTS["read"])


def test_a_scope_from_a_later_version_grants_nothing() -> None:
    assert principal("telepathy").actions == frozenset()


def test_nobody_gives_away_more_than_they_have() -> None:
    assert check_scopes(["jobs:read"], principal("read")) == {"jobs:read"}
    with pytest.raises(Problem, match="forbidden"):
        check_scopes(["admin"], principal("read", "tokens:write"))
    with pytest.raises(Problem, match="no scope nonsense"):
        check_scopes(["nonsense"], principal("admin"))


def test_a_light_install_needs_no_cryptography_and_no_server() -> None:
    code = (
        "import sys; import spectrum.core.access, spectrum.settings, spectrum.sdk; "
        "print(sorted({'cryptography', 'fastapi', 'structlog', 'asyncpg'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
