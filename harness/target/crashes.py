# SPDX-License-Identifier: GPL-2.0-only
"""Reads a kernel's log: which reports are in it, of which class, by what title, and which follow from which.

Pure text to pure data. The words of every report are those of Linux 5.10 to 7.3 (and of 4.20 where they differ),
each in the file that the table names. Lines may carry a time stamp and a caller (`[    1.0][  T52] `), as dmesg,
/dev/kmsg and a console show them.

    crashes(log, taint)   the independent crashes, the first one first, each with the reports that followed from it
    damage(log)           the same without lost memory
    begins(line)          whether a line is one by which a report is known
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


class CrashClass(StrEnum):
    """What kind of report the kernel gave, by who noticed."""

    OOPS = "oops"  # the CPU: a fault in the kernel
    BUG = "bug"  # BUG() and "BUG: ..." that are none of the below
    WARNING = "warning"  # WARN() and "WARNING: ..." that are none of the below
    KASAN = "kasan"
    KFENCE = "kfence"
    KCSAN = "kcsan"
    KMSAN = "kmsan"
    UBSAN = "ubsan"
    LOCKDEP = "lockdep"  # also RCU usage, wait contexts: all of the locking correctness validator
    SLEEP_IN_ATOMIC = "sleep-in-atomic"
    HUNG_TASK = "hung-task"
    RCU_STALL = "rcu-stall"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    WORKQUEUE_LOCKUP = "workqueue-lockup"
    BAD_PAGE = "bad-page"  # a struct page, a page table or a slab that contradicts itself
    BAD_RSS = "bad-rss"  # what a process counted of its pages is not nothing when it ends
    LEAK = "leak"  # kmemleak
    PANIC = "panic"
    TAINT = "taint"  # a taint that no report explains


STALLS = frozenset(
    {
        CrashClass.HUNG_TASK,
        CrashClass.RCU_STALL,
        CrashClass.SOFT_LOCKUP,
        CrashClass.HARD_LOCKUP,
        CrashClass.WORKQUEUE_LOCKUP,
    }
)


@dataclass(frozen=True)
class Crash:
    """One report of a kernel, or a taint that none explains.

    `title` is the same whenever the same happens: no addresses, numbers or times. `text` is the line that tells,
    without its stamp. `first` and `last` are indices into the log; a report may have lines of others in between,
    `lines` are its own. A taint has no lines: `first` is the length of the log.
    """

    kind: CrashClass
    title: str
    text: str
    first: int
    last: int
    lines: tuple[str, ...]
    count: int = 1  # reports of the same fingerprint; the lines are the first one's
    consequences: tuple[Crash, ...] = ()  # reports that followed from this one

    @property
    def fingerprint(self) -> str:
        """The same for two reports of the same thing, in whatever run."""
        return f"{self.kind}: {self.title}"


@dataclass(frozen=True)
class _Head:
    """How the line begins by which a report is known. `title` takes the pattern's groups; {where} is " in F"."""

    kind: CrashClass
    pattern: re.Pattern[str]
    title: str
    single: bool = False  # a report of one line
    remark: bool = False  # the words of a BUG() or a WARN(), before or after its own line
    die: bool = False  # the line of die(), after the one that says why


_F = r"(?P<function>[A-Za-z_][\w.]*)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?"  # %pS, %ps


def _head(kind: CrashClass, pattern: str, title: str, **how: bool) -> _Head:
    return _Head(kind, re.compile(pattern), title, **how)


