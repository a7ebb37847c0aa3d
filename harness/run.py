# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs on a target and in the model, compares, and yields results.

One VM is enough here; harness/pool.py spreads a plan over several, harness/matrix.py over several kernels.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.compare import Comparison, Verdict, compare, obstacle
from harness.defaults import DEFAULT_TIMEOUT
from harness.errors import GuestError, HarnessError, UsageError
from harness.guest.kernel import LOST_LINES
from harness.model.rules import Rules, rules_for
from harness.program.operations import COHERENT, DEVICES, DeviceOperation, Events
from harness.program.program import Program
from harness.program.text import render
from harness.report.explain import explain, inquest, page_tables
from harness.report.results import PageTables, Report, Result
from harness.target.bugs import with_bug
from harness.target.cache import digest_of
from harness.target.crashes import Crash, crashes
from harness.target.lab import Execution, Lab
from harness.target.vm import Machine
from harness.target.watchdog import Trouble, VMFailure

_VERDICTS = {
    Trouble.PANIC: Verdict.CRASHED,
    Trouble.OOPS: Verdict.CRASHED,
    Trouble.HANG: Verdict.TIMEOUT,
    Trouble.TIMEOUT: Verdict.TIMEOUT,
}  # the others are an ERROR


# Words of the log after which nobody can say what was to be seen, and what is the matter:
# mm/oom_kill.c __oom_kill_process(), and the executor of a driver and of the pool of huge pages.
_SHORTAGES = {
    "Out of memory: Killed process": "the guest ran out of memory: use fewer pages",
    "was refused memory": "the guest ran out of memory: use fewer pages",
    "huge pages there are": "the guest has not enough free memory in pieces of 2 MiB for its hugetlb mappings: "
    "use fewer of them",
}


@dataclass(frozen=True)
class Plan:
    """What is to be run: every program on every binding.

    `wrong`: deliberate driver mistakes to switch on. `timeout`: seconds for one program in the guest. `command`:
    how this program is started, for the replay commands.
    """

    programs: Sequence[Program]
    bindings: Sequence[str]
    wrong: Sequence[str] = ()
    timeout: float = DEFAULT_TIMEOUT
    command: Sequence[str] = ("hmm-harness",)


def run(plan: Plan, lab: Lab) -> Iterator[Result]:
    """A result for each program and binding, in order, as they come.

    Raises `UsageError` if the driver knows no such mistake, `HarnessError` if our module did not load.
    """
    missing = survey(plan, lab)
    for program in plan.programs:
        yield from run_task(Task(program, tuple(plan.bindings)), plan, lab, missing)
    yield from last_words(lab)


@dataclass(frozen=True)
class Task:
    """A program, and the bindings that it is to be run on."""

    program: Program
    bindings: tuple[str, ...]


def survey(plan: Plan, lab: Lab) -> dict[str, str]:
    """Why programs cannot run on a binding, for each binding on which they cannot. Raises what `run` raises."""
    known = lab.mistakes() if plan.wrong else ()
    for name in plan.wrong:
        if name not in known:
            raise UsageError(f"the driver knows no mistake {name!r}", hint=f"one of: {', '.join(known)}")
    missing = {binding: reason for binding in plan.bindings if (reason := lab.missing(binding))}
    broken = lab.broken()
    if broken is not None and broken in missing.values():
        raise HarnessError(
            f"the module hmm_harness did not load into {lab.kernel.name}: {broken}",
            hint="`hmm-harness clean` makes the next run build it anew; if it still does not load, that is a bug",
        )
    return missing


def run_task(task: Task, plan: Plan, lab: Lab, missing: Mapping[str, str]) -> Iterator[Result]:
    """A result for each binding. A program that did not pass may have damaged its VM: the next gets a clean one.

    What the kernel says of a program after it has ended is heard before, or when, the next one runs in its VM. Then
    there is another result of that program, which is the last word on it, and the next one is run in a clean VM.
    """
    for binding in task.bindings:
        yield from last_words(lab)
        try:
            result = _run_one(task.program, binding, plan, lab, missing.get(binding))
        except _LateWordsError as late:
            yield late.result
            lab.discard()
            result = _run_one(task.program, binding, plan, lab, missing.get(binding))
        if result.status in (Verdict.PASS, Verdict.DEVIATION):
            lab.memo = result
        elif result.status is not Verdict.SKIP:
            lab.discard()
        yield result


