# SPDX-License-Identifier: GPL-2.0-only
"""What devices find in their process's memory: snapshots, faults, and accesses by way of them."""

from __future__ import annotations

import errno
from dataclasses import replace

from harness.model.allowed import NOTHING, OWN_READONLY_WRITE, SNAPSHOT_CUT, Entries, Expectation, Tokens
from harness.model.exclusive import Own
from harness.model.memory import WITH_HUGE
from harness.model.state import Handlers, State
from harness.model.views import content
from harness.model.walk import REFUSED, Walk
from harness.program.observations import Entry, Mark, Observation
from harness.program.operations import Access, DeviceRead, DeviceReadUnlocked, DeviceWrite, Fault, Snapshot


class Ranges:
    """Snapshots, faults, reads and writes by devices."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {
            Snapshot: self._snapshot, Fault: self._fault,
            DeviceRead: self._device_read, DeviceReadUnlocked: self._device_read, DeviceWrite: self._device_write,
        }  # fmt: skip

    def _snapshot(self, step: Snapshot, observed: Observation) -> Expectation:
        walk = Walk(self._state, step.actor, step.actor)
        allowed: list[Entries] = []
        cut = False
        for index, number in enumerate(self._state.pages(step.span)):
            entry = walk.view(number)
            allowed.append(replace(entry, deviating=(*entry.deviating, (SNAPSHOT_CUT, NOTHING))) if cut else entry)
            seen = observed.elements[index] if index < len(observed.elements) else None
            trapped = number in walk.space.traps and isinstance(seen, Entry) and Mark.ERROR in seen.marks
            cut = cut or (trapped and self._state.rules.traps_cut_snapshots)
        return Expectation(elements=tuple(allowed))

    def _fault(self, step: Fault, observed: Observation) -> Expectation:
        walk = Walk(self._state, step.actor, step.actor)
        space = walk.space
        write = step.access is Access.WRITE
        allowed: list[Entries] = []
        for index, number in enumerate(self._state.pages(step.span)):
            seen = observed.elements[index] if index < len(observed.elements) else None
            if write and walk.is_own_readonly(number):
                entry = walk.fault_own_readonly(number, seen)
                if entry is None:
                    return Expectation(frozenset({walk.forbidden(number, write=True)}), self._if_shown(allowed))
                if space.areas[number].prot.writable:
                    walk.keep(number)
                allowed.append(entry)
                continue
            shown = index if self._state.rules.fault_shows_entries else None
            if walk.refused(number, observed, write=write, shown=shown):
                return Expectation(frozenset({0}), self._if_shown(allowed), REFUSED)
            if walk.withheld(number, observed, write=write, shown=shown):
                return Expectation(frozenset({errno.EFAULT}), self._if_shown(allowed))
            area = space.areas.get(number)
            if area is not None and area.pageless and not self._state.rules.fault_shows_entries:
                # A driver that has no such operation reads first, what it then writes: executor/test_hmm.c
                error = walk.enter(number, write=False)
            else:
                error = walk.enter(number, write=write)
            if error:
                return Expectation(frozenset({error}), self._if_shown(allowed))
            allowed.append(walk.view(number, granted=True))
        return Expectation(elements=self._if_shown(allowed))

    def _if_shown(self, allowed: list[Entries]) -> tuple[Entries, ...]:
        return tuple(allowed) if self._state.rules.fault_shows_entries else ()

    def _device_read(self, step: DeviceRead, observed: Observation) -> Expectation:
        walk = Walk(self._state, step.actor, step.actor, waits=isinstance(step, DeviceReadUnlocked))
        own = Own(self._state, step.actor)
        allowed: list[Tokens] = []
        for number in self._state.pages(step.span):
            if own.has(number, observed, shown=len(allowed)):
                allowed.append(content(walk.space.ptes[number].page))
                continue
            if walk.refused(number, observed, write=False, shown=len(allowed)):
                return Expectation(frozenset({0}), tuple(allowed), REFUSED)
            if walk.withheld(number, observed, write=False, shown=len(allowed)):
                return Expectation(frozenset({errno.EFAULT}), tuple(allowed))
            error = walk.enter(number, write=False)
            if error:
                return Expectation(frozenset({error}), tuple(allowed))
            allowed.append(content(walk.space.ptes[number].page))
        return Expectation(elements=tuple(allowed))

    def _device_write(self, step: DeviceWrite, observed: Observation) -> Expectation:
        walk = Walk(self._state, step.actor, step.actor)
        space = walk.space
        own = Own(self._state, step.actor)
        errors = frozenset({0})
        deviating: tuple[tuple[int, str], ...] = ()
        numbers: list[int] = []
        for number in self._state.pages(step.span):
            if self._state.rules.exclusive_writes and own.has(number, observed, shown=len(numbers)):
                numbers.append(number)
                continue
            if walk.is_own_readonly(number):
                if observed.error == errno.EACCES and len(numbers) == len(observed.elements):
                    # The driver got the page without the permission that it asked for: uapi/hmm_harness.h.
                    deviating = ((errno.EACCES, OWN_READONLY_WRITE),)
                    break
                if walk.forbidden(number, write=True) == errno.EFAULT:
                    self._state.stray(space.ptes[number].page, WITH_HUGE)
                elif space.areas[number].prot.writable:
                    self._state.bring_home(space.ptes[number].page)
            if walk.refused(number, observed, write=True, shown=len(numbers)):
                deviating = REFUSED
                break
            if walk.withheld(number, observed, write=True, shown=len(numbers)):
                errors = frozenset({errno.EFAULT})
                break
            error = walk.enter(number, write=True)
            if error:
                errors = frozenset({error})
                break
            numbers.append(number)
        # Also a write that fails says how many pages it wrote.
        written = len(observed.elements) if observed.error else len(numbers)
        for offset, number in enumerate(numbers[:written]):
            self._state.fill_from_device(space.ptes[number].page, step.token + offset)
        return Expectation(errors, (Tokens(frozenset({0})),) * len(numbers), deviating)
