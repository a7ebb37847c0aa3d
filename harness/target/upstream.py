# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own hmm-tests: built from the source of the kernel under test, run in its VM."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import GuestError, MissingError
from harness.target.artifacts import Kernel
from harness.target.process import run_tool
from harness.target.vm import VM

_TOTALS = re.compile(r"^# Totals: pass:(\d+) fail:(\d+) xfail:\d+ xpass:\d+ skip:(\d+) error:(\d+)$", re.MULTILINE)
_IN_GUEST = "/tmp/hmm-tests"


@dataclass(frozen=True)
class Totals:
    """How many of its cases ended how."""

    passed: int
    failed: int
    skipped: int


def build(kernel: Kernel) -> bytes:
    """The program, linked statically. Raises `MissingError` without source, `BuildError` if it does not build."""
    sources = list(kernel.source.glob("tools/testing/selftests/*/hmm-tests.c")) if kernel.source else []
    if not sources:
        raise MissingError(f"the source of {kernel.name} has no hmm-tests.c")
    source = sources[0]
    with tempfile.TemporaryDirectory(prefix="hmm-harness-") as scratch:
        program = Path(scratch) / "hmm-tests"
        argv = ["gcc", "-static", "-O2", "-D_GNU_SOURCE", f"-I{kernel.source}", str(source), "-o", str(program)]
        run_tool(argv, log=Path(scratch) / "log")
        return program.read_bytes()


def run(vm: VM, program: bytes, *, timeout: float) -> Totals:
    """Runs the whole suite; at most `timeout` seconds."""
    vm.put(_IN_GUEST, program)
    _, output = vm.exec(f"echo 16 > /proc/sys/vm/nr_hugepages; {_IN_GUEST}", timeout=timeout)
    match = _TOTALS.search(output)
    if match is None:
        raise GuestError(f"hmm-tests did not end with its totals; its last words: {output[-400:]!r}")
    passed, failed, skipped, errors = map(int, match.groups())
    return Totals(passed, failed + errors, skipped)
