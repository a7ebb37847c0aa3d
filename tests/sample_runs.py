# SPDX-License-Identifier: GPL-2.0-only
"""Runs that look real, of any size, for the tests of the reports: every verdict, hostile texts, lost results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.compare import Verdict
from harness.report.results import End, PageTables, Report, Result, Run, Source, Target

KERNELS = ("debian:5.10", "debian:6.1", "debian:6.12", "debian:7.2", "debian:7.3")
FLAVOURS = ("plain", "debug", "preempt", "kcsan")
BINDINGS = ("interval", "test_hmm")
_ROOMS = ("access", "devmem", "fault", "invalidate", "migrate", "snapshot")
_WORDS = ("dontneed", "fork", "protect", "remap", "unmap", "exit", "hole", "zero-page", "huge", "two-devices")
_TITLE = "When the CPU's write gives a process a new page after fork, the device must not keep the old one."
_TEXT = f"""# {_TITLE}
a: map buf anon 8 rw
a: write buf 10
d0: bind a
d0: read buf
a: fork b
a: write buf[0:4] 50
d0: table buf
d0: read buf
b: read buf[2]
"""
# What a kernel log, a file name or a compiler may hold that means something to a reader of some form.
HOSTILE = (
    "</script><script>document.title = 'taken'</script>",
    "<!-- <script> -->",
    "]]> & <b>bold</b> &amp; \"quoted\" 'single'",
    "\x00\x01\x08\x0b\x0c\x1b[31mred\x1b[0m\x7f\x85\ufffe\uffff",
    "lone surrogate \udcff",
    "one line\nok 1 smuggled\nnot ok 2 smuggled\n  # Subtest: smuggled\nKTAP version 1\n1..5",
    "# Subtest: smuggled",
    "reason # SKIP smuggled",
    "reboot: System halted",
    "List of all partitions:",
    "Kernel panic - not syncing: VFS: Unable to mount root fs",
    "line separators \u2028 \u2029 \r end",
    "right to left \u202e and an emoji \U0001f4a5",
    "x" * 5000,
)
_SPLAT = (
    "==================================================================",
    "BUG: KASAN: slab-use-after-free in mn_tree_invalidate+0x1a4/0x2c0",
    "Read of size 8 at addr ffff888104a3b010 by task hmm-agent/312",
    "",
    "CPU: 1 PID: 312 Comm: hmm-agent Not tainted 6.12.94 #1",
    "Call Trace:",
    " <TASK>",
    " dump_stack_lvl+0x5d/0x80",
    " print_report+0x174/0x505",
    " mn_tree_invalidate+0x1a4/0x2c0",
    " __mmu_notifier_invalidate_range_start+0x8e/0x1f0",
    " do_wp_page+0x7d1/0x1c90",
    " handle_mm_fault+0x3a2/0x8d0",
    " </TASK>",
)


def program_names(count: int) -> list[str]:
    """`count` names, as those of the programs that come with the product."""
    names = [f"{room}/{word}" for room in _ROOMS for word in _WORDS]
    return [name if turn == 0 else f"{name}-{turn + 1}" for turn in range(count // len(names) + 1) for name in names][
        :count
    ]


def sample_run(
    *,
    kernels: Sequence[str] = KERNELS[1:4],
    flavours: Sequence[str] = FLAVOURS[:1],
    bindings: Sequence[str] = BINDINGS,
    programs: int = 40,
    hostile: bool = False,
) -> Run:
    """A run that ended, in which nearly everything passes and every verdict is there.

    `hostile`: every text of a result that is not PASS is one of HOSTILE.
    """
    plan = tuple((kernel, flavour) for kernel in kernels for flavour in flavours)
    names = program_names(programs)
    run = Run(
        started="2026-11-22T20:15:30+00:00",
        command=("hmm-harness", "run", *(word for kernel in kernels for word in ("--kernel", kernel))),
        version="0.1.0",
        programs={name: Source(_TITLE, _TEXT) for name in names},
        bindings=tuple(bindings),
        kernels=plan,
        timeout=30.0,
        targets=[_target(kernel, flavour) for kernel, flavour in plan],
        end=End("2026-11-22T20:18:12+00:00", 162.4, 5),
    )
    number = 0
    for kernel, flavour in plan:
        for name in names:
            for binding in bindings:
                number += 1
                result = _result(number, name, kernel, flavour, binding)
                run.results.append(_spoilt(result, number) if hostile else result)
    return run


def interrupted_run() -> Run:
    """A run that was stopped in the middle, with a kernel that did not build before it."""
    run = sample_run(programs=10)
    failed = run.kernels[1]
    run.targets[1] = Target(*failed, error="it did not build: drivers/base/node.c:12: error: no member 'x' in 'y'")
    run.results = [each for each in run.results if (each.kernel, each.flavour) != failed][:-7]
    run.end = None
    return run


def _target(kernel: str, flavour: str) -> Target:
    release = kernel.partition(":")[2] + ".94"
    return Target(
        kernel,
        flavour,
        release=release,
        key="8f14e45fceea167a5a36dedd4bea2543",
        origin=f"linux-source-{kernel.partition(':')[2]} {release}-1",
        accelerator="TCG (kvm did not run a boot sector within 1 s)",
        qemu="7.2.22",
        cpus=2,
        memory_mib=512,
        banner=f"{kernel} {flavour}, Linux {release}, restored from a saved boot; QEMU 7.2.22, TCG, 2 CPUs, 512 MiB",
        features=("mmu_interval_notifier", "migrate_vma", "device_private", "make_device_exclusive"),
    )


def _verdict(number: int) -> Verdict:
    rare = {
        17: Verdict.FAIL,
        29: Verdict.DEVIATION,
        31: Verdict.CRASHED,
        53: Verdict.TIMEOUT,
        61: Verdict.ERROR,
        71: Verdict.INCONCLUSIVE,
    }
    for every, verdict in rare.items():
        if number % every == 0:
            return verdict
    return Verdict.SKIP if number % 11 == 0 else Verdict.PASS


_REASONS = {
    Verdict.PASS: "",
    Verdict.FAIL: "step 7: buf[1]: saw rw STALE, allowed is -",
    Verdict.SKIP: "test_hmm cannot `evict` in step 6: it evicts only when its file is closed",
    Verdict.DEVIATION: "own-readonly-write: a write fault on a read-only page succeeds without HMM_PFN_WRITE",
    Verdict.INCONCLUSIVE: "lines of the kernel's log were lost, a complaint may be among them",
    Verdict.ERROR: "the agent did not answer: the connection was closed",
    Verdict.CRASHED: "KASAN: slab-use-after-free in mn_tree_invalidate",
    Verdict.TIMEOUT: "the program did not end within 30 s",
}


def _result(number: int, program: str, kernel: str, flavour: str, binding: str) -> Result:
    status = _verdict(number)
    replay = f"hmm-harness run --kernel {kernel} --flavour {flavour} --binding {binding} {program}"
    result = Result(
        program,
        kernel,
        flavour,
        binding,
        status,
        _REASONS[status],
        0.0 if status is Verdict.SKIP else 0.01 + number % 7 / 100,
        replay,
        left_out=number % 3 if binding == "test_hmm" else 0,
        identity=f"{number:016x}",
    )
    log = tuple(f"[{20 + line / 10:12.6f}] hmm_harness: line {line} of the log" for line in range(6))
    if status is Verdict.FAIL:
        details = ("buf[1]: saw rw STALE, allowed is -", "buf[2]: saw rw STALE, allowed is -")
        tables = PageTables(
            "d0",
            "buf",
            ("buf", "CPU: model", "CPU: kernel", "d0: model", "d0: driver"),
            (
                ("[0]", "rw", "rw", "- or rw", "rw"),
                ("[1:3]", "-", "-", "-", "rw STALE"),
                ("[3:8]", "r", "r", "- or r", "-"),
            ),
        )
        result = replace(result, step=6, details=details, tables=(tables,), log=log)
    elif status is Verdict.CRASHED:
        report = Report("KASAN", "slab-use-after-free in mn_tree_invalidate", _SPLAT)
        result = replace(result, log=(*log, *(f"[{21:12.6f}] {line}" for line in _SPLAT)), reports=(report,))
    elif status in (Verdict.TIMEOUT, Verdict.ERROR, Verdict.INCONCLUSIVE):
        result = replace(result, log=log * 12)
    if status in (Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION):
        return result
    heading = f"{status} {program} on {kernel} ({flavour}), {binding}"
    return replace(result, explanation=(heading, f"    {result.reason}", "", f"  replay: {replay}"))


def _spoilt(result: Result, number: int) -> Result:
    """The result with other people's texts in it."""
    if result.status is Verdict.PASS:
        return result
    text = HOSTILE[number % len(HOSTILE)]
    return replace(
        result,
        reason=text,
        explanation=HOSTILE,
        log=HOSTILE,
        details=HOSTILE if result.step is not None else (),
        reports=(Report(text, text, HOSTILE),),
        tables=(PageTables(text, text, ("region", text), ((text, text),)),),
        replay=f"hmm-harness run '{text}'",
    )
