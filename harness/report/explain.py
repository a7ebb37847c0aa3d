# SPDX-License-Identifier: GPL-2.0-only
"""A divergence as a person wants it: the program with the step marked, the page tables side by side, the
kernel log of that time, and the command that replays it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.compare import Comparison
from harness.errors import HarnessError
from harness.model.allowed import show_element
from harness.model.rules import Rules
from harness.model.world import World
from harness.program.observations import Observation, Status
from harness.program.operations import DEVICES, Bind, Exit, Operation, Snapshot, Span, Table, Unbind, span_of
from harness.program.program import Program
from harness.program.text import render_step
from harness.report.results import PageTables

_MOST_LOG_LINES = 40
_MOST_DETAILS = 8


@dataclass(frozen=True)
class Inquest:
    """A divergence looked at again: `program` is the one that diverged up to that step, and then queries."""

    program: Program
    steps: int  # of the original


def inquest(program: Program, step: int) -> Inquest:
    """The program that shows both page tables right after `step`, in a clean VM."""
    steps = program.steps[: step + 1]
    regions = [span.region for span in map(span_of, steps) if span is not None]
    queries: list[Operation] = []
    for device in _devices(steps):
        for region in dict.fromkeys(regions):
            whole = Span(region, 0, program.regions[region].pages)
            queries += [Snapshot(device, whole), Table(device, whole)]
    return Inquest(replace(program, steps=(*steps, *queries)), len(steps))


def _devices(steps: Sequence[Operation]) -> list[str]:
    """The devices that are bound to a running subject after `steps`."""
    bound: dict[str, str] = {}
    for step in steps:
        if isinstance(step, Bind):
            bound[step.actor] = step.subject
        elif isinstance(step, Unbind):
            del bound[step.actor]
        elif isinstance(step, Exit):
            bound = {device: subject for device, subject in bound.items() if subject != step.actor}
    return [device for device in DEVICES if device in bound]


def explain(
    program: Program,
    comparison: Comparison,
    *,
    title: str,
    log: Sequence[str],
    replay: str,
    tables: Sequence[PageTables] = (),
    remark: str = "",
) -> tuple[str, ...]:
    """The whole text, line by line. `tables` are of `page_tables`, `remark` tells why there are none, or a hint."""
    lines = [title, f"    {comparison.reason}", ""]
    marked = comparison.divergence.step if comparison.divergence else None
    for number, step in enumerate(program.steps):
        lines.append(f"  {'>' if number == marked else ' '} {number + 1:3}  {render_step(step, program)}")
        if number == marked and comparison.divergence:
            details = comparison.divergence.details
            lines += [f"           {detail}" for detail in details[:_MOST_DETAILS]]
            if len(details) > _MOST_DETAILS:
                lines.append(f"           ... and {len(details) - _MOST_DETAILS} more pages")
    for each in tables:
        lines += ["", *_show(each)]
    if remark:
        lines += ["", f"  {remark}"]
    if log:
        lines += ["", "  kernel log:"]
        lines += [f"    {line}" for line in log[-_MOST_LOG_LINES:]]
    lines += ["", f"  replay: {replay}"]
    return tuple(lines)


def explain_case(
    title: str, reason: str, *, showed: Sequence[str], log: Sequence[str], replay: str, hint: str | None = None
) -> tuple[str, ...]:
    """What is to be said of a case of the kernel's own tests, line by line. `showed`: what it printed, and more."""
    lines = [title, f"    {reason}"]
    if hint:
        lines.append(f"    hint: {hint}")
    for heading, more in (("what it showed:", showed), ("kernel log:", log)):
        if more:
            lines += ["", f"  {heading}", *(f"    {line}" for line in more[-_MOST_LOG_LINES:])]
    return (*lines, "", f"  replay: {replay}")


def explain_trouble(title: str, error: HarnessError, console: Sequence[str] = ()) -> tuple[str, ...]:
    """What kept a program from being run at all, line by line."""
    lines = [title, *(f"    {line}" for line in error.message.splitlines())]
    if error.hint:
        lines.append(f"    hint: {error.hint}")
    if console:
        lines += ["", "  console:", *(f"    {line}" for line in console[-_MOST_LOG_LINES:])]
    return tuple(lines)


def page_tables(found: Inquest, rules: Rules, observations: Sequence[Observation]) -> list[PageTables]:
    """The CPU's and each device's page table after the step, the model's beside the kernel's."""
    if len(observations) != len(found.program.steps):
        return []
    world = World(found.program, rules)
    shown: dict[tuple[str, str], dict[str, tuple[list[str], list[str]]]] = {}
    for number, (step, observation) in enumerate(zip(found.program.steps, observations, strict=True)):
        if number < found.steps:
            world.step(step, observation)
            continue
        span = span_of(step)
        if observation.status is Status.DONE and not observation.error and span is not None:
            allowed = [str(element) for element in world.step(step, observation).elements]
            seen = [show_element(element) for element in observation.elements]
            shown.setdefault((step.actor, span.region), {})[step.verb] = (allowed, seen)
    tables = []
    for (device, region), columns in shown.items():
        heads = [region]
        cells: list[list[str]] = []
        for verb, who in (("snapshot", "CPU"), ("table", device)):
            if verb in columns:
                heads += [f"{who}: model", f"{who}: kernel" if verb == "snapshot" else f"{who}: driver"]
                cells += columns[verb]
        tables.append(PageTables(device, region, tuple(heads), _together(list(zip(*cells, strict=True)))))
    return tables


def _together(pages: list[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """A row per page, with its number in front; equal ones one after the other become one."""
    rows = []
    start = 0
    for index in range(1, len(pages) + 1):
        if index == len(pages) or pages[index] != pages[start]:
            label = f"[{start}]" if index == start + 1 else f"[{start}:{index}]"
            rows.append((label, *pages[start]))
            start = index
    return tuple(rows)


def _show(tables: PageTables) -> list[str]:
    grid = [tables.heads, *tables.rows]
    widths = [max(len(row[column]) for row in grid) for column in range(len(tables.heads))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in grid]
    head = f"  page tables after the step, seen by {tables.device} when replayed:"
    return [head, *("    " + "  ".join(row).rstrip() for row in padded)]