# The first that matches counts: what is special stands before what is general.
_HEADS: tuple[_Head, ...] = (
    # kernel/panic.c
    _head(CrashClass.PANIC, r"Kernel panic - not syncing: ?(?P<what>.*?)(?: \]---)?$", "kernel panic: {what}"),
    # mm/kasan/report.c
    _head(
        CrashClass.KASAN, r"BUG: KASAN: (?P<what>[\w-]+(?: or [\w-]+)?)(?: in " + _F + ")?", "KASAN: {what}{where}"
    ),
    # mm/kfence/report.c
    _head(CrashClass.KFENCE, r"BUG: KFENCE: (?P<what>.+?) in " + _F, "KFENCE: {what}{where}"),
    # kernel/kcsan/report.c: both functions, or the one that is known
    _head(
        CrashClass.KCSAN,
        r"BUG: KCSAN: (?P<what>.+?) in (?P<one>[\w.]+)\S*(?: \[[^]]*\])? / (?P<other>[\w.]+)",
        "KCSAN: {what} in {one} / {other}",
    ),
    _head(CrashClass.KCSAN, r"BUG: KCSAN: (?P<what>.+?) in " + _F, "KCSAN: {what}{where}"),
    # mm/kmsan/report.c
    _head(CrashClass.KMSAN, r"BUG: KMSAN: (?P<what>.+?) in " + _F, "KMSAN: {what}{where}"),
    # lib/ubsan.c
    _head(CrashClass.UBSAN, r"UBSAN: (?P<what>.+?)(?: in [\w./-]+:\d+:\d+)?$", "UBSAN: {what}{where}"),
    # kernel/watchdog.c, kernel/watchdog_hld.c
    _head(CrashClass.SOFT_LOCKUP, r"BUG: soft lockup - CPU#\d+ stuck for \d+s!", "BUG: soft lockup{where}"),
    _head(CrashClass.HARD_LOCKUP, r"Watchdog detected hard LOCKUP", "hard lockup{where}"),
    # kernel/workqueue.c
    _head(CrashClass.WORKQUEUE_LOCKUP, r"BUG: workqueue lockup", "BUG: workqueue lockup{where}"),
    # kernel/hung_task.c
    _head(
        CrashClass.HUNG_TASK,
        r"INFO: task .{1,40}:\d+ (?:blocked|can't die)(?: in I/O wait)? for more than \d+ seconds",
        "INFO: task hung{where}",
    ),
    # kernel/rcu/tree_stall.h, tree_exp.h
    _head(
        CrashClass.RCU_STALL,
        r"INFO: \S+ (?:self-)?detected (?:expedited )?stalls?\b",
        "INFO: rcu detected stall{where}",
    ),
    # kernel/sched/core.c
    _head(
        CrashClass.SLEEP_IN_ATOMIC,
        r"BUG: (?P<what>sleeping function called from invalid context|scheduling while atomic|"
        r"scheduling in a non-blocking section|assuming atomic context|assuming non migratable context)",
        "BUG: {what}{where}",
    ),
    # kernel/locking/lockdep.c, kernel/locking/rtmutex-debug.c
    _head(
        CrashClass.LOCKDEP,
        r"(?:WARNING|INFO): possible (?:circular locking dependency|irq lock inversion dependency) detected",
        "possible deadlock{where}",
    ),
    _head(
        CrashClass.LOCKDEP,
        r"(?:WARNING|INFO): \S+-safe -> \S+-unsafe lock order detected",
        "possible deadlock{where}",
    ),
    _head(CrashClass.LOCKDEP, r"(?:WARNING|INFO): possible recursive locking", "possible recursive locking{where}"),
    _head(
        CrashClass.LOCKDEP,
        r"(?:WARNING|INFO): (?P<what>inconsistent lock state|suspicious RCU usage|trying to register non-static key|"
        r"bad unlock balance|bad contention|held lock freed|lock held when returning to user space|"
        r"Nested lock was not taken|chain_key collision|circular locking deadlock)",
        "{what}{where}",
    ),
    _head(CrashClass.LOCKDEP, r"WARNING: \S+ still has locks held!", "task still has locks held{where}"),
    _head(CrashClass.LOCKDEP, r"\[ BUG: (?P<what>[^\]]+?)!? \]", "{what}{where}"),
    _head(CrashClass.LOCKDEP, r"BUG: (?P<what>MAX_\w+ too low)", "lockdep: {what}"),
    # mm/page_alloc.c, mm/memory.c, mm/filemap.c, mm/pgtable-generic.c, mm/slub.c
    _head(CrashClass.BAD_PAGE, r"BUG: (?P<what>Bad page (?:state|map|cache))\b", "BUG: {what}{where}"),
    _head(CrashClass.BAD_PAGE, r"\bbad (?P<what>p(?:g|4|u|m)d) ", "bad {what}", single=True),
    _head(CrashClass.BAD_PAGE, r"BUG (?P<cache>[\w:-]+) \([^)]*\): (?P<what>.+)", "BUG {cache}: {what}{where}"),
    # mm/swapfile.c: only printed, no taint. Entries of device memory and of migration are swap entries, too.
    _head(
        CrashClass.BAD_PAGE,
        r"(?:(?P<function>\w+): )?(?P<what>(?:Bad|Unused) swap (?:file|offset) entry) [0-9a-f]{8}",
        "{what}{where}",
        single=True,
    ),
    # mm/page_poison.c: without a taint
    _head(
        CrashClass.BAD_PAGE, r"pagealloc: (?P<what>memory corruption|single bit error)", "pagealloc: {what}{where}"
    ),
    # kernel/fork.c
    _head(
        CrashClass.BAD_RSS,
        r"BUG: Bad rss-counter state\b.*?(?P<what>type:\w+)",
        "BUG: Bad rss-counter state {what}",
        single=True,
    ),
    _head(
        CrashClass.BAD_RSS,
        r"BUG: (?P<what>Bad rss-counter state|non-zero (?:pgtables_bytes|nr_ptes|nr_pmds) on freeing mm)",
        "BUG: {what}",
        single=True,
    ),
    # mm/kmemleak.c: the second without kmemleak.verbose
    _head(CrashClass.LEAK, r"unreferenced object\b.* 0x[0-9a-f]+ \(size \d+\)", "memory leak{where}"),
    _head(CrashClass.LEAK, r"kmemleak: \d+ new suspected memory leaks", "memory leak", single=True),
    # lib/bug.c, lib/refcount.c, lib/list_debug.c, lib/debugobjects.c, include/linux/debug_locks.h
    _head(CrashClass.BUG, r"[kK]ernel BUG at ", "kernel BUG{where}"),
    _head(CrashClass.WARNING, r"refcount_t: ", "refcount bug{where}", remark=True),
    _head(CrashClass.WARNING, r"(?P<what>list_(?:add|del) corruption)", "{what}{where}", remark=True),
    _head(CrashClass.WARNING, r"ODEBUG: ", "ODEBUG bug{where}", remark=True),
    _head(CrashClass.WARNING, r"DEBUG_LOCKS_WARN_ON", "locking bug{where}", remark=True),
    # arch/x86/mm/fault.c; the second word is 4.20's
    _head(
        CrashClass.OOPS,
        r"BUG: (?:unable to handle )?kernel NULL pointer dereference",
        "BUG: unable to handle kernel NULL pointer dereference{where}",
    ),
    _head(
        CrashClass.OOPS,
        r"BUG: unable to handle (?:page fault for address|kernel paging request)",
        "BUG: unable to handle kernel paging request{where}",
    ),
    # arch/x86/kernel/traps.c
    _head(CrashClass.OOPS, r"BUG: (?:\S+ )?stack guard page was hit", "BUG: stack guard page was hit{where}"),
    _head(CrashClass.OOPS, r"kernel stack overflow", "kernel stack overflow{where}", die=True),
    _head(CrashClass.OOPS, r"PANIC: double fault", "double fault{where}", die=True),
    # "general protection fault ip:" is a process's, not the kernel's
    _head(CrashClass.OOPS, r"general protection fault(?:[,:]| for )", "general protection fault{where}", die=True),
    # arch/x86/kernel/dumpstack.c __die(): "Oops: 0002 [#1]", "invalid opcode: 0000 [#1]", "Oops: <either>"
    _head(
        CrashClass.OOPS,
        r"(?:^|Oops: )(?P<what>[A-Za-z][\w -]*?): [0-9a-f]{4} \[#\d+\]",
        "{what}{where}",
        die=True,
    ),
    _head(CrashClass.OOPS, r"\bOops: [0-9a-f]{4}\b", "Oops{where}", die=True),
    # everything else of that name: WARN() of 5.10 to 6.x, of 7.x, and what is only printed
    _head(CrashClass.WARNING, r"WARNING: CPU: \d+ PID: \d+ at (?:\S+:\d+ )?" + _F, "WARNING{where}"),
    _head(CrashClass.WARNING, r"WARNING: (?:\S+:\d+ )?at " + _F + r".*, CPU#\d+", "WARNING{where}"),
    _head(CrashClass.WARNING, r"WARNING: (?P<what>.*)", "WARNING: {what}"),
    _head(CrashClass.BUG, r"\bBUG: (?P<what>spinlock|rwlock) (?P<how>.+?) on CPU#", "BUG: {what} {how}{where}"),
    _head(
        CrashClass.BUG,
        r"\bBUG: (?P<what>workqueue leaked [^:]+|using \S+ in preemptible)",
        "BUG: {what}{where}",
    ),
    _head(CrashClass.BUG, r"\bBUG: (?P<what>.*)", "BUG: {what}"),
)
# One search that tells most lines to be none; every head's pattern needs one of these words.
_TELLING = re.compile(
    r"BUG|WARNING: |INFO: |panic|UBSAN: |LOCKUP|bad p|swap (?:file|offset) entry|unreferenced|kmemleak: |"
    r"pagealloc: |refcount_t: |corruption|ODEBUG|DEBUG_LOCKS|stack overflow|double fault|protection fault|"
    r"\[#\d|Oops: "
)

