"""Key files: made once, for the owner's eyes, and useless to anybody else."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spectrum.control import secrets as cell_secrets
from spectrum.core.sealing import ENTROPY_BYTES, Context, SealError
from spectrum.keyfile import KeyFileError
from spectrum.ports import SystemEntropy
from spectrum.worker import keys as worker_keys

ENTROPY = SystemEntropy()
PLACE = Context("secrets", "ins_1", "db_password")


def test_a_missing_cell_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    keys = cell_secrets.load_or_create(path, ENTROPY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]
    again = cell_secrets.load_or_create(path, ENTROPY)
    assert again.signing_key_id == keys.signing_key_id
    sealed = keys.keyring.seal(b"x", PLACE, ENTROPY.token(ENTROPY_BYTES))
    assert again.keyring.open(sealed, PLACE) == b"x"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    cell_secrets.load_or_create(path, ENTROPY)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        cell_secrets.load_or_create(path, ENTROPY)
    with pytest.raises(KeyFileError, match="chmod 600"):
        worker_keys.load_or_create(path, ENTROPY)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format":2}', '{"format":1,"active":"a","master":{"a":"%"},"cell":""}']
)
def test_a_damaged_key_file_is_never_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(KeyFileError, match="damaged"):
        cell_secrets.load_or_create(path, ENTROPY)
    with pytest.raises(KeyFileError, match="damaged"):
        worker_keys.load_or_create(path, ENTROPY)
    assert path.read_text() == text


def test_copies_that_start_together_end_with_the_same_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    code = (
        "import sys, pathlib; from spectrum.control.secrets import load_or_create; from spectrum.ports import SystemEntropy; "
        "print(load_or_create(pathlib.Path(sys.argv[1]), SystemEntropy()).signing_key_id)"
    )

    def start(_: int) -> str:
        return subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True).stdout.decode()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1


def test_a_workers_keys_stay_the_same_over_restarts(tmp_path: Path) -> None:
    first = worker_keys.load_or_create(tmp_path / "key", ENTROPY)
    again = worker_keys.load_or_create(tmp_path / "key", ENTROPY)
    assert (first.signing_key, first.sealing_key) == (again.signing_key, again.sealing_key)


def test_only_the_worker_it_was_sealed_to_opens_a_secret_and_only_in_its_place(tmp_path: Path) -> None:
    worker = worker_keys.load_or_create(tmp_path / "one", ENTROPY)
    other = worker_keys.load_or_create(tmp_path / "two", ENTROPY)
    sealed = cell_secrets.seal_to(worker.sealing_key, b"secret", PLACE)
    assert worker.open(sealed, PLACE) == b"secret"
    for keys, place, data in (
        (other, PLACE, sealed),
        (worker, Context("secrets", "ins_2", "db_password"), sealed),
        (worker, PLACE, sealed[:-1]),
        (worker, PLACE, b""),
    ):
        with pytest.raises(SealError):
            keys.open(data, place)


def test_keys_do_not_show_in_a_repr(tmp_path: Path) -> None:
    cell = cell_secrets.load_or_create(tmp_path / "cell", ENTROPY)
    worker = worker_keys.load_or_create(tmp_path / "worker", ENTROPY)
    assert "Key object" not in repr(cell) + repr(worker)
    assert all(key.hex() not in repr(cell) for key in cell.keyring.keys.values())
