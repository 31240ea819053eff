"""What all tests share: one event loop kind, and PostgreSQL for those that ask for it."""

import pytest

pytest_plugins = ("tests.postgres",)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