_STAMP = re.compile(r"^\s*(?:<\d+>)?\s*\[\s*\d+\.\d+\](?:\[\s*(?P<caller>[^\]\s]*)[^\]]*\])?[ \t]?")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")  # /dev/kmsg

_CUT = "[ cut here ]"
_RULE = re.compile(r"^[=-]{8,}$")
_END = re.compile(r"---\[ end ")
_RIP = re.compile(r"RIP: 0010:([A-Za-z_][\w.]*)\+0x")
_FRAME = re.compile(r"^\s*(?:\[<[0-9a-f]+>\] )?([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+(?: |$)")
_MAYBE_FRAME = re.compile(r"^\s*\? \S")
_AT = re.compile(r", at: ([A-Za-z_][\w.]*)\+0x")  # lockdep: who takes the lock
_TRACED = re.compile(r"Call Trace:|RIP: |^\s*</?(?:TASK|IRQ|NMI)>")
_ACCESS = re.compile(r"^\s*(Read|Write)(?: of size \d+)? at addr ")  # KASAN
_SUFFIX = re.compile(r"\.(?:isra|constprop|part|cold|lto_priv|llvm)\b.*")

# Lines that reports are made of.
_BODY = re.compile(
    r"""
      Call\ Trace | </?(?:TASK|IRQ|NMI|EOI|SOFTIRQ|[#]DF)> | \+0x[0-9a-f]+/0x[0-9a-f]+
    | \b(?:RIP|RSP|RAX|RDX|RBP|R10|R13|CR2|DR[03]|CS|FS|PKRU|ORIG_RAX|EFLAGS|Code): | CPU:\ \d | CPU\#\d
    | [Tt]ainted | Hardware\ name: | Modules\ linked\ in: | Workqueue: | \#PF: | PGD\ [0-9a-f] | ^\s*\?\ 0x
    | ^\s*0x[0-9a-f]{16} | ---\[ | ^\s*[=-]{8,}\s*$ | \btask:\S+ | "echo\ 0\ > | locks?\ held\ (?:by|in)
    | is\ blocked\ on | blocked\ on\ a | coredump | (?:Read|Write|Free)\ (?:of|at)[ ] | Allocated\ by
    | [Ff]reed\ by | allocated\ by | Last\ potentially | buggy\ address | Memory\ state | The\ buggy
    | ^\s*>?[0-9a-f]{16}: | ^\s*\^\s*$ | ^\s*page: | ^\s*raw:[ ] | ^\s*(?:anon|file|head)?\s?flags:[ ]
    | page_type: | page\ dumped | page_owner | page\ last | ^\s*(?:value|write|read)\b | Reported\ by\ Kernel
    | is\ located | allocated\ \d+-byte | memcg: | aops: | addr: | file: | irq\ event\ stamp | irqs\ last
    | but\ task\ is | (?:but\ )?now\ in[ ] | is\ trying\ to | acquire | depends\ on | dependenc | other\ info
    | unsafe\ locking | <Interrupt> | ^\s*CPU0 | ---- | \block\( | DEADLOCK | ->\ \#\d | ^\s*\#\d+:
    | stack\ backtrace | [Cc]hain\ exists | RCU | rcu | preempt_count | in_atomic | Preemption | Preempted | NMI
    | ^\s*\d+-[.O!] | \(t=\d | \(detected\ by | jiffies | stall | Utilization | \#\d+:\s+\d+% | Kernel\ Offset
    | Rebooting\ in | ^note: | Dumping\ ftrace | Shutting\ down | backtrace | comm\ " | hex\ dump
    | Disabling\ lock\ debugging | lockdep\ is\ turned\ off | Object\ 0x | ^\s*Redzone | ^\s*Padding | Slab\ 0x
    | worker | pending: | in-flight: | pool\ \d | pwq\ \d | exception | executable
    """,
    re.VERBOSE,
)
_SLACK = 8  # lines of others that a report may have in between
_BEFORE = 6  # lines before the telling one in which the report may begin
_MAX_LINES = 2000  # no report is longer

