# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness bench`: what a run is made of, measured in one go so that ratios hold.

Times are of this machine at this time; the ratios at the end are what can be compared.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from harness.cli.options import BINDINGS
from harness.conformance import catalogue
from harness.errors import ExitCode, GuestError, HarnessError
from harness.explore import throughput
from harness.matrix import Resources, run_matrix, shared
from harness.program.program import Program
from harness.program.text import parse
from harness.progress import Progress
from harness.report.results import Result, exit_code
from harness.run import Plan
from harness.target import upstream
from harness.target.cache import Cache
from harness.target.children import end, spawn
from harness.target.lab import Lab, prepare
from harness.target.vm import Machine

_BOOTS = 3
_ROUND_TRIPS = 30
_LOADS = 5
_VIRTME_SECONDS = 300
_RUNS = 3
_HELPS = 20
_HELP = "hmm-harness --help"
_PYTHON = "python that does nothing"
_WARM = "warm run of all programs, {} VMs"
_EXPLORED = "1000 operations explored, {} VMs"
_LOOPED = "the same operations in a plain C loop"
_BUSY = "two busy processes, {}"
_APART, _TOGETHER = _BUSY.format("one after the other"), _BUSY.format("at once")
_BUSILY = "for _ in range(30_000_000): pass"

_ONE = parse(
    "a: map buf anon 8 rw\nd0: bind a\na: write buf 1\nd0: read buf\nd0: to-device buf\na: read buf",
    file="bench",
    name="bench",
)


def main(spec: str, flavour: str, *, cache: Cache, progress: Progress) -> None:
    """Measures and prints. Raises what the parts raise."""
    machine = prepare(spec, flavour, cache=cache, progress=progress)
    figures = Figures()
    with progress.step("measuring --help"):
        measure_help(figures)
    with progress.step("measuring boots") as step:
        for number in range(_BOOTS):
            step.update(f"{number + 1} of {_BOOTS}")
            with Lab(machine, cache=cache, progress=progress) as lab:
                lab.vm()  # there is a saved state from here on
            for how, restore in (("cold boot", False), ("restore", True)):
                with Lab(machine, cache=cache, progress=progress, restore=restore) as lab:
                    _time_start(how, lab, figures)
                    banner = lab.vm().banner
            _boot_virtme(machine, figures, emulated=", TCG" in banner)
    print(banner)
    with progress.step("measuring in the guest"), Lab(machine, cache=cache, progress=progress) as lab:
        _measure_module(lab, figures)
        for _ in range(_ROUND_TRIPS):
            figures.time("one program, round trip", lambda: _first(lab))
        _measure_rates(lab, figures)
        _measure_upstream(lab, figures)
    _measure_exploring(machine, figures, cache=cache, progress=progress)
    _measure_pool((spec, flavour), figures, cache=cache, progress=progress)
    figures.print()


