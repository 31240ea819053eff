"""One installation for all end-to-end tests of a test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spectrum.sdk import Client
from tests.e2e.installation import Installation, installed


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation")) as made:
        yield made


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with installation.client() as signed_in:
        yield signed_in