# Functions that report, lock, copy or wait for others: never the one to name.
_HELPERS = re.compile(
    r"""^(?:
      _*dump_stack(?:_lvl|_print_info)? | show_(?:stack|regs|trace).* | print_\w* | v?panic | nmi_panic
    | oops_\w+ | _*die | _*warn(?:_\w+)? | warn_slowpath\w* | report_bug | handle_bug | do_(?:error_)?trap
    | fixup_bug | is_valid_bugaddr | exc_\w+ | asm_\w+ | sysvec_\w+ | page_fault_oops | no_context | bad_area\w*
    | do_(?:user|kern)_addr_fault | error_entry | common_interrupt | ret_from_intr | _*kasan_\w+ | _*asan_\w+
    | check_(?:memory_region|region)\w* | kcsan_\w+ | _*tsan_\w+ | _*kfence_\w+ | kmsan_\w+ | end_report
    | set_report | access_error | _*ubsan_\w+ | handle_overflow | _*might_(?:sleep|fault|resched)\w*
    | _*cant_\w+ | lock(?:dep)?_\w+ | _*lock_\w+ | _*lockdep_\w+
    | check_\w*(?:noncircular|prev|deadlock|usage|irq|wait_context)\w* | validate_chain
    | mark_(?:lock\w*|held_locks|usage) | valid_state | register_lock_class | _*debug_check_\w+
    | debug_locks_\w+ | debug_mutex_\w+ | _raw_\w+ | do_raw_\w+ | _*raw_(?:spin|read|write)\w* | queued_\w+
    | native_queued_\w+ | pv_queued_\w+ | _*mutex_\w+ | _*rt_mutex\w* | _*(?:down|up)_\w+ | (?:down|up) | _*down
    | _*up | rwsem_\w+ | _*percpu_(?:down|up)\w* | rwbase_\w+ | _*schedule\w* | _*sched_\w+ | io_schedule\w*
    | preempt_schedule\w* | _*cond_resched | __switch_to\w* | context_switch | _*wait_(?:for|on|event|rcu)\w*
    | do_wait_\w+ | bit_wait\w* | out_of_line_wait\w* | do_(?:nano)?sleep | (?:m|u)sleep\w* | refcount_\w+
    | _*refcount\w* | _*list_(?:add|del)\w* | debug_(?:print_)?object\w* | _*debug_object\w*
    | mem(?:cpy|set|move|cmp|chr)\w* | _*mem(?:cpy|set|move)\w* | str\w+ | _*copy_\w*(?:user|from|to)\w*
    | instrument\w* | rep_\w+ | clear_user\w* | _*clear_user\w* | bad_page\w* | free_page_is_bad\w*
    | check_(?:free|new)_page\w* | _*free_(?:frozen_)?pages?\w* | free_unref\w* | free_pcppages_bulk
    | page_expected_state
    | _*put_page\w* | _*put_folio\w* | _*folio_put\w* | destroy_large_folio | free_(?:pcp|tail)\w*
    | prep_new_page | post_alloc_hook | get_page_from_freelist | _*alloc_(?:frozen_)?pages\w* | alloc_pages\w*
    | _*folio_alloc\w* | rmqueue\w* | _*k[mvz]*alloc\w* | kmem_cache_\w+ | _*kmem_cache\w* | slab_\w+
    | _*slab_\w+ | kv?free\w* | _*kfree\w* | v?alloc_\w*hook | _*v[mz]?alloc\w* | vfree | kmemleak_\w+
    | object_err | check_(?:object|bytes\w*|slab) | alloc_debug\w* | free_(?:debug|to)\w* | on_freelist
    | slab_err | ___slab_alloc | free_large_kmalloc | krealloc\w* | nmi_\w+ | trigger_\w+ | arch_trigger\w*
    | rcu_(?:dump|check|sched_clock|pending)\w* | dump_cpu_task | watchdog_\w+ | default_idle\w*
    | native_safe_halt | pv_native_safe_halt | arch_cpu_idle | cpuidle_\w+ | do_idle | cpu_startup_entry
    | smp_call_function\w* | csd_\w+ | _*delay\w* | delay_\w+ | _*const_udelay | __udelay | check_mm | add_taint
    | rcu_gp_\w+ | rcu_is_watching | rcu_read_\w+ | rcu_dynticks\w* | _*srcu_read_\w+ | update_process_times
    | preempt_count_\w+ | debug_smp_processor_id | check_preemption_disabled | _*sanitizer_cov_\w+ | retint_\w+
    | _*rb_\w+ | _*flush_work\w* | drain_workqueue | _*cancel_work\w* | (?:work|timer)_is_static_object | osq_\w+
    | finish_wait | _*wake_up\w* | complete | console_lock | call_rwsem\w* | kobject_\w+ | kthread_stop
    | v?snprintf | v?sprintf | usercopy_\w+ | fortify_panic | hlock_class | look_up_lock_class
    )$""",
    re.VERBOSE,
)

