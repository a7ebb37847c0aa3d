# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own reader of KTAP, tools/testing/kunit/kunit.py, out of a kernel's source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_TARBALL = Path("/usr/src/linux-source-6.1.tar.xz")  # vm-images/host-packages


def find(cache: pytest.Cache) -> Path:
    """The path of kunit.py, unpacked once and kept in pytest's cache."""
    place = cache.mkdir("kunit") / str(_TARBALL.stat().st_mtime_ns)
    if not place.is_dir():
        unpacked = place.with_name(f"{place.name}.tmp")
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        subprocess.run(
            [
                *("tar", "--extract", f"--file={_TARBALL}", f"--directory={unpacked}", "--strip-components=1"),
                *("--wildcards", "*/tools/testing/kunit/*.py"),
            ],
            check=True,
        )
        unpacked.rename(place)
    return place / "tools/testing/kunit/kunit.py"


def parse(kunit: Path, report: str, place: Path) -> tuple[str, dict[str, Any]]:
    """What kunit.py says of `report`, and the tree of tests that it saw. `place`: a directory for both files."""
    (place / "report.ktap").write_text(report, encoding="utf-8", errors="backslashreplace")
    tree = place / "tree.json"
    done = subprocess.run(
        [sys.executable, kunit, "parse", f"--json={tree}", place / "report.ktap"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,  # 1 for a report in which something failed
    )
    assert "Testing complete" in done.stdout, done.stdout
    return done.stdout, json.loads(tree.read_text())
