# SPDX-License-Identifier: GPL-2.0-only
"""A plan spread over several VMs of one kernel.

Each worker is a thread with a VM of its own: it waits for its VM nearly all the time. What a program shows does not
depend on which VM runs it, nor on what ran there before: a program that did not pass is the last in its VM.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from harness.errors import GuestError
from harness.report.results import Result, Target
from harness.run import Plan, Task, expect, last_words, run_task, survey
from harness.target import children
from harness.target.lab import Lab
from harness.target.room import fitting
from harness.target.upstream import Case

__all__ = ["fitting", "spread"]

_MANY_PAGES = 2048
_MANY_SECONDS = 60.0
_HANDFUL = 8  # tasks
_SWITCH_SECONDS = 0.0005  # who waits for a VM's answer is not to wait for who compares another's, ten times as long


def spread(
    plan: Plan,
    tasks: Sequence[Task],
    labs: Sequence[Lab],
    describe: Callable[[Lab], Target],
    *,
    say: Callable[[str], None],
) -> Iterator[Target | Result]:
    """What `describe` says of the first VM, then the results of `tasks` as they come, from the VMs of all `labs`.

    A worker that gets no VM leaves its work to the others, which `say` is told; the last one raises why. Raises what
    `harness.run.run` raises, too, and whatever else ends a worker. All workers are gone when this ends.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    work = _Work(tasks, workers=len(labs))
    answers: queue.SimpleQueue[Target | Result | BaseException | None] = queue.SimpleQueue()
    opened = threading.Event()
    stop = threading.Event()
    missing: dict[str, str] = {}  # complete when `opened` is set
    crew = threading.Semaphore(min(len(labs), len(tasks)) - 1)  # how many may leave

    def work_through(lab: Lab) -> Iterator[Target | Result]:
        if lab is labs[0]:
            yield describe(lab)
            missing.update(survey(plan, lab))
            opened.set()
        elif not has_vm(lab):
            return
        opened.wait()
        while handful := work.take():
            expect(handful, lab, missing)
            for number, task in enumerate(handful):
                if not has_vm(lab):
                    work.give_back(handful[number:])
                    return
                yield from run_task(task, plan, lab, missing)
            work.give_back([])
        yield from last_words(lab)

    def has_vm(lab: Lab) -> bool:
        """Whether its worker can go on; raises what kept it from that if there is no other."""
        try:
            lab.vm()
        except GuestError as error:
            if stop.is_set() or not crew.acquire(blocking=False):
                raise
            say(f"one VM less: {error.message}")
            return False
        return True

    def attend(lab: Lab) -> None:
        try:
            for answer in work_through(lab):
                if stop.is_set():  # the VM was taken away: that is no result
                    return
                answers.put(answer)
        except BaseException as error:  # noqa: BLE001  raised where somebody can act on it
            answers.put(error)
        finally:
            answers.put(None)

    workers = [threading.Thread(target=attend, args=(lab,), daemon=True) for lab in labs[: len(tasks)]]
    try:
        for worker in workers:
            worker.start()
        left = len(workers)
        while left:
            answer = answers.get()
            if answer is None:
                left -= 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                yield answer
    finally:
        stop.set()
        work.end()
        opened.set()
        dismiss(workers, labs)


def dismiss(workers: Sequence[threading.Thread], labs: Sequence[Lab]) -> None:
    """Returns when all `workers`, who use `labs` and were told to stop, are gone."""
    for lab in labs:
        lab.give_up()
    children.call_off(workers)


class _Work:
    """Tasks, which workers take by the handful: fewer when few are left, so that all end at the same time.

    Those that spoil their VM come last: nothing has to be run in a clean one after them. A worker that has no others
    takes the rest in their order.
    """

    def __init__(self, tasks: Sequence[Task], workers: int) -> None:
        heavy_first = workers > 1
        self._left = deque(sorted(tasks, key=lambda task: (task.program.spoils, heavy_first and _light(task))))
        self._workers = workers
        self._taken = 0  # handfuls that are being worked on, and may come back
        self._changed = threading.Condition()

    def take(self) -> list[Task]:
        """What to do next; nothing when there is nothing left. Waits for what others may give back."""
        with self._changed:
            while not self._left and self._taken > 0:
                self._changed.wait()
            many = min(_HANDFUL, max(1, len(self._left) // (2 * self._workers)))
            handful = [self._left.popleft()] if self._left else []
            while len(handful) < many and self._left and _light(handful[0]):
                handful.append(self._left.popleft())
            self._taken += bool(handful)
            return handful

    def give_back(self, rest: Sequence[Task]) -> None:
        """A handful is done, but for the `rest`, which others are to do."""
        with self._changed:
            self._left.extendleft(reversed(rest))
            self._taken -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """There is nothing to do any more."""
        with self._changed:
            self._left.clear()
            self._taken = 0
            self._changed.notify_all()


def _light(task: Task) -> bool:
    """Whether a program takes no longer than most. One that takes as long as thirty others is not to begin last."""
    if isinstance(task.program, Case):
        return task.program.seconds < _MANY_SECONDS
    return sum(region.pages for region in task.program.regions.values()) < _MANY_PAGES
