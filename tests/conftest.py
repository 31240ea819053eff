"""What all tests share: one event loop kind, and PostgreSQL for those that ask for it."""

import signal

import pytest

pytest_plugins = ("tests.postgres",)


def pytest_configure() -> None:
    # A shell starts its background jobs with the interrupt ignored, and all that the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