def last_words(lab: Lab) -> Iterator[Result]:
    """The last word on the program that ran last in the VM at hand, if the kernel complained after its answer.

    The VM is gone then. Nothing was on its console when that program had passed: what is there now, came later.
    """
    if not isinstance(lab.memo, Result):
        return
    found = crashes(lab.vm().console.splitlines())
    if found:
        late = _LateWordsError(lab.memo, found)
        lab.discard()
        yield late.result


class _LateWordsError(Exception):
    """The kernel complained of an earlier program: `result` is the last word on that."""

    def __init__(self, before: Result, found: Sequence[Crash]) -> None:
        super().__init__()
        reason = f"{found[0].title} (printed after the program had ended)"
        lines = [line for crash in found for line in crash.lines]
        heading = f"{Verdict.CRASHED} {before.program} on {before.kernel} ({before.flavour}), {before.binding}"
        self.result = replace(
            before,
            status=Verdict.CRASHED,
            reason=reason,
            log=(*before.log, *lines),
            reports=reports_of(found),
            explanation=(heading, f"    {reason}", "", *lines, "", f"  replay: {before.replay}"),
        )


def reports_of(found: Sequence[Crash]) -> tuple[Report, ...]:
    """The kernel's reports as results have them, consequences behind their causes."""
    everything = [crash for each in found for crash in (each, *each.consequences)]
    return tuple(Report(crash.kind.value, crash.title, crash.lines) for crash in everything)


def identity(program: Program, binding: str, plan: Plan, machine: Machine) -> str:
    """The same for the same program on the same binding of the same kernel, driver and guest."""
    keys = (machine.kernel.key, machine.image.key, machine.payload.key)
    return digest_of(render(program), binding, *plan.wrong, f"{plan.timeout:g}", machine.append, *keys)[:16]


def verdict_of(error: HarnessError) -> Verdict:
    """What a failure says of the kernel: that it crashed, that something was late, or, nearly always, nothing."""
    return _VERDICTS.get(error.kind, Verdict.ERROR) if isinstance(error, VMFailure) else Verdict.ERROR


def replay_command(program: Program, binding: str, plan: Plan, kernel: tuple[str, str]) -> str:
    """The command that runs this program again in a clean VM."""
    words = [*plan.command, "run", "--kernel", kernel[0], "--flavour", kernel[1], "--binding", binding]
    if plan.wrong:
        words += ["--wrong", ",".join(plan.wrong)]
    if plan.timeout != DEFAULT_TIMEOUT:
        words += ["--timeout", f"{plan.timeout:g}"]
    return shlex.join([*words, program.name])


