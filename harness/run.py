# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs on a target and in the model, compares, and yields results."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.compare import Comparison, Verdict, compare
from harness.errors import GuestError, HarnessError, UsageError
from harness.guest.kernel import LOST_LINES
from harness.model.rules import RULES
from harness.program.operations import DEVICES
from harness.program.program import Program
from harness.report.explain import explain, inquest, page_tables
from harness.report.results import Result
from harness.target.lab import Execution, Lab
from harness.target.watchdog import Trouble, VMFailure

_VERDICTS = {
    Trouble.PANIC: Verdict.CRASHED,
    Trouble.OOPS: Verdict.CRASHED,
    Trouble.HANG: Verdict.TIMEOUT,
    Trouble.TIMEOUT: Verdict.TIMEOUT,
}  # the others are an ERROR


_OUT_OF_MEMORY = "Out of memory: Killed process"  # mm/oom_kill.c __oom_kill_process()
DEFAULT_TIMEOUT = 30.0


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

    A program that did not pass may have damaged its VM: the next one gets a clean one. Raises `UsageError` if
    the driver knows no such mistake.
    """
    known = lab.mistakes() if plan.wrong else ()
    for name in plan.wrong:
        if name not in known:
            raise UsageError(f"the driver knows no mistake {name!r}", hint=f"one of: {', '.join(known)}")
    missing = {binding: reason for binding in plan.bindings if (reason := lab.missing(binding))}
    if "interval" in missing:
        raise HarnessError(
            f"the module hmm_harness did not load into {lab.kernel.name}: {missing['interval']}",
            hint="`hmm-harness clean` makes the next run build it anew; if it still does not load, that is a bug",
        )
    for program in plan.programs:
        for binding in plan.bindings:
            result = _run_one(program, binding, plan, lab, missing.get(binding))
            if result.status not in (Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION):
                lab.discard()
            yield result


def replay_command(program: Program, binding: str, plan: Plan, lab: Lab) -> str:
    """The command that runs this program again in a clean VM."""
    words = [*plan.command, "run", "--kernel", lab.kernel.name, "--flavour", lab.kernel.flavour, "--binding", binding]
    if plan.wrong:
        words += ["--wrong", ",".join(plan.wrong)]
    if plan.timeout != DEFAULT_TIMEOUT:
        words += ["--timeout", f"{plan.timeout:g}"]
    return shlex.join([*words, program.name])


def _run_one(program: Program, binding: str, plan: Plan, lab: Lab, missing: str | None) -> Result:
    replay = replay_command(program, binding, plan, lab)
    title = f"{program.name} on {lab.kernel.name} ({lab.kernel.flavour}), {binding}"

    def result(comparison: Comparison, log: Sequence[str], seconds: float, tables: Sequence[str] = ()) -> Result:
        explanation: tuple[str, ...] = ()
        if comparison.verdict is not Verdict.PASS:
            heading = f"{comparison.verdict} {title}"
            explanation = explain(program, comparison, title=heading, log=log, replay=replay, tables=tables)
        return Result(
            program=program.name,
            kernel=lab.kernel.name,
            flavour=lab.kernel.flavour,
            binding=binding,
            status=comparison.verdict,
            reason=comparison.reason,
            seconds=seconds,
            replay=replay,
            left_out=len(comparison.left_out),
            explanation=explanation,
            log=tuple(log),
        )

    if missing is not None:
        return result(Comparison(Verdict.SKIP, missing), (), 0.0)
    try:
        execution = lab.execute(program, binding, wrong=plan.wrong, timeout=plan.timeout)
    except VMFailure as failure:
        verdict = _VERDICTS.get(failure.kind, Verdict.ERROR)
        return result(Comparison(verdict, failure.message), failure.console.splitlines(), 0.0)
    except GuestError as error:
        return result(Comparison(Verdict.ERROR, error.message), (), 0.0)
    comparison = _judge(program, binding, execution)
    tables: list[str] = []
    if comparison.verdict is Verdict.FAIL and comparison.divergence is not None:
        tables = _tables(program, binding, comparison.divergence.step, plan, lab)
    return result(comparison, execution.log, execution.seconds, tables)


def _judge(program: Program, binding: str, execution: Execution) -> Comparison:
    """The comparison; but no answer counts if the kernel complained meanwhile, and nothing may be left behind."""
    comparison = compare(program, RULES[binding], execution.observations)
    if execution.complaints:
        return Comparison(Verdict.CRASHED, execution.complaints[0], comparison.divergence)
    if execution.earlier:
        reason = (
            f"the kernel complained before this program started, late words on an earlier one: {execution.earlier[0]}"
        )
        return Comparison(Verdict.CRASHED, reason, comparison.divergence)
    if any(_OUT_OF_MEMORY in line for line in execution.log):
        return Comparison(Verdict.INCONCLUSIVE, "the guest ran out of memory: use fewer pages")
    if comparison.verdict in (Verdict.PASS, Verdict.DEVIATION):
        if LOST_LINES in execution.log:
            return Comparison(
                Verdict.INCONCLUSIVE, "lines of the kernel's log were lost, a complaint may be among them"
            )
        if binding == "interval" and set(execution.residue) != set(DEVICES):
            return Comparison(Verdict.INCONCLUSIVE, "the driver does not tell whether device memory leaked")
    left = [f"{pages} pages of {device}" for device, pages in execution.residue.items() if pages]
    if left and comparison.verdict in (Verdict.PASS, Verdict.DEVIATION):
        reason = f"device memory leaked: {', '.join(left)} are in use after every process is gone"
        return Comparison(Verdict.FAIL, reason)
    return comparison


def _tables(program: Program, binding: str, step: int, plan: Plan, lab: Lab) -> list[str]:
    """Both page tables right after the step, from a second run in a clean VM."""
    found = inquest(program, step)
    lab.discard()
    try:
        execution = lab.execute(found.program, binding, wrong=plan.wrong, timeout=plan.timeout)
    except GuestError as failure:
        return [f"  page tables: the VM did not survive the second look ({failure.message})"]
    return page_tables(found, RULES[binding], execution.observations)
