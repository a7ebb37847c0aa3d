# SPDX-License-Identifier: GPL-2.0-only
"""The reading of kernel logs: classes, titles, what belongs to a report, what follows from what.

The logs in tests/console are real, made by tests/make_corpus.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.target.crashes import STALLS, CrashClass, begins, crashes
from tests.make_corpus import Recorded, corpus
from tests.provoking import PROVOCATIONS

CORPUS = corpus()
LOGS = {(each.provocation.name, each.kernel): each.log for each in CORPUS}
KERNELS = sorted({each.kernel for each in CORPUS})
each_recorded = pytest.mark.parametrize(
    "recorded", CORPUS, ids=[f"{each.provocation.name}-{each.kernel}" for each in CORPUS]
)
each_kernel = pytest.mark.parametrize("kernel", KERNELS)

# One line each, as the kernels' sources print them: 4.20, 5.10, 6.1, 6.12, 7.3.
LINES = {
    "BUG: KASAN: use-after-free in dmirror_x+0x1f/0x40 [test_hmm]": "kasan: KASAN: use-after-free in dmirror_x",
    "BUG: KASAN: double-free or invalid-free in f+0x1/0x2": "kasan: KASAN: double-free or invalid-free in f",
    "BUG: KFENCE: use-after-free read in f+0x1/0x2": "kfence: KFENCE: use-after-free read in f",
    "BUG: KCSAN: data-race in a [crash] / b [crash]": "kcsan: KCSAN: data-race in a / b",
    "BUG: KCSAN: data-race in f+0x1/0x2 [crash]": "kcsan: KCSAN: data-race in f",
    "UBSAN: array-index-out-of-bounds in mm/hmm.c:1:2": "ubsan: UBSAN: array-index-out-of-bounds",
    "BUG: kernel NULL pointer dereference, address: 0": "oops: BUG: unable to handle kernel NULL pointer dereference",
    "BUG: unable to handle kernel NULL pointer dereference at 0000000000000008": (
        "oops: BUG: unable to handle kernel NULL pointer dereference"
    ),
    "BUG: unable to handle page fault for address: ffff888": "oops: BUG: unable to handle kernel paging request",
    "BUG: unable to handle kernel paging request at ffff888": "oops: BUG: unable to handle kernel paging request",
    "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP": (
        "oops: general protection fault"
    ),
    "Oops: general protection fault, maybe for address 0x1: 0000 [#1] SMP": "oops: general protection fault",
    "divide error: 0000 [#1] PREEMPT SMP": "oops: divide error",
    "Oops: divide error: 0000 [#1] SMP": "oops: divide error",
    "Oops: 0002 [#1] SMP": "oops: Oops",
    "Oops: Oops: 0002 [#1] SMP": "oops: Oops",
    "kernel BUG at mm/hmm.c:123!": "bug: kernel BUG",
    "BUG: spinlock bad magic on CPU#0, insmod/53": "bug: BUG: spinlock bad magic",
    "BUG: something new in 53 places at 0xffff888003effde0": "bug: BUG: something new in N places at ADDR",
    "WARNING: CPU: 0 PID: 53 at mm/hmm.c:33 f+0x61/0x1000 [crash]": "warning: WARNING in f",
    "WARNING: mm/hmm.c:33 at f+0x61/0x1000 [crash], CPU#0: insmod/53": "warning: WARNING in f",
    "WARNING: at f+0x61/0x1000, CPU#0: insmod/53": "warning: WARNING in f",
    "WARNING: stack recursion": "warning: WARNING: stack recursion",
    "refcount_t: underflow; use-after-free.": "warning: WARNING: refcount bug",
    "list_del corruption. prev->next should be ffff, but was dead": "warning: WARNING: list_del corruption",
    "WARNING: possible circular locking dependency detected": "lockdep: possible deadlock",
    "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected": "lockdep: possible deadlock",
    "WARNING: possible recursive locking detected": "lockdep: possible recursive locking",
    "WARNING: inconsistent lock state": "lockdep: inconsistent lock state",
    "WARNING: suspicious RCU usage": "lockdep: suspicious RCU usage",
    "WARNING: executor/53 still has locks held!": "lockdep: task still has locks held",
    "[ BUG: Invalid wait context ]": "lockdep: Invalid wait context",
    "INFO: trying to register non-static key.": "lockdep: trying to register non-static key",
    "BUG: MAX_LOCKDEP_CHAINS too low!": "lockdep: lockdep: MAX_LOCKDEP_CHAINS too low",
    "BUG: sleeping function called from invalid context at mm/memory.c:1": (
        "sleep-in-atomic: BUG: sleeping function called from invalid context"
    ),
    "BUG: scheduling while atomic: insmod/53/0x00000002": "sleep-in-atomic: BUG: scheduling while atomic",
    "INFO: task Web Content:53 blocked for more than 30 seconds.": "hung-task: INFO: task hung",
    "INFO: task cp:53 blocked in I/O wait for more than 30 seconds.": "hung-task: INFO: task hung",
    "rcu: INFO: rcu_sched self-detected stall on CPU": "rcu-stall: INFO: rcu detected stall",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:": "rcu-stall: INFO: rcu detected stall",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.. }": "rcu-stall: INFO: rcu detected stall",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 5s! [insmod:53]": "soft-lockup: BUG: soft lockup",
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 1": "hard-lockup: hard lockup",
    "watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1": "hard-lockup: hard lockup",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!": (
        "workqueue-lockup: BUG: workqueue lockup"
    ),
    "BUG: Bad page state in process executor  pfn:03f2a": "bad-page: BUG: Bad page state",
    "BUG: Bad page map in process executor  pte:8000000 pmd:0": "bad-page: BUG: Bad page map",
    "mm/pgtable-generic.c:50: bad pmd 0000000012345678(800000003fe008e7)": "bad-page: bad pmd",
    "BUG kmalloc-64 (Tainted: G    B      O   ): Poison overwritten": "bad-page: BUG kmalloc-64: Poison overwritten",
    "swap_info_get: Bad swap offset entry 0003ffff": "bad-page: Bad swap offset entry in swap_info_get",
    "swap_info_get: Unused swap offset entry 0003ffff": "bad-page: Unused swap offset entry in swap_info_get",
    "_swap_info_get: Unused swap file entry 7c0000000001": "bad-page: Unused swap file entry in _swap_info_get",
    "get_swap_device: Bad swap file entry 3ffffffffffff": "bad-page: Bad swap file entry in get_swap_device",
    "Bad swap file entry 74003fffffe2a1c5": "bad-page: Bad swap file entry",
    "BUG: Bad rss-counter state mm:00000000a type:MM_ANONPAGES val:1": (
        "bad-rss: BUG: Bad rss-counter state type:MM_ANONPAGES"
    ),
    "BUG: Bad rss-counter state mm:00000000a type:MM_ANONPAGES val:1 Comm:insmod Pid:53": (
        "bad-rss: BUG: Bad rss-counter state type:MM_ANONPAGES"
    ),
    "BUG: Bad rss-counter state mm:00000000a idx:1 val:1": "bad-rss: BUG: Bad rss-counter state",
    "BUG: non-zero pgtables_bytes on freeing mm: 4096": "bad-rss: BUG: non-zero pgtables_bytes on freeing mm",
    "pagealloc: memory corruption": "bad-page: pagealloc: memory corruption",
    "pagealloc: single bit error": "bad-page: pagealloc: single bit error",
    "unreferenced object 0xffff888003effde0 (size 64):": "leak: memory leak",
    "unreferenced object (percpu) 0xffff888003effde0 (size 64):": "leak: memory leak",
    "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)": "leak: memory leak",
    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100": (
        "panic: kernel panic: Attempted to kill init! exitcode=ADDR"
    ),
    "---[ end Kernel panic - not syncing: wanted by a test ]---": "panic: kernel panic: wanted by a test",
}

# What looks like trouble in a healthy log, and is none.
HARMLESS = """\
[    0.000000] Kernel command line: console=ttyS0 panic=-1
[    0.160660] APIC calibration not consistent with PM-Timer: 221ms instead of 100ms
[    0.444436] mtrr: your CPUs had inconsistent fixed MTRR settings
[    1.000000] rcu: RCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).
[    1.000000] rcu: Preemptible hierarchical RCU implementation.
[    1.100000] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
[    1.100000] kasan: KernelAddressSanitizer initialized (generic)
[    1.100000] kcsan: enabled early
[    1.100000] kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)
[    6.965969] hmm_harness: loading out-of-tree module taints kernel.
[   12.000000] Memory failure: 0x3f2a: recovery action for dirty LRU page: Recovered
[   12.000002] debugfs: Directory 'x' with parent 'y' already present!
[   12.000003] python3[52]: segfault at 0 ip 0000000000000000 sp 00007ffd1ef1a2c8 error 14
[   12.000004] traps: python3[52] general protection fault ip:47fbe9 sp:7ffd1ef1a2c8 error:0 in python3[400000+1]
[   12.000005] traps: python3[52] trap invalid opcode ip:47fbe9 sp:7ffd1ef1a2c8 error:0 in python3[400000+1]
[   12.000006] Disabling lock debugging due to kernel taint
[   12.000007] INFO: lockdep is turned off.
[   12.000008] sysrq: Show Blocked State
[   12.000009] Adding 65532k swap on /dev/zram0.  Priority:-2 extents:1 across:65532k SS
"""


def found(log: list[str], taint: int = 0) -> list[str]:
    """Fingerprints of the independent crashes."""
    return [crash.fingerprint for crash in crashes(log, taint)]


def test_a_bad_page_map_follows_from_its_bad_swap_entry() -> None:
    """zap_pte_range() prints the second because of the first."""
    log = [
        "[    1.000000] get_swap_device: Bad swap file entry 3ffffffffffff",
        "[    1.000100] BUG: Bad page map in process executor  pte:8000000 pmd:0",
    ]
    (crash,) = crashes(log)
    assert crash.fingerprint == "bad-page: Bad swap file entry in get_swap_device"
    assert [each.fingerprint for each in crash.consequences] == ["bad-page: BUG: Bad page map"]


@pytest.mark.parametrize("stamp", ["", "[    1.234567] ", "[   12.345678][   T52] ", "<4>[    1.0][    C1] "])
def test_each_report_is_known_by_one_line(stamp: str) -> None:
    for line, fingerprint in LINES.items():
        log = [f"{stamp}before", f"{stamp}{line}", f"{stamp}after"]
        (crash,) = crashes(log)
        assert crash.fingerprint == fingerprint
        assert (crash.first, crash.last, crash.lines) == (1, 1, (log[1],))
        assert crash.text == line
        assert begins(log[1])


def test_a_healthy_log_has_no_crash() -> None:
    assert crashes(HARMLESS.splitlines()) == []


def test_lines_of_dev_kmsg_have_escapes() -> None:
    line = r"[    1.0] BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[9]\x0a     preempt=0x00000001"
    (crash,) = crashes([line])
    assert crash.text == "BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[9]"


# Documentation/dev-tools/kcsan.rst, KCSAN prints no "Call Trace:"
DATA_RACE = """\
==================================================================
BUG: KCSAN: data-race in test_kernel_read / test_kernel_write

