# SPDX-License-Identifier: GPL-2.0-only
"""Sequence numbers of interval notifiers: who has to read again, and who need not."""

from __future__ import annotations

import errno

from harness.model.allowed import Count, Expectation, Odd
from harness.model.state import Handlers, State
from harness.program.observations import Observation
from harness.program.operations import Miswatch, SequenceNumber


class Sequences:
    """The numbers of watches, and notifiers that there cannot be."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {SequenceNumber: self._sequence, Miswatch: self._miswatch}

    def _sequence(self, step: SequenceNumber, observed: Observation) -> Expectation:
        ear = self._state.mirrors[step.actor].watches.get(step.span)
        if ear is None:  # the process had exited before the watch could begin
            return Expectation(frozenset({errno.ENOENT}))
        must, ear.called = ear.called, False
        number, calls = observed.elements[::3] if len(observed.elements) == 4 else (None, int(must))
        changed = calls != 0  # clause 5; it may always be called once more
        before, ear.sequence = ear.sequence, number if isinstance(number, int) else ear.sequence
        return Expectation(
            elements=(
                Odd(before, grown=changed),  # clause 7
                Count(int(changed), int(changed)),
                Count(0, int(changed)),  # clause 6
                Count(int(must)),
            )
        )

    def _miswatch(self, _step: Miswatch, _observed: Observation) -> Expectation:
        return Expectation(frozenset({errno.EOVERFLOW}))  # clause 13