class Figures:
    """Samples by name, in the order in which the names came up."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._notes: list[str] = []

    def time(self, name: str, work: Callable[[], object]) -> None:
        """Adds the seconds that `work` takes."""
        start = time.monotonic()
        work()
        self.add(name, time.monotonic() - start)

    def add(self, name: str, seconds: float) -> None:
        """Adds a sample."""
        self._seconds.setdefault(name, []).append(seconds)

    def note(self, line: str) -> None:
        """A line that is printed below the table."""
        self._notes.append(line)

    def median(self, name: str) -> float | None:
        """In seconds; None if there is no sample."""
        samples = self._seconds.get(name)
        return statistics.median(samples) if samples else None

    def print(self) -> None:
        """The table, the notes and the ratios."""
        print(f"{'seconds':44}  {'median':>8}  {'min':>8}  {'max':>8}  runs")
        for name, samples in self._seconds.items():
            figures = (statistics.median(samples), min(samples), max(samples))
            print(f"{name:44}  {'  '.join(f'{figure:8.3f}' for figure in figures)}  {len(samples):4}")
        for note in self._notes:
            print(note)
        self._ratio("restore to first operation", "cold boot to first operation", "aim: 0.20 or less")
        self._ratio("cold boot to first operation", "virtme-ng, boot and `true`", "aim: 1.00 or less")
        self._ratio(_HELP, _PYTHON, "aim: 5.00 or less, 0.1 s where that python takes 0.02 s")
        self._ratio(_LOOPED, _EXPLORED.format(1), "aim: 0.33 or more")
        self._ratio(_EXPLORED.format(1), _EXPLORED.format(2), "aim: 1.70 or more, where two VMs have a CPU each")
        self._ratio(_WARM.format(1), _WARM.format(2), "aim: 1.60 or more on 2 CPUs")
        self._ratio(_APART, _TOGETHER, "no aim: what a second CPU of this machine is worth, to anybody; 2.00 at most")

    def _ratio(self, one: str, other: str, aim: str) -> None:
        ours, theirs = self.median(one), self.median(other)
        if ours is not None and theirs is not None:
            print(f"ratio {one} / {other}: {ours / theirs:.2f} ({aim})")


def measure_help(figures: Figures) -> None:
    """The time to answer --help, beside the part of it that is not ours: a Python that starts and ends."""
    for _ in range(_HELPS):
        for name, argv in ((_PYTHON, ["-c", "pass"]), (_HELP, ["-m", "harness", "--help"])):
            start = time.monotonic()
            ended = subprocess.run([sys.executable, *argv], capture_output=True, check=False)
            figures.add(name, time.monotonic() - start)
            if ended.returncode:
                raise HarnessError(f"{name} failed ({ended.returncode}): {ended.stderr[-400:]!r}")


def measure_cpus(figures: Figures) -> None:
    """What two VMs could gain if they did nothing but compute: two CPUs may be one core, or a share of it."""

    def busy() -> subprocess.Popen[bytes]:
        return spawn([sys.executable, "-c", _BUSILY])

    def wait(*processes: subprocess.Popen[bytes]) -> None:
        for process in processes:
            if process.wait():
                raise HarnessError(f"a process that only computes failed ({process.returncode})")

    def apart() -> None:
        wait(busy())
        wait(busy())

    figures.time(_APART, apart)
    figures.time(_TOGETHER, lambda: wait(busy(), busy()))


def _measure_exploring(machine: Machine, figures: Figures, *, cache: Cache, progress: Progress) -> None:
    """Exploring in one VM and in two, and what is explored as a plain loop in that VM, by turns."""
    with ExitStack() as stack:
        shared_by_two = shared(machine, 2)
        labs = [stack.enter_context(Lab(shared_by_two, cache=cache, progress=progress)) for _ in range(2)]
        loop = None
        for number in range(_RUNS):
            with progress.step(f"measuring exploration, {number + 1} of {_RUNS}"):
                one = throughput.explore_at_once(labs[:1])
                loop = loop or throughput.loop_in(labs[0], one.programs)
                _add_rate(figures, _LOOPED, loop(), one.operations)
                _add_rate(figures, _EXPLORED.format(1), one.seconds, one.operations)
                two = throughput.explore_at_once(labs)
                _add_rate(figures, _EXPLORED.format(2), two.seconds, two.operations)


def _add_rate(figures: Figures, name: str, seconds: float, operations: int) -> None:
    figures.add(name, seconds / operations * 1000)


def _measure_pool(kernel: tuple[str, str], figures: Figures, *, cache: Cache, progress: Progress) -> None:
    """Every program on every binding, in one VM and in two, by turns."""
    plan = Plan(catalogue.select([]), BINDINGS)
    for number in range(_RUNS):
        for vms in (1, 2):
            with progress.step(f"measuring a warm run with {vms} VMs, {number + 1} of {_RUNS}"):
                figures.time(_WARM.format(vms), partial(_warm_run, plan, kernel, vms, cache, progress))
        measure_cpus(figures)


def _warm_run(plan: Plan, kernel: tuple[str, str], vms: int, cache: Cache, progress: Progress) -> None:
    told = list(run_matrix(plan, [kernel], Resources(cache, progress, vms)))
    code = exit_code(each.status for each in told if isinstance(each, Result))
    if code is not ExitCode.PASS:
        raise GuestError(f"programs did not pass during the measurement: {code.meaning}")


def _first(lab: Lab) -> None:
    execution = lab.execute(_ONE, "interval", wrong=(), timeout=30.0)
    if execution.crashes:
        raise GuestError(f"the kernel complained during the measurement: {execution.crashes[0].title}")


def _time_start(how: str, lab: Lab, figures: Figures) -> None:
    start = time.monotonic()
    lab.vm()
    figures.add(f"{how} to ready", time.monotonic() - start)
    _first(lab)
    figures.add(f"{how} to first operation", time.monotonic() - start)


def _boot_virtme(machine: Machine, figures: Figures, *, emulated: bool) -> None:
    """virtme-ng on the same kernel, emulated if we are."""
    beside = Path(sys.executable).parent
    vng = shutil.which("vng", path=f"{beside}:/usr/local/bin:/usr/bin")
    if vng is None:
        figures.note("virtme-ng is not installed: nothing to compare the boot with (`make bench` installs it)")
        return
    argv = [vng, "-r", str(machine.kernel.image), *(["--disable-kvm"] if emulated else []), "--", "true"]
    environment = {"PATH": f"{beside}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"}
    start = time.monotonic()
    child = spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, death="TERM")
    try:
        output, _ = child.communicate(timeout=_VIRTME_SECONDS)
    except subprocess.TimeoutExpired:
        raise GuestError(f"virtme-ng did not end within {_VIRTME_SECONDS} s") from None
    finally:
        end(child)
    if child.returncode:
        raise GuestError(f"virtme-ng failed ({child.returncode}): {output[-400:]!r}")
    figures.add("virtme-ng, boot and `true`", time.monotonic() - start)


def _measure_module(lab: Lab, figures: Figures) -> None:
    vm = lab.vm()
    for _ in range(_LOADS):
        for verb in ("unload", "load"):
            start = time.monotonic()
            answer, _body = vm.call({"do": verb, "module": "hmm_harness"}, b"", timeout=60.0)
            if "error" in answer:
                raise GuestError(f"the module does not {verb}: {answer['error']}")
            figures.add(f"module {verb}", time.monotonic() - start)


def _rate_program(steps: int) -> dict[str, Program]:
    head = "a: map buf anon 8 rw\na: write buf 1\nd0: bind a\nd0: read buf\n"
    bodies = {
        "subject writes and reads of one page": "a: write buf[0] 1\na: read buf[0]\n",
        "device writes and reads of one page": "d0: write buf[0] 1\nd0: read buf[0]\n",
        "migrations there and back, one page": "d0: to-device buf[0]\na: read buf[0]\n",
    }
    return {name: parse(head + body * (steps // 2), file="bench", name=name) for name, body in bodies.items()}


def _measure_rates(lab: Lab, figures: Figures) -> None:
    for name, program in _rate_program(2000).items():
        execution = lab.execute(program, "interval", wrong=(), timeout=120.0)
        figures.note(f"{len(program.steps) / execution.seconds:10.0f} operations/s in the guest: {name}")


def _measure_upstream(lab: Lab, figures: Figures) -> None:
    program = upstream.build(lab.kernel)
    start = time.monotonic()
    totals = upstream.run(lab.vm(), program, timeout=600.0)
    figures.add("the kernel's own hmm-tests", time.monotonic() - start)
    figures.note(f"hmm-tests: {totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped")
