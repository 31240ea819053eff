"""Reports that wait on disk: whatever becomes of the disk, the worker goes on."""

from __future__ import annotations

from pathlib import Path

from spectrum.core.ids import InstanceId, JobId, OrganizationId
from spectrum.transports.protocol import News
from spectrum.worker.spool import DiskSpool


def news(number: int) -> News:
    return News(OrganizationId("org_1"), InstanceId("ins_1"), JobId("job_1"), fence=7, number=number)


def test_reports_are_kept_in_order_until_they_are_dropped(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path)
    for number in (2, 1, 2):
        spool.put(news(number))
    assert spool.all() == [news(1), news(2)]

    spool.drop(news(1))

    assert DiskSpool(tmp_path).all() == [news(2)]


def test_a_report_that_can_not_be_read_is_set_aside_and_the_others_are_delivered(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path)
    spool.put(news(1))
    spool.put(news(2))
    first = sorted(tmp_path.glob("*.json"))[0]
    first.write_bytes(first.read_bytes()[:20])

    assert spool.all() == [news(2)]
    assert first.with_suffix(".bad").exists()


def test_a_full_disk_loses_the_evidence_and_not_the_job(tmp_path: Path) -> None:
    (tmp_path / "job_1.00000000000000000007.000001.tmp").symlink_to("/dev/full")
    spool = DiskSpool(tmp_path)

    spool.put(news(1))

    assert spool.all() == []
    assert list(tmp_path.iterdir()) == []
