"""compose-go, the parser of `docker compose` itself, built on demand into the cache folder, as the judge of our reading."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.keeper import is_missing
from tests.unit.product.support import REPOSITORY

SOURCE = REPOSITORY / "tests/composego"


def parser() -> Path:
    """The program; skips the test if Go is missing, fails it if Go is required."""
    go = shutil.which("go")
    if go is None:
        message = "compose-go can't be built: no `go` on the PATH. Remedy: install Go 1.24 or later."
        is_missing("go", message)
    digest = hashlib.sha256(
        b"".join((SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    ).hexdigest()
    folder = REPOSITORY / ".cache/composego"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / digest[:16]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            built = folder / "building"
            done = subprocess.run([go, "build", "-o", str(built), "."], cwd=SOURCE, capture_output=True, text=True)
            if done.returncode:
                message = f"compose-go can't be built: {done.stderr.strip()[-500:]}. Remedy: let Go reach its module proxy once."
                is_missing("go", message)
            built.rename(program)
    return program


def load(paths: list[Path], environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The projects in these files, as compose-go loads them. Fails the test with its words if it refuses one."""
    done = subprocess.run(
        [str(parser()), *map(str, paths)], env={"HOME": "/", **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    projects = json.loads("[" + done.stdout.replace("\n}\n{", "\n},\n{") + "]")
    assert isinstance(projects, list)
    return projects
