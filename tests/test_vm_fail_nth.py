# SPDX-License-Identifier: GPL-2.0-only
"""Each allocation and each copy of each ioctl fails once: an error that is documented, and nothing is lost."""

from __future__ import annotations

import pytest

from harness.explore.assault import searching_leaks
from harness.explore.fail_nth import fail_nth
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare

pytestmark = pytest.mark.vm


@pytest.mark.matrix
@pytest.mark.parametrize("spec", ["debian:6.1", "debian:7.3"])
def test_whatever_fails_is_an_error_and_no_more(spec: str, cache: Cache, progress: Progress) -> None:
    machine = searching_leaks(prepare(spec, "debug", cache=cache, progress=progress))
    with Lab(machine, cache=cache, progress=progress) as lab:
        status, output, said = fail_nth(lab.vm())
    assert said == [], output
    assert status == 0, output
    assert output.splitlines()[-1] == "fail_nth: passed"


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
