# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin on a real kernel, in pytest runs of its own: each outcome, and two workers at once."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from harness.target.cache import Cache
from harness.target.vm import Machine

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.vm

CODE = '''
import os
import signal

import pytest

from harness.errors import GuestError


def test_cow_after_fork(lockstep):
    """The device must not keep the page that the child still reads."""
    a, d0 = lockstep.subject("a"), lockstep.device("d0")
    buf = a.map("anon", pages=8, prot="rw")
    a.write(buf, 10)
    d0.bind(a)
    d0.read(buf)
    b = a.fork()
    a.write(buf[0:4], 50)
    d0.table(buf)
    d0.read(buf); b.read(buf)


@pytest.mark.hmm_wrong("skip-invalidate")
def test_wrong(lockstep, hmm_subject, hmm_device):
    buf = hmm_subject.map(pages=8)
    hmm_subject.write(buf, 10)
    hmm_device.bind(hmm_subject)
    hmm_device.read(buf)
    hmm_subject.advise(buf[1:7], "dontneed")
    hmm_device.table(buf)


@pytest.mark.hmm_binding("interval")
def test_killed(lockstep, hmm_lab):
    os.kill(hmm_lab.vm().pid, signal.SIGKILL)
    lockstep("a: map buf anon 8 rw\\na: read buf")


@pytest.mark.hmm_programs("devmem/unbind")
def test_program(lockstep, hmm_program):
    lockstep(hmm_program)


def test_vm(hmm_vm, hmm_kernel):
    assert hmm_vm.exec("uname -r", timeout=60) == (0, f"{hmm_kernel.release}\\n")
    hmm_vm.put("/tmp/hello", b"#!/bin/sh\\necho hello\\n")
    assert hmm_vm.exec("/tmp/hello", timeout=60) == (0, "hello\\n")


def test_vm_that_complains(hmm_vm):
    hmm_vm.exec("echo 'WARNING: CPU: 0 PID: 1 at mm/hmm.c:1 hmm_range_fault+0x1/0x2' > /dev/kmsg", timeout=60)


def test_vm_that_panics(hmm_vm):
    with pytest.raises(GuestError):
        hmm_vm.exec("echo c > /proc/sysrq-trigger; sleep 60", timeout=60)


def test_vm_that_is_killed(hmm_vm):
    os.kill(hmm_vm.pid, signal.SIGKILL)
'''
WORDS = "PASSED|FAILED|ERROR|SKIPPED"
OUTCOMES = {
    "cow_after_fork[interval]": "PASSED",
    "cow_after_fork[mirror]": "PASSED",
    "cow_after_fork[test_hmm]": "PASSED",
    "wrong[interval]": "FAILED",
    "killed[interval]": "ERROR",
    "program[interval-devmem/unbind]": "PASSED",
    "program[mirror-devmem/unbind]": "PASSED",
    "program[test_hmm-devmem/unbind]": "SKIPPED",
    "vm": "PASSED",
    "vm_that_complains": "FAILED",
    "vm_that_panics": "FAILED",  # though the test itself took that for good
    "vm_that_is_killed": "PASSED",
}


@pytest.mark.parametrize("workers", [[], ["-n2", "--hmm-vms=1"]])
def test_outcomes(
    machine: Machine, cache: Cache, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    """Two workers share a room for one VM: none starves, and each test ends as it does alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.root.parent))  # pytester gives its runs a new home
    arguments = [f"--hmm-kernel={machine.kernel.name}", f"--hmm-flavour={machine.kernel.flavour}", "-v", *workers]
    pytester.makepyfile(test_it=CODE)
    result = pytester.runpytest_subprocess(*arguments)
    text = result.stdout.str()
    progress = text.partition("= ERRORS =")[0]
    told = dict(re.findall(r"::test_(\S+) (PASSED|FAILED|ERROR|SKIPPED)", progress))
    told |= {
        name: word for word, name in re.findall(r"(PASSED|FAILED|ERROR|SKIPPED) test_it\.py::test_(\S+)", progress)
    }
    assert told == OUTCOMES, text
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_killed*",
            "ERROR: QEMU was killed by SIGKILL",
            "*_ test_wrong?interval? _*",
            "step 6: buf?1?: saw rw STALE, allowed is -",
            "*wrong on purpose: skip-invalidate*",
            "the kernel complained during the test",
            f"{machine.kernel.name} {machine.kernel.flavour}, Linux {machine.kernel.release}, *",
            "seed: --hmm-seed *",
        ]
    )
    if not workers:
        _replay(next(line for line in result.outlines if "replay: " in line and "--wrong" in line), pytester)


def _replay(line: str, pytester: pytest.Pytester) -> None:
    """The command that a failure ends with shows the same."""
    command = shlex.split(line.partition("replay: ")[2])
    again = subprocess.run(command, capture_output=True, text=True, cwd=pytester.path, check=False, timeout=600)
    assert again.returncode == 1, again.stderr
    assert "step 6: buf[1]: saw rw STALE, allowed is -" in again.stdout
