"""An instance that does not answer is told apart from a prober that did not run."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chaos.prober import PATIENCE, STARVED, Asked, Beat, Prober, measured, starved
from tests.waiting import wait_until

SILENCE = Asked(10.0, 15.0, "timed out", silent=True)
ON_TIME = [Beat(at / 10, at / 10 + 0.001) for at in range(95, 160)]


def test_silence_counts_against_the_instance_where_the_prober_was_awake() -> None:
    assert starved(SILENCE, ON_TIME) < STARVED
    assert measured(SILENCE, ON_TIME)


@pytest.mark.parametrize("beat", [Beat(11.0, 13.0), Beat(9.0, 12.0), Beat(14.0, 19.0)])
def test_silence_says_nothing_where_the_prober_itself_did_not_run(beat: Beat) -> None:
    assert not measured(SILENCE, [beat])


def test_lateness_before_and_after_a_request_is_no_excuse() -> None:
    assert measured(SILENCE, [Beat(2.0, 10.1), Beat(14.9, 30.0)])


def test_a_refusal_counts_however_late_the_prober_was() -> None:
    assert measured(Asked(10.0, 15.0, "refused"), [Beat(10.0, 15.0)])


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_instance_that_answers_is_asked_and_nothing_is_told_of_it() -> None:
    prober = Prober(None)
    with answering(200) as url, prober.probing():
        prober.watch("acme", url)
        wait_until(lambda: prober.asked >= 3)
    assert prober.failures == prober.not_measured == []
    assert prober.slowest < PATIENCE


def test_an_instance_that_fails_is_told() -> None:
    prober = Prober(None)
    with answering(503) as url, prober.probing():
        prober.watch("acme", url)
        wait_until(lambda: prober.failures)
    assert "503" in prober.failures[0]


def test_an_instance_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        prober = Prober(None)
        with prober.probing():
            prober.watch("acme", f"http://127.0.0.1:{taken.getsockname()[1]}/")
            wait_until(lambda: prober.failures)
    assert "refused" in prober.failures[0]
