"""Artifacts: made once, complete or not there, runnable by instance accounts, swept when nobody needs them."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from spectrum.core.errors import ErrorClass, Fault
from spectrum.core.product.resources import Artifact, ArtifactKind
from spectrum.providers.process.artifacts import UNUSED_SECONDS, ArtifactStore
from spectrum.providers.process.interpreters import satisfies
from tests.conformance.harness import reachable_folder

pytestmark = pytest.mark.anyio

NOBODY = 65534


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    async with reachable_folder() as made:
        yield made


@pytest.fixture
def store(folder: Path) -> ArtifactStore:
    return ArtifactStore(folder / "artifacts")


def wheel(folder: Path) -> Path:
    """The smallest package with a program."""
    path = folder / "greeter-1.0-py3-none-any.whl"
    members = {
        "greeter.py": "def main():\n    print('good day')\n",
        "greeter-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        "greeter-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "greeter-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
    }
    with zipfile.ZipFile(path, "w") as bundle:
        for name, text in members.items():
            bundle.writestr(name, text)
        bundle.writestr("greeter-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in members))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def environment(folder: Path, digest: str = "") -> Artifact:
    path = wheel(folder)
    requirements = f"greeter @ file://{path} --hash=sha256:{digest or sha256(path)}\n"
    return Artifact("greeter", ArtifactKind.PYTHON, requirements=requirements, python=">=3.11")


async def test_an_environment_runs_for_any_account_wherever_it_was_built(store: ArtifactStore, folder: Path) -> None:
    artifact = environment(folder)
    place = await store.stock(artifact)
    (binaries,) = store.path_folders(artifact, place)

    user = NOBODY if os.geteuid() == 0 else None
    done = await anyio.run_process(["greet"], env={"PATH": f"{binaries}:/usr/bin:/bin"}, cwd="/", user=user)

    assert done.stdout == b"good day\n"
    assert not [path for path in place.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]


async def test_many_at_once_build_it_once(store: ArtifactStore, folder: Path) -> None:
    artifact = environment(folder)
    made: list[tuple[str, int]] = []

    async def stock() -> None:
        place = await ArtifactStore(store.folder).stock(artifact)
        made.append((place.name, (place / "pyvenv.cfg").stat().st_ino))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(stock)

    assert len(set(made)) == 1
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == [made[0][0]]


async def test_a_wrong_hash_is_invalid_and_leaves_nothing(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Fault) as refused:
        await store.stock(environment(folder, digest="0" * 64))

    assert refused.value.failure.kind is ErrorClass.INVALID
    assert any("hash" in line.lower() for line in refused.value.failure.evidence)
    assert [path for path in store.folder.iterdir() if path.is_dir()] == []


async def test_a_python_that_is_not_there_is_told_with_what_is(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Fault, match=r"no Python on this machine fits '>=3\.99'.*found: /"):
        await store.stock(Artifact("future", ArtifactKind.PYTHON, python=">=3.99"))


def tar(folder: Path, *members: tuple[str, bytes, int]) -> Path:
    path = folder / "tool.tar.gz"
    with tarfile.open(path, "w:gz") as bundle:
        for name, content, mode in members:
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), mode
            bundle.addfile(about, io.BytesIO(content))
    return path


def archive(path: Path, digest: str = "", *patterns: str) -> Artifact:
    return Artifact("tool", ArtifactKind.ARCHIVE, url=f"file://{path}", sha256=digest or sha256(path), path=patterns)


async def test_a_tar_is_checked_unpacked_and_found_by_its_pattern(store: ArtifactStore, folder: Path) -> None:
    artifact = archive(tar(folder, ("tool-1.2/bin/tool", b"#!/bin/sh\necho used\n", 0o700)), "", "tool-*/bin")
    place = await store.stock(artifact)

    (binaries,) = store.path_folders(artifact, place)

    tool = anyio.Path(binaries, "tool")

    assert stat.S_IMODE((await tool.stat()).st_mode) == 0o755
    assert (await anyio.run_process([str(tool)])).stdout == b"used\n"


async def test_a_zip_keeps_what_may_be_executed(store: ArtifactStore, folder: Path) -> None:
    path = folder / "tool.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        program = zipfile.ZipInfo("bin/tool")
        program.external_attr = 0o755 << 16
        bundle.writestr(program, "#!/bin/sh\n")
        bundle.writestr("readme", "text")

    place = await store.stock(archive(path))

    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.rglob("*") if path.is_file()} == {
        "tool": 0o755,
        "readme": 0o644,
    }


async def test_an_archive_with_another_hash_is_invalid(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Fault, match="archive-hash"):
        await store.stock(archive(tar(folder, ("a", b"", 0o644)), "0" * 64))

    assert [path for path in store.folder.iterdir() if path.is_dir()] == []


async def test_an_archive_that_leads_out_of_its_folder_is_refused(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Fault, match="archive-unsafe"):
        await store.stock(archive(tar(folder, ("../../outside", b"x", 0o644))))
    path = folder / "bad.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("../outside", "x")
    with pytest.raises(Fault, match="archive-unsafe"):
        await store.stock(archive(path))

    assert [path async for path in anyio.Path(folder).rglob("outside")] == []


async def test_an_archive_that_cannot_be_had_is_tried_again_later(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Fault) as refused:
        await store.stock(Artifact("tool", ArtifactKind.ARCHIVE, url=f"file://{folder}/missing", sha256="0" * 64))

    assert refused.value.failure.kind is ErrorClass.DEPENDENCY


async def test_a_path_is_taken_as_it_is_and_must_be_there(store: ArtifactStore, folder: Path) -> None:
    here = Artifact("here", ArtifactKind.PATH, folder=str(folder))
    assert await store.stock(here) == folder
    assert store.path_folders(here, folder) == (str(folder),)

    with pytest.raises(Fault, match="is not a folder on the target"):
        await store.stock(Artifact("gone", ArtifactKind.PATH, folder=str(folder / "gone")))


@pytest.mark.parametrize("pattern", ["../*", "/usr/bin", "no-such-*"])
async def test_a_pattern_that_matches_nothing_inside_is_invalid(
    pattern: str, store: ArtifactStore, folder: Path
) -> None:
    artifact = archive(tar(folder, ("bin/tool", b"", 0o755)), "", pattern)
    place = await store.stock(artifact)

    with pytest.raises(Fault, match="bad-artifact"):
        store.path_folders(artifact, place)


async def test_a_sweep_removes_what_is_neither_in_use_nor_fresh(store: ArtifactStore, folder: Path) -> None:
    used = await store.stock(archive(tar(folder, ("used", b"", 0o644))))
    unused = await store.stock(archive(tar(folder, ("unused", b"", 0o644))))
    fresh = await store.stock(archive(tar(folder, ("fresh", b"", 0o644))))
    for place in (used, unused):
        os.utime(place, (0, place.stat().st_mtime - UNUSED_SECONDS - 1))

    assert await store.sweep({used.name}) == (unused.name,)

    assert sorted(path.name for path in store.folder.iterdir() if path.is_dir()) == sorted([used.name, fresh.name])


@pytest.mark.parametrize(
    ("specifier", "fits"),
    [
        ("", True),
        (">=3.11", True),
        (">=3.11,<3.14", True),
        ("<3.11", False),
        ("==3.11.*", True),
        ("!=3.11.*", False),
        ("~=3.10", True),
        ("~=3.10.0", False),
        ("==3.11.7", True),
        (">3.11.7", False),
    ],
)
def test_a_specifier_is_compared_as_pep_440_says(specifier: str, fits: bool) -> None:
    assert satisfies((3, 11, 7), specifier) is fits


@pytest.mark.parametrize("specifier", ["3.11", ">=three", "~=3", ">=3.*"])
def test_a_specifier_that_is_none_is_refused(specifier: str) -> None:
    with pytest.raises(Fault, match="bad-python-specifier"):
        satisfies((3, 11, 7), specifier)
