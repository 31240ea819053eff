"""A real HTTP server on loopback with canned answers: what INTERFACES says, and everything that goes wrong on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

JOB_ID = "job_01936f2a-0000-7000-8000-00000000000a"
INSTANCE_ID = "ins_01936f2a-0000-7000-8000-000000000001"
TOKEN = "spectrum_test_token"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """One answer. `drop` cuts the connection instead; `gate` holds the answer back until it is set."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    gate: threading.Event | None = None
    lines: tuple[Any, ...] | None = None
    text: str | None = None


Answer = Reply | Callable[[Request], Reply]


class Canned:
    """Answers per route in their order; the last one is repeated. Remembers every request."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self._routes: dict[tuple[str, str], list[Answer]] = {}
        self._arrived = threading.Condition()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self._routes[method, path] = list(answers)

    def of(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def await_request(self, method: str, path: str, count: int = 1) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.of(method, path)) >= count, timeout=20.0)

    def answer(self, request: Request) -> Reply:
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
            answers = self._routes.get((request.method, request.path))
            if not answers:
                return problem(404, "not-found", f"There is no {request.path}")
            chosen = answers.pop(0) if len(answers) > 1 else answers[0]
        return chosen(request) if callable(chosen) else chosen

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


def _handler(canned: Canned) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            text = self.rfile.read(length)
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            body = json.loads(text) if text else None
            reply = canned.answer(Request(self.command, parts.path, query, headers, body))
            if reply.gate is not None:
                reply.gate.wait(20.0)
            if reply.drop:
                self.close_connection = True
                self.connection.close()
                return
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            if reply.lines is not None:
                payload = b"".join(json.dumps(line).encode() + b"\n" for line in reply.lines)
            elif reply.text is not None:
                payload = reply.text.encode()
            else:
                payload = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet."""

    return Handler


def problem(status: int, slug: str, detail: str, **more: Any) -> Reply:
    headers = {"content-type": "application/problem+json", **more.pop("headers", {})}
    return Reply(status, {"type": f"urn:spectrum:problem:{slug}", "status": status, "detail": detail, **more}, headers)


def job(state: str = "running", **more: Any) -> dict[str, Any]:
    done = state in ("succeeded", "failed", "cancelled")
    return {
        "id": JOB_ID,
        "operation": "create",
        "subject": {"type": "instance", "id": INSTANCE_ID, "name": "acme"},
        "state": state,
        "done": done,
        "version": 3,
        "progress": {"done": 2 if done else 1, "total": 2},
        "created_at": "2026-11-23T10:00:00.120Z",
        "steps": [
            {"id": "stp_1", "name": "prepare", "state": "done", "attempts": [{"number": 1}]},
            {"id": "stp_2", "name": "start-web", "needs": ["prepare"], "state": "done" if done else "running"},
        ],
        **more,
    }


def instance(**more: Any) -> dict[str, Any]:
    return {
        "id": INSTANCE_ID,
        "name": "acme",
        "product": "kinto",
        "release": "26.5.0",
        "plan": "small",
        "target": "local",
        "generation": 1,
        "accepted_generation": 1,
        "desired_state": "running",
        "lifecycle": "running",
        "hold": "none",
        "health": "healthy",
        "parameters": {"project_name": "Acme", "db_password": {"secret": True, "version": 1}},
        "endpoints": [{"name": "api", "url": "http://127.0.0.1:21045/v1/", "primary": True}],
        "services": [{"name": "db", "state": "running", "health": "healthy", "restarts": 0, "ports": {"5432": 21044}}],
        "created_at": "2026-11-23T10:00:00.120Z",
        "colour_of_a_later_version": "blue",
        **more,
    }
