# SPDX-License-Identifier: GPL-2.0-only
"""Reaping: the memory of a process that is being killed goes before the process does, by who must not sleep."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from harness.model.allowed import OK, Expectation
from harness.model.memory import WITH_HUGE, AddressSpace, Known, Trap
from harness.model.state import Handlers, Mirror, State
from harness.program.observations import Observation
from harness.program.operations import Reap, Refuse


class Reaping:
    """The OOM reaper, and devices that refuse it: mm/oom_kill.c __oom_reap_task_mm()."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Reap: self._reap, Refuse: self._refuse}

    def _refuse(self, step: Refuse, _: Observation) -> Expectation:
        self._state.mirrors[step.actor].refuses = frozenset(self._state.pages(step.span))
        return OK

    def _reap(self, step: Reap, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        mirrors = [mirror for mirror in self._state.mirrors.values() if mirror.space is space]
        refused = False
        space.unstable = True
        for pieces in _private_mappings(space):
            refused = self._reap_mapping(space, mirrors, pieces) or refused
        return Expectation(frozenset({errno.EAGAIN if refused else 0}))

    def _reap_mapping(self, space: AddressSpace, mirrors: Sequence[Mirror], pieces: Sequence[range]) -> bool:
        """One VMA, which may be one for each of `pieces`. Returns whether a device refuses some of it."""
        refusing = [mirror for mirror in mirrors if any(mirror.refuses.intersection(piece) for piece in pieces)]
        for mirror in mirrors:
            for piece in pieces:
                mirror.hearing.may_reap(piece)
        for piece in pieces:
            if any(mirror.refuses.intersection(piece) for mirror in refusing):
                continue  # clause 10: all of it is as it was
            if refusing:
                self._take_maybe(space, piece)
            else:
                self._take(space, mirrors, piece)
        if len(refusing) == 1 and self._state.listening:  # of several, the first that is asked
            for piece in pieces:
                for number in refusing[0].refuses.intersection(piece):
                    refusing[0].hearing.refusals[number] = self._state.cause
        return bool(refusing)

    def _take(self, space: AddressSpace, mirrors: Sequence[Mirror], pages: range) -> None:
        for number in pages:
            pte = space.ptes.get(number)
            if self._state.listening and pte is not None and pte.mapped:
                for mirror in mirrors:
                    mirror.hearing.reaped[number] = self._state.cause
                    for ear in mirror.watches.values():
                        ear.hear_of(number, pte, flushed=True)
            if self._state.clear(space, number) is not None and pte is not None:
                self._state.drop(pte.page)
            if space.traps.get(number) is Trap.POISON:  # mm/memory.c zap_pte_range() leaves guards alone
                del space.traps[number]

    def _take_maybe(self, space: AddressSpace, pages: range) -> None:
        self._state.doubt(space, pages)
        for number in pages:
            pte = space.ptes.get(number)
            if pte is None:
                continue
            pte.present = Known.MAYBE
            if pte.page.home is not None:
                self._state.stray(pte.page, WITH_HUGE)


def _private_mappings(space: AddressSpace) -> Iterator[list[range]]:
    """What may be one VMA each, as ranges of pages that are not cut for sure."""
    pieces: list[range] = []
    for number in sorted(space.areas):
        area = space.areas[number]
        if area.shared or area.hugetlb:
            continue
        if not pieces or pieces[-1].stop != number or space.areas[number - 1] != area:
            if pieces:
                yield pieces
            pieces = [range(number, number + 1)]
        elif number in space.pieces or number - 1 in space.pieces:
            pieces.append(range(number, number + 1))
        else:
            pieces[-1] = range(pieces[-1].start, number + 1)
    if pieces:
        yield pieces
