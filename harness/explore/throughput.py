# SPDX-License-Identifier: GPL-2.0-only
"""How fast an exploration is, beside a C program that does the same operations in a plain loop in the same VM.

What is explored is a whole unit: its programs are drawn, varied, sent and run, and the model judges what they showed.
Their steps are those that a process can do by itself (harness/explore/c_loop.py `plain`), so that the C program can
do all of them, and nothing else.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import GuestError
from harness.explore.c_loop import c_loop, plain
from harness.explore.campaign import Started, Terms, Unit
from harness.program.program import Program
from harness.target.children import run
from harness.target.lab import Lab
from harness.target.places import CHECKOUT

BINDING = "interval"
_SEED = 1
_UNIT = 1  # one that has no programs after which another one needs a clean VM
_PLACE = "/run/hmm-harness-loop"
_LOOP_SECONDS = 300.0


@dataclass(frozen=True)
class Explored:
    """One unit: its programs, and the seconds that it took."""

    programs: tuple[Program, ...]
    seconds: float

    @property
    def operations(self) -> int:
        """Of all programs."""
        return sum(len(program.steps) for program in self.programs)


def explore_once(lab: Lab) -> Explored:
    """Explores one unit, always the same. Raises `GuestError` if a program did not pass: nothing compares then."""
    lab.vm()
    started = Started(Terms(_SEED, (BINDING,)), "", (), "", frozenset())
    unit = Unit(started, _UNIT, BINDING, lab, adapt=plain)
    programs = []
    begun = time.monotonic()
    for result, program, _ in unit.results():
        if not result.status.good:
            raise GuestError(f"{program.name} did not pass during the measurement: {result.status}: {result.reason}")
        programs.append(program)
    return Explored(tuple(programs), time.monotonic() - begun)


def explore_at_once(labs: Sequence[Lab]) -> Explored:
    """One unit in each VM, the same in all, at the same time; the seconds are those from the first to the last."""
    for lab in labs:
        lab.vm()
    told: list[Explored] = []
    failures: list[BaseException] = []

    def work(lab: Lab) -> None:
        try:
            told.append(explore_once(lab))
        except BaseException as failure:  # noqa: BLE001  raised below
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(lab,)) for lab in labs]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    if failures:
        raise failures[0]
    return Explored(tuple(program for each in told for program in each.programs), seconds)


def build_loop(programs: Sequence[Program], directory: Path) -> bytes:
    """The C program that does the operations of `programs`. Raises `BuildError` if it does not compile."""
    source, binary = directory / "loop.c", directory / "loop"
    source.write_text(c_loop(programs, BINDING), encoding="utf-8")
    run(
        ["gcc", "-static", "-O2", f"-I{CHECKOUT / 'kmod/include/uapi'}", "-o", binary, source],
        what="compiling the operations as a plain loop",
    )
    return binary.read_bytes()


def loop_in(lab: Lab, programs: Sequence[Program]) -> Callable[[], float]:
    """Puts that program into the VM; to be called for the seconds that it takes there, once through all."""
    with tempfile.TemporaryDirectory() as directory:
        lab.vm().put(_PLACE, build_loop(programs, Path(directory)))

    def once() -> float:
        status, output = lab.vm().exec(_PLACE, timeout=_LOOP_SECONDS)
        words = output.split()
        if status or len(words) != 2 or words[1] != "0":
            raise GuestError(f"the plain loop failed ({status}): {output.strip()[-400:]}")
        return int(words[0]) / 1e9

    return once
