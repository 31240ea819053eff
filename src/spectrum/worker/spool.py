"""Reports that could not be delivered yet, kept on disk until they are answered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import TypeAdapter, ValidationError

from spectrum.transports.protocol import News

_news = TypeAdapter(News)
_log = structlog.get_logger(__name__)


class Spool(Protocol):
    def put(self, news: News) -> None:
        """Keep it until it is dropped; the same report again is kept once."""

    def drop(self, news: News) -> None:
        """It was answered, with yes or with no."""

    def all(self) -> Sequence[News]:
        """What is kept, oldest first."""


class DiskSpool:
    """One file a report, written whole or not at all. Reports hold no secret (DESIGN §3.17)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, news: News) -> None:
        path = self._path(news)
        draft = path.with_suffix(".tmp")
        try:
            with draft.open("wb") as file:
                file.write(_news.dump_json(news))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            # What is spooled is evidence: a full disk is no reason to let go of the job, which is still reported from memory.
            _log.warning("a report was not spooled", job_id=news.job_id, error=str(error))
            draft.unlink(missing_ok=True)

    def drop(self, news: News) -> None:
        self._path(news).unlink(missing_ok=True)

    def all(self) -> Sequence[News]:
        return [news for path in sorted(self._folder.glob("*.json")) if (news := _read(path)) is not None]

    def _path(self, news: News) -> Path:
        return self._folder / f"{news.job_id}.{news.fence:020d}.{news.number:06d}.json"


def _read(path: Path) -> News | None:
    """None, and the file set aside, where it is no report (any more): one that can't be read holds up no other (P19)."""
    try:
        return _news.validate_json(path.read_bytes())
    except ValidationError as error:
        _log.warning("a spooled report is no good and was set aside", file=path.name, errors=error.error_count())
        path.replace(path.with_suffix(".bad"))
        return None
