# SPDX-License-Identifier: GPL-2.0-only
"""Modules for an initramfs, however a distribution packs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.errors import BuildError
from harness.target.kernels.initrd import unpacked
from tests.needs import need

MODULE = b"\x7fELF" + bytes(range(256)) * 100


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "virtio_blk.ko"
    path.write_bytes(MODULE)
    return path


@pytest.mark.parametrize(
    ("suffix", "command"),
    [
        ("", ""),
        (".gz", "gzip --keep"),
        (".xz", "xz --keep --check=crc32 --lzma2=dict=1MiB"),  # scripts/Makefile.modinst
        (".zst", "zstd --keep --quiet"),
    ],
)
def test_a_module_is_unpacked(module: Path, tmp_path: Path, suffix: str, command: str) -> None:
    if command:
        need(command.split(maxsplit=1)[0])
        subprocess.run([*command.split(), module], check=True)
    out = tmp_path / "out"
    out.mkdir()
    assert unpacked(module.with_name(f"{module.name}{suffix}"), out) == out / "virtio_blk.ko"
    assert (out / "virtio_blk.ko").read_bytes() == MODULE


def test_one_that_is_damaged_is_not_used(module: Path, tmp_path: Path) -> None:
    damaged = module.rename(module.with_name("virtio_blk.ko.gz"))
    with pytest.raises(BuildError, match=r"unpacking .*virtio_blk\.ko\.gz failed"):
        unpacked(damaged, tmp_path)


def test_what_unpacks_it_may_have_to_be_installed(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("sh", "setpriv"):
        (tmp_path / program).symlink_to(Path("/usr/bin") / program)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="zstd: not found") as caught:
        unpacked(module.rename(module.with_name("virtio_blk.ko.zst")), tmp_path)
    assert caught.value.hint == "apt-get install zstd"


def test_another_way_is_said_with_what_to_do(module: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not known here") as caught:
        unpacked(module.rename(module.with_name("virtio_blk.ko.br")), tmp_path)
    assert caught.value.hint is not None
    assert ".gz, .xz, .zst" in caught.value.hint
