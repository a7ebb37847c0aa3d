# SPDX-License-Identifier: GPL-2.0-only
"""User name spaces, in which modules for shipped kernels are built: machines that refuse them are told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import MissingError
from harness.progress import Progress
from harness.target import doctor
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import chroot, stock
from harness.target.kernels.archive import File
from harness.target.kernels.stock import Package
from harness.target.module import build_module

KERNEL = Kernel("stock:7.7", "plain", "7.7.7", "key", Path(), Path("/r/usr/src"), None, {}, Path(), chroot=Path("/r"))
REFUSED = "unshare: unshare failed: Operation not permitted"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that refuses; the result is its /proc/sys."""
    program = tmp_path / "bin/unshare"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{REFUSED}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(chroot, "_PROC_SYS", tmp_path / "sys")
    for name, value in (("kernel/unprivileged_userns_clone", "1"), ("user/max_user_namespaces", "15000")):
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{value}\n")
    return tmp_path / "sys"


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=10000"),
    ],
)
def test_what_forbids_them_is_named_with_the_command_that_allows_them(
    refused: Path, name: str, value: str, remedy: str
) -> None:
    (refused / name).write_text(f"{value}\n")
    found = chroot.refusal()
    assert found is not None
    assert found.reason == f"{REFUSED} ({name.replace('/', '.')} is {value})"
    assert found.command == found.advice == remedy
    (finding,) = doctor._name_spaces()
    assert (finding.level, finding.remedy) == (doctor.Level.NOTE, remedy)
    assert REFUSED in finding.text


@pytest.mark.usefixtures("refused")
def test_a_container_that_forbids_them_is_no_command_of_ours() -> None:
    found = chroot.refusal()
    assert found == chroot.Refusal(REFUSED, "")
    (finding,) = doctor._name_spaces()
    assert finding.remedy == ""
    assert "--security-opt" in finding.text


@pytest.mark.usefixtures("refused")
def test_nothing_is_fetched_or_compiled_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, progress = Cache(tmp_path / "cache"), Progress()
    with pytest.raises(MissingError, match="Operation not permitted") as caught:
        build_module(KERNEL, cache=cache, progress=progress)
    assert caught.value.hint is not None
    assert "--security-opt" in caught.value.hint
    headers = File("linux-headers", "7.7.7-1", "trixie", "pool/headers.deb", 1, "0")
    package = Package("7.7.7-cloud-amd64", "trixie", "7.7.7-1", (), headers, cloud=True)
    monkeypatch.setattr(stock, "find", lambda *_: package)
    with pytest.raises(MissingError, match="Operation not permitted"):
        stock.provide("7.7", "plain", cache=cache, progress=progress)
    assert "fetching" not in capsys.readouterr().err


def test_where_they_can_be_had_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "unshare"
    program.write_text('#!/bin/sh\n[ "$1" = --user ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert chroot.refusal() is None
    chroot.insist()
    (finding,) = doctor._name_spaces()
    assert finding.level is doctor.Level.OK
