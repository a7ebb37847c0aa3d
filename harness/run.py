# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs on a target and in the model, compares, and yields results.

One VM is enough here; harness/pool.py spreads a plan over several, harness/matrix.py over several kernels.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compare import Comparison, Notice, Verdict, compare, obstacle
from harness.conformance.bugs import with_bug
from harness.defaults import DEFAULT_TIMEOUT
from harness.errors import GuestError, HarnessError, UsageError
from harness.guest.kernel import LOST_LINES
from harness.labels import heading, short
from harness.model.rules import Rules, rules_for
from harness.program.operations import COHERENT, DEVICES, DeviceOperation, Events
from harness.program.program import Program
from harness.program.race import Race
from harness.program.text import render
from harness.report.explain import explain, explain_case, inquest, page_tables
from harness.report.results import PageTables, Report, Result
from harness.serial import judge_race
from harness.target.cache import digest_of
from harness.target.crashes import Crash, crashes, damage
from harness.target.lab import Execution, Lab, Leak
from harness.target.upstream import Case
from harness.target.vm import Machine
from harness.target.watchdog import Trouble, VMFailure
from harness.upstream import judge as judge_case

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
    "there is no swap space": "the guest's swap space cannot be used: the kernel's log may have the reason",
}


@dataclass(frozen=True)
class Plan:
    """What is to be run: every program, or every case of the kernel's own tests, on every binding.

    `wrong`: deliberate driver mistakes to switch on. `timeout`: seconds for one program in the guest. `command`:
    how this program is started, for the replay commands. `notice` is shown the model's states; `harness.compare`.
    `tables`: a program that diverged runs once more, for the page tables right after the step. `cases`: patterns of
    cases of each kernel's own tests, which are to be run, too; none without a pattern. `witness` is shown what came
    of each race before its result is.
    """

    programs: Sequence[Program | Case]
    bindings: Sequence[str]
    wrong: Sequence[str] = ()
    timeout: float = DEFAULT_TIMEOUT
    command: Sequence[str] = ("hmm-harness",)
    notice: Notice | None = None
    tables: bool = True
    cases: Sequence[str] = ()
    witness: Callable[[Race, Comparison, Execution], None] | None = None


def run(plan: Plan, lab: Lab, *, closing: bool = True) -> Iterator[Result]:
    """A result for each program and binding, in order, as they come. `closing`: the VM is not used any more then.

    Raises `UsageError` if the driver knows no such mistake, `HarnessError` if our module did not load.
    """
    missing = survey(plan, lab)
    tasks = [Task(program, tuple(plan.bindings)) for program in plan.programs]
    expect(tasks, lab, missing)
    for task in tasks:
        yield from run_task(task, plan, lab, missing)
    yield from last_words(lab) if closing else _late_words(lab)


@dataclass(frozen=True)
class Task:
    """A program, and the bindings that it is to be run on."""

    program: Program | Case
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
            f"the module hmm_harness did not load into {short(lab.kernel.name)}: {broken}",
            hint="`hmm-harness clean` makes the next run build it anew; if it still does not load, that is a bug",
        )
    return missing


def expect(tasks: Sequence[Task], lab: Lab, missing: Mapping[str, str]) -> None:
    """Tells `lab` what of `tasks`, which `run_task` is to be called for in this order, can be run."""
    try:
        features = lab.features()
    except GuestError:  # the first task will tell
        return
    jobs = [
        (task.program, binding) for task in tasks for binding in task.bindings if isinstance(task.program, Program)
    ]
    rules = {binding: rules_for(binding, features) for _, binding in jobs}
    lab.expect([job for job in jobs if job[1] not in missing and obstacle(job[0], rules[job[1]]) is None])


def run_task(task: Task, plan: Plan, lab: Lab, missing: Mapping[str, str]) -> Iterator[Result]:
    """A result for each binding. A program that did not pass may have damaged its VM: the next gets a clean one.

    So does one after a program that leaves something behind on purpose, unless it does so itself.
    What the kernel says of a program after it has ended is heard before, or when, the next one runs in its VM. Then
    there is another result of that program, which is the last word on it, and the next one is run in a clean VM.
    """
    for binding in task.bindings:
        yield from _late_words(lab)
        if isinstance(lab.memo, _Seen) and lab.memo.spoilt and not task.program.spoils:
            yield from leaks(lab)
            lab.discard()
        try:
            result = yield from _run_one(task.program, binding, plan, lab, missing.get(binding))
        except _LateWordsError as late:
            yield from _end(lab, late.result)
            result = yield from _run_one(task.program, binding, plan, lab, missing.get(binding))
        yield result
        if result.status not in (Verdict.PASS, Verdict.DEVIATION, Verdict.SKIP):
            yield from leaks(lab)
            lab.discard()


