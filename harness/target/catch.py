# SPDX-License-Identifier: GPL-2.0-only
"""Keeps the VM in which a program did not pass, for somebody to look at."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from harness.program.program import Program
from harness.target.lab import Execution, Job, Lab
from harness.target.upstream import Case, Outcome
from harness.target.vm import VM


class Catch:
    """Takes the first VM that a run is done with too early. A context manager: leaving it ends that VM."""

    def __init__(self) -> None:
        self.vm: VM | None = None
        self.reason = ""
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(self, vm: VM, stack: ExitStack, reason: str) -> None:
        """Takes over `vm` and what ends it from `stack`; not if there is one already, or its QEMU has ended."""
        with self._lock:
            if self.vm is None and vm.running:
                vm.hold()
                self.vm, self.reason, self._stack = vm, reason, stack.pop_all()


class CatchingLab(Lab):
    """Offers a VM to `catch` before it ends it: a VM is discarded when a program did not pass in it."""

    def __init__(self, catch: Catch, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._catch = catch
        self._last = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().discard()

    def expect(self, jobs: Sequence[Job]) -> None:
        """Nothing is executed ahead: the VM is wanted as the program left it."""

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        """See `Lab`."""
        self._last = f"{program.name} on {binding}"
        return super().execute(program, binding, wrong=wrong, timeout=timeout)

    def execute_case(self, case: Case) -> Outcome:
        """See `Lab`."""
        self._last = case.name
        return super().execute_case(case)

    def discard(self) -> None:
        """Ends the VM, unless it is the first that was to end."""
        if self._vm is not None and self._last:
            self._catch.take(self._vm, self._stack, self._last)
        super().discard()
