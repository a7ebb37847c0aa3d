# SPDX-License-Identifier: GPL-2.0-only
"""Truncation: files become shorter, or longer again."""

from __future__ import annotations

import errno

from harness.model.allowed import OK, Expectation
from harness.model.state import Handlers, State
from harness.program.observations import Happening, Observation
from harness.program.operations import Truncate


class Truncation:
    """What becomes of mappings when the length of their file changes."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Truncate: self._truncate}

    def _truncate(self, step: Truncate, _: Observation) -> Expectation:
        """mm/shmem.c shmem_setattr(): what is behind the end goes, and private copies of it as well (`even_cows`).

        Guards stay: mm/memory.c zap_nonpresent_ptes().
        """
        area = self._state.spaces[step.actor].areas.get(self._state.pages(step.span).start)
        if area is None:
            return Expectation(frozenset({errno.EFAULT}))
        file = area.file
        assert file is not None, "a program has checked that there is one"
        file.size = step.pages
        file.pages = {index: page for index, page in file.pages.items() if index < file.size}
        for space in self._state.spaces.values():
            for number in [number for number in space.ptes if space.behind_end(number)]:
                if space.areas[number].file is file:
                    pte = self._state.clear(space, number, Happening.CLEAR)
                    assert pte is not None
                    self._state.drop(pte.page)
        return OK
