"""Schemathesis speaks to the real server by its own document: what the document allows, what it forbids, and along its links."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest
import uvicorn

from spectrum.api.app import create_app
from tests.api.support import Api
from tests.api.vendor import vendor

pytestmark = pytest.mark.anyio

EXAMPLES = os.environ.get("SPECTRUM_TEST_FUZZ", "3")  # `make fuzz` asks for more
SEED = os.environ.get("SPECTRUM_TEST_FUZZ_SEED", "20261123")
PROGRAM = str(Path(sys.executable).with_name("schemathesis"))
SETTINGS = Path(__file__).with_name("schemathesis.toml")


async def test_the_api_is_as_its_document_says_whatever_it_is_sent(api: Api, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(api.services, url), lifespan="off", log_config=None))
    async with vendor(api) as made:
        await made.running("shop")
        await made.create("other")
        serving = asyncio.create_task(server.serve([listener]))
        code, said = await _fuzz(url, str(made.admin.token), tmp_path)
        server.should_exit = True
        await serving
    listener.close()
    assert code == 0, said


async def _fuzz(url: str, token: str, folder: Path) -> tuple[int | None, str]:
    """Logs and the stream of events are left out: reading them waits for what may never come."""
    program = await asyncio.create_subprocess_exec(
        *(PROGRAM, "--config-file", str(SETTINGS), "run", f"{url}/openapi.json", "--exclude-path-regex", "logs|stream"),
        *("--header", f"Authorization: Bearer {token}", "--checks", "all", "--phases", "coverage,fuzzing,stateful"),
        *("--max-examples", EXAMPLES, "--seed", SEED, "--continue-on-failure", "--warnings", "off"),
        *("--request-timeout", "30"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    return program.returncode, said.decode()