# Reports after which the kernel's state means nothing: what follows them follows from them. BUG() is one, too.
_FATAL = frozenset({CrashClass.OOPS, CrashClass.PANIC, CrashClass.HARD_LOCKUP})
# Panics that the kernel calls because of an earlier report
_PANIC_BECAUSE = re.compile(
    r"Fatal|panic_on|softlockup: hung tasks|hung_task|RCU Stall|[Hh]ard LOCKUP|\.fault=|\.panic set|"
    r"Attempted to kill|Aiee|Oopsed too often|Oops failed|stack-protector|workqueue: stall|Fixing recursive"
)
# Memory that is damaged, and what the kernel trips over then
_DAMAGE = frozenset({CrashClass.KASAN, CrashClass.KFENCE, CrashClass.KMSAN, CrashClass.BAD_PAGE})
_TRIPS = frozenset({CrashClass.OOPS, CrashClass.BUG, CrashClass.BAD_PAGE, CrashClass.BAD_RSS})

# Documentation/admin-guide/tainted-kernels.rst
TAINTS = {
    0: "proprietary module",
    1: "module force-loaded",
    2: "kernel out of specification",
    3: "module force-unloaded",
    4: "machine check",
    5: "bad page",
    6: "tainted by user space",
    7: "oops or BUG",
    8: "ACPI table overridden",
    9: "warning",
    10: "staging driver",
    11: "firmware workaround",
    12: "out-of-tree module",
    13: "unsigned module",
    14: "soft lockup",
    15: "live-patched",
    16: "auxiliary taint",
    17: "randstruct plugin",
    18: "in-kernel test",
}
# Which reports set which taint: the callers of add_taint()
_TAINTED_BY = {
    5: frozenset({CrashClass.BAD_PAGE, CrashClass.KASAN, CrashClass.KFENCE, CrashClass.KMSAN}),
    7: frozenset({CrashClass.OOPS, CrashClass.BUG}),
    9: frozenset({CrashClass.WARNING, CrashClass.SLEEP_IN_ATOMIC}),
    14: frozenset({CrashClass.SOFT_LOCKUP}),
}


