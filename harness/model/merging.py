# SPDX-License-Identifier: GPL-2.0-only
"""KSM: pages that hold the same become one, which every process that had one of them maps read-only.

mm/ksm.c. Pages that one process has each, and that nobody holds, become one; of others it depends on who looks at
them when, so that what is seen is followed.
"""

from __future__ import annotations

import errno
from collections import defaultdict

from harness.model.allowed import Expectation, Whereabouts
from harness.model.memory import AddressSpace, Known, Page, Pte
from harness.model.state import Handlers, State
from harness.program.observations import Element, Happening, Merged, Observation, Token
from harness.program.operations import COHERENT, Merge

_EITHER = frozenset(Merged)
_Place = tuple[AddressSpace, int]


class Merging:
    """Subjects give their memory to KSM."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Merge: self._merge}

    def _merge(self, step: Merge, observed: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        numbers = self._state.pages(step.span)
        there = [number for number in numbers if number in space.areas]
        space.mergeable.update(there)
        space.pieces.update(there)
        if len(there) < len(numbers):  # mm/madvise.c madvise_walk_vmas() goes on, and says so at the end
            return Expectation(frozenset({errno.ENOMEM}))
        seen: dict[_Place, Element] = {
            (space, number): element for number, element in zip(numbers, observed.elements, strict=False)
        }
        groups: defaultdict[Token, list[_Place]] = defaultdict(list)
        sure: set[_Place] = set()
        unsure: set[_Place] = set()
        for place in self._candidates():
            pte = _pte(place)
            if _is_sure(place, pte):
                sure.add(place)
            else:
                unsure.add(place)
            if place in sure or (len(pte.page.tokens) == 1 and seen.get(place) is Merged.MERGED):
                groups[next(iter(pte.page.tokens))].append(place)
        merged = {place for places in groups.values() if self._unite(places) for place in places}

        def allowed(place: _Place) -> frozenset[Merged]:
            if place not in sure | unsure:
                return frozenset({Merged.ALONE})
            if place in sure & merged:
                return frozenset({Merged.MERGED})
            return _EITHER if unsure or _pte(place).page.merged else frozenset({Merged.ALONE})

        # What is merged is asked of /proc/kpageflags, which may end before the memory of such a device: where that of
        # the system does, fs/proc/page.c get_max_dump_pfn()
        untold = any(number in space.ptes and space.ptes[number].page.home in COHERENT for number in numbers)
        errors = frozenset({0, errno.EIO}) if untold else frozenset({0})
        return Expectation(errors, tuple(Whereabouts(allowed((space, number))) for number in numbers))

    def _candidates(self) -> list[_Place]:
        """Where there may be pages that KSM looks at."""
        return [
            (space, number)
            for space in self._state.spaces.values()
            for number in sorted(space.mergeable)
            if (pte := space.ptes.get(number)) is not None
            and pte.page.anonymous
            and not pte.page.zero
            and (pte.page.private_home is None or pte.page.strayed)
        ]

    def _unite(self, places: list[_Place]) -> bool:
        """Pages that hold the same become one, if there are several. Returns whether there are."""
        pages = list(dict.fromkeys(_pte(place).page for place in places))
        if len(pages) < 2:
            return False
        known = next((page for page in pages if page.merged), None)
        one = known or Page(pages[0].tokens, anonymous=True, merged=True)
        for space, number in places:
            if space.ptes[number].page is not one:
                self._state.must_hear(space, number, Happening.CLEAR)
                self._state.invalidate(space, (number,))
                space.set(number, Pte(one, Known.NO))
        return True


def _pte(place: _Place) -> Pte:
    space, number = place
    return space.ptes[number]


def _is_sure(place: _Place, pte: Pte) -> bool:
    """Whether nothing keeps KSM from merging the page with one that holds the same."""
    space, number = place
    page = pte.page
    return (
        pte.mapped
        and (len(page.mappings) == 1 or page.merged)
        and page.home is None
        and len(page.tokens) == 1
        and pte.exclusive is Known.NO
        and not (pte.huge or pte.or_zero or page.lazy or page.cached or page.pinned or page.forgotten)
        and space.areas[number].prot.cpu_readable
    )
