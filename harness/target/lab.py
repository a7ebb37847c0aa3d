# SPDX-License-Identifier: GPL-2.0-only
"""A kernel under test with a VM at hand: builds what is missing, and runs programs in a clean VM."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from harness.errors import GuestError
from harness.guest.kernel import EARLIER_LINES
from harness.program.observations import Observation
from harness.program.operations import Events
from harness.program.program import Program
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
from harness.target.vm import VM, Debugging, Machine, start
from harness.target.watchdog import Trouble, VMFailure
from harness.target.wire import decode, encode

_MODULES = {"interval": "hmm_harness", "mirror": "hmm_harness", "test_hmm": "test_hmm"}
_LOADED = "loaded"  # harness/guest/agent.py
_LEAKS_SECONDS = 180.0  # for three scans of a debug kernel on a loaded machine without KVM


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


@dataclass(frozen=True)
class Leak:
    """Memory that the kernel lost. `programs`: the numbers of those in whose time it was taken; none: before them."""

    programs: tuple[int, ...]
    crash: Crash


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
        self._unseen = 0  # programs that ran since leaks were looked for
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
        self._unseen = 0
        self._stack.close()

    def missing(self, binding: str) -> str | None:
        """Why programs cannot run on `binding` in this VM; None if they can."""
        agent = self.vm().agent
        if binding in agent["bindings"]:
            return None
        module = _MODULES[binding]
        state = str(agent["info"]["modules"].get(module, f"{self.kernel.name} has no module {module}"))
        return f"{self.kernel.name} has not the API of the binding {binding}" if state == _LOADED else state

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
        return tuple(Leak(tuple(each["programs"]), _lost(each["lines"])) for each in answer["leaks"])

    def _looks_for_leaks(self) -> bool:
        return self._vm is not None and bool(self._vm.agent["info"].get("kmemleak"))

    def _not_looked(self, programs: int, why: str) -> None:
        self._progress.say(f"a VM was not looked through for memory that {programs} programs may have lost: {why}")

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        """Runs `program`, with the deliberate driver mistakes `wrong`, for at most `timeout` seconds.

        Raises `VMFailure` if the VM did not live to answer; that VM is gone then.
        """
        with self._progress.step(f"running {program.name} on {binding}"):
            return self._execute(program, binding, wrong, timeout)

    def _execute(self, program: Program, binding: str, wrong: Sequence[str], timeout: float) -> Execution:
        request = encode(program, binding, timeout)
        listen = any(isinstance(step, Events) for step in program.steps)
        self._unseen += 1
        header = {"do": "run", "wrong": list(wrong), "programs": [len(request)], "events": listen}
        try:
            answer, body = self.vm().call(header, request, timeout=timeout + 30.0)
        except BaseException:
            if self._unseen > 1 and self._looks_for_leaks():
                self._not_looked(self._unseen, "it is gone")
            self._unseen = 0
            self.discard()
            raise
        if "error" in answer:
            found = crashes(answer.get("log", ()))
            if found:  # which is why: a process that the kernel killed in the middle of a bug of its own
                self.discard()
                raise VMFailure(Trouble.OOPS, found[0].title, console="\n".join(answer["log"]))
            raise GuestError(f"the agent in the guest refused: {answer['error']}", hint=answer.get("hint"))
        (result,) = answer["results"]
        log = tuple(result["log"])
        late = log.index(EARLIER_LINES) if EARLIER_LINES in log else 0
        response, told = body[: result["length"]], body[result["length"] :]
        stream = read_stream(told, program) if listen else SILENCE
        return Execution(
            observations=decode(program, response, stream, binding=binding),
            seconds=result["seconds"],
            log=log,
            earlier=tuple(crashes(log[:late])),
            crashes=tuple(crashes(log[late:], result["taint"])),
            residue=result["residue"],
            lost_events=stream.lost,
            number=result["number"],
        )
