"""Texts that other programs rely on, kept as files. `SPECTRUM_TEST_UPDATE_GOLDEN=1` writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def check(name: str, found: Any) -> None:
    """Compare with the file of that name; a difference is either a mistake or a change that others have to learn of."""
    path = FOLDER / name
    text = found if isinstance(found, str) else json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("SPECTRUM_TEST_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
