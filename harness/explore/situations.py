# SPDX-License-Identifier: GPL-2.0-only
"""What is new: in which states of the model a step was taken, in words. What meets a new one is worth keeping."""

from __future__ import annotations

from collections.abc import Iterator

from harness.model.memory import AddressSpace, Known, Pte
from harness.model.state import Mirror, State
from harness.program.operations import (
    Advise,
    DeviceOperation,
    Fault,
    Move,
    Operation,
    Protect,
    Request,
    span_of,
)

_PAGES = 16  # of a span that are looked at: its first ones
_KNOWN = {Known.NO: "-", Known.YES: "+", Known.MAYBE: "?"}


def situations(state: State, operation: Operation) -> Iterator[str]:
    """Words for what `operation` is about to meet: one for each kind of page in its span, or one without."""
    what = " ".join([operation.verb, *_choices(operation)])
    mirror = state.mirrors.get(operation.actor) if isinstance(operation, DeviceOperation) else None
    space = mirror.space if mirror is not None else state.spaces.get(operation.actor)
    span = span_of(operation)
    if space is None or span is None:
        yield f"{what}: {len(state.mirrors)} devices, {len(state.spaces)} subjects"
        return
    pages = state.pages(span)[:_PAGES]
    yield from dict.fromkeys(f"{what}: {_page(state, space, number)}" for number in pages)


def _choices(operation: Operation) -> Iterator[str]:
    """What is chosen of an operation, where the kernel takes another way then."""
    match operation:
        case Advise(advice=choice) | Protect(prot=choice) | Fault(access=choice):
            yield choice.value
        case Move(sources=sources, target=target, call=call):
            yield from (sources.value, target.value, call.value)
        case Request(default=default, owner=owner, manner=manner):
            yield from (default.value, owner.value, manner.value)


def _page(state: State, space: AddressSpace, number: int) -> str:
    area = space.areas.get(number)
    words = ["unmapped" if area is None else f"{area.backing.value} {area.prot.value}"]
    if area is not None and area.hugepage:
        words.append("thp")
    if number in space.traps:
        words.append(space.traps[number].value)
    pte = space.ptes.get(number)
    if pte is not None:
        words += _entry(pte)
    for device, mirror in sorted(state.mirrors.items()):
        if mirror.space is space:
            words += _mirrored(device, mirror, number)
    return " ".join(words)


def _entry(pte: Pte) -> Iterator[str]:
    page = pte.page
    yield f"p{_KNOWN[pte.present]}w{_KNOWN[pte.write]}"
    if pte.exclusive is not Known.NO:
        yield f"exclusive{_KNOWN[pte.exclusive]}"
    if pte.swapped is not Known.NO:
        yield f"swapped{_KNOWN[pte.swapped]}"
    for name, holds in (
        ("cached", page.cached),
        ("zero", page.zero),
        ("file", not page.anonymous),
        ("huge", pte.huge),
        ("lazy", page.lazy),
        ("pinned", page.pinned),
        ("strayed", page.strayed is not None),
        ("shared", len(page.mappings) > 1),
    ):
        if holds:
            yield name
    if page.home is not None:
        yield f"@{page.home[0]}"


def _mirrored(device: str, mirror: Mirror, number: int) -> Iterator[str]:
    entry = mirror.entries.get(number)
    if entry is not None:
        yield f"{device[0]}{_KNOWN[entry[1]]}"
    if number in mirror.held:
        yield "held"
    if number in mirror.refuses:
        yield "refuses"
    if mirror.watches:
        yield "watched"
    if any(number in view.entries for view in mirror.dma.values()):
        yield "dma"
