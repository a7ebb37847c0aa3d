# SPDX-License-Identifier: GPL-2.0-only
"""C reproducers in a VM: they show the symptom where the driver is wrong, and none where it is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.errors import UsageError
from harness.explore.reproducer import c_program, look
from harness.program.program import Program
from harness.program.text import parse
from harness.run import Plan
from harness.target.lab import Lab
from tests.reproducing import run_c

pytestmark = pytest.mark.vm

# mistake: a program that shows it, the binding, and what its C program says
FOUND_BY = {
    "skip-invalidate": ("invalidate/dontneed", "interval", "buf[1]: saw 0x43 VALID WRITE STALE, allowed is -"),
    "write-entry-always": ("fault/read-only", "interval", "buf[0]: saw "),
    "fault-reports-success": ("fault/prot-none", "interval", "saw success, allowed is EFAULT"),
    "migrate-no-copy": ("migrate/to-device", "mirror", "buf[0]: saw 0, allowed is 100"),
    "migrate-back-short": ("migrate/to-device", "interval", "saw torn, allowed is 100"),
    "leak-device-page": ("migrate/to-device", "interval", "in use: saw 8, allowed is 0"),
    "keep-exclusive": ("exclusive/cpu-write", "interval", "STALE"),
    "watch-skip-sequence": ("sequence/invalidated", "interval", "sequence: saw "),
    "skip-nonblockable": ("reap/anon", "interval", "STALE"),
}


def _select(name: str) -> Program:
    (program,) = catalogue.select([name])
    return program


@pytest.mark.parametrize("mistake", FOUND_BY)
def test_a_reproducer_shows_the_symptom_where_it_is(lab: Lab, mistake: str, tmp_path: Path) -> None:
    name, binding, words = FOUND_BY[mistake]
    program = _select(name)
    try:
        witness = look(program, Plan([program], [binding], wrong=[mistake]), lab)
    except UsageError as error:
        pytest.skip(error.message)
    assert witness.verdict is Verdict.FAIL, witness.reason
    for apart in (False, True):
        text = c_program(program, binding, witness, apart=apart)
        status, output = run_c(lab.vm(), text, tmp_path)
        assert status == 0, f"{output}\n{text}"
        assert output.endswith("no symptom\n")
        status, output = run_c(lab.vm(), text, tmp_path, mistake)
        assert status == 1, f"{output}\n{text}"
        assert words in output, f"{output}\n{text}"
        assert output.endswith("the symptom is there\n")
    lab.discard()  # what a wrong driver leaves behind


OF_EACH_KIND = """\
access/two-processes coherent/evict devmem/fork devmem/exit dma/map dma/reap exclusive/fork exclusive/data
fault/hole hugetlb/device hugetlb/poison invalidate/unmap migrate/evict move/part move/whole
pin/fork reap/refused reap/exit request/each-page request/owner-other sequence/two-pass fault/several-mappings
trap/poison-fork watch/overlapping events/unmap
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_program_that_passes_does_so_in_c(lab: Lab, name: str, tmp_path: Path) -> None:
    program = _select(name)
    try:
        witness = look(program, Plan([program], ["interval"]), lab)
    except UsageError as error:
        pytest.skip(error.message)
    assert witness.verdict in (Verdict.PASS, Verdict.DEVIATION), witness.reason
    text = c_program(program, "interval", witness)
    status, output = run_c(lab.vm(), text, tmp_path)
    assert status == (1 if witness.verdict is Verdict.DEVIATION else 0), f"{output}\n{text}"


def test_a_known_deviation_shows_in_c(lab: Lab, tmp_path: Path) -> None:
    program = _select("devmem/own-readonly-write")
    witness = look(program, Plan([program], ["interval"]), lab)
    if witness.verdict is not Verdict.DEVIATION:
        pytest.skip(f"this kernel does not deviate: {witness.verdict} {witness.reason}")
    assert witness.details
    status, output = run_c(lab.vm(), c_program(program, "interval", witness), tmp_path)
    assert status == 1, output


def test_what_the_device_keeps_is_seen_when_all_processes_are_gone(lab: Lab, tmp_path: Path) -> None:
    text = "a: map buf anon 8 rw\na: write buf 10\nd0: bind a\nd0: to-device buf\na: read buf"
    program = parse(text, file="leak", name="leak")
    witness = look(program, Plan([program], ["interval"], wrong=["leak-device-page"]), lab)
    assert (witness.verdict, witness.step, witness.leaked) == (Verdict.FAIL, None, ("d0",))
    text = c_program(program, "interval", witness)
    status, output = run_c(lab.vm(), text, tmp_path)
    assert status == 0, output
    status, output = run_c(lab.vm(), text, tmp_path, "leak-device-page")
    lab.discard()  # what it leaked stays
    assert status == 1, output
    assert "8 pages of d0 are in use after every process is gone" in output
