# SPDX-License-Identifier: GPL-2.0-only
"""The cffi view of the headers against the compiler's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness import abi
from harness.guest.files import UAPI_HEADER, WIRE_HEADER
from tests.guest_executor import ROOT

HEADERS = [ROOT / UAPI_HEADER, ROOT / WIRE_HEADER]


def compiler_says(tmp_path: Path) -> dict[str, int]:
    """Each constant, and sizes and offsets of each struct and member that cffi knows, as gcc has them."""
    wanted = dict.fromkeys(abi.CONSTANTS, "")
    for struct in abi.ffi.list_types()[1]:
        wanted[f"sizeof(struct {struct})"] = ""
        for name, _ in abi.ffi.typeof(f"struct {struct}").fields or ():
            wanted[f"offsetof(struct {struct}, {name})"] = ""
            wanted[f"sizeof(((struct {struct} *)0)->{name})"] = ""
    lines = "".join(f'printf("%llu\\n", (unsigned long long)({expression}));\n' for expression in wanted)
    includes = "".join(f'#include "{header}"\n' for header in HEADERS)
    source = tmp_path / "says.c"
    source.write_text(f"#include <stddef.h>\n#include <stdio.h>\n{includes}int main(void) {{\n{lines}}}\n")
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", tmp_path / "says", source], check=True)
    output = subprocess.run([tmp_path / "says"], check=True, capture_output=True, text=True).stdout
    return dict(zip(wanted, map(int, output.split()), strict=True))


def test_constants_structs_and_offsets_are_the_compilers(tmp_path: Path) -> None:
    ffi = abi.ffi
    seen: dict[str, int] = dict(abi.CONSTANTS)
    for struct in ffi.list_types()[1]:
        seen[f"sizeof(struct {struct})"] = ffi.sizeof(f"struct {struct}")
        for name, member in ffi.typeof(f"struct {struct}").fields or ():
            seen[f"offsetof(struct {struct}, {name})"] = ffi.offsetof(f"struct {struct}", name)
            seen[f"sizeof(((struct {struct} *)0)->{name})"] = ffi.sizeof(member.type)
    assert seen == compiler_says(tmp_path)


def test_nothing_of_the_headers_is_left_out() -> None:
    text = "".join(header.read_text() for header in HEADERS)
    assert set(re.findall(r"^struct (\w+) \{", text, re.MULTILINE)) == set(abi.ffi.list_types()[1])
    guards = {"HMM_HARNESS_WIRE_H", "_UAPI_HMM_HARNESS_H"}
    assert set(re.findall(r"^#define (\w+)", text, re.MULTILINE)) - guards == set(abi.CONSTANTS)


def test_a_define_that_cannot_be_evaluated_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot evaluate"):
        abi.read_headers(["#define A sizeof(int)"])
