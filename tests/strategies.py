# SPDX-License-Identifier: GPL-2.0-only
"""Hypothesis strategies: any program that makes sense."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from harness.program.operations import (
    COHERENT,
    DEVICES,
    MAX_DMA,
    MAX_DMA_MAPS,
    MAX_MOVE,
    MAX_REQUEST,
    Access,
    Advice,
    Advise,
    Answer,
    Asked,
    Backing,
    Bind,
    Bring,
    BringZeros,
    Call,
    Choices,
    DeviceOperation,
    DeviceRead,
    DeviceWrite,
    DmaMap,
    DmaTable,
    DmaUnmap,
    Events,
    Evict,
    EvictBy,
    Exclusive,
    Exit,
    Fault,
    Fork,
    Held,
    Length,
    Lookup,
    Manner,
    Map,
    Miswatch,
    Move,
    Operation,
    Owner,
    Pagemap,
    Passes,
    Pattern,
    Pin,
    Poison,
    Prot,
    Protect,
    Read,
    Reap,
    Refuse,
    Register,
    Remap,
    Request,
    Returns,
    SequenceNumber,
    Shift,
    Snapshot,
    Sources,
    Span,
    SwapOut,
    Table,
    Target,
    ToDevice,
    ToDeviceShort,
    ToSystem,
    Truncate,
    Unbind,
    Unmap,
    Unpin,
    Usage,
    Userfault,
    Watch,
    Watched,
    Write,
    WriteProtect,
    WriteUnprotect,
)
from harness.program.program import Program

_ADVICE = [advice for advice in Advice if not advice.startswith("guard")]  # the oldest kernels do not have these
_EDGES = (0, 1, 100, 511, 512, 513, 1023, 1024)  # of spans of hugetlb regions, whose pages have 512 pages each
_PRIVATE = tuple(device for device in DEVICES if device not in COHERENT)
_SPAN_KINDS = (
    Unmap, Read, Pagemap, Snapshot, DeviceRead, ToDevice, ToDeviceShort, ToSystem, Table, Exclusive, Held,
    BringZeros, WriteProtect, WriteUnprotect,
)  # fmt: skip


def _size(backing: Backing) -> st.SearchStrategy[int]:
    if backing.of_driver:
        return st.integers(1, 4)
    return st.sampled_from((512, 1024)) if backing is Backing.HUGETLB else st.integers(1, 8)


@st.composite
def _span(draw: st.DrawFn, region: str, size: int) -> Span:
    """Any part of a region. Of one of many pages, as it is with hugetlb, about the edges of its huge pages."""
    if size <= 8:
        start = draw(st.integers(0, size - 1))
        return Span(region, start, draw(st.integers(start + 1, size)))
    start = draw(st.sampled_from([edge for edge in _EDGES if edge < size]))
    return Span(region, start, draw(st.sampled_from([edge for edge in (*_EDGES, size) if start < edge <= size])))


@st.composite
def programs(draw: st.DrawFn, max_steps: int = 12) -> Program:
    """A valid program of at most `max_steps` steps after its first mapping."""
    # Nothing of what a driver has mapped itself is for a device, so that there is little to see of it.
    usual = [backing for backing in Backing if not backing.of_driver]
    kinds_of_memory = draw(st.sampled_from((usual, usual, list(Backing))))
    backings = {"r0": draw(st.sampled_from(kinds_of_memory))}
    sizes = {"r0": draw(_size(backings["r0"]))}
    steps: list[Operation] = [Map("a", "r0", backings["r0"], sizes["r0"], draw(st.sampled_from(Prot)))]
    alive = ["a"]
    born = 1
    bound: dict[str, str] = {}
    # Few kernels have coherent memory or pins, and a program that needs them says nothing of the others.
    devices = draw(st.sampled_from((_PRIVATE, _PRIVATE, DEVICES)))
    may_pin = draw(st.sampled_from((False, False, True)))
    may_swap = draw(st.sampled_from((False, False, True)))
    paged: set[str] = set()  # regions that may be in the swap cache
    may_userfault = draw(st.sampled_from((False, False, True)))
    userfaults: dict[tuple[str, str], list[Span]] = {}  # by subject and region
    spoilt: set[str] = set()
    pinner: str | None = None
    pinned: set[str] = set()
    huge: set[str] = set()
    watches: dict[str, list[Span]] = {}
    mapped: dict[str, list[Span]] = {}  # for DMA, by device
    dying: list[str] = []
    for _ in range(draw(st.integers(0, max_steps))):
        region = draw(st.sampled_from(sorted(sizes)))
        span = draw(_span(region, sizes[region]))
        kinds: list[type[Operation]] = [Bind] if len(bound) < len(devices) and alive else []
        kinds += [Exit, Reap] if alive or dying else []
        if alive:
            minded = any(name == region for _, name in userfaults)
            kinds += [Map, Unmap, Protect, Read, Write, Fork, Pagemap]
            drivers = backings[region].of_driver
            kinds += [] if drivers else [Advise]
            kinds += [] if minded or drivers else [Remap]
            failing = backings[region] in (Backing.ANON, Backing.HUGETLB) and region not in pinned | paged
            kinds += [Poison] if failing and not minded else []
            small = backings[region] is not Backing.HUGETLB and region not in huge and not drivers
            if may_userfault and small and region not in pinned | spoilt | paged:
                kinds += [Register] * 3
            origins = [
                name for name in backings if backings[name] is Backing.ANON and name not in huge | spoilt | paged
            ]
            if minded:
                kinds += [WriteProtect, WriteUnprotect]
                kinds += [Shift] if region in origins else []
                kinds += [Bring, BringZeros] if backings[region] is not Backing.PRIVATE_FILE else []
            small = small and not minded
            kinds += [SwapOut] if may_swap and not minded and not drivers else []
            cut = region not in paged and not drivers
            kinds += [Truncate] if cut and backings[region] not in (Backing.ANON, Backing.HUGETLB) else []
            kinds += [Pin] if may_pin and pinner is None and small else []
            kinds += [Unpin] if pinner in alive else []
        if bound:
            kinds += [
                Unbind,
                Snapshot,
                Fault,
                DeviceRead,
                DeviceWrite,
                ToDevice,
                ToDeviceShort,
                ToSystem,
                Exclusive,
                Held,
                Evict,
                Table,
                Usage,
                Events,
                Request,
                Watch,
                Miswatch,
                Refuse,
                DmaMap,
                Move,
                Returns,
                EvictBy,
            ]
            kinds += [Watched, SequenceNumber] if any(watches.values()) else []
            kinds += [DmaTable, DmaUnmap] if any(mapped.values()) else []
        if not kinds:
            break
        kind = draw(st.sampled_from(kinds))
        of_device = issubclass(kind, DeviceOperation) and kind is not Bind
        able = alive + dying if kind in (Exit, Reap) else alive
        actor = draw(st.sampled_from(sorted(bound) if of_device else able))
        token = draw(st.integers(1, 1000))
        name = f"r{len(sizes)}"
        match kind.__name__:
            case "Map":
                backings[name] = draw(st.sampled_from(kinds_of_memory))
                sizes[name] = draw(_size(backings[name]))
                steps.append(Map(actor, name, backings[name], sizes[name], draw(st.sampled_from(Prot))))
            case "Protect":
                steps.append(Protect(actor, span, draw(st.sampled_from(Prot))))
            case "Remap":
                sizes[name] = span.count
                backings[name] = backings[region]
                for regions in (pinned, huge, spoilt, paged):
                    if region in regions:
                        regions.add(name)
                steps.append(Remap(actor, span, name))
            case "Advise":
                advice = draw(st.sampled_from(_ADVICE))
                refused = (Advice.HUGEPAGE, Advice.FREE, *([Advice.PAGEOUT] if may_swap else []))
                if advice in refused and any(name == region for _, name in userfaults):
                    continue
                huge |= {region} if advice is Advice.HUGEPAGE else set()
                paged |= {region} if advice is Advice.PAGEOUT and may_swap else set()
                spoilt |= {region} if advice is Advice.FREE else set()
                steps.append(Advise(actor, span, advice))
            case "SwapOut":
                paged.add(region)
                steps.append(SwapOut(actor, span))
            case "Poison":
                spoilt.add(region)
                steps.append(Poison(actor, span))
            case "Register":
                spans = userfaults.setdefault((actor, region), [])
                if not any(other.start < span.stop and span.start < other.stop for other in spans):
                    spans.append(span)
                    anonymous = backings[region] is Backing.ANON
                    modes = [each for each in Userfault if anonymous or each is not Userfault.WP]
                    steps.append(Register(actor, span, draw(st.sampled_from(modes))))
            case "Shift":
                origin = draw(st.sampled_from(origins))
                page = draw(st.integers(0, sizes[origin] - 1))
                to = replace(span, stop=span.start + 1)
                if to != Span(origin, page, page + 1):
                    steps.append(Shift(actor, to, Span(origin, page, page + 1)))
            case "Bring":
                steps.append(Bring(actor, span, token))
            case "Truncate":
                steps.append(Truncate(actor, span, draw(st.integers(0, 8))))
            case "Pin":
                pinner = actor
                pinned.add(region)
                steps.append(Pin(actor, span))
            case "Unpin":
                assert pinner is not None
                steps.append(Unpin(pinner))
                pinner = None
            case "Write":
                steps.append(Write(actor, span, token))
            case "DeviceWrite":
                steps.append(DeviceWrite(actor, span, token))
            case "Fault":
                steps.append(Fault(actor, span, draw(st.sampled_from(Access))))
            case "Watch":
                if span not in watches.setdefault(actor, []):
                    watches[actor].append(span)
                    steps.append(Watch(actor, span, Passes.ONE))
            case "Watched" | "SequenceNumber":
                watch = draw(st.sampled_from([(device, span) for device in watches for span in watches[device]]))
                steps.append((Watched if kind is Watched else SequenceNumber)(*watch))
            case "Miswatch":
                steps.append(Miswatch(actor, span, draw(st.sampled_from(Length))))
            case "Refuse":  # whole regions: which parts of one are a VMA of their own is not always known
                steps.append(Refuse(actor, Span(region, 0, sizes[region])))
            case "DmaMap":
                span = replace(span, stop=min(span.stop, span.start + MAX_DMA))
                spans = mapped.setdefault(actor, [])
                if span in spans or len(spans) < MAX_DMA_MAPS:
                    mapped[actor] = [*(each for each in spans if each != span), span]
                    steps.append(DmaMap(actor, span, draw(st.sampled_from(Access)), draw(st.sampled_from(Owner))))
            case "DmaTable" | "DmaUnmap":
                actor, span = draw(st.sampled_from([(device, span) for device in mapped for span in mapped[device]]))
                steps.append((DmaTable if kind is DmaTable else DmaUnmap)(actor, span))
                if kind is DmaUnmap:
                    mapped[actor].remove(span)
            case "Move":
                sources, target = draw(st.sampled_from(Sources)), draw(st.sampled_from(Target))
                choices = Choices("".join(draw(st.lists(st.sampled_from("m."), min_size=1, max_size=4))))
                span = replace(span, stop=min(span.stop, span.start + MAX_MOVE))
                call = draw(st.sampled_from((Call.PLAIN, Call.PLAIN, Call.LOCKED)))
                steps.append(Move(actor, span, sources, target, choices, call))
            case "Returns":
                if actor not in COHERENT:
                    steps.append(Returns(actor, draw(st.sampled_from(Answer))))
            case "EvictBy":
                steps.append(EvictBy(actor, Lookup.RANGE))
            case "Request":
                asked = draw(st.tuples(st.sampled_from(Asked), st.sampled_from(Asked)))
                pattern = Pattern("".join(draw(st.lists(st.sampled_from("fwb."), min_size=1, max_size=4))))
                owner, manner = draw(st.sampled_from(Owner)), draw(st.sampled_from((Manner.FRESH, Manner.STALE)))
                span = replace(span, stop=min(span.stop, span.start + MAX_REQUEST))
                steps.append(Request(actor, span, *asked, pattern, owner, manner))
            case "Fork":
                if born == 8:
                    continue
                child = f"s{born}"
                born += 1
                alive.append(child)
                steps.append(Fork(actor, child))
            case "Exit":
                (alive if actor in alive else dying).remove(actor)
                pinner = None if pinner == actor else pinner
                steps.append(Exit(actor))
            case "Reap":
                if actor in alive:
                    alive.remove(actor)
                    dying.append(actor)
                steps.append(Reap(actor))
            case "Bind":
                device = draw(st.sampled_from([device for device in devices if device not in bound]))
                bound[device] = draw(st.sampled_from(alive))
                steps.append(Bind(device, bound[device]))
            case "Unbind":
                del bound[actor]
                watches.pop(actor, None)
                mapped.pop(actor, None)
                steps.append(Unbind(actor))
            case "Evict" | "Usage" | "Events":
                steps.append(kind(actor))
            case _:
                assert kind in _SPAN_KINDS
                steps.append(kind(actor, span))
    return Program("generated", tuple(steps), "A generated program.")
