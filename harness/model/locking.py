# SPDX-License-Identifier: GPL-2.0-only
"""Memory that is locked: mlock(2) brings it, and it stays, but for migrations.

mm/mlock.c, mm/gup.c __mm_populate().
"""

from __future__ import annotations

import errno

from harness.model.allowed import OK, Expectation
from harness.model.state import Handlers, State
from harness.program.observations import Observation
from harness.program.operations import Lock, Unlock


class Locking:
    """Subjects lock their memory, and unlock it."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Lock: self._lock, Unlock: self._unlock}

    def _lock(self, step: Lock, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        if not self._mark(step, locked=True):
            return Expectation(frozenset({errno.ENOMEM}))
        for number in self._state.pages(step.span):
            if not self._state.populate(space, number):
                return Expectation(frozenset({errno.ENOMEM}))  # __mlock_posix_error_return()
        return OK

    def _unlock(self, step: Unlock, _: Observation) -> Expectation:
        return OK if self._mark(step, locked=False) else Expectation(frozenset({errno.ENOMEM}))

    def _mark(self, step: Lock | Unlock, *, locked: bool) -> bool:
        """apply_vma_lock_flags(): up to the first hole. Whether there is none."""
        space = self._state.spaces[step.actor]
        for number in self._state.pages(step.span):
            if number not in space.areas:
                return False
            space.change_area(number, locked=locked)
        return True
