# SPDX-License-Identifier: GPL-2.0-only
"""Crashes that are known bugs are told from those that are not."""

from __future__ import annotations

from dataclasses import replace

from harness.target.bugs import known_bug, with_bug
from harness.target.crashes import crashes

# As Linux 4.20.11 said it when a page in device memory that two processes map was touched
SUBPAGE = """\
[    5.774000] BUG: unable to handle kernel paging request at ffffea007e7c0008
[    5.774100] Oops: 0000 [#1] SMP NOPTI
[    5.774200] CPU: 0 PID: 93 Comm: executor Tainted: G           O      4.20.11 #1
[    5.774300] RIP: 0010:page_remove_rmap+0x9/0x3d0
[    5.774400] Call Trace:
[    5.774500]  try_to_unmap_one+0x58f/0xa30
[    5.779966]  migrate_vma+0x4ad/0x1690
[    5.780729]  hh_seed_migrate+0x3e/0x40 [hmm_harness]
[    5.789897] ---[ end trace f8ea3235ac2a59ee ]---
"""
# As 6.1.192 with lockdep says it of any part of a hugetlb mapping that becomes a mapping of its own
SPLIT = """\
[  122.268359] ------------[ cut here ]------------
[  122.269440] WARNING: CPU: 0 PID: 260 at include/linux/fs.h:509 hugetlb_split+0x1d2/0x270
[  122.275819] RIP: 0010:hugetlb_split+0x1d2/0x270
[  122.284889] Call Trace:
[  122.287162]  __vma_adjust+0xf85/0x1af0
[  122.288746]  __split_vma+0x398/0x480
[  122.289066]  do_madvise.part.0+0x1409/0x4920
[  122.310000] ---[ end trace 0000000000000000 ]---
"""


def test_a_lock_that_is_taken_too_late_is_known() -> None:
    bug = known_bug(crashes(SPLIT.splitlines())[0])
    assert bug is not None
    assert "__vma_adjust()" in bug.source


def test_a_known_bug_is_named_with_its_source() -> None:
    found = crashes(SUBPAGE.splitlines())
    bug = known_bug(found[0])
    assert bug is not None
    assert "1de13ee59225" in bug.source
    said = with_bug("the kernel reported a bug", found)
    assert said.startswith("the kernel reported a bug; a known bug: ")
    assert bug.source in said


def test_another_crash_is_not() -> None:
    (crash, *_) = crashes(SUBPAGE.splitlines())
    other = replace(crash, lines=tuple(line for line in crash.lines if "migrate_vma" not in line))
    assert known_bug(other) is None
    assert with_bug("what it said", [other]) == "what it said"
    assert with_bug("what it said", []) == "what it said"
