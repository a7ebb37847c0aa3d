# SPDX-License-Identifier: GPL-2.0-only
"""Long-term pins: pin_user_pages() with FOLL_LONGTERM and FOLL_WRITE."""

from __future__ import annotations

import errno

from harness.model.allowed import OK, Expectation
from harness.model.memory import Page
from harness.model.state import Handlers, State
from harness.program.observations import Observation
from harness.program.operations import Pin, Unpin


class Pins:
    """What subjects hold on to, and let go of."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Pin: self._pin, Unpin: self._unpin}

    def _pin(self, step: Pin, _: Observation) -> Expectation:
        """mm/gup.c __gup_longterm_locked(): pages are written to, and leave device memory of either kind.

        Those before one that cannot be had have done so, though nothing is pinned then.
        """
        space = self._state.spaces[step.actor]
        held: set[Page] = set()
        for number in self._state.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.writable or number in space.traps:
                return Expectation(frozenset({errno.EFAULT}))
            if self._state.fail(space, number, write=True) or self._state.refuses(space, number):
                return Expectation(frozenset({errno.EFAULT}))
            page = self._state.touch(space, number, write=True).page  # clause 90
            if page.home is not None:
                self._state.bring_home(page, by_driver=False)  # clause 91: migrate_device_coherent_folio()
            held.add(page)
        for page in held:
            page.pinned = True
        self._state.pins[step.actor] = held
        return OK

    def _unpin(self, step: Unpin, _: Observation) -> Expectation:
        self._state.unpin(step.actor)
        return OK
