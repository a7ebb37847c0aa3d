# SPDX-License-Identifier: GPL-2.0-only
"""What the image's builder says when something is missing, with scripts in place of apt and mmdebstrap."""

from __future__ import annotations

import platform
from io import StringIO
from pathlib import Path

import pytest

from harness.errors import BuildError, MissingError
from harness.progress import Progress
from harness.target.artifacts import Image
from harness.target.cache import Cache
from harness.target.image import provide_image

SOURCES = """\
deb http://mirror.invalid/debian bookworm main
deb http://mirror.invalid/debian bookworm main
deb http://mirror.invalid/security bookworm-security main
deb http://others.invalid/ stable contrib
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs that comes first in PATH; apt and mmdebstrap in it do as if all were well."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    (tmp_path / "sources").write_text(SOURCES)
    script(directory / "apt-get", f"cat {tmp_path}/sources")
    script(directory / "mmdebstrap", f'cat > {tmp_path}/stdin; echo "$@" > {tmp_path}/arguments; exit 9')
    script(directory / "mkfs.erofs", "exit 0")
    return directory


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def build(tmp_path: Path) -> Image:
    return provide_image(cache=Cache(tmp_path / "cache"), progress=Progress(StringIO()))


def leftovers(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.parent.name != "locks"]


def test_only_the_suites_own_sources_are_used(programs: Path, tmp_path: Path) -> None:
    del programs
    with pytest.raises(BuildError):
        build(tmp_path)
    assert (tmp_path / "stdin").read_text().splitlines() == [
        "deb http://mirror.invalid/debian bookworm main",
        "deb http://mirror.invalid/security bookworm-security main",
    ]
    assert "python3-cffi," in (tmp_path / "arguments").read_text()


def test_what_mmdebstrap_says_is_told_and_nothing_is_left(programs: Path, tmp_path: Path) -> None:
    script(programs / "mmdebstrap", "echo E: Unable to fetch some archives; exit 25")
    with pytest.raises(BuildError, match="Unable to fetch") as caught:
        build(tmp_path)
    assert "apt-get update" in str(caught.value.hint)
    assert leftovers(tmp_path) == []


def test_programs_that_are_missing_are_listed_with_the_command(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "mmdebstrap").unlink()
    (programs / "mkfs.erofs").unlink()
    script(programs / "cc", "exit 0")
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(MissingError) as caught:
        build(tmp_path)
    assert caught.value.hint == "apt-get install erofs-utils mmdebstrap"
    assert leftovers(tmp_path) == []


def test_an_apt_that_knows_nothing_of_the_suite(programs: Path, tmp_path: Path) -> None:
    script(programs / "apt-get", "echo deb http://others.invalid/ stable contrib")
    with pytest.raises(BuildError, match="no index of bookworm"):
        build(tmp_path)


def test_a_system_without_a_suite(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del programs
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "fedora"})
    with pytest.raises(MissingError, match="VERSION_CODENAME"):
        build(tmp_path)