def last_words(lab: Lab) -> Iterator[Result]:
    """The last word on programs that ran in the VM at hand, which is the end of it if there is one.

    On the program that ran last, if the kernel complained after its answer; and on those that lost memory.
    """
    lost = list(leaks(lab))
    yield from lost
    yield from _late_words(lab)
    if lost:
        lab.discard()


def leaks(lab: Lab) -> Iterator[Result]:
    """Another result of each program in the VM at hand that lost memory of the kernel's, or may have.

    To be asked before a VM ends: the pages of a device that are not given back are seen at once, this only then.
    """
    if isinstance(lab.memo, _Seen):
        yield from _blame(lab.memo, lab.leaks())


@dataclass
class _Seen:
    """What ran in a VM so far: the results by the number that the programs have there, in order.

    `spoilt`: one of them left something behind that others may run into.
    """

    results: dict[int, Result] = field(default_factory=dict)
    spoilt: bool = False

    @property
    def last(self) -> Result:
        """Of the program that ran last."""
        return next(reversed(self.results.values()))

    def nearest(self, numbers: Sequence[int]) -> int:
        """Who has to tell of what none of these lost: who ran before those that did, or the first.

        It may have been taken before all of them, or by a program whose result did not count.
        """
        before = [number for number in self.results if numbers and number < numbers[0]]
        return before[-1] if before else next(iter(self.results))


def _remember(lab: Lab, number: int, program: Program | Case, result: Result) -> None:
    if not isinstance(lab.memo, _Seen):
        lab.memo = _Seen()
    lab.memo.results[number] = result
    lab.memo.spoilt |= program.spoils


def _blame(seen: _Seen, found: Sequence[Leak]) -> Iterator[Result]:
    blamed: dict[int, list[Crash]] = {}
    shared: dict[int, int] = {}
    for leak in found:
        numbers = [number for number in leak.programs if number in seen.results] or [seen.nearest(leak.programs)]
        for number in numbers:
            blamed.setdefault(number, []).append(leak.crash)
            shared[number] = max(shared.get(number, 0), len(numbers) - 1)
    for number, lost in blamed.items():
        seen.results[number] = _with_leaks(seen.results[number], lost, others=shared[number])
        yield seen.results[number]


def _with_leaks(before: Result, lost: Sequence[Crash], *, others: int = 0) -> Result:
    """A result of a program that lost memory; `others` programs may have lost it, too."""
    whose = f", by this program or {others} others" if others else ""
    reason = with_bug(f"{lost[0].title}{whose} (found when its VM was looked through)", lost)
    lines = tuple(line for crash in lost for line in crash.lines)
    if before.status.good:
        return _at_last(before, reason, lines, reports_of(lost))
    return replace(
        before,
        reason=f"{before.reason}; {reason}",
        log=(*before.log, *lines),
        reports=(*before.reports, *reports_of(lost)),
        explanation=(*before.explanation, "", f"    {reason}", "", *lines),
    )


def _late_words(lab: Lab) -> Iterator[Result]:
    """The last word on the program that ran last in the VM at hand, if the kernel complained after its answer.

    The VM is gone then. Nothing was on its console when that program had passed: what is there now, came later.
    """
    if not isinstance(lab.memo, _Seen) or lab.is_ahead:  # programs that ran since tell whether it was theirs
        return
    # That memory was lost is on the console when it is looked for, and is told by `leaks`.
    found = damage(lab.vm().console.splitlines())
    if found:
        yield from _end(lab, _LateWordsError(lab.memo.last, found).result)


def _end(lab: Lab, last: Result) -> Iterator[Result]:
    """`last` is the last word on the program that ran last in the VM at hand, which is given up."""
    if isinstance(lab.memo, _Seen):
        lab.memo.results[next(reversed(lab.memo.results))] = last
    yield last
    yield from leaks(lab)
    lab.discard()


class _LateWordsError(Exception):
    """The kernel complained of an earlier program: `result` is the last word on that."""

    def __init__(self, before: Result, found: Sequence[Crash]) -> None:
        super().__init__()
        reason = f"{found[0].title} (printed after the program had ended)"
        self.result = _at_last(before, reason, [line for crash in found for line in crash.lines], reports_of(found))


def _at_last(before: Result, reason: str, lines: Sequence[str], reports: tuple[Report, ...]) -> Result:
    """What is to be said of a program that had passed, when the kernel's `reports` came."""
    where = heading(before.kernel, before.flavour)
    title = f"{Verdict.CRASHED} {before.program} on {where}, {before.binding}"
    return replace(
        before,
        status=Verdict.CRASHED,
        reason=reason,
        log=(*before.log, *lines),
        reports=reports,
        explanation=(title, f"    {reason}", "", *lines, "", f"  replay: {before.replay}"),
    )


