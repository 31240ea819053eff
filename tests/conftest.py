"""What all tests share: one event loop kind, canaries, and PostgreSQL and Kafka for those that ask for them."""

import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.canaries import Canaries, planted_as_they_are_sealed

pytest_plugins = ("tests.postgres", "tests.kafka.shared")

CANARIES = pytest.StashKey[Canaries]()


def pytest_configure() -> None:
    # A shell starts its background jobs with the interrupt ignored, and all that the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes says how busy the machine is.
    settings.register_profile("spectrum", deadline=None)
    settings.load_profile("spectrum")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def canaries(request: pytest.FixtureRequest) -> Iterator[Canaries]:
    """The secrets of this test, which none of its output and no row of its database may hold."""
    made = request.node.stash[CANARIES] = Canaries()
    with planted_as_they_are_sealed(made):
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed and logged is searched with it; what a failing one says of itself is not."""
    report = yield
    canaries = item.stash.get(CANARIES, Canaries())
    if report.when == "call" and report.passed:
        said = "\n".join(text for _, text in report.sections)
        if found := canaries.found_in(said):
            report.outcome, report.longrepr = "failed", f"the output holds {', '.join(found)}"
    return report
