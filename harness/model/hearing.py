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

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from harness.program.observations import Element, Event, Happening, Owner
from harness.program.operations import PAGE_SIZE

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
class Duty:
    """An event of one of `kinds` must have been heard of each of `pages`, because of `cause`, a step as text."""

    cause: str
    kinds: frozenset[_Kind]
    pages: set[int] = field(default_factory=set)

    def missing(self, events: Iterable[Event]) -> set[int]:
        """The pages that none of `events` tells of."""
        left = set(self.pages)
        for event in events:
            if {(event.what, None), (event.what, event.owner)} & self.kinds:
                left = {page for page in left if not event.start <= page < event.stop}
        return left


@dataclass
class Hearing:
    """Everything that one device must and may hear since its last look, or since it was bound."""

    reasons: bool = True  # an invalidation says why; else it is UNKNOWN, whatever it is
    duties: dict[tuple[str, frozenset[_Kind]], Duty] = field(default_factory=dict)
    licences: dict[_Kind, set[int]] = field(default_factory=dict)
    released: bool = False  # the process has exited: that is heard once, and all is unmapped
    freed: int = 0  # device pages that must have been freed

    def must(self, cause: str, kinds: Collection[_Kind], page: int) -> None:
        """Adds a duty, and the licences that go with it."""
        kinds = [self._as_told(kind) for kind in kinds]
        key = (cause, frozenset(kinds))
        self.duties.setdefault(key, Duty(cause, key[1])).pages.add(page)
        for kind in kinds:
            self.may(kind, (page,))

    def may(self, kind: _Kind, pages: Iterable[int]) -> None:
        """Adds a licence."""
        self.licences.setdefault(self._as_told(kind), set()).update(pages)

    def _as_told(self, kind: _Kind) -> _Kind:
        return kind if self.reasons or kind[0] not in _REASONS else (Happening.UNKNOWN, None)

    def complaints(self, elements: Sequence[Element]) -> list[str]:
        """What is wrong with having heard `elements`, a line each."""
        events = [element for element in elements if isinstance(element, Event)]
        lines = []
        for duty in self.duties.values():
            missing = duty.missing(events)
            if missing:
                kinds = " or ".join(sorted(_show(kind) for kind in duty.kinds))
                lines.append(f"`{duty.cause}`: heard no {kinds} of {_pages(missing)}")
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
            shown = [str(event) for event in events[:_MOST_SHOWN]]
            more = f" and {len(events) - _MOST_SHOWN} more" if len(events) > _MOST_SHOWN else ""
            lines.append(f"heard: {', '.join(shown) or 'nothing'}{more}")
        return lines

    def _complaint(self, event: Event) -> str | None:
        """What is wrong with having heard `event` at all."""
        if event.refused and event.blockable:
            return f"{event}: the driver refused what it was given time for"  # clause 9
        if event.what is Happening.RELEASE:
            if (event.start, event.stop) != (0, _END):  # clause 18
                return f"{event}: that the process ends concerns all its memory"
            return None
        if event.what in (Happening.CLEAR, Happening.PAGE_FREE):
            return None
        if event.what is Happening.UNKNOWN and not self.reasons:
            return None  # it may be CLEAR
        if event.what is Happening.UNMAP and self.released:
            return None  # exit_mmap() unmaps everything
        if event.moved > event.asked:
            return f"{event}: more than there was a place for"
        licensed = self.licences.get((event.what, None), set()) | self.licences.get((event.what, event.owner), set())
        foreign = [page for page in range(event.start, min(event.stop, event.start + (1 << 20)))
                   if page not in licensed]  # fmt: skip
        if foreign:
            return f"{event}: nothing that the program did raises this"
        return None

    def sample(self) -> tuple[Event, ...]:
        """The least that may be heard."""
        events = []
        for duty in self.duties.values():
            what, owner = min(duty.kinds, key=_show)
            events += [
                Event(what, page, page + 1, owner or Owner.NONE, asked=1, moved=1) for page in sorted(duty.pages)
            ]
        if self.released:
            events.append(Event(Happening.RELEASE, 0, _END))
        return (*events, *(Event(Happening.PAGE_FREE, 0, 0) for _ in range(self.freed)))


def _show(kind: _Kind) -> str:
    what, owner = kind
    return str(what) if owner is None or owner is Owner.NONE else f"{what} ({owner})"


def _pages(pages: Collection[int]) -> str:
    shown = ", ".join(f"{page * PAGE_SIZE:#x}" for page in sorted(pages)[:_MOST_SHOWN])
    return f"{len(pages)} pages, at {shown}{' ...' if len(pages) > _MOST_SHOWN else ''}"