# Their reports end with a rule
_RULED = frozenset({CrashClass.KASAN, CrashClass.KCSAN, CrashClass.KFENCE, CrashClass.KMSAN, CrashClass.UBSAN})


@dataclass
class _Report:
    """A report that is being read: the telling lines, all its lines, and where they stand."""

    heads: list[tuple[_Head, re.Match[str]]]
    text: str
    indices: list[int]
    texts: list[str]  # of the indices, without stamps
    closed: bool  # nothing more belongs to it
    pending: list[tuple[int, str]] = field(default_factory=list)  # lines of others, if no line of its own follows
    traced: bool = False
    ended: bool = False

    @property
    def kind(self) -> CrashClass:
        """The class; a remark has the one of the BUG() or the WARN() that it belongs to."""
        return next((head.kind for head, _ in self.heads if not head.remark), self.heads[0][0].kind)

    def joins(self, head: _Head, text: str) -> bool:
        """Whether the line of another head is one of this report's."""
        if self.kind is head.kind and (_END.search(text) or (head.single and head.kind is CrashClass.LEAK)):
            return True
        if self.traced:
            return False
        if head.die:
            return self.kind in (CrashClass.OOPS, CrashClass.BUG)
        if head.remark:
            return self.kind in (CrashClass.WARNING, CrashClass.BUG)
        return all(each.remark for each, _ in self.heads) and head.kind in (CrashClass.WARNING, CrashClass.BUG)

    def join(self, index: int, text: str, head: _Head, match: re.Match[str]) -> None:
        """Takes a telling line."""
        if all(each.remark for each, _ in self.heads):
            self.text = text.strip()
        self.heads.append((head, match))
        self._own(index, text)

    def take(self, index: int, text: str) -> None:
        """Takes a line that may be one of its own."""
        rule = _RULE.match(text.strip()) is not None
        if _CUT in text or (rule and text.strip()[0] == "=" and self.kind not in _RULED):
            self.closed = True  # the next one begins
            return
        if not _BODY.search(text):
            self.pending.append((index, text))
            self.closed = self.ended or len(self.pending) > _SLACK
            return
        self._own(index, text)
        self.closed = (rule and self.kind in _RULED) or len(self.indices) >= _MAX_LINES
        self.ended = self.ended or _END.search(text) is not None
        self.traced = self.traced or _TRACED.search(text) is not None

    def _own(self, index: int, text: str) -> None:
        for each, words in [*self.pending, (index, text)]:
            self.indices.append(each)
            self.texts.append(words)
        self.pending.clear()

    def title(self) -> str:
        """What happened, and in which function."""
        kind = self.kind
        head, match = next((each for each in self.heads if each[0].remark), self.heads[0])
        function = self._function()
        where = f" in {function}" if function else ""
        groups = {name: _stable(words) for name, words in match.groupdict().items() if name != "function" and words}
        if kind is CrashClass.KASAN:
            access = next((found[1] for found in map(_ACCESS.match, self.texts) if found), None)
            where = f" {access}{where}" if access else where
        title = head.title.format(where=where, **groups)
        if head.remark:
            title = f"{'kernel BUG' if kind is CrashClass.BUG else 'WARNING'}: {title}"
        return title

    def _function(self) -> str | None:
        """The first function that does not only report, lock or copy for another."""
        named = [match["function"] for _, match in self.heads if "function" in match.re.groupindex]
        if self.kind is CrashClass.LOCKDEP:
            named += [found[1] for found in map(_AT.search, self.texts) if found][:1]
        candidates = [_SUFFIX.sub("", name) for name in [*filter(None, named), *self._trace()]]
        return next((name for name in candidates if not _HELPERS.match(name)), candidates[0] if candidates else None)

    def _trace(self) -> list[str]:
        """The functions of the first trace, innermost first. For a CPU that is stuck, not those of the interrupt."""
        interrupted: list[str] = []
        usual: list[str] = []
        registers: list[str] = []
        inside = False
        lines = iter(self.texts)
        if self.kind is CrashClass.LOCKDEP and any(text.startswith("stack backtrace:") for text in self.texts):
            for text in lines:  # what comes before are traces of earlier times
                if text.startswith("stack backtrace:"):
                    break
        for text in lines:
            words = text.strip()
            if words in ("<IRQ>", "<NMI>"):
                inside = True
                if self.kind in STALLS:  # the registers that were shown before are of the interrupt, too
                    interrupted += registers
                    registers.clear()
            elif words in ("</IRQ>", "</NMI>"):
                inside = False
            frame = None if _MAYBE_FRAME.match(text) else _FRAME.match(text)
            found = _RIP.search(text)
            if inside and self.kind in STALLS:
                interrupted += [each[1] for each in (found, frame) if each]
            elif found:
                registers.append(found[1])
            elif frame:
                usual += [*registers, frame[1]]
                registers.clear()
        return usual + registers + interrupted


