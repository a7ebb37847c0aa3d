# SPDX-License-Identifier: GPL-2.0-only
"""What does its worst to the module knows all of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.guest.files import UAPI_HEADER
from harness.target.places import CHECKOUT

GUEST = CHECKOUT / "harness/guest"


def commands() -> list[str]:
    found = re.findall(r"^#define (HMM_HARNESS_\w+) _IO\(", (CHECKOUT / UAPI_HEADER).read_text(), re.MULTILINE)
    assert len(found) >= 15
    return found


@pytest.mark.parametrize("program", ["ioctl_fuzz.c", "fail_nth.c"])
@pytest.mark.parametrize("command", commands())
def test_every_ioctl_is_in_the_table(program: str, command: str) -> None:
    (table,) = re.findall(
        r"^static const struct \w+ (?:calls|commands)\[\] = \{\n(.*?)^\};", source(program), re.M | re.S
    )
    assert re.search(rf"\b{command}\b", table), f"harness/guest/{program} has no row for {command}"


def source(program: str) -> str:
    return (GUEST / program).read_text()


@pytest.mark.parametrize("program", ["ioctl_fuzz.c", "fail_nth.c", "reload.c"])
def test_it_compiles_without_a_word(program: str, tmp_path: Path) -> None:
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-pthread"]
    argv += [f"-I{(CHECKOUT / UAPI_HEADER).parent}", str(GUEST / program), "-o", str(tmp_path / "program")]
    compiled = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (compiled.returncode, compiled.stderr) == (0, "")
