# SPDX-License-Identifier: GPL-2.0-only
"""What a device must and may hear between two looks at its events.

The kernel promises that a device hears of a change before the CPU's page table changes (clauses 1 to 3, 20), not how
many events that takes, nor that each changes anything. So a *duty* says of which pages there must be an event of some
kind, whatever else it covers; a *licence* says where an event of a kind may come from, which nothing else raises.
`Happening.CLEAR` needs none: reclaim, compaction, khugepaged, KSM and others raise it when they like. NUMA hinting,
which raises `PROTECTION_VMA`, takes more than the one node that our guest has; writeback, which raises
`PROTECTION_PAGE`, takes a file that is not in memory only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from harness.printable import some
from harness.program.observations import Element, Event, Happening, Owner
from harness.program.operations import MAX_PAGES, PAGE_SIZE

_MOST_SHOWN = 6
_END = 2**64 // PAGE_SIZE  # behind the last page of an address space

_REASONS = frozenset(
    {
        Happening.UNMAP,
        Happening.CLEAR,
        Happening.PROTECTION_VMA,
        Happening.PROTECTION_PAGE,
        Happening.SOFT_DIRTY,
        Happening.MIGRATE,
        Happening.EXCLUSIVE,
    }
)
_Kind = tuple[Happening, Owner | None]  # None: whoever it is


@dataclass
class Hearing:
    """Everything that one device must and may hear since its last look, or since it was bound.

    `duties`: by the kinds of which one will do, and by page, what each event of that page has to be heard for. Steps
    come one after the other, so that no event can be heard for two of them.
    """

    place: Callable[[int, int], str]  # pages, in the program's words
    reasons: bool = True  # an invalidation says why; else it is UNKNOWN, whatever it is
    duties: dict[frozenset[_Kind], dict[int, list[str]]] = field(default_factory=dict)
    licences: dict[_Kind, set[int]] = field(default_factory=dict)
    released: bool = False  # the process has exited: that is heard once, and all is unmapped
    cleared: bool = False  # soft-dirty marks were: that concerns all addresses
    freed: int = 0  # device pages that must have been freed
    reaped: dict[int, str] = field(default_factory=dict)  # page: why it must be heard of by who must not sleep
    refusals: dict[int, str] = field(default_factory=dict)  # page: why that must have been refused
    sleepless: set[int] = field(default_factory=set)  # pages of which that may be heard

    def must(self, cause: str, kinds: Collection[_Kind], page: int) -> None:
        """Adds a duty because of `cause`, a step as text, and the licences that go with it."""
        key = frozenset(map(self._as_told, kinds))
        causes = self.duties.setdefault(key, {}).setdefault(page, [])
        if cause not in causes[-1:]:
            causes.append(cause)
        for kind in kinds:
            self.may(kind, (page,))

    def may(self, kind: _Kind, pages: Iterable[int]) -> None:
        """Adds a licence."""
        self.licences.setdefault(self._as_told(kind), set()).update(pages)

    def may_reap(self, pages: Iterable[int]) -> None:
        """Adds a licence: the OOM reaper may take all of these (mm/oom_kill.c __oom_reap_task_mm())."""
        pages = set(pages)
        self.sleepless |= pages
        self.may((Happening.UNMAP, None), pages)  # up to 6.12; CLEAR since 7.2

    def _as_told(self, kind: _Kind) -> _Kind:
        return kind if self.reasons or kind[0] not in _REASONS else (Happening.UNKNOWN, None)

    def _missed(self, events: Sequence[Event]) -> dict[tuple[str, str], list[int]]:
        """The pages that duties are missing an event of, by the cause and the kinds."""
        missed: dict[tuple[str, str], list[int]] = {}
        told = [event for event in events if not event.refused]
        for kinds, pages in self.duties.items():
            heard = [event for event in told if {(event.what, None), (event.what, event.owner)} & kinds]
            starts = sorted(event.start for event in heard)
            stops = sorted(event.stop for event in heard)
            names = " or ".join(sorted(map(_show, kinds)))
            for page, causes in sorted(pages.items()):
                for cause in causes[bisect_right(starts, page) - bisect_right(stops, page) :]:
                    missed.setdefault((cause, names), []).append(page)
        for name, hurried, refused in (
            ("invalidation that must not sleep", self.reaped, False),
            ("refusal", self.refusals, True),
        ):
            sleepless = [event for event in events if not event.blockable and event.refused is refused]
            for page, cause in sorted(hurried.items()):
                if not any(event.start <= page < event.stop for event in sleepless):
                    missed.setdefault((cause, name), []).append(page)
        return missed

    def complaints(self, elements: Sequence[Element]) -> list[str]:
        """What is wrong with having heard `elements`, a line each."""
        events = [element for element in elements if isinstance(element, Event)]
        lines = []
        for (cause, names), missing in self._missed(events).items():
            lines.append(f"`{cause}`: heard no {names} of {self._pages(missing)}")
        lines += [line for event in events if (line := self._complaint(event))]
        releases = sum(event.what is Happening.RELEASE for event in events)
        if releases != self.released:
            lines.append(f"heard of the end of the process {releases} times, not {int(self.released)} times")
        frees = sum(event.what is Happening.PAGE_FREE for event in events)
        if frees < self.freed:
            lines.append(f"heard that {frees} device pages are free, not {self.freed} or more")
        sequence = 0
        for event in events:
            if event.sequence and event.sequence < sequence:  # mm/mmu_notifier.c: it only grows
                lines.append(f"{event}: its sequence number {event.sequence} comes after {sequence}")
            sequence = event.sequence or sequence
        if lines:
            lines.append(f"heard: {some([str(event) for event in events], _MOST_SHOWN) or 'nothing'}")
        return lines

    def _pages(self, pages: Sequence[int]) -> str:
        """`pages`, in order, as ranges."""
        breaks = [0, *(at for at in range(1, len(pages)) if pages[at] != pages[at - 1] + 1), len(pages)]
        places = [self.place(pages[start], pages[stop - 1] + 1) for start, stop in pairwise(breaks)]
        return some(places, _MOST_SHOWN)

    def _complaint(self, event: Event) -> str | None:
        """What is wrong with having heard `event` at all."""
        if event.refused and event.blockable:
            return f"{event}: the driver refused what it was given time for"  # clause 9
        if not event.blockable and not self.sleepless.issuperset(_some(event)):
            return f"{event}: nothing that the program did is in such a hurry"
        if event.what is Happening.RELEASE:
            if (event.start, event.stop) != (0, _END):  # clause 18
                return f"{event}: that the process ends concerns all its memory"
            return None
        if event.what is Happening.SOFT_DIRTY and self.cleared:
            if (event.start, event.stop) != (0, _END):  # clause 225
                return f"{event}: that marks are cleared concerns all the memory of a process"
            return None
        if event.what in (Happening.CLEAR, Happening.PAGE_FREE):
            return None
        if event.what is Happening.UNKNOWN and not self.reasons:
            return None  # it may be CLEAR
        if event.what is Happening.UNMAP and self.released:
            return None  # exit_mmap() unmaps everything
        if event.moved > event.asked:
            return f"{event}: more than there was a place for"
        licensed = [self.licences.get((event.what, owner), set()) for owner in (None, event.owner)]
        foreign = any(all(page not in pages for pages in licensed) for page in _some(event))
        if foreign:
            return f"{event}: nothing that the program did raises this"
        return None

    def sample(self) -> tuple[Event, ...]:
        """The least that may be heard."""
        events = []
        for kinds, pages in self.duties.items():
            what, owner = min(kinds, key=_show)
            event = Event(what, 0, 0, owner or Owner.NONE, asked=1, moved=1)
            events += [replace(event, start=page, stop=page + 1) for page in sorted(pages) for _ in pages[page]]
        what, _ = self._as_told((Happening.CLEAR, None))
        for hurried, refused in ((self.reaped, False), (self.refusals, True)):
            events += [Event(what, page, page + 1, blockable=False, refused=refused) for page in sorted(hurried)]
        events = [
            replace(event, start=0, stop=_END) if event.what is Happening.SOFT_DIRTY else event for event in events
        ]
        if self.released:
            events.append(Event(Happening.RELEASE, 0, _END))
        return (*events, *(Event(Happening.PAGE_FREE, 0, 0) for _ in range(self.freed)))


def _some(event: Event) -> range:
    """The pages of `event`, as many as a region can have."""
    return range(event.start, min(event.stop, event.start + MAX_PAGES))


def _show(kind: _Kind) -> str:
    what, owner = kind
    return str(what) if owner is None or owner is Owner.NONE else f"{what} ({owner})"
