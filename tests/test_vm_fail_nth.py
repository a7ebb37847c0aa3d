# SPDX-License-Identifier: GPL-2.0-only
"""Each allocation and each copy of each ioctl fails once: an error that is documented, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.explore.assault import searching_leaks
from harness.explore.fail_nth import fail_nth
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module", params=["debian:6.1", "debian:7.3"])
def debug_lab(request: pytest.FixtureRequest, cache: Cache, progress: Progress) -> Iterator[Lab]:
    machine = searching_leaks(prepare(request.param, "debug", cache=cache, progress=progress))
    with Lab(machine, cache=cache, progress=progress) as lab:
        yield lab


@pytest.mark.matrix
def test_whatever_fails_is_an_error_and_no_more(debug_lab: Lab) -> None:
    status, output, said = fail_nth(debug_lab.vm())
    assert said == [], output
    assert status == 0, output
    assert output.splitlines()[-1] == "fail_nth: passed"


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("mistake", "call", "words"),
    [
        ("migrate-no-copy", "INFO", "moved, failure 0: page 0 holds 0"),
        ("skip-invalidate", "MIGRATE-out", "moved, failure 0: page 0 of the device's table contradicts the CPU's"),
        ("leak-device-page", "UNBIND", "moved, failure 0: 8 pages of /dev/hmm_harness0 in use by nobody"),
    ],
)
def test_what_is_lost_is_noticed(debug_lab: Lab, mistake: str, call: str, words: str) -> None:
    vm = debug_lab.vm()
    wrong = "/sys/module/hmm_harness/parameters/wrong"
    assert vm.exec(f"echo {mistake} > {wrong}", timeout=60)[0] == 0
    status, output, _ = fail_nth(vm, [call])
    assert vm.exec(f"echo > {wrong}", timeout=60)[0] == 0
    assert status == 1
    assert f"fail_nth: /dev/hmm_harness0: {call}, {words}" in output


def test_a_kernel_that_cannot_let_things_fail_is_told(lab: Lab) -> None:
    if "CONFIG_FAULT_INJECTION=y" in lab.kernel.config.read_text().splitlines():
        pytest.skip("this kernel can")
    status, output, _ = fail_nth(lab.vm())
    assert (status, output) == (
        2,
        "fail_nth: needs CONFIG_FAULT_INJECTION and CONFIG_FAULT_INJECTION_DEBUG_FS: the flavour debug\n",
    )


def test_an_unknown_call_is_told_with_those_there_are(lab: Lab) -> None:
    status, output, _ = fail_nth(lab.vm(), ["FALT"])
    assert status == 2
    assert output.startswith("fail_nth: there is no call FALT; there are open touch ")
