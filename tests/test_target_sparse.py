# SPDX-License-Identifier: GPL-2.0-only
"""A newer sparse than the machine's: its source is found, verified, built, asked of the kernel's script, and kept."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from harness.errors import BuildError, HarnessError
from harness.progress import Progress
from harness.target import sparse
from harness.target.cache import Cache
from harness.target.kernels import archive
from harness.target.kernels.archive import Archive
from tests.archive import FakeArchive
from tests.needs import need

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")

PROGRAM = "#!/bin/sh\necho I know typeof_unqual\n"
TAKES_IT = '"$1" | grep -q typeof_unqual && echo 1 || echo 0\n'
TAKES_NONE = "echo 0\n"


def packed(files: dict[str, str]) -> bytes:
    """A tarball with all of it below one directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"sparse-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeArchive:
    need("gpg")
    (tmp_path / "made").mkdir()
    fake = FakeArchive(tmp_path / "made")
    fake.source(sparse.SUITE, "sparse", "0.9-1", packed({"Makefile": "sparse:\n\tfalse\n"}))
    makefile = "sparse: sparse.sh\n\tcp sparse.sh sparse\n\tchmod +x sparse\n"
    fake.source(sparse.SUITE, "sparse", "1.0-1", packed({"Makefile": makefile, "sparse.sh": PROGRAM}))
    fake.publish()
    monkeypatch.setattr(archive, "_KEYRING", fake.keyring)
    monkeypatch.setattr(archive, "bases", lambda: fake.bases)
    return fake


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def provided(cache: Cache, script: Path) -> Path:
    return sparse.provide(script, cache=cache, progress=Progress(quiet=True))


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "checker-valid.sh"
    path.write_text(text)
    return path


def test_the_newest_is_built_once(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demand = script(tmp_path, TAKES_IT)
    program = provided(cache, demand)
    assert program.read_text() == PROGRAM
    assert sorted(each.name for each in program.parent.iterdir()) == [".manifest.json", "sparse"]
    assert sparse.accepts(demand, program)
    monkeypatch.setattr(Archive, "source", lambda *_: pytest.fail("asked the archive again"))
    assert provided(cache, demand) == program


def test_a_kernel_that_demands_more_has_the_archive_asked_anew(cache: Cache, tmp_path: Path) -> None:
    first = provided(cache, script(tmp_path, TAKES_IT))
    assert provided(cache, script(tmp_path, f"# and more\n{TAKES_IT}")) != first


def test_one_that_is_too_old_too_is_no_sparse(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"sparse_1\.0\.orig\.tar\.gz of sid is too old for this kernel, too"):
        provided(cache, script(tmp_path, TAKES_NONE))
    assert cache.keys("sparse") == []


def test_a_source_that_nobody_signed_for_is_not_built(cache: Cache, made: FakeArchive, tmp_path: Path) -> None:
    (tarball,) = made.root.glob("pool/sparse_1.0.orig.tar.gz")
    tarball.write_bytes(tarball.read_bytes()[:-1] + b"x")
    with pytest.raises(HarnessError, match="fetching the source of sparse in sid failed"):
        provided(cache, script(tmp_path, TAKES_IT))
    assert cache.keys("sparse") == []
