# SPDX-License-Identifier: GPL-2.0-only
"""The harness finds what is broken: each deliberate mistake of the driver turns its program red."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.errors import UsageError
from harness.run import Plan, run
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

# mistake: a program that it turns red, and what the reason says
FOUND_BY = {
    "skip-invalidate": ("invalidate/dontneed", "STALE"),
    "invalidate-short": ("invalidate/unmap", "STALE"),
    "skip-own-migrate": ("migrate/mirrored-before", "STALE"),
    "ignore-permission": ("access/read-only", "EPERM"),
    "write-entry-always": ("fault/read-only", "buf[0]"),
    "fault-forgets-write": ("fault/write-untouched", "buf[2]"),
    "fault-reports-success": ("fault/prot-none", "EFAULT"),
    "snapshot-faults": ("snapshot/untouched", "buf[0]"),
    "owner-unset": ("devmem/own-fault", "allowed is device moved"),
    "migrate-no-copy": ("migrate/to-device", "saw 0, allowed is 100"),
    "migrate-claims-all": ("migrate/shared-stays", "moved"),
    "migrate-back-short": ("migrate/to-device", "torn"),
    "migrate-back-shifted": ("migrate/to-system", "buf[1]: saw 100, allowed is 101"),
    "leak-device-page": ("migrate/to-device", "in use: saw 8, allowed is 0"),
    "evict-nothing": ("migrate/evict", "in use: saw 8, allowed is 0"),
    "hide-events": ("events/unmap", "heard no unmap of buf[2:6]"),
    "skip-nonblockable": ("reap/anon", "STALE"),
    "dma-skip-unmap": ("dma/invalidated", "STALE"),
    "watch-skip-sequence": ("sequence/invalidated", "sequence: saw"),
    "keep-exclusive": ("exclusive/cpu-write", "STALE exclusive, allowed is -"),
    "exclusive-claims-all": ("exclusive/hole", "saw success, allowed is EFAULT"),
    "skip-dirty": ("swap/given-up", "saw 0, allowed is 50"),
    "split-whole": ("move/whole-for-sure", "collected compound moved, allowed is"),
    "invalidate-later": ("invalidate/dontneed", "STALE"),
    "skip-protect": ("invalidate/protect", "STALE"),
    "failure-loses": ("request/fails-behind-copy", "STALE"),
    "ask-garbage": ("fault/read-untouched", "saw rw, allowed is r zero"),
    "migrate-first": ("migrate/many-pages", "buf[512]"),
    "free-twice": ("migrate/to-device", "in use: saw"),
}
# Mistakes that no program on its own can show, and why.
NOT_YET = {
    "drop-lock": "needs an invalidation between the check and the entry: a forced race",
    "last-sequence": "needs an invalidation between the two parts of a look: a forced race",
    "retry-forever": "needs invalidations that do not end",
    "lock-page-inside": "needs a migration while the device accesses the page: a forced race",
    "put-mm-inside": "needs the end of the process while the device works: a forced race",
    "bind-half": "needs an invalidation while a device is bound: a forced race",
}
# Mistakes that the kernel does not stand: a program, what comes of it, and what the reason or the kernel says
FATAL = {
    "touch-sources": ("move/part", {Verdict.FAIL, Verdict.CRASHED}, ""),
    "touch-targets": ("move/part", {Verdict.FAIL, Verdict.CRASHED}, ""),
    "unlocked-target": ("migrate/to-device", {Verdict.CRASHED, Verdict.TIMEOUT}, ""),
    "watch-nobody": ("sequence/no-process", {Verdict.CRASHED}, "mmu_interval_notifier_insert"),
    "watch-ends-itself": ("watch/part", {Verdict.CRASHED, Verdict.TIMEOUT}, ""),
    "memory-unowned": ("migrate/evict-removal", {Verdict.CRASHED}, "Missing owner"),
    "sleep-nonblockable": ("reap/refused", {Verdict.FAIL, Verdict.CRASHED}, ""),
    "keep-locked": ("exclusive/cpu-read", {Verdict.TIMEOUT}, ""),
    "fault-inside": ("fault/breaks-cow", {Verdict.CRASHED, Verdict.TIMEOUT}, ""),
    "unbind-late": ("events/unbound", {Verdict.CRASHED}, "a callback of a mirror that is not bound"),
}
# Of these, one of which nothing comes on older kernels: before v6.7 folio_unlock() leaves alone what is not locked.
QUIET = {"unlocked-target"}
PATIENCE = 20  # seconds for a program that does not end
# Mistakes that it takes a race to show, and one that does: tests/test_vm_race.py
FORCED = {"skip-retry": "race/lock", "retry-outside-lock": "race/lock"}
# A mistake that leaves nothing to judge by: a program that it makes inconclusive, and what the reason says
NOTHING_KNOWN = {"lose-events": ("events/unmap", "events of the driver were lost on the way")}


def test_every_mistake_of_the_module_is_listed_here(lab: Lab) -> None:
    assert sorted(lab.mistakes()) == sorted([*FOUND_BY, *FORCED, *NOT_YET, *NOTHING_KNOWN, *FATAL])


@pytest.mark.parametrize("mistake", FOUND_BY)
def test_a_mistake_turns_a_program_red(lab: Lab, mistake: str) -> None:
    name, words = FOUND_BY[mistake]
    programs = catalogue.select([name])
    (right,) = run(Plan(programs, ["interval"]), lab)
    if right.status is Verdict.SKIP:
        pytest.skip(right.reason)
    assert right.status is Verdict.PASS, "\n".join(right.explanation)
    (wrong,) = run(Plan(programs, ["interval"], wrong=[mistake]), lab)
    text = "\n".join(wrong.explanation)
    assert wrong.status is Verdict.FAIL, text
    assert words in wrong.reason
    assert f"--wrong {mistake}" in wrong.replay
    assert any(line.startswith("  > ") for line in wrong.explanation), "the step is marked"
    assert "page tables after the step" in text


@pytest.mark.parametrize("mistake", FATAL)
def test_a_mistake_is_fatal(lab: Lab, mistake: str) -> None:
    name, verdicts, words = FATAL[mistake]
    programs = catalogue.select([name])
    (right,) = run(Plan(programs, ["interval"]), lab)
    if right.status is Verdict.SKIP:
        pytest.skip(right.reason)
    assert right.status is Verdict.PASS, "\n".join(right.explanation)
    (wrong,) = run(Plan(programs, ["interval"], wrong=[mistake], timeout=PATIENCE), lab)
    text = "\n".join([wrong.reason, *wrong.explanation, *wrong.log])
    if mistake in QUIET and wrong.status is Verdict.PASS:
        pytest.skip("this kernel leaves it alone")
    assert wrong.status in verdicts, text
    assert words in text
    (after,) = run(Plan(programs, ["interval"]), lab)
    assert after.status is Verdict.PASS, "what comes next has a VM that is whole"


@pytest.mark.parametrize("mistake", NOTHING_KNOWN)
def test_a_mistake_leaves_nothing_to_judge_by(lab: Lab, mistake: str) -> None:
    name, words = NOTHING_KNOWN[mistake]
    (wrong,) = run(Plan(catalogue.select([name]), ["interval"], wrong=[mistake]), lab)
    assert wrong.status is Verdict.INCONCLUSIVE, "\n".join(wrong.explanation)
    assert words in wrong.reason


def test_an_unknown_mistake_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError, match="no mistake 'nosuch'") as caught:
        list(run(Plan(catalogue.select(["snapshot/untouched"]), ["interval"], wrong=["nosuch"]), lab))
    assert "skip-invalidate" in (caught.value.hint or "")