def _run_one(program: Program, binding: str, plan: Plan, lab: Lab, missing: str | None) -> Result:
    replay = replay_command(program, binding, plan, (lab.kernel.name, lab.kernel.flavour))
    title = f"{program.name} on {lab.kernel.name} ({lab.kernel.flavour}), {binding}"

    def result(
        comparison: Comparison,
        log: Sequence[str],
        seconds: float,
        *,
        tables: Sequence[PageTables] = (),
        remark: str = "",
        reports: Sequence[Report] = (),
    ) -> Result:
        explanation: tuple[str, ...] = ()
        if comparison.verdict is not Verdict.PASS:
            heading = f"{comparison.verdict} {title}"
            explanation = explain(
                program, comparison, title=heading, log=log, replay=replay, tables=tables, remark=remark
            )
        divergence = comparison.divergence
        return Result(
            program=program.name,
            kernel=lab.kernel.name,
            flavour=lab.kernel.flavour,
            binding=binding,
            status=comparison.verdict,
            reason=comparison.reason,
            seconds=round(seconds, 6),
            replay=replay,
            left_out=len(comparison.left_out),
            explanation=explanation,
            log=tuple(log),
            step=None if divergence is None else divergence.step,
            details=() if divergence is None else divergence.details,
            tables=tuple(tables),
            reports=tuple(reports),
            identity=identity(program, binding, plan, lab.machine),
        )

    if missing is not None:
        return result(Comparison(Verdict.SKIP, missing), (), 0.0)
    try:
        lab.vm()
    except GuestError as error:  # whatever it is, it is not the program's doing
        console = error.console.splitlines() if isinstance(error, VMFailure) else ()
        comparison = Comparison(Verdict.ERROR, f"it got no clean VM: {error.message}")
        return result(comparison, console, 0.0, remark=f"hint: {error.hint}" if error.hint else "")
    try:
        rules = rules_for(binding, lab.features())
        why = obstacle(program, rules)
        if why is not None:
            return result(Comparison(Verdict.SKIP, why), (), 0.0)
        execution = lab.execute(program, binding, wrong=plan.wrong, timeout=plan.timeout)
    except VMFailure as failure:
        console = failure.console.splitlines()
        found = crashes(console)
        verdict = verdict_of(failure)
        hint = f"hint: {failure.hint}" if verdict is Verdict.ERROR and failure.hint else ""
        comparison = Comparison(verdict, with_bug(failure.message, found))
        return result(comparison, console, 0.0, remark=hint, reports=reports_of(found))
    except GuestError as error:
        reason = "; ".join(filter(None, [error.message, error.hint]))
        return result(Comparison(Verdict.ERROR, reason), (), 0.0)
    if execution.earlier and isinstance(lab.memo, Result):
        raise _LateWordsError(lab.memo, execution.earlier)
    comparison = _judge(program, rules, execution)
    tables: list[PageTables] = []
    remark = ""
    if comparison.verdict is Verdict.FAIL and comparison.divergence is not None:
        try:
            tables = _tables(program, rules, comparison.divergence.step, plan, lab)
        except GuestError as failure:
            remark = f"page tables: the VM did not survive the second look ({failure.message})"
    reports = reports_of((*execution.earlier, *execution.crashes))
    return result(comparison, execution.log, execution.seconds, tables=tables, remark=remark, reports=reports)


def _judge(program: Program, rules: Rules, execution: Execution) -> Comparison:
    """The comparison; but no answer counts if the kernel complained meanwhile, and nothing may be left behind."""
    comparison = compare(program, rules, execution.observations)
    if execution.crashes:
        return Comparison(
            Verdict.CRASHED, with_bug(execution.crashes[0].title, execution.crashes), comparison.divergence
        )
    if execution.earlier:
        reason = f"the kernel complained before any program started: {execution.earlier[0].title}"
        return Comparison(Verdict.CRASHED, reason, comparison.divergence)
    for words, shortage in _SHORTAGES.items():
        if any(words in line for line in execution.log):
            return Comparison(Verdict.INCONCLUSIVE, shortage)
    deaf = comparison.divergence is not None and isinstance(program.steps[comparison.divergence.step], Events)
    if execution.lost_events and (deaf or comparison.verdict in (Verdict.PASS, Verdict.DEVIATION)):
        return Comparison(Verdict.INCONCLUSIVE, f"{execution.lost_events} events of the driver were lost on the way")
    if comparison.verdict in (Verdict.PASS, Verdict.DEVIATION):
        if LOST_LINES in execution.log:
            return Comparison(
                Verdict.INCONCLUSIVE, "lines of the kernel's log were lost, a complaint may be among them"
            )
        used = {step.actor for step in program.steps if isinstance(step, DeviceOperation)}
        watched = {device for device in DEVICES if device not in COHERENT or device in used}
        if rules.tells_leaks and not watched <= set(execution.residue):
            return Comparison(Verdict.INCONCLUSIVE, "the driver does not tell whether device memory leaked")
    left = [f"{pages} pages of {device}" for device, pages in execution.residue.items() if pages]
    if left and comparison.verdict in (Verdict.PASS, Verdict.DEVIATION):
        reason = f"device memory leaked: {', '.join(left)} are in use after every process is gone"
        return Comparison(Verdict.FAIL, reason)
    return comparison


def _tables(program: Program, rules: Rules, step: int, plan: Plan, lab: Lab) -> list[PageTables]:
    """Both page tables right after the step, from a second run in a clean VM."""
    found = inquest(program, step)
    lab.discard()
    execution = lab.execute(found.program, rules.binding, wrong=plan.wrong, timeout=plan.timeout)
    return page_tables(found, rules, execution.observations)
