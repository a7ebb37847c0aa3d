# SPDX-License-Identifier: GPL-2.0-only
"""What is said and counted of a process's pages: move_pages(2), /proc/self/smaps, and counters of memory.

A page in the memory of a device counts as the page that it was (clause 102), and is none for move_pages() (clause
101).
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.model.allowed import Count, Expectation, Whereabouts
from harness.model.memory import AddressSpace, Known, Pte, Trap
from harness.model.state import Handlers, State
from harness.program.observations import Observation, Placed
from harness.program.operations import Counted, MovePages

_ABSENT = frozenset({Placed.ABSENT, Placed.REFUSED})
# Pages that a counter may be off: lib/percpu_counter.c percpu_counter_batch, of two CPUs; mm/memory.c
# TASK_RSS_EVENTS_THRESH before 6.2
_SLACK = 128


class Counting:
    """Subjects ask about their pages."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {MovePages: self._move_pages, Counted: self._counted}

    def _move_pages(self, step: MovePages, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        return Expectation(
            elements=tuple(Whereabouts(frozenset(_placed(space, number))) for number in self._state.pages(step.span))
        )

    def _counted(self, step: Counted, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        totals = [[0, 0], [0, 0], [0, 0]]  # least and most of each
        for number in self._state.pages(step.span):
            pte = space.ptes.get(number)
            paged = _paged(space, number)
            totals[2][0] += paged is Known.YES
            totals[2][1] += paged is not Known.NO
            if pte is None:
                for total in totals:
                    total[1] += number in space.traps
                continue
            for total, known in zip(totals, _weights(pte), strict=True):
                total[0] += known is Known.YES
                total[1] += known is not Known.NO
        failed = Trap.POISON in space.traps.values()  # newer kernels count it in smaps, as a page
        slack = None if failed else 0 if self._state.rules.has("RSS_EXACT") else _SLACK
        return Expectation(elements=(*(Count(low, high) for low, high in totals), Count(0, slack)))


def _paged(space: AddressSpace, number: int) -> Known:
    """Whether a page of a file counts as swapped out, by whomever: fs/proc/task_mmu.c smap_gather_stats()."""
    page = space.behind(number)
    if page is None or page.paged is Known.NO:
        return Known.NO
    area = space.areas[number]
    if area.shared or not area.prot.writable:
        return page.paged  # mm/shmem.c shmem_swap_usage(), whatever is mapped
    # smaps_pte_hole(), where nothing is; and where there is no page table, 5.10 looks at the wrong pages of the file
    pte = space.ptes.get(number)
    return Known.NO if pte is not None and pte.present is Known.YES else Known.MAYBE


def _weights(pte: Pte) -> tuple[Known, Known, Known]:
    """Whether a page counts as resident, as anonymous, and as swapped out: fs/proc/task_mmu.c smaps_pte_entry()."""
    if pte.page.zero:
        return Known.NO, Known.NO, Known.NO
    sure = pte.present is Known.YES and pte.exclusive is Known.NO and not pte.or_zero and not pte.page.lazy
    there = Known.YES if sure and pte.swapped is Known.NO else Known.MAYBE
    if pte.swapped is Known.YES:
        there = Known.NO
    anonymous = there if pte.page.anonymous else Known.NO
    return there, anonymous, pte.swapped if pte.page.anonymous else Known.NO


def _placed(space: AddressSpace, number: int) -> Iterator[Placed]:
    """What may be said of a page: mm/migrate.c add_folio_for_migration(), or add_page_for_migration() before 6.12."""
    area = space.areas.get(number)
    pte = space.ptes.get(number)
    if area is None:
        yield Placed.REFUSED
        return
    if pte is None or pte.page.zero or number in space.traps or area.special:
        yield from _ABSENT
        if area.hugetlb or area.special:
            yield Placed.HERE
        return
    page = pte.page
    unsure = pte.present is Known.MAYBE or pte.or_zero or pte.huge or not area.prot.cpu_readable
    if unsure or pte.exclusive is not Known.NO or pte.swapped is not Known.NO:
        yield from _ABSENT
    if page.home is not None:
        yield Placed.ABSENT  # clause 101
    gone = pte.exclusive is Known.YES or pte.swapped is Known.YES
    if not gone and (page.home is None or page.strayed is not None):
        yield Placed.HERE