def crashes(log: Sequence[str], taint: int = 0) -> list[Crash]:
    """The independent crashes in the lines of a kernel's log, in order of their beginnings.

    `taint`: the taint bits that were added meanwhile. Bits that no report explains are crashes of their own.
    """
    found = [_crash(report, log) for report in _read(log)]
    explained = {bit for bit, kinds in _TAINTED_BY.items() if any(each.kind in kinds for each in found)}
    primary = _primary(found)
    for bit in range(taint.bit_length()):
        if taint >> bit & 1 and bit not in explained:
            words = f"the kernel is tainted now: {TAINTS.get(bit, f'bit {bit}')}"
            primary.append(Crash(CrashClass.TAINT, words, words, len(log), len(log), ()))
    return primary


def damage(log: Sequence[str]) -> list[Crash]:
    """`crashes` but for lost memory: that is there for whoever had it looked for, and harms nobody at once."""
    return [crash for crash in crashes(log) if crash.kind is not CrashClass.LEAK]


def begins(line: str) -> bool:
    """Whether a line of a log is one by which a report is known."""
    return _find_head(_split(line)[1]) is not None


def _split(line: str) -> tuple[str, str]:
    """The caller ("T52", "C0"; empty if that is not told) and the text of a line."""
    match = _STAMP.match(line)
    text = line[match.end() :] if match else line
    if "\\x" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return (match["caller"] or "") if match else "", text.partition("\n")[0].rstrip()