def reports_of(found: Sequence[Crash]) -> tuple[Report, ...]:
    """The kernel's reports as results have them, consequences behind their causes."""
    everything = [crash for each in found for crash in (each, *each.consequences)]
    return tuple(Report(crash.kind.value, crash.title, crash.lines) for crash in everything)


def identity(program: Program | Case, binding: str, plan: Plan, machine: Machine) -> str:
    """The same for the same program on the same binding of the same kernel, driver and guest."""
    text = program.suite.key + program.test if isinstance(program, Case) else render(program)
    return digest_of(text, binding, *plan.wrong, f"{plan.timeout:g}", *keys_of(machine))[:16]


def keys_of(machine: Machine) -> tuple[str, ...]:
    """What tells a kernel, its command line, our driver and the guest from others."""
    append = f"{machine.kernel.append} {machine.append}".strip()
    return (append, machine.kernel.key, machine.image.key, machine.payload.key)


def verdict_of(error: HarnessError) -> Verdict:
    """What a failure says of the kernel: that it crashed, that something was late, or, nearly always, nothing."""
    return _VERDICTS.get(error.kind, Verdict.ERROR) if isinstance(error, VMFailure) else Verdict.ERROR


def replay_command(program: Program | Case, binding: str, plan: Plan, kernel: tuple[str, str]) -> str:
    """The command that runs this program again in a clean VM."""
    if isinstance(program, Case):
        return shlex.join([*plan.command, "upstream", "--kernel", kernel[0], "--flavour", kernel[1], program.test])
    what = ["run"] if not isinstance(program, Race) else ["race", "replay"]
    words = [*plan.command, *what, "--kernel", kernel[0], "--flavour", kernel[1], "--binding", binding]
    if plan.wrong:
        words += ["--wrong", ",".join(plan.wrong)]
    if plan.timeout != DEFAULT_TIMEOUT:
        words += ["--timeout", f"{plan.timeout:g}"]
    more = [str(program.schedule)] if isinstance(program, Race) else []
    return shlex.join([*words, program.name, *more])