write to 0xffffffffc009a628 of 8 bytes by task 487 on cpu 0:
 test_kernel_write+0x1d/0x30
 access_thread+0x89/0xd0
 kthread+0x23e/0x260
 ret_from_fork+0x22/0x30

read to 0xffffffffc009a628 of 8 bytes by task 488 on cpu 6:
 test_kernel_read+0x10/0x20
 access_thread+0x89/0xd0
 kthread+0x23e/0x260
 ret_from_fork+0x22/0x30

value changed: 0x00000000000009a6 -> 0x00000000000009b2

Reported by Kernel Concurrency Sanitizer on:
CPU: 6 PID: 488 Comm: access_thread Not tainted 5.12.0-rc2+ #1
Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.14.0-2 04/01/2014
==================================================================
"""


def test_a_data_race_is_read_from_rule_to_rule() -> None:
    lines = DATA_RACE.splitlines()
    log = [f"[    1.0] {line}" for line in ["before", *lines, "CPU: 6 has nothing to do with it", *lines]]
    (crash,) = crashes(log)
    assert crash.fingerprint == "kcsan: KCSAN: data-race in test_kernel_read / test_kernel_write"
    assert crash.count == 2
    assert crash.lines == tuple(log[1 : 1 + len(lines)])


@given(st.lists(st.text()))
def test_any_text_is_read(lines: list[str]) -> None:
    for crash in crashes(lines):
        assert any(begins(line) for line in crash.lines)


@given(st.lists(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789 :[]#.-+/\t\\"), max_size=30))
def test_nothing_is_recognised_where_the_kernel_says_nothing(lines: list[str]) -> None:
    words = (
        "panic",
        "bad p",
        "unreferenced",
        "kmemleak",
        "refcount_t",
        "corruption",
        "fault",
        "stack overflow",
        "[#",
    )
    assert crashes([line for line in lines if not any(word in line for word in words)]) == []


def test_taint_that_no_report_explains_is_a_crash() -> None:
    bits = 1 << 9 | 1 << 5 | 1 << 30
    warning = "[    1.0] WARNING: CPU: 0 PID: 53 at a.c:1 f+0x1/0x2"
    assert found([], bits) == [
        "taint: the kernel is tainted now: bad page",
        "taint: the kernel is tainted now: warning",
        "taint: the kernel is tainted now: bit 30",
    ]
    assert found([warning], bits) == [
        "warning: WARNING in f",
        "taint: the kernel is tainted now: bad page",
        "taint: the kernel is tainted now: bit 30",
    ]
    (crash,) = crashes(["healthy"], 1 << 3)
    assert (crash.kind, crash.first, crash.lines) == (CrashClass.TAINT, 1, ())


def test_the_corpus_has_every_provocation() -> None:
    assert {each.provocation.name for each in CORPUS} == {each.name for each in PROVOCATIONS}


@each_recorded
def test_what_was_provoked_is_recognised_and_nothing_else(recorded: Recorded) -> None:
    (crash,) = crashes(recorded.log, recorded.taint)
    assert crash.kind is recorded.provocation.kind
    assert re.fullmatch(recorded.provocation.title, crash.title)
    assert crash.consequences == ()


@each_recorded
def test_a_report_is_recognised_whole(recorded: Recorded) -> None:
    log = ["[    0.1] something else", *recorded.log, "[   99.9] something else"]
    (crash,) = crashes(log, recorded.taint)
    assert "something else" not in "".join(crash.lines)
    if crash.count == 1:
        frames = [line for line in recorded.log if re.search(r" \w+\+0x[0-9a-f]+/0x[0-9a-f]+", line)]
        assert [line for line in crash.lines if line in frames] == frames


@each_kernel
def test_all_that_was_provoked_is_told_apart(kernel: str) -> None:
    names = defaultdict(set)
    for each in CORPUS:
        if each.kernel == kernel:
            names[crashes(each.log, each.taint)[0].fingerprint].add(each.provocation.name)
    assert all(len(same) == 1 for same in names.values())


@each_recorded
def test_the_same_again_is_counted_not_told_twice(recorded: Recorded) -> None:
    once = crashes(recorded.log)
    again = crashes(recorded.log * 3)
    assert again == [replace(crash, count=3 * crash.count) for crash in once]


@each_recorded
def test_a_log_that_is_cut_short_is_of_the_same_class(recorded: Recorded) -> None:
    log = recorded.log
    telling = next((index for index in range(len(log)) if begins(log[index])), len(log))
    for end in range(telling + 1, len(log)):
        (crash,) = crashes(log[:end])
        assert crash.kind is recorded.provocation.kind
    for start in range(telling):
        (crash,) = crashes(log[start:])
        assert crash.kind is recorded.provocation.kind


@each_kernel
@pytest.mark.parametrize("fatal", ["oops", "bug", "panic"])
def test_what_follows_the_death_of_a_kernel_is_a_consequence(kernel: str, fatal: str) -> None:
    others = [each for each in CORPUS if each.kernel == kernel and each.provocation.name != fatal and each.log]
    log = list(LOGS[fatal, kernel])
    for each in others:
        log += each.log
    (crash,) = crashes([*log, "[   99.9] Kernel panic - not syncing: Fatal exception"])
    assert crash.fingerprint == crashes(LOGS[fatal, kernel])[0].fingerprint
    kinds = [each.kind for each in crash.consequences]
    assert {each.provocation.kind for each in others} <= set(kinds)
    assert kinds[-1] is CrashClass.PANIC


@each_kernel
def test_a_cpu_that_is_stuck_is_reported_once_whoever_notices_first(kernel: str) -> None:
    stalls = [each for each in CORPUS if each.kernel == kernel and each.provocation.kind in STALLS]
    for first in stalls:
        others = [each for each in stalls if each is not first]
        (crash,) = crashes([*first.log, *(line for each in others for line in each.log)])
        assert crash.kind is first.provocation.kind
        assert [each.kind for each in crash.consequences] == [each.provocation.kind for each in others]


@each_kernel
def test_a_warning_explains_nothing_that_comes_later(kernel: str) -> None:
    log = LOGS["warning", kernel] + LOGS["bad-page", kernel] + LOGS["panic", kernel]
    assert [each.kind for each in crashes(log)] == [CrashClass.WARNING, CrashClass.BAD_PAGE, CrashClass.PANIC]


@each_kernel
def test_a_panic_that_is_called_because_of_a_report_is_its_consequence(kernel: str) -> None:
    log = [*LOGS["warning", kernel], "[   99.9] Kernel panic - not syncing: kernel: panic_on_warn set ..."]
    (crash,) = crashes(log)
    assert crash.kind is CrashClass.WARNING
    assert [each.kind for each in crash.consequences] == [CrashClass.PANIC]


def with_caller(log: list[str], caller: str) -> list[str]:
    """The lines as a kernel with PRINTK_CALLER prints them."""
    return [line.replace("] ", f"][{caller:>7}] ", 1) for line in log]


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if ("hung-task", kernel) in LOGS])
def test_reports_of_two_callers_are_told_apart(kernel: str) -> None:
    one = with_caller(LOGS["warning", kernel], "T52")
    other = with_caller(LOGS["hung-task", kernel], "T19")
    longer, shorter = sorted([one, other], key=len, reverse=True)
    mixed = [line for pair in zip(longer, shorter, strict=False) for line in pair] + longer[len(shorter) :]
    found = {crash.kind: crash for crash in crashes(mixed)}
    for kind, lines in ((CrashClass.WARNING, one), (CrashClass.HUNG_TASK, other)):
        (alone,) = crashes(lines)
        assert found[kind].title == alone.title
        assert found[kind].lines == alone.lines


def test_a_cpu_that_is_stuck_is_not_blamed_on_the_interrupt_that_looked() -> None:
    """The registers may be those of the timer's interrupt, which the NMI came into."""
    (crash,) = crashes(
        [
            "rcu: INFO: rcu_sched self-detected stall on CPU",
            "rcu: \t0-....: (2999 ticks this GP)",
            "NMI backtrace for cpu 0",
            "RIP: 0010:lapic_next_event+0x17/0x20",
            "Call Trace:",
            " <IRQ>",
            " clockevents_program_event+0x7d/0xf0",
            " </IRQ>",
            " <TASK>",
            " asm_sysvec_apic_timer_interrupt+0x16/0x20",
            "RIP: 0010:stuck_in_here+0x5c/0x80 [crash]",
            " </TASK>",
        ]
    )
    assert crash.title == "INFO: rcu detected stall in stuck_in_here"
