# SPDX-License-Identifier: GPL-2.0-only
"""The suite of mutants: what each patch says of itself, and the page of their fates."""

from __future__ import annotations

import re
import subprocess

import pytest

from harness.conformance import clauses
from harness.target.mutant import Patch, read_patches
from tests.guest_executor import ROOT
from tests.needs import need, source_tree

SUITE = ROOT / "tests/mutants/debian-6.12"
PATCHES = read_patches([SUITE])
FILES = {
    "mm/hmm.c", "mm/migrate_device.c", "mm/mmu_notifier.c", "mm/memory.c", "mm/mprotect.c", "mm/rmap.c",
    "mm/huge_memory.c", "mm/memremap.c",
}  # fmt: skip
FEW = 12  # lines that are taken away or put in


def test_there_are_many_in_each_file() -> None:
    assert len(PATCHES) >= 44
    for file in FILES:
        assert sum(patch.files == [file] for patch in PATCHES) >= 3, file
    assert len({patch.title for patch in PATCHES}) == len(PATCHES)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_each_says_what_it_is(patch: Patch) -> None:
    assert patch.header("SPDX-License-Identifier") == "GPL-2.0-only"
    assert patch.title != patch.name
    assert patch.files[0] in FILES, "one file, that HMM is about"
    assert len(patch.files) == 1
    contract = clauses.load()
    assert patch.breaks, "no clause"
    for name in patch.breaks:
        assert name in contract.clauses
    function = patch.function.removesuffix("()")
    assert function != patch.function
    assert re.search(rf"^[ @].*\b{function}\(", patch.text, re.MULTILINE) or _has(patch, function)
    changed = re.findall(r"^[-+](?![-+]{2} ).*$", patch.text, re.MULTILINE)
    assert 0 < len(changed) <= FEW


def _has(patch: Patch, function: str) -> bool:
    """Whether the file that it changes has such a function, where there is a tree."""
    text = (source_tree("6.12") / patch.files[0]).read_text(encoding="utf-8")
    return re.search(rf"^\S.*\b{function}\(|^{function}\(", text, re.MULTILINE) is not None


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_each_applies_where_there_is_a_tree(patch: Patch) -> None:
    need("patch")
    tree = source_tree("6.12")
    argv = ["patch", "-p1", "--dry-run", "--batch", f"--directory={tree}"]
    done = subprocess.run(argv, input=patch.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_page_has_each_of_them() -> None:
    page = (SUITE / "README.md").read_text(encoding="utf-8")
    for patch in PATCHES:
        row = (
            f"| [{patch.name}]({patch.name}.patch) | `{patch.function}` | {patch.title} | {', '.join(patch.breaks)} |"
        )
        assert row in page, f"{patch.name}: `make mutants ARGS=--resume` writes the page"
    assert re.search(r"^# Mutants of debian:6\.12$", page, re.MULTILINE)
