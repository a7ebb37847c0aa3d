# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own hmm-tests in its VM, and a suite of ours in which each case ends in another way."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.defaults import PEER
from harness.errors import MissingError
from harness.progress import Progress
from harness.report.results import Result
from harness.run import Plan, last_words, run
from harness.target import upstream
from harness.target.cache import Cache
from harness.target.lab import Lab
from harness.target.places import CHECKOUT
from harness.target.upstream import Case, Suite, read_cases
from harness.target.vm import Machine

pytestmark = pytest.mark.vm

_SUITE = """\
#include "kselftest_harness.h"

FIXTURE(toy) { int unused; };
FIXTURE_SETUP(toy) { }
FIXTURE_TEARDOWN(toy) { }

TEST_F(toy, good)
{
}

TEST_F(toy, bad)
{
	ASSERT_EQ(1, 2);
}

/* The kernel complains, as far as its log tells. */
TEST_F(toy, complained)
{
	FILE *log = fopen("/dev/kmsg", "w");

	fprintf(log, "<4>WARNING: CPU: 0 PID: 1 at mm/hmm.c:77 hmm_range_fault+0x1/0x2\\n");
	ASSERT_EQ(fclose(log), 0);
}

TEST_F(toy, after)
{
}

/* It takes the kernel with it. */
TEST_F(toy, dies)
{
	FILE *trigger = fopen("/proc/sysrq-trigger", "w");

	fprintf(trigger, "c");
	fclose(trigger);
	sleep(20);
}

TEST_F(toy, last)
{
}

TEST_HARNESS_MAIN
"""


@pytest.fixture(scope="module")
def peer(machine: Machine, cache: Cache, progress: Progress) -> Iterator[Lab]:
    with Lab(machine, cache=cache, progress=progress) as lab:
        yield lab


def _run(cases: list[Case], lab: Lab) -> dict[str, Result]:
    return {result.program: result for result in run(Plan(cases, (PEER,)), lab)}


def _toys(machine: Machine, place: Path) -> list[Case]:
    assert machine.kernel.source is not None
    (place / "toy.c").write_text(_SUITE)
    subprocess.run(
        [
            *("gcc", "-static", "-w", "-D_GNU_SOURCE", f"-I{machine.kernel.source}/tools/testing/selftests"),
            *(str(place / "toy.c"), str(CHECKOUT / "harness/guest/peer/witness.c")),
            *("-Wl,--wrap=fork,--wrap=ioctl,--wrap=mmap", "-o", str(place / "toy")),
        ],
        check=True,
    )
    return list(read_cases(_SUITE, Suite((place / "toy").read_bytes(), {}, frozenset())))


def test_cases_of_the_kernel_pass_or_say_why_not(machine: Machine, peer: Lab) -> None:
    found = upstream.choose(upstream.cases(machine.kernel), ["open_close", "anon_read", "compound", "migrate"])
    assert len(found) >= 4
    results = _run(found, peer)
    assert list(results) == [case.name for case in found]
    private = [result for name, result in results.items() if "coherent" not in name]
    assert {result.status for result in private} == {Verdict.PASS}, [result.reason for result in private]
    assert all(result.status in (Verdict.PASS, Verdict.SKIP) for result in results.values())
    assert all(0 < result.seconds < 60 for result in results.values())
    assert all("upstream --kernel" in result.replay for result in results.values())


def test_without_huge_pages_one_case_returns_and_is_a_skip(machine: Machine, peer: Lab) -> None:
    (case,) = [case for case in upstream.cases(machine.kernel) if case.test.endswith("_private.compound")]
    assert _run([case], peer)[case.name].status is Verdict.PASS
    peer.vm().exec("echo 0 > /proc/sys/vm/nr_hugepages", timeout=30.0)
    result = _run([case], peer)[case.name]
    assert result.status is Verdict.SKIP
    assert "huge pages" in result.reason or "returned before it asked the device for anything" in result.reason


def test_what_the_kernel_says_is_said_of_the_case_in_which_it_did(
    machine: Machine, peer: Lab, tmp_path: Path
) -> None:
    peer.discard()
    results = _run(_toys(machine, tmp_path), peer)
    short = {name.rpartition(".")[2]: result for name, result in results.items()}
    assert {name: result.status for name, result in short.items()} == {
        "good": Verdict.PASS,
        "bad": Verdict.FAIL,
        "complained": Verdict.CRASHED,
        "after": Verdict.PASS,
        "dies": Verdict.CRASHED,
        "last": Verdict.PASS,
    }
    assert short["bad"].reason == "toy.c:13: Expected 1 (1) == 2 (2)"
    assert short["complained"].reason == "WARNING in hmm_range_fault, and hmm-tests call it ok"
    assert [report.kind for report in short["complained"].reports] == ["warning"]
    assert "panic" in short["dies"].reason
    assert not list(last_words(peer))
    peer.discard()


def test_a_kernel_without_its_source_has_no_suite(machine: Machine) -> None:
    kernel = replace(machine.kernel, source=None)
    with pytest.raises(MissingError, match="no source of hmm-tests"):
        upstream.cases(kernel)
