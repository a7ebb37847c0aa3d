# SPDX-License-Identifier: GPL-2.0-only
"""What was found, as a kernel developer can use it: a C program, a pytest test, or the program itself.

`look` runs a program and tells what became of it, `witness_of` makes the same of a run that is over; each form is a
function of the program, the binding and that.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.explore.c_program import c_program
from harness.explore.pytest_file import pytest_file
from harness.explore.witness import Scene, Witness, look, witness_of
from harness.program.program import Program
from harness.program.text import render

__all__ = ["FORMATS", "Scene", "Witness", "c_program", "look", "program_file", "pytest_file", "witness_of"]


def program_file(program: Program, binding: str, witness: Witness = Witness()) -> str:  # noqa: B008
    """The text form; what was seen is below it, since what is above is the promise."""
    lines = []
    if witness.scene is not None:
        lines.append(f"{witness.verdict} on {witness.scene}: {witness.reason}".removesuffix(": "))
        lines += [f"    {detail}" for detail in witness.details]
    lines.append(witness.replay or f"hmm-harness run --binding {binding} FILE")
    return render(program) + "".join(f"# {line}\n" for line in lines)


FORMATS: dict[str, Callable[[Program, str, Witness], str]] = {
    "c": c_program,
    "pytest": pytest_file,
    "hmm": program_file,
}
