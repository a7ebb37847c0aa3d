# SPDX-License-Identifier: GPL-2.0-only
"""A divergence as a person wants it: the program with the step marked, the page tables side by side, the
kernel log of that time, and the command that replays it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.compare import Comparison
from harness.model.allowed import show_element
from harness.model.rules import Rules
from harness.model.world import World
from harness.program.observations import Observation, Status
from harness.program.operations import DEVICES, Bind, Exit, Operation, Snapshot, Span, Table, Unbind, span_of
from harness.program.program import Program
from harness.program.text import render_step

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
    tables: Sequence[str] = (),
) -> tuple[str, ...]:
    """The whole text, line by line. `tables` are what `page_tables` made."""
    lines = [title, f"    {comparison.reason}", ""]
    marked = comparison.divergence.step if comparison.divergence else None
    for number, step in enumerate(program.steps):
        lines.append(f"  {'>' if number == marked else ' '} {number + 1:3}  {render_step(step, program)}")
        if number == marked and comparison.divergence:
            details = comparison.divergence.details
            lines += [f"           {detail}" for detail in details[:_MOST_DETAILS]]
            if len(details) > _MOST_DETAILS:
                lines.append(f"           ... and {len(details) - _MOST_DETAILS} more pages")
    if tables:
        lines += ["", *tables]
    if log:
        lines += ["", "  kernel log:"]
        lines += [f"    {line}" for line in log[-_MOST_LOG_LINES:]]
    lines += ["", f"  replay: {replay}"]
    return tuple(lines)


def page_tables(found: Inquest, rules: Rules, observations: Sequence[Observation]) -> list[str]:
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
    lines = []
    for (device, region), columns in shown.items():
        heads = [f"{region}"]
        cells: list[list[str]] = []
        for verb, who in (("snapshot", "CPU"), ("table", device)):
            if verb in columns:
                heads += [f"{who}: model", f"{who}: kernel" if verb == "snapshot" else f"{who}: driver"]
                cells += columns[verb]
        lines += [f"  page tables after the step, seen by {device} when replayed:"]
        lines += _grid(heads, list(zip(*cells, strict=True)))
    return lines


def _grid(heads: list[str], rows: list[tuple[str, ...]]) -> list[str]:
    """Columns; equal rows one after the other become one."""
    table: list[list[str]] = [heads]
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index] != rows[start]:
            label = f"[{start}]" if index == start + 1 else f"[{start}:{index}]"
            table.append([label, *rows[start]])
            start = index
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    return ["    " + "  ".join(row).rstrip() for row in padded]
