# SPDX-License-Identifier: GPL-2.0-only
"""Programs that nobody wrote: drawn at random, from the whole vocabulary, with a weight on where states collide.

Every operation of `harness.program.operations` is drawn by the types of its fields: a new one takes part by itself.
A program is a function of the random numbers and of the rules of its binding alone.

Most programs know a part of the vocabulary only, each another one: what takes memory away or ends a process is not in
all of them, and the rest comes more often (Groce et al., Swarm Testing, ISSTA 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from enum import StrEnum
from random import Random
from typing import Any, get_type_hints

from harness.compare import obstacle
from harness.model.rules import Rules
from harness.program.operations import (
    COHERENT,
    DEVICE_OPERATIONS,
    DEVICES,
    HUGETLB_PAGES,
    MAX_DMA,
    MAX_MOVE,
    MAX_REQUEST,
    SUBJECT_OPERATIONS,
    Advice,
    Advise,
    Backing,
    Bind,
    Call,
    Choices,
    ClearSoftDirty,
    Counted,
    DeviceOperation,
    DeviceRead,
    DeviceWrite,
    DmaMap,
    DmaTable,
    DmaUnmap,
    Exit,
    Fault,
    Fork,
    Lock,
    Map,
    Merge,
    Miswatch,
    Move,
    MovePages,
    Operation,
    Pattern,
    Pin,
    Poison,
    Prot,
    Protect,
    Read,
    Reap,
    Refuse,
    Remap,
    Request,
    SequenceNumber,
    Snapshot,
    SoftDirty,
    Span,
    SwapOut,
    Table,
    ToDevice,
    ToSystem,
    Unbind,
    Unlock,
    Unmap,
    Unpin,
    Usage,
    Watch,
    Watched,
    Write,
    span_of,
)
from harness.program.program import KERNEL_PROT, Growing, Program

_SHORT, _LONG = 8, 40  # steps, besides those that look at everything in the end
_SMALL = 8  # pages
_MAX_TOKEN = 1000
_EDGES = (0, 1, 100, 511, 512, 513, 1023)  # of spans of many pages: about the edges of huge pages
_LIMITS: dict[type[Operation], int] = {Request: MAX_REQUEST, Move: MAX_MOVE, DmaMap: MAX_DMA}

# How often, against 4 of an operation that is not here
_WEIGHTS: dict[type[Operation], int] = {
    Write: 8, Read: 6, DeviceRead: 8, DeviceWrite: 8, ToDevice: 10, ToSystem: 5, Fault: 6, Snapshot: 6, Table: 6,
    Fork: 5, Protect: 6, Bind: 8, Advise: 6, Map: 2, Remap: 3, Unmap: 3, Exit: 1, Reap: 1, Unbind: 1, Poison: 1,
    Miswatch: 1, Refuse: 1, Usage: 2, Pin: 2, Unpin: 6, Lock: 2, Unlock: 1, Merge: 1, Counted: 2, MovePages: 2,
    ClearSoftDirty: 4, SwapOut: 6,
}  # fmt: skip
# What all programs know; and what is of use together only. Any other kind is one that a program knows, or not.
_ALWAYS: frozenset[type[Operation]] = frozenset({Map, Write, Read, Bind, ToDevice, Table})
_TOGETHER: tuple[tuple[type[Operation], ...], ...] = (
    (Watch, Watched, SequenceNumber), (DmaMap, DmaTable, DmaUnmap), (Pin, Unpin), (Lock, Unlock),
    (ClearSoftDirty, SoftDirty), (Fork, Exit),
)  # fmt: skip
_SHARES = (0.3, 0.5, 1.0)  # of the vocabulary that a program knows
_FEW_ADVICES = 3
_OF_OLD_SPANS: dict[type[Operation], type[Operation]] = {
    Watched: Watch, SequenceNumber: Watch, DmaTable: DmaMap, DmaUnmap: DmaMap,
}  # fmt: skip
_KINDS: tuple[type[Operation], ...] = (*SUBJECT_OPERATIONS, *DEVICE_OPERATIONS)
_FAMILIES = (*_TOGETHER, *((kind,) for kind in _KINDS if not any(kind in family for family in _TOGETHER)))
_HINTS = {kind: get_type_hints(kind) for kind in _KINDS}


class Generator:
    """Draws programs that a binding with these `rules` can run, with the numbers of `random`."""

    def __init__(self, rules: Rules, random: Random, *, spoiling: bool = True) -> None:
        """`spoiling`: also programs after which another one needs a clean VM."""
        self._rules = rules
        self._random = random
        self._spoiling = spoiling

    def fresh(self, name: str) -> Program:
        """A program out of nothing."""
        draft = self._draft()
        self._begin(draft)
        self._grow(draft, self._random.randint(_SHORT, _LONG))
        return self._finished(draft, name)

    def variation(self, name: str, one: Program, other: Program) -> Program:
        """`one` with a few steps more, fewer, or otherwise; or its beginning, and the end of `other`."""
        random = self._random
        steps = list(one.steps)
        at = random.randrange(len(steps) + 1)
        draft = self._draft()
        match random.randrange(4):
            case 0:  # some more in the middle
                draft.extend(steps[:at])
                self._grow(draft, random.randint(1, 4))
                draft.extend(steps[at:])
            case 1:  # some fewer
                draft.extend(steps[:at])
                draft.extend(steps[at + random.randint(1, 3) :])
            case 2:  # one otherwise
                for number, step in enumerate(steps):
                    changed = self._changed(draft, step) if number == at else None
                    if changed is None or not draft.take(changed):
                        draft.take(step)
            case _:
                draft.extend(steps[:at])
                draft.extend(other.steps[random.randrange(len(other.steps)) :])
        if not draft.steps:
            self._begin(draft)
        self._grow(draft, random.randrange(3))
        return self._finished(draft, name)

    def _draft(self) -> _Draft:
        random = self._random
        devices = DEVICES if random.random() < 0.25 else tuple(name for name in DEVICES if name not in COHERENT)
        draft = _Draft(self._rules, devices, spoiling=self._spoiling)
        share = random.choice(_SHARES)
        if share < 1:
            draft.known = _ALWAYS.union(*(family for family in _FAMILIES if random.random() < share))
            draft.advices = random.sample(draft.advices, _FEW_ADVICES)
            draft.backings = [Backing.ANON, random.choice(draft.backings)]
        return draft

    def _begin(self, draft: _Draft) -> None:
        """Something to work with: most of the time memory that was written, and a device that looks at it."""
        random = self._random
        for _ in range(random.choice((1, 1, 1, 2))):
            self._take(draft, Map)
        if not draft.sizes:
            draft.take(Map("a", "r0", Backing.ANON, _SMALL, Prot.RW))
        for region, pages in list(draft.sizes.items()):
            if pages > _SMALL and random.random() < 0.5:
                draft.take(Advise("a", Span(region, 0, pages), Advice.HUGEPAGE))
        for kind, chance in ((Write, 0.8), (Bind, 0.9), (ToDevice, 0.4)):
            if random.random() < chance:
                self._take(draft, kind)

    def _grow(self, draft: _Draft, count: int) -> None:
        kinds = [kind for kind in _KINDS if kind in draft.known and draft.may(kind)]
        weights = [_WEIGHTS.get(kind, 4) for kind in kinds]
        for kind in self._random.choices(kinds, weights, k=count):
            self._take(draft, kind)

    def _take(self, draft: _Draft, kind: type[Operation]) -> None:
        for _ in range(3):
            step = self._drawn(draft, kind)
            if step is not None and draft.take(step):
                return

    def _finished(self, draft: _Draft, name: str) -> Program:
        """With a look at everything in the end, most of the time: what went wrong is to be seen."""
        if self._random.random() < 0.7:
            for region, pages in list(draft.sizes.items()):
                if pages <= _SMALL:
                    whole = Span(region, 0, pages)
                    for device in sorted(draft.bound):
                        draft.take(Table(device, whole))
                    for subject in draft.alive:
                        draft.take(Read(subject, whole))
                    for device in sorted(draft.bound):
                        draft.take(Snapshot(device, whole))
            for device in sorted(draft.bound):
                draft.take(Usage(device))
        program = Program(name, tuple(draft.steps), "A generated program.")
        # What single steps do not tell: they may ask for more memory together than there is.
        while obstacle(program, self._rules) is not None and len(program.steps) > 1:
            draft.steps.pop()
            program = Program(name, tuple(draft.steps), program.title)
        return program

    def _drawn(self, draft: _Draft, kind: type[Operation]) -> Operation | None:
        """An operation of this kind that may make sense; None if there can be none."""
        random = self._random
        if issubclass(kind, DeviceOperation):
            actors = [device for device in draft.devices if (device in draft.bound) is not (kind is Bind)]
        else:
            actors = draft.alive + (draft.dying if kind in (Exit, Reap) else [])
        if not actors:
            return None
        actor = random.choice(actors)
        values: dict[str, Any] = {"actor": actor}
        if kind in _OF_OLD_SPANS:
            spans = [
                span
                for step in draft.steps
                if type(step) is _OF_OLD_SPANS[kind] and step.actor == actor and (span := span_of(step)) is not None
            ]
            if not spans:
                return None
            values["span"] = random.choice(spans)
        for field in fields(kind):
            if field.name not in values:
                value = self._value(draft, kind, field.name, values)
                if value is None:
                    return None
                values[field.name] = value
        return kind(**values)

    def _changed(self, draft: _Draft, step: Operation) -> Operation | None:
        """`step` with one of its fields drawn anew."""
        names = [field.name for field in fields(step) if field.name != "actor"]
        if not names:
            return None
        name = self._random.choice(names)
        values = {field.name: getattr(step, field.name) for field in fields(step) if field.name != name}
        value: Any = self._value(draft, type(step), name, values)
        return None if value is None else replace(step, **{name: value})

    def _value(self, draft: _Draft, kind: type[Operation], name: str, values: Mapping[str, Any]) -> object:
        """For the field `name` of an operation of which `values` are known; None if there is none."""
        random = self._random
        hint = _HINTS[kind][name]
        backing = values.get("backing")
        if isinstance(backing, Backing) and backing.of_kernel and name in ("pages", "prot"):
            return 1 if name == "pages" else KERNEL_PROT[backing]
        if hint is Span:
            return self._span(draft, kind)
        if hint is Backing:
            return random.choice(draft.backings)
        if hint is Advice:
            return random.choice(draft.advices)
        if hint is Prot:
            return random.choice((Prot.RW, Prot.RW, *Prot)) if kind is Map else random.choice(list(Prot))
        if hint is Call:
            refused = random.choice([call for call in Call if call.refused])
            return random.choice((Call.PLAIN, Call.PLAIN, *(call for call in Call if not call.refused), refused))
        if hint is Pattern:
            return Pattern("".join(random.choices("fwb.", k=random.randint(1, 4))))
        if hint is Choices:
            return Choices("".join(random.choices("mm.p" if draft.huge else "mm.", k=random.randint(1, 4))))
        if name == "pages":
            if values.get("backing") is Backing.HUGETLB:
                return HUGETLB_PAGES * random.choice((1, 1, 2))
            return random.choice((1024, 512)) if random.random() < 0.08 else random.randint(1, _SMALL)
        if hint is int:
            return random.randint(1, _MAX_TOKEN)
        if name == "region":
            return f"r{len(draft.sizes)}"
        if name == "child":
            return f"s{len(draft.born)}" if len(draft.born) < 8 else None
        if name == "subject":
            return random.choice(draft.alive) if draft.alive else None
        assert issubclass(hint, StrEnum), (kind, name)
        return random.choice(list(hint))

    def _span(self, draft: _Draft, kind: type[Operation]) -> Span | None:
        """Half of the time one that was used before: where several things meet, there are bugs."""
        random = self._random
        if not draft.sizes:
            return None
        used = [span for step in draft.steps if (span := span_of(step)) is not None]
        if kind in (Refuse, Counted):  # whole regions: which parts are a VMA of their own is not always known
            region = random.choice(list(draft.sizes))
            return Span(region, 0, draft.sizes[region])
        if used and random.random() < 0.5:
            span = random.choice(used)
        else:
            region = random.choice(list(draft.sizes))
            size = draft.sizes[region]
            if random.random() < 0.3:
                span = Span(region, 0, size)
            elif size <= _SMALL:
                start = random.randrange(size)
                span = Span(region, start, random.randint(start + 1, size))
            else:
                start = random.choice([edge for edge in _EDGES if edge < size])
                span = Span(region, start, random.choice([edge for edge in (*_EDGES, size) if start < edge <= size]))
        return replace(span, stop=min(span.stop, span.start + _LIMITS.get(kind, span.stop)))


class _Draft(Growing):
    """It takes only what the binding can do besides, on `devices`, and knows what the next steps can be about."""

    def __init__(self, rules: Rules, devices: Sequence[str], *, spoiling: bool) -> None:
        super().__init__()
        self._spoiling = spoiling
        self.devices = devices
        self.sizes: dict[str, int] = {}  # of each region, in pages
        self.alive: list[str] = ["a"]
        self.dying: list[str] = []
        self.born: list[str] = ["a"]
        self.bound: set[str] = set()
        self.huge = False  # there may be huge pages
        self.known: frozenset[type[Operation]] = frozenset(_KINDS)  # what it is made of, besides what it began with
        self.advices: list[Advice] = [*Advice, Advice.DONTNEED, Advice.FREE, Advice.HUGEPAGE]
        self.backings: list[Backing] = [Backing.ANON, Backing.ANON, *Backing]
        self._rules = rules

    def may(self, kind: type[Operation]) -> bool:
        """Whether the binding has such operations. Each can move pages, though not in every way."""
        if kind is Poison and not self._spoiling:
            return False
        return kind.verb not in self._rules.cannot or not issubclass(kind, DeviceOperation) or kind is Move

    def extend(self, steps: Sequence[Operation]) -> None:
        """Takes those of `steps` that still make sense."""
        for step in steps:
            self.take(step)

    def take(self, step: Operation) -> bool:
        """Takes `step`, and says whether it did."""
        if not self.may(type(step)) or self._rules.obstacle(step) is not None:
            return False
        if isinstance(step, DeviceOperation) and step.actor not in self.devices:
            return False
        if not super().take(step):
            return False
        note = _NOTES.get(type(step))
        if note is not None:
            note(self, step)
        return True


def _note_map(draft: _Draft, step: Map) -> None:
    draft.sizes[step.region] = step.pages
    draft.huge = draft.huge or step.backing is Backing.HUGETLB


def _note_remap(draft: _Draft, step: Remap) -> None:
    draft.sizes[step.region] = step.span.count


def _note_advise(draft: _Draft, step: Advise) -> None:
    draft.huge = draft.huge or step.advice is Advice.HUGEPAGE


def _note_fork(draft: _Draft, step: Fork) -> None:
    draft.alive.append(step.child)
    draft.born.append(step.child)


def _note_exit(draft: _Draft, step: Exit) -> None:
    (draft.alive if step.actor in draft.alive else draft.dying).remove(step.actor)


def _note_reap(draft: _Draft, step: Reap) -> None:
    if step.actor in draft.alive:
        draft.alive.remove(step.actor)
        draft.dying.append(step.actor)


# What a step changes of what the next ones can be
_NOTES: dict[type[Operation], Callable[[_Draft, Any], None]] = {
    Map: _note_map,
    Remap: _note_remap,
    Advise: _note_advise,
    Fork: _note_fork,
    Exit: _note_exit,
    Reap: _note_reap,
    Bind: lambda draft, step: draft.bound.add(step.actor),
    Unbind: lambda draft, step: draft.bound.discard(step.actor),
}