def _run_one(
    program: Program | Case, binding: str, plan: Plan, lab: Lab, missing: str | None
) -> Generator[Result, None, Result]:
    """Returns the result of one program; yields what is found of others before their VM ends for it."""
    if isinstance(program, Case):
        return _run_case(program, binding, plan, lab, missing)
    replay = replay_command(program, binding, plan, (lab.kernel.name, lab.kernel.flavour))
    title = f"{program.name} on {heading(lab.kernel.name, lab.kernel.flavour)}, {binding}"

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
            explanation = explain(
                comparison.program or program,
                comparison,
                title=f"{comparison.verdict} {title}",
                log=log,
                replay=replay,
                tables=tables,
                remark=remark,
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
            step=None if divergence is None or isinstance(program, Race) else divergence.step,
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
    if execution.earlier and isinstance(lab.memo, _Seen):
        raise _LateWordsError(lab.memo.last, execution.earlier)
    comparison = judge(program, rules, execution, plan.notice)
    tables: list[PageTables] = []
    remark = ""
    own: list[Crash] = []
    if isinstance(program, Race) and plan.witness is not None:
        plan.witness(program, comparison, execution)
    if isinstance(program, Race) and execution.course is not None:
        remark = f"schedule: {execution.course.show(program.schedule)}"
    looked_at = plan.tables and not isinstance(program, Race)  # it would be another race
    divergence = comparison.divergence if comparison.verdict is Verdict.FAIL and looked_at else None
    if divergence is not None:
        lost = lab.leaks()
        own = [leak.crash for leak in lost if execution.number in leak.programs or not isinstance(lab.memo, _Seen)]
        if isinstance(lab.memo, _Seen):
            yield from _blame(lab.memo, [leak for leak in lost if execution.number not in leak.programs])
        try:
            tables = _tables(program, rules, divergence.step, plan, lab)
        except GuestError as failure:
            remark = f"page tables: the VM did not survive the second look ({failure.message})"
    reports = reports_of((*execution.earlier, *execution.crashes))
    done = result(comparison, execution.log, execution.seconds, tables=tables, remark=remark, reports=reports)
    if divergence is None:  # else it is another VM by now
        _remember(lab, execution.number, program, done)
    return _with_leaks(done, own) if own else done


def _run_case(case: Case, binding: str, plan: Plan, lab: Lab, missing: str | None) -> Result:
    """The result of one case of the kernel's own tests."""
    found: Sequence[Crash] = ()
    log: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    seconds = 0.0
    number: int | None = None
    hint: str | None = None
    if missing is not None:
        verdict, reason = Verdict.SKIP, missing
    else:
        try:
            outcome = lab.execute_case(case)
        except VMFailure as failure:
            log = tuple(failure.console.splitlines())
            found = crashes(log)
            verdict, reason, hint = verdict_of(failure), with_bug(failure.message, found), failure.hint
        except GuestError as error:
            verdict, reason, hint = Verdict.ERROR, error.message, error.hint
        else:
            if outcome.earlier and isinstance(lab.memo, _Seen):
                raise _LateWordsError(lab.memo.last, outcome.earlier)
            found, log, seconds, number = outcome.crashes, outcome.log, outcome.seconds, outcome.number
            verdict, reason, details = judge_case(case, outcome, _shortage(log))
            if outcome.earlier:
                verdict, found = Verdict.CRASHED, outcome.earlier
                reason = f"the kernel complained before any case began: {found[0].title}"
    replay = replay_command(case, binding, plan, (lab.kernel.name, lab.kernel.flavour))
    explanation: tuple[str, ...] = ()
    if verdict not in (Verdict.PASS, Verdict.SKIP):
        title = f"{verdict} {case.name} on {heading(lab.kernel.name, lab.kernel.flavour)}"
        hint = hint if verdict is Verdict.ERROR else None
        explanation = explain_case(title, reason, showed=details, log=log, replay=replay, hint=hint)
    done = Result(
        program=case.name,
        kernel=lab.kernel.name,
        flavour=lab.kernel.flavour,
        binding=binding,
        status=verdict,
        reason=reason,
        seconds=round(seconds, 6),
        replay=replay,
        explanation=explanation,
        log=log,
        details=details,
        reports=reports_of(found),
        identity=identity(case, binding, plan, lab.machine),
    )
    if number is not None:
        _remember(lab, number, case, done)
    return done


def _shortage(log: Sequence[str]) -> str | None:
    """What the guest was short of, by its log."""
    return next((shortage for words, shortage in _SHORTAGES.items() if any(words in line for line in log)), None)


def judge(
    program: Program, rules: Rules, execution: Execution, notice: Notice | None = None, *, strict: bool = True
) -> Comparison:
    """The comparison; but no answer counts if the kernel complained meanwhile, and nothing may be left behind.

    `strict`: of a race, see `judge_race`.
    """
    if isinstance(program, Race):
        comparison = judge_race(program, rules, execution.observations, execution.course, notice, strict=strict)
    else:
        comparison = compare(program, rules, execution.observations, notice)
    if execution.crashes:
        return Comparison(
            Verdict.CRASHED, with_bug(execution.crashes[0].title, execution.crashes), comparison.divergence
        )
    if execution.earlier:
        reason = f"the kernel complained before any program started: {execution.earlier[0].title}"
        return Comparison(Verdict.CRASHED, reason, comparison.divergence)
    shortage = _shortage(execution.log)
    if shortage is not None:
        return Comparison(Verdict.INCONCLUSIVE, shortage)
    counted = comparison.program or program
    deaf = comparison.divergence is not None and isinstance(counted.steps[comparison.divergence.step], Events)
    if execution.lost_events and (deaf or comparison.verdict.good):
        return Comparison(Verdict.INCONCLUSIVE, f"{execution.lost_events} events of the driver were lost on the way")
    if comparison.verdict.good:
        if LOST_LINES in execution.log:
            return Comparison(
                Verdict.INCONCLUSIVE, "lines of the kernel's log were lost, a complaint may be among them"
            )
        used = {step.actor for step in program.steps if isinstance(step, DeviceOperation)}
        watched = {device for device in DEVICES if device not in COHERENT or device in used}
        if rules.tells_leaks and not watched <= set(execution.residue):
            return Comparison(Verdict.INCONCLUSIVE, "the driver does not tell whether device memory leaked")
    left = [f"{pages} pages of {device}" for device, pages in execution.residue.items() if pages]
    if left and comparison.verdict.good:
        reason = f"device memory leaked: {', '.join(left)} are in use after every process is gone"
        return Comparison(Verdict.FAIL, reason)
    return comparison


def _tables(program: Program, rules: Rules, step: int, plan: Plan, lab: Lab) -> list[PageTables]:
    """Both page tables right after the step, from a second run in a clean VM."""
    found = inquest(program, step)
    lab.discard()
    execution = lab.execute(found.program, rules.binding, wrong=plan.wrong, timeout=plan.timeout)
    return page_tables(found, rules, execution.observations)
