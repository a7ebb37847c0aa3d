# SPDX-License-Identifier: GPL-2.0-only
"""Programs and sources that only some tests need."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest


def need(program: str) -> None:
    """Skips the test if `program` is not installed; in CI that is a failure."""
    if shutil.which(program) is None:
        assert "CI" not in os.environ, f"{program} is not installed, and CI is to have it: vm-images/host-packages"
        pytest.skip(f"{program} is not installed")


SEED_TREE = "HMM_HARNESS_SEED_TREE"


def seed_tree() -> Path:
    """A source tree of v4.20.1, the kernel that has the API of the binding `mirror` itself.

    $HMM_HARNESS_SEED_TREE, or where distributions put such things. Skips the test if there is none.
    """
    named = os.environ.get(SEED_TREE)
    for tree in [Path(named).expanduser()] if named else sorted(Path("/usr/src").glob("linux-4.20*")):
        if (tree / "include/linux/hmm.h").is_file():
            return tree
    assert not named, f"${SEED_TREE} names no source tree: {named}"
    pytest.skip(f"needs a source tree of v4.20.1: ${SEED_TREE}")


TREES = "HMM_HARNESS_TREES"


def source_tree(series: str) -> Path:
    """A source tree of a kernel of this series ("7.3"): that of v4.20 as above, others in $HMM_HARNESS_TREES.

    Each is there as linux-7.3.4, or as Debian names it, linux-source-7.3, as in /usr/src. Skips the test if there is
    none.
    """
    if series == "4.20":
        return seed_tree()
    place = Path(os.environ.get(TREES, "/usr/src")).expanduser()
    for tree in (*place.glob(f"linux-{series}*"), *place.glob(f"linux-source-{series}*")):
        if (tree / "mm/mmu_notifier.c").is_file():
            return tree
    pytest.skip(f"needs a source tree of {series}: in ${TREES}, or /usr/src")


def need_package(name: str) -> None:
    """Skips the test if that Python package is not installed; in CI that is a failure."""
    if find_spec(name) is None:
        assert "CI" not in os.environ, (
            f"{name} is not installed, and CI is to have it: pyproject.toml, the extra `dev`"
        )
        pytest.skip(f"{name} is not installed: vm-images/setup.sh dev")
