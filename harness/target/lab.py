# SPDX-License-Identifier: GPL-2.0-only
"""A kernel under test with a VM at hand: builds what is missing, and runs programs in a clean VM."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from types import TracebackType
from typing import Any, Self

from harness.defaults import PEER
from harness.errors import GuestError
from harness.guest.kernel import EARLIER_LINES
from harness.labels import short
from harness.program.observations import Observation
from harness.program.operations import Events
from harness.program.program import Program
from harness.program.race import Course, Race
from harness.progress import Progress
from harness.target.accel import find_qemu
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.crashes import Crash, CrashClass, crashes
from harness.target.events import SILENCE, read_stream
from harness.target.image import provide_image
from harness.target.kernel import provide_kernel
from harness.target.module import build_module
from harness.target.payload import provide_payload
from harness.target.upstream import Case, Outcome, furnish, run_case
from harness.target.vm import VM, Debugging, Machine, start
from harness.target.watchdog import Trouble, VMFailure
from harness.target.wire import course_of, decode, encode

_MODULES = {"interval": "hmm_harness", "mirror": "hmm_harness", "test_hmm": "test_hmm", PEER: "test_hmm"}
_LOADED = "loaded"  # harness/guest/agent.py
_AT_ONCE = 24  # programs that are sent together: their answers come together, too
_ANSWER_SECONDS = 30.0  # for an answer, besides what the program may take
_LEAKS_SECONDS = 180.0  # for three scans of a debug kernel on a loaded machine without KVM


Job = tuple[Program, str]  # and the binding


@dataclass(frozen=True)
class Execution:
    """What a target showed of one program."""

    observations: tuple[Observation, ...]
    seconds: float  # in the guest
    log: tuple[str, ...]
    earlier: tuple[Crash, ...]  # printed before this program started
    crashes: tuple[Crash, ...]  # kernel log lines and taints that are never fine
    residue: Mapping[str, int]  # device: pages in use after all subjects are gone
    lost_events: int = 0  # of those that the program listens to
    number: int = 0  # among the programs that ran in its VM
    course: Course | None = None  # how a race went


@dataclass(frozen=True)
class Leak:
    """Memory that the kernel lost. `programs`: the numbers of those in whose time it was taken; none: before them."""

    programs: tuple[int, ...]
    crash: Crash


@dataclass(frozen=True)
class _Answer:
    """What came of `job`. `terms`: what else was said of how it is to be executed."""

    job: Job
    terms: tuple[Sequence[str], float]
    outcome: Execution | GuestError


def _lost(lines: Sequence[str]) -> Crash:
    """What kmemleak says of one object."""
    found = crashes(lines)
    return found[0] if found else Crash(CrashClass.LEAK, "memory leak", lines[0], 0, len(lines) - 1, tuple(lines))


def prepare(spec: str, flavour: str, *, cache: Cache, progress: Progress) -> Machine:
    """Everything that it takes to boot the kernel `spec`: built, or taken from the cache."""
    find_qemu()  # before anything is built: without it there is no use in that
    kernel = provide_kernel(spec, flavour, cache=cache, progress=progress)
    module = build_module(kernel, cache=cache, progress=progress)
    return Machine(
        kernel=kernel,
        image=provide_image(cache=cache, progress=progress),
        payload=provide_payload(kernel, module, cache=cache, progress=progress),
    )


class Lab:
    """Keeps one VM of `machine` going. Used as a context manager; leaving it ends the VM."""

    def __init__(
        self,
        machine: Machine,
        *,
        cache: Cache,
        progress: Progress,
        restore: bool = True,
        debugging: Debugging | None = None,
    ) -> None:
        self.machine = machine
        self._debugging = debugging
        self._cache = cache
        self._progress = progress
        self._restore = restore
        self._stack = ExitStack()
        self._vm: VM | None = None
        self._given_up = threading.Event()
        self._furnished = False  # with the kernel's own tests
        self._unseen = 0  # programs that ran since leaks were looked for
        self._expected: deque[Job] = deque()
        self._answers: deque[_Answer] = deque()  # of the VM at hand, and not asked for yet
        self._dead: list[tuple[Job, VMFailure]] = []  # in what VMs died that had been asked for something before
        self.asides: Mapping[str, str] = {}  # by the program's name; harness/guest/agent.py
        self.memo: object = None  # what a user wants to remember of this VM; forgotten with it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    @property
    def kernel(self) -> Kernel:
        """The kernel under test."""
        return self.machine.kernel

    def vm(self) -> VM:
        """The VM at hand; a clean one is started if there is none."""
        if self._vm is None:
            self._vm = self._stack.enter_context(
                start(
                    self.machine,
                    cache=self._cache,
                    progress=self._progress,
                    restore=self._restore,
                    debugging=self._debugging,
                    given_up=self._given_up,
                )
            )
        return self._vm

    def give_up(self) -> None:
        """Tells a thread that waits in `vm` for another process to wait no longer; from any other thread."""
        self._given_up.set()

    def discard(self) -> None:
        """Ends the VM, so that the next program gets a clean one."""
        self._vm = None
        self.memo = None
        self._furnished = False
        self._unseen = 0
        self._answers.clear()
        self._stack.close()

    def missing(self, binding: str) -> str | None:
        """Why programs cannot run on `binding` in this VM; None if they can."""
        agent = self.vm().agent
        if (binding if binding != PEER else "test_hmm") in agent["bindings"]:
            return None
        module = _MODULES[binding]
        state = str(agent["info"]["modules"].get(module, f"{short(self.kernel.name)} has no module {module}"))
        return f"{short(self.kernel.name)} has not the API of the binding {binding}" if state == _LOADED else state

    def broken(self) -> str | None:
        """Why our own module is not there, which is never fine; None if it is."""
        state = str(self.vm().agent["info"]["modules"].get("hmm_harness", "it is not in the payload"))
        return None if state == _LOADED else state

    def features(self) -> tuple[str, ...]:
        """What the module found this kernel to have."""
        return tuple(self.vm().agent["info"].get("features", ()))

    def mistakes(self) -> tuple[str, ...]:
        """The names of the deliberate mistakes that the module in the VM knows."""
        return tuple(self.vm().agent["info"]["mistakes"])

    def leaks(self) -> tuple[Leak, ...]:
        """The memory that the kernel in the VM at hand lost since this was asked last, where it has kmemleak on.

        Takes some seconds there, and its complaints so far are no reason not to ask. A VM that does not answer any
        more cannot be asked: that is said.
        """
        if self._vm is None or not self._unseen or not self._looks_for_leaks():
            return ()
        count, self._unseen = self._unseen, 0
        self._vm.heard()  # a kernel that complained may have lost memory in the programs before
        try:
            with self._progress.step("looking for memory that the kernel lost"):
                answer, _ = self._vm.call({"do": "leaks"}, timeout=_LEAKS_SECONDS)
            if "error" in answer:
                raise GuestError(answer["error"])
        except GuestError as error:
            self._not_looked(count, error.message)
            return ()
        ahead = {answer.outcome.number for answer in self._answers if isinstance(answer.outcome, Execution)}
        return tuple(
            Leak(tuple(number for number in each["programs"] if number not in ahead), _lost(each["lines"]))
            for each in answer["leaks"]
            if not each["programs"] or not ahead.issuperset(each["programs"])
        )

    def _looks_for_leaks(self) -> bool:
        return self._vm is not None and bool(self._vm.agent["info"].get("kmemleak"))

    def _not_looked(self, programs: int, why: str) -> None:
        self._progress.say(f"a VM was not looked through for memory that {programs} programs may have lost: {why}")

    def expect(self, jobs: Sequence[Job]) -> None:
        """Tells what will be executed next, in this order: several programs are sent, and answered, at once.

        Nothing else changes by that. What was executed ahead in a VM that is given up did not happen; a VM that died
        in the middle is the failure of the program that ran then, and those before it are executed again.
        """
        if self._debugging is None:  # somebody looks at one program at a time
            self._expected = deque(jobs)

    @property
    def is_ahead(self) -> bool:
        """Whether programs ran in the VM at hand for which nobody has asked yet."""
        return bool(self._answers)

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        """Runs `program`, with the deliberate driver mistakes `wrong`, for at most `timeout` seconds.

        Raises `VMFailure` if the VM did not live to answer; that VM is gone then.
        """
        job = (program, binding)
        while not self._answers or self._answers[0].job != job or self._answers[0].terms != (wrong, timeout):
            self._answers.clear()
            for dead in self._dead:
                if dead[0] == job:
                    self._dead.remove(dead)
                    raise dead[1]
            jobs = self._next(job)
            more = f" and {len(jobs) - 1} more" if jobs[1:] else ""
            with self._progress.step(f"running {program.name} on {binding}{more}"):
                self._ask(jobs, wrong, timeout)
        outcome = self._answers.popleft().outcome
        if isinstance(outcome, GuestError):
            if isinstance(outcome, VMFailure):
                self.discard()
            raise outcome
        return outcome

    def execute_case(self, case: Case) -> Outcome:
        """Runs a case of the kernel's own hmm-tests. Raises `VMFailure` as `execute` does."""
        self._answers.clear()
        vm = self._clean_vm()
        before, self._unseen = self._unseen, self._unseen + 1
        try:
            with self._progress.step(f"running {case.name}"):
                if not self._furnished:
                    furnish(vm, case.suite.program)
                    self._furnished = True
                return run_case(vm, case)
        except VMFailure:
            if before and self._looks_for_leaks():
                self._not_looked(before, "it is gone")
            self._unseen = 0
            self.discard()
            raise

    def _next(self, job: Job) -> list[Job]:
        """`job`, and what is to be sent with it: nothing in which a VM died already."""
        if job not in self._expected:
            return [job]
        while self._expected[0] != job:
            self._expected.popleft()
        dead = [each for each, _ in self._dead]
        jobs = list(takewhile(lambda each: each not in dead, islice(self._expected, _AT_ONCE)))
        # What comes after one that spoils the VM may get another one: harness/run.py decides.
        ends = [end for end, (one, other) in enumerate(pairwise(jobs), 1) if one[0].spoils and not other[0].spoils]
        return jobs[: ends[0]] if ends else jobs

    def _ask(self, jobs: Sequence[Job], wrong: Sequence[str], timeout: float) -> None:
        """Fills `_answers` with at least the first of `jobs`; or raises that one's failure, or notes another's."""
        requests = [encode(program, binding, timeout) for program, binding in jobs]
        header = {
            "do": "run",
            "packed": True,
            "wrong": list(wrong),
            "programs": [len(request) for request in requests],
            "events": [index for index, (program, _) in enumerate(jobs) if _listens(program)],
            "asides": {
                str(index): self.asides[program.name]
                for index, (program, _) in enumerate(jobs)
                if program.name in self.asides
            },
        }
        vm = self._clean_vm()
        before, self._unseen = self._unseen, self._unseen + len(jobs)
        begun = vm.programs
        try:
            packed = zlib.compress(b"".join(requests))
            answer, body = vm.call(header, packed, timeout=timeout + _ANSWER_SECONDS)
        except BaseException as error:
            running = max(0, min(vm.programs - begun, len(jobs)) - 1)
            if before and self._looks_for_leaks():
                self._not_looked(before, "it is gone")
            self._unseen = 0
            self.discard()
            if not running or not isinstance(error, VMFailure):
                raise
            self._dead.append((jobs[running], error))
            return
        start = 0
        results = answer.get("results", [])
        if answer.get("packed"):
            body = zlib.decompress(body)
        for job, result in zip(jobs, results, strict=False):
            end = start + result["length"]
            told = body[end : end + result["events"]]
            outcome: Execution | GuestError
            try:
                outcome = _execution(job, result, body[start:end], told)
            except GuestError as error:  # the others are as they are
                outcome = error
            self._answers.append(_Answer(job, (wrong, timeout), outcome))
            start = end + result["events"]
        self._unseen = before + len(results)
        if "error" in answer:
            self._answers.append(_Answer(jobs[len(results)], (wrong, timeout), self._refusal(answer)))

    def _clean_vm(self) -> VM:
        """The VM at hand; if there is none, the last one died: that there is no other is nobody's failure."""
        try:
            return self.vm()
        except GuestError as error:
            if not self._dead:
                raise
            raise GuestError(f"it got no clean VM: {error.message}", hint=error.hint) from error

    def _refusal(self, answer: Mapping[str, Any]) -> GuestError:
        """Why the agent could not run a program."""
        found = crashes(answer.get("log", ()))
        if found:  # which is why: a process that the kernel killed in the middle of a bug of its own
            return VMFailure(Trouble.OOPS, found[0].title, console="\n".join(answer["log"]))
        return GuestError(f"the agent in the guest refused: {answer['error']}", hint=answer.get("hint"))


def _listens(program: Program) -> bool:
    return _asks(program) or (isinstance(program, Race) and bool(program.looks))


def _asks(program: Program) -> bool:
    """Whether the verdict may depend on events."""
    return any(isinstance(step, Events) for step in program.steps)


def _execution(job: Job, result: Mapping[str, Any], response: bytes, told: bytes) -> Execution:
    program, binding = job
    log = tuple(result["log"])
    late = log.index(EARLIER_LINES) if EARLIER_LINES in log else 0
    stream = read_stream(told, program) if _listens(program) else SILENCE
    return Execution(
        observations=decode(program, response, stream, binding=binding),
        seconds=result["seconds"],
        log=log,
        earlier=tuple(crashes(log[:late])),
        crashes=tuple(crashes(log[late:], result["taint"])),
        residue=result["residue"],
        lost_events=stream.lost if _asks(program) else 0,
        number=result["number"],
        course=course_of(program, response, stream, binding=binding) if isinstance(program, Race) else None,
    )
