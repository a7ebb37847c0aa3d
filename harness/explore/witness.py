# SPDX-License-Identifier: GPL-2.0-only
"""What was seen of a program, as far as those have to know it who are to see it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.compare import Comparison, Verdict, obstacle, place, show_error
from harness.errors import HarnessError, UsageError
from harness.model.allowed import Expectation, show_element
from harness.model.rules import Rules, rules_for
from harness.model.world import World
from harness.program.observations import Observation, Status
from harness.program.operations import Events, Operation, Pagemap, Write
from harness.program.program import Program
from harness.run import Plan, judge, replay_command, reports_of, survey, verdict_of
from harness.target.crashes import crashes
from harness.target.lab import Lab
from harness.target.watchdog import VMFailure


@dataclass(frozen=True)
class Scene:
    """Where something was seen: the kernel and binding, and the deliberate driver mistakes that were on."""

    kernel: str
    flavour: str
    release: str
    binding: str
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        wrong = f", with a driver that is wrong on purpose: {', '.join(self.wrong)}" if self.wrong else ""
        return f"{self.kernel} ({self.flavour}), Linux {self.release}, binding {self.binding}{wrong}"


@dataclass(frozen=True)
class Witness:
    """What became of a program. The default knows nothing: it was not run.

    `step`: from 0, where it shows; None if that is in no step. `strict`: what is a known deviation is what shows.
    `expectations`: what is allowed of the first steps, as far as it is known, at most up to that one. `observations`:
    what was seen of each. `details`: what is not allowed there, a line each. `leaked`: devices whose memory is in use
    when every process is gone. `titles`: of the kernel's complaints. `replay`: the command that runs it again.
    """

    scene: Scene | None = None
    verdict: Verdict | None = None
    reason: str = ""
    step: int | None = None
    strict: bool = False
    expectations: tuple[Expectation, ...] = ()
    observations: tuple[Observation, ...] = ()
    details: tuple[str, ...] = ()
    leaked: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    replay: str = ""

    @property
    def expectation(self) -> Expectation | None:
        """What is allowed where it shows; None if it shows otherwise."""
        return None if self.step is None or self.step >= len(self.expectations) else self.expectations[self.step]

    @property
    def observation(self) -> Observation | None:
        """What was seen there."""
        return None if self.step is None else self.observations[self.step]

    def errors(self, number: int) -> frozenset[int]:
        """How step `number` may end; nothing if that is not known. Known deviations are allowed."""
        if number < len(self.expectations):
            expectation = self.expectations[number]
            return expectation.errors | {error for error, _ in expectation.deviating_errors}
        if number < len(self.observations) and self.observations[number].status is Status.DONE:
            return frozenset({self.observations[number].error})
        return frozenset()


def witness_of(
    program: Program, rules: Rules, observations: Sequence[Observation], comparison: Comparison
) -> Witness:
    """What `comparison` says of `observations`, and what is to be expected of the steps before.

    Of a program that passed, the last step that shows something; of one that deviated as is known, the first step
    that did.
    """
    known = Witness(verdict=comparison.verdict, reason=comparison.reason, observations=tuple(observations))
    if comparison.verdict is Verdict.CRASHED:  # nothing that was seen counts any more, but what ended how
        return known
    if comparison.verdict is Verdict.TIMEOUT:
        stuck = [number for number, seen in enumerate(observations) if seen.status is Status.STUCK]
        known = replace(known, step=stuck[0] if stuck else None)
    elif comparison.divergence is not None:
        known = replace(known, step=comparison.divergence.step, details=comparison.divergence.details)
    world = World(program, rules)
    expectations: list[Expectation] = []
    for number, (step, seen) in enumerate(zip(program.steps, observations, strict=True)):
        if seen.status is Status.UNSUPPORTED:  # a query that was left out
            expectations.append(Expectation(frozenset()))
            continue
        if seen.status is not Status.DONE:
            break
        expectation = world.step(step, seen)
        expectations.append(expectation)
        if number == known.step and comparison.divergence is not None:
            break
        if not isinstance(step, Events | Pagemap):  # what no C program looks at
            if comparison.verdict is Verdict.DEVIATION and _deviates(step, expectation, seen):
                known = replace(known, step=number, strict=True, details=_details(step, expectation, seen))
                break
            shows = seen.elements and not (isinstance(step, Write) and not any(seen.elements))  # just stores
            if comparison.verdict is Verdict.PASS and shows:
                known = replace(known, step=number)
        world.learn(step, seen)
    return replace(known, expectations=tuple(expectations))


def look(program: Program, plan: Plan, lab: Lab) -> Witness:
    """Runs `program` on the first binding of `plan` in a clean VM.

    Raises `UsageError` if it cannot be run there, `HarnessError` if the run said nothing of the kernel.
    """
    binding = plan.bindings[0]
    lab.discard()
    missing = survey(plan, lab).get(binding)
    scene = Scene(lab.kernel.name, lab.kernel.flavour, lab.kernel.release, binding, tuple(plan.wrong))
    rules = rules_for(binding, lab.features())
    why = missing or obstacle(program, rules)
    if why is not None:
        raise UsageError(f"{program.name} cannot be run on {scene}: {why}", hint="name another --kernel or --binding")
    replay = replay_command(program, binding, plan, (lab.kernel.name, lab.kernel.flavour))
    try:
        execution = lab.execute(program, binding, wrong=plan.wrong, timeout=plan.timeout)
    except VMFailure as failure:
        verdict = verdict_of(failure)
        if verdict is Verdict.ERROR:
            raise
        titles = tuple(report.title for report in reports_of(crashes(failure.console.splitlines())))
        return Witness(scene, verdict, failure.message, titles=titles, replay=replay)
    comparison = judge(program, rules, execution)
    if not comparison.verdict.good:
        lab.discard()
    if comparison.verdict in (Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.SKIP):
        raise HarnessError(f"{program.name} on {scene}: {comparison.verdict}: {comparison.reason}")
    return replace(
        witness_of(program, rules, execution.observations, comparison),
        scene=scene,
        titles=tuple(report.title for report in reports_of((*execution.earlier, *execution.crashes))),
        leaked=tuple(device for device, pages in execution.residue.items() if pages),
        replay=replay,
    )


def _details(step: Operation, expectation: Expectation, seen: Observation) -> tuple[str, ...]:
    """What of `seen` is allowed only as a known deviation, in the words of harness/compare.py."""
    if seen.error not in expectation.errors:
        allowed = " or ".join(show_error(error) for error in sorted(expectation.errors))
        return (f"saw {show_error(seen.error)}, allowed is {allowed}",)
    return tuple(
        f"{place(step, index)}: saw {show_element(element)}, allowed is {allowed_here}"
        for index, (allowed_here, element) in enumerate(zip(expectation.elements, seen.elements, strict=False))
        if not allowed_here.admits(element)
    )


def _deviates(step: Operation, expectation: Expectation, seen: Observation) -> bool:
    """Whether what was seen is allowed only as a known deviation."""
    return bool(_details(step, expectation, seen))
