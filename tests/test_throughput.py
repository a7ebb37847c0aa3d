# SPDX-License-Identifier: GPL-2.0-only
"""What exploring is compared with: a C program that does the operations of programs, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest

from harness.explore import campaign, throughput
from harness.explore.c_loop import c_loop, plain
from harness.explore.generate import Generator
from harness.model.rules import RULES
from harness.program.operations import Fork, Map
from harness.program.text import parse
from harness.target.lab import Lab
from harness.target.places import CHECKOUT
from tests.needs import need


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_what_is_drawn_is_a_loop_of_calls(binding: str, tmp_path: Path) -> None:
    """Each step of each program is in it once."""
    need("gcc")
    generator = Generator(RULES[binding], Random(3))
    programs = [left for number in range(25) if (left := plain(generator.fresh(f"p{number}"))).steps]
    text = c_loop(programs, binding)
    (tmp_path / "loop.c").write_text(text)
    argv = ["gcc", "-Wall", "-Wextra", "-Werror", f"-I{CHECKOUT}/kmod/include/uapi", "-fsyntax-only"]
    subprocess.run([*argv, tmp_path / "loop.c"], check=True)
    functions = text.split("static void program_")[1:]
    assert len(functions) == len(programs)
    for function, program in zip(functions, programs, strict=True):
        body = function.partition("static void (*const programs")[0]
        assert sum(body.count(call) for call in ("note(", "\tload(", "\tstore(")) == len(program.steps)


def test_what_is_more_than_a_call_is_left_out_with_what_needs_it() -> None:
    text = "a: map x anon 4 rw\na: map y hugetlb 512 rw\na: fork b\nb: read x\na: read y\na: swap-out x\na: read x"
    left = plain(parse(text, file="x", name="x"))
    assert [step.verb for step in left.steps] == ["map", "read"]
    assert not any(isinstance(step, Fork) for step in left.steps)
    assert sum(isinstance(step, Map) for step in left.steps) == 1


def test_the_loop_does_what_it_says(tmp_path: Path) -> None:
    """Without a device it runs here: all programs come to their end, also those whose accesses raise signals."""
    need("gcc")
    texts = ("a: map x anon 2 r\na: write x 1\na: read x", "a: map x anon 1 rw\na: unmap x\na: read x")
    programs = [parse(text, file="x", name="x") for text in texts]
    throughput.build_loop(programs, tmp_path)
    for rounds in ("1", "3"):
        said = subprocess.run([tmp_path / "loop", rounds], check=True, capture_output=True, text=True).stdout
        nanoseconds, failed = said.split()
        assert int(nanoseconds) > 0
        assert failed == "0"


@pytest.mark.vm
def test_exploring_is_measured_beside_the_same_operations_in_a_loop(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "_BATCHES", 1)
    one = throughput.explore_once(lab)
    assert one.operations >= len(one.programs) > 0
    assert throughput.loop_in(lab, one.programs)() > 0
    assert throughput.explore_once(lab).programs == one.programs