def _find_head(text: str) -> tuple[_Head, re.Match[str]] | None:
    if not _TELLING.search(text):
        return None
    for head in _HEADS:
        match = head.pattern.search(text)
        if match is not None:
            return head, match
    return None


def _read(log: Sequence[str]) -> list[_Report]:
    """All reports, in the order of their beginnings. Lines of different callers are read apart."""
    reports: list[_Report] = []
    current: dict[str, _Report] = {}
    split = [_split(line) for line in log]
    for index, (caller, text) in enumerate(split):
        if "NMI backtrace for" in text:
            # A CPU that is stuck is made to tell by an interrupt: that is another caller.
            stall = next((each for each in current.values() if each.kind in STALLS and not each.closed), None)
            if stall is not None:
                current[caller] = stall
        report = current.get(caller)
        if report is not None and report.closed:
            report = None
        found = _find_head(text)
        if found is None:
            if report is not None:
                report.take(index, text)
        elif report is not None and report.joins(found[0], text):
            report.join(index, text, *found)
        else:
            start = _beginning(split, index, taken=current[caller].indices[-1] if caller in current else -1)
            indices = [each for each in range(start, index + 1) if split[each][0] == caller]
            texts = [split[each][1] for each in indices]
            current[caller] = _Report([found], text.strip(), indices, texts, closed=found[0].single)
            reports.append(current[caller])
    return sorted(reports, key=lambda report: report.indices[0])


def _beginning(split: Sequence[tuple[str, str]], index: int, *, taken: int) -> int:
    """Where the report begins whose telling line is `index`: the words of a WARN() stand before it, and rules do."""
    caller = split[index][0]
    before = [each for each in range(max(taken + 1, index - _BEFORE), index) if split[each][0] == caller]
    for each in reversed(before):
        if _CUT in split[each][1]:
            return each
    while before and (_RULE.match(split[before[-1]][1].strip()) or not split[before[-1]][1].strip()):
        index = before.pop()
    return index


def _crash(report: _Report, log: Sequence[str]) -> Crash:
    return Crash(
        kind=report.kind,
        title=report.title(),
        text=report.text,
        first=report.indices[0],
        last=report.indices[-1],
        lines=tuple(log[index] for index in report.indices),
    )


def _primary(found: Sequence[Crash]) -> list[Crash]:
    """The reports that follow from no other, each once; the others are their consequences."""
    primary: list[Crash] = []
    for crash in found:
        for place, earlier in enumerate(primary):
            if earlier.fingerprint == crash.fingerprint:
                primary[place] = replace(earlier, count=earlier.count + 1)
                break
        else:
            cause = next((place for place, earlier in enumerate(primary) if _follows(crash, earlier)), None)
            if cause is None:
                primary.append(crash)
            else:
                earlier = primary[cause]
                primary[cause] = replace(earlier, consequences=_added(earlier.consequences, crash))
    return primary


def _added(consequences: tuple[Crash, ...], crash: Crash) -> tuple[Crash, ...]:
    if any(each.fingerprint == crash.fingerprint for each in consequences):
        return tuple(
            replace(each, count=each.count + 1) if each.fingerprint == crash.fingerprint else each
            for each in consequences
        )
    return (*consequences, crash)


def _follows(crash: Crash, earlier: Crash) -> bool:
    """Whether `crash` has to be expected after `earlier`."""
    if earlier.kind in _FATAL or earlier.title.startswith("kernel BUG"):
        return True
    if crash.kind is CrashClass.PANIC:
        return _PANIC_BECAUSE.search(crash.text) is not None
    if crash.kind in STALLS:
        return earlier.kind in STALLS or earlier.kind is CrashClass.LOCKDEP
    return earlier.kind in _DAMAGE and crash.kind in _TRIPS


def _stable(words: str) -> str:
    """Words of the kernel without what differs from one time to the next."""
    words = re.sub(r"\b(?:0x)?[0-9a-f]{8,}\b|\b0x[0-9a-f]+\b", "ADDR", words)
    return re.sub(r"(?<![\w-])\d+\b", "N", words).strip()
