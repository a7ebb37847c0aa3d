# SPDX-License-Identifier: GPL-2.0-only
"""A plan on several kernels, one after the other: each is built or taken from the cache, and gets a pool of VMs.

While programs run on one, the next is built.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from harness.ahead import Ahead
from harness.errors import HarnessError, UsageError
from harness.peer import Peers
from harness.pool import fitting, spread
from harness.program.program import Program
from harness.progress import Progress
from harness.report.explain import explain_trouble
from harness.report.results import Planned, Result, Target
from harness.run import Plan, Task, identity, replay_command, verdict_of
from harness.target.cache import Cache
from harness.target.catch import Catch, CatchingLab
from harness.target.gdb import debugging
from harness.target.lab import Lab, prepare
from harness.target.upstream import Case
from harness.target.vm import Machine
from harness.target.watchdog import VMFailure

Kernel = tuple[str, str]  # spec, flavour
Done = Mapping[tuple[str, str, str, str], str]  # `Result.place`: `Result.identity`, of what need not be run again
_NOTHING: Done = {}


@dataclass(frozen=True)
class Resources:
    """What a run may use. `vms`: at once, None for as many as fit. `restore`: saved VMs instead of booting each.

    `gdb`: the port for a debugger of each VM, 0 for free ones. `catch`: keeps a VM in which a program does not pass.
    """

    cache: Cache
    progress: Progress
    vms: int | None = None
    restore: bool = True
    gdb: int | None = None
    catch: Catch | None = None

    def lab(self, machine: Machine) -> Lab:
        """Something to run programs on `machine` with."""
        cache, progress, restore = self.cache, self.progress, self.restore
        debugger = None
        if self.gdb is not None:
            debugger = debugging(machine, self.gdb, restore=restore, cache=cache, progress=progress)
        make = Lab if self.catch is None else partial(CatchingLab, self.catch)
        return make(machine, cache=cache, progress=progress, restore=restore, debugging=debugger)


def run_matrix(
    plan: Plan, kernels: Sequence[Kernel], resources: Resources, *, done: Done = _NOTHING
) -> Generator[Target | Result | Planned, None, None]:
    """For each kernel its `Target`, then its results as they come; but not those that are `done`.

    What cases its own tests have is told before they are run. A kernel that cannot be had, does not build or does not
    boot has a target that says so, and a result for each program that says so too; the others go on. Raises
    `UsageError` if there is no other and it makes no sense.
    """
    peers = Peers(plan, kernels)
    with Ahead(partial(_prepared, resources.progress), resources.cache) as ahead:
        for number, (kernel, flavour) in enumerate(kernels):
            told: set[tuple[str, str]] = set()
            machine: Machine | None = None
            running = plan
            try:
                machine = ahead.get((kernel, flavour))
                for following in kernels[number + 1 : number + 2]:
                    ahead.begin(following)
                for told_now in run_machine(plan, machine, resources, done=done):
                    if isinstance(told_now, Result):
                        told.add((told_now.program, told_now.binding))
                    yield told_now
                if plan.cases:
                    running, planned = peers.plan(machine, progress=resources.progress)
                    yield planned
                    for told_now in run_machine(running, peers.room(machine), resources, done=done):
                        if isinstance(told_now, Result):
                            told.add((told_now.program, told_now.binding))
                        if isinstance(told_now, Result) or not plan.programs:  # else the kernel was told
                            yield told_now
            except HarnessError as error:
                if isinstance(error, UsageError) and len(kernels) == 1:
                    raise
                peers.failed((kernel, flavour), error)
                yield Target(kernel, flavour, error="\n".join(filter(None, [error.message, error.hint])))
                for task in _tasks(running, (kernel, flavour), machine, done):
                    left = [binding for binding in task.bindings if (task.program.name, binding) not in told]
                    yield from _in_vain(Task(task.program, tuple(left)), plan, (kernel, flavour), error)
    yield from peers.missing()


def _prepared(progress: Progress, kernel: Kernel, cache: Cache) -> Machine:
    return prepare(*kernel, cache=cache, progress=progress)


def run_machine(
    plan: Plan, machine: Machine, resources: Resources, *, done: Done = _NOTHING
) -> Generator[Target | Result, None, None]:
    """The `Target`, then the results as they come, on a pool of VMs of one machine; nothing where all is done.

    Raises what ends the last worker.
    """
    tasks = _tasks(plan, (machine.kernel.name, machine.kernel.flavour), machine, done)
    if not tasks:
        return
    vms = min(resources.vms or fitting(machine), len(tasks))
    machine = shared(machine, vms)
    with ExitStack() as stack:
        labs = [stack.enter_context(resources.lab(machine)) for _ in range(vms)]
        yield from spread(plan, tasks, labs, _describe, say=resources.progress.say)


def shared(machine: Machine, vms: int) -> Machine:
    """`machine` as one of `vms` that run at once."""
    return replace(machine, crowded=vms * machine.cpus > len(os.sched_getaffinity(0)))


def _describe(lab: Lab) -> Target:
    vm, kernel = lab.vm(), lab.machine.kernel
    return Target(
        kernel=kernel.name,
        flavour=kernel.flavour,
        release=kernel.release,
        key=kernel.key,
        origin=kernel.origin,
        accelerator=vm.accelerator,
        qemu=vm.qemu_version,
        cpus=lab.machine.cpus,
        memory_mib=lab.machine.memory_mib,
        banner=vm.banner,
        features=lab.features(),
    )


def _tasks(plan: Plan, kernel: Kernel, machine: Machine | None, done: Done) -> list[Task]:
    """What is left to do, program by program. Without a machine there is no telling whether it changed since."""

    def is_left(program: Program | Case, binding: str) -> bool:
        before = done.get((*kernel, program.name, binding))
        if machine is None or before is None:
            return before is None
        return before != identity(program, binding, plan, machine)

    tasks = []
    for program in plan.programs:
        bindings = [binding for binding in plan.bindings if is_left(program, binding)]
        if bindings:
            tasks.append(Task(program, tuple(bindings)))
    return tasks


def _in_vain(task: Task, plan: Plan, kernel: Kernel, error: HarnessError) -> Iterator[Result]:
    """A result for everything that could not be run."""
    verdict = verdict_of(error)
    console = tuple(error.console.splitlines()) if isinstance(error, VMFailure) else ()
    for binding in task.bindings:
        replay = replay_command(task.program, binding, plan, kernel)
        yield Result(
            program=task.program.name,
            kernel=kernel[0],
            flavour=kernel[1],
            binding=binding,
            status=verdict,
            reason=error.message,
            seconds=0.0,
            replay=replay,
            explanation=explain_trouble(f"{verdict} {kernel[0]} ({kernel[1]})", error, console),
            log=console,
        )
