# SPDX-License-Identifier: GPL-2.0-only
"""Faults of pages beside those that need one, where they fail.

hmm_range_fault() faults from the page that needs it to the end of the walked range (mm/hmm.c hmm_vma_fault(), since
7.3 hmm_do_fault()): `FAULTED_ALONG` and `OWN_FAULTED_ALONG`. So all of it fails if a page behind cannot be had, of
which that was not asked.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from harness.model.allowed import FAULTED_ALONG, OWN_FAULTED_ALONG, Expectation
from harness.model.memory import HUGE_PAGES, WITH_HUGE, AddressSpace, Area, Known, Page, Pte
from harness.model.state import State
from harness.model.walk import Walk
from harness.program.observations import Happening, Observation
from harness.program.operations import COHERENT, Asked

# The pages of a call, and what is asked of each
Wishes = Iterable[tuple[int, Asked]]


def refused_along(state: State, walk: Walk, wishes: Wishes, observed: Observation) -> Expectation | None:
    """What is allowed of a call that failed since a page could not be had that the call did not need.

    None if that cannot be. Only for calls that fail as a whole.
    """
    if observed.error != errno.EFAULT:
        return None
    space = walk.space
    started: dict[tuple[Area, int], bool] = {}  # VMAs and 2 MiB of them where all is faulted now; for writing?
    touched: list[tuple[int, bool, bool]] = []  # what may have been faulted, whether it was asked, and for writing
    refusers: dict[int, str] = {}
    name, due = "", 0
    for number, asked in wishes:
        wanted = asked in (Asked.FAULT, Asked.BOTH)
        write = asked is Asked.BOTH
        area = space.areas.get(number)
        refuser = state.refuser(space, number)
        if wanted and not walk.is_own(number):
            error = walk.forbidden(number, write=write) or (errno.EFAULT if refuser else 0)
            if error and not name:
                return None  # it fails before, as it must
            due = due or error
        if area is None or not area.prot.readable or number in space.traps:
            continue
        segment = (area, number // HUGE_PAGES)
        fails = state.fails(space, number, write=started.get(segment, False), waits=walk.waits)
        if refuser is not None or fails:
            if segment in started:
                if refuser is not None:
                    refusers[number] = refuser
                elif number in space.ptes:
                    touch_maybe(state, space, number, write=False)
                name = name or (OWN_FAULTED_ALONG if wanted and walk.is_own(number) else FAULTED_ALONG)
            continue
        if wanted and walk.needs_fault(number, write=write):
            started[segment] = started.get(segment, False) or write
        if wanted or segment in started:
            touched.append((number, wanted, area.prot.writable and (write or started.get(segment, False))))
    if not name:
        return None
    _refuse_one(state, refusers)
    for number, wanted, write in touched:
        pte = space.ptes.get(number)
        if wanted and pte is not None and pte.page.private_home is not None and not walk.is_own(number):
            state.stray(pte.page, WITH_HUGE)
        else:
            touch_maybe(state, space, number, write=write)
    if due == errno.EFAULT:
        return Expectation(frozenset({due}))
    return Expectation(frozenset({due}), (), ((errno.EFAULT, name),))


def _refuse_one(state: State, refusers: dict[int, str]) -> None:
    """One of these pages was refused by its device, if there are any."""
    for number, device in refusers.items():
        if state.listening:
            state.mirrors[device].hearing.may((Happening.CPU_FAULT, None), (number,))
    devices = set(refusers.values())
    if len(devices) == 1:
        (device,) = devices
        state.refused[device] += 1
        if device in state.returns:
            state.returns[device] += 1


def touch_maybe(state: State, space: AddressSpace, number: int, *, write: bool) -> None:
    """A permitted access that may have been made or not."""
    pte = space.ptes.get(number)
    if pte is None:
        behind = space.behind(number)
        paged = behind is not None and behind.paged is not Known.NO
        state.touch(space, number, write=write)
        pte = space.ptes[number]
        pte.present = pte.soft = Known.MAYBE
        if behind is not None and paged:
            behind.paged = Known.MAYBE
    elif pte.page.private_home is not None:
        state.stray(pte.page, FAULTED_ALONG)
    elif pte.exclusive is not Known.NO:
        pte.exclusive = Known.MAYBE
        state.doubt(space, (number,))
    elif pte.swapped is not Known.NO:
        state.may_swap_in(space, number)
    elif write and pte.page.home in COHERENT and pte.write is not Known.YES and len(pte.page.mappings) > 1:
        # It may be a copy of its own now, in system memory.
        copy = Page(pte.page.tokens, anonymous=True, home=pte.page.home, strayed=FAULTED_ALONG)
        pte = Pte(copy, Known.MAYBE)
        space.set(number, pte)
    if write and pte.page.zero:
        pte = Pte(Page(frozenset({0}), anonymous=True), Known.MAYBE, pte.present, huge=pte.huge)
        space.set(number, pte)
    if write and pte.write is Known.NO:
        pte.write = Known.MAYBE
    if write and pte.soft is Known.NO:
        pte.soft = Known.MAYBE
    pte.or_zero = pte.page.anonymous and 0 in pte.page.tokens
