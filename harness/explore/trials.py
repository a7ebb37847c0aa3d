# SPDX-License-Identifier: GPL-2.0-only
"""What exploring made of mutants: a store of JSON lines, and a page of all of them.

A line of the store is a `Trial`. The page is Markdown, and the same for the same trials; the smallest program of each
that was found is a file beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.report import files
from harness.rows import Rows
from harness.target.mistakes import Mistake
from harness.target.mutant import Patch

Mutant = Patch | Mistake

FEW_STEPS = 8  # of a smallest program
_DRIVER = "kmod/"


class Outcome(StrEnum):
    """What exploring made of a mutant."""

    FOUND = "found"  # a program shows it, in clean VMs, that passes where the mutant is not
    MISSED = "not found"  # within the time
    TRIVIAL = "does not boot"  # anybody would notice
    UNKNOWN = "unknown"  # it does not build, or something broke that is not the kernel


@dataclass(frozen=True)
class Trial:
    """A line of the store.

    `key`: of what was explored: kernel, driver, guest, generator. `limit`: seconds. `seconds`: until it was first
    seen, or all of the time if it was not; `whole`: until it was made small, too. `programs`, `operations`: what had
    run by then. `steps`, `shown`, `runs`: of the smallest program, which is `program`. `reason`: why it is not known.
    """

    mutant: str
    key: str
    seed: int
    limit: float
    vms: int
    accelerator: str
    outcome: Outcome
    seconds: float = 0.0
    whole: float = 0.0
    programs: int = 0
    operations: int = 0
    steps: int = 0
    shown: int = 0
    runs: int = 0
    symptom: str = ""
    binding: str = ""
    program: str = ""
    reason: str = ""

    def __str__(self) -> str:
        match self.outcome:
            case Outcome.FOUND:
                size = f"{self.steps} steps, shown in {self.shown} of {self.runs} clean VMs"
                return f"found after {self.seconds:.0f} s, {self.operations} operations: {self.symptom} ({size})"
            case Outcome.MISSED:
                return f"not found in {self.seconds:.0f} s, {self.operations} operations"
            case _:
                return f"{self.outcome.value}: {self.reason}"


class Trials(Rows[Trial]):
    """The store in `path`, None for none. With `resume`, what is there already is known."""

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        super().__init__(path, read=_read, place=_place, resume=resume)

    def get(self, key: str, seed: int, limit: float) -> Trial | None:
        """What is known of what has this key, explored in the same way."""
        return self.find((key, seed, limit))


def _place(trial: Trial) -> tuple[str, int, float]:
    return (trial.key, trial.seed, trial.limit)


def _read(data: Mapping[str, Any]) -> Trial:
    return Trial(**{**data, "outcome": Outcome(data["outcome"])})


def title_of(mutant: Mutant) -> str:
    """What is wrong with it."""
    return mutant.title if isinstance(mutant, Patch) else mutant.breaks


Told = Sequence[tuple[Mutant, Trial | None]]


def publish(page: Path, kernel: str, told: Told, *, limit: float, command: str) -> None:
    """Writes the page, and beside it the smallest program of each mutant that was found."""
    for mutant, trial in told:
        place = page.with_name(f"{mutant.name}.hmm")
        if trial is not None and trial.outcome is Outcome.FOUND:
            files.write(place, trial.program)
        elif trial is not None:
            place.unlink(missing_ok=True)
    files.write(page, table(kernel, told, limit=limit, command=command))


def table(kernel: str, told: Told, *, limit: float, command: str) -> str:
    """The page; `command` is what makes it."""
    lines = [
        "<!-- SPDX-License-Identifier: GPL-2.0-only -->",
        f"# How soon exploring finds a bug in {kernel}",
        "",
        "Each row is one bug, put into the kernel or into our driver. "
        f"`{command}` explores with each for at most {_minutes(limit)}, and writes this page. A bug is found when a "
        "program, made as small as it can be, shows it in clean VMs, and passes where the bug is not. The time is "
        "until it was first seen; the operations are those that had run by then.",
        "",
        *_counts([trial for _, trial in told if trial is not None], len(told)),
    ]
    for file, mine in groupby(told, key=lambda row: _file(row[0])):
        lines += [
            "",
            f"## {file}",
            "",
            "| mutant | in | what is wrong | found after | operations | steps | shown | symptom | seed |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [f"{row_of(mutant)} {' | '.join(_cells(mutant, trial))} |" for mutant, trial in mine]
    return "\n".join(lines) + "\n"


def row_of(mutant: Mutant) -> str:
    """The beginning of its row, which depends on nothing else."""
    if isinstance(mutant, Patch):
        return f"| [{mutant.name}]({mutant.name}.patch) | `{mutant.function}` | {title_of(mutant)} |"
    return f"| `--wrong {mutant.name}` |  | {title_of(mutant)} |"


def _file(mutant: Mutant) -> str:
    return mutant.files[0] if isinstance(mutant, Patch) else _DRIVER


def _cells(mutant: Mutant, trial: Trial | None) -> list[str]:
    if trial is None:
        return [""] * 6
    if trial.outcome is not Outcome.FOUND:
        operations = str(trial.operations or "")
        return [trial.outcome.value, operations, "", "", trial.reason.replace("|", "\\|"), str(trial.seed)]
    return [
        f"{trial.seconds:.0f} s",
        str(trial.operations),
        f"[{trial.steps}]({mutant.name}.hmm)",
        f"{trial.shown} of {trial.runs}",
        trial.symptom.replace("|", "\\|"),
        str(trial.seed),
    ]


def _counts(trials: Sequence[Trial], planned: int) -> Iterator[str]:
    yield f"| {planned} mutants | |"
    yield "| --- | --- |"
    for outcome in Outcome:
        if number := sum(trial.outcome is outcome for trial in trials):
            yield f"| {outcome.value} | {number} |"
    if left := planned - len(trials):
        yield f"| not tried yet | {left} |"
    found = [trial for trial in trials if trial.outcome is Outcome.FOUND]
    if found:
        yield f"| made as small as {FEW_STEPS} steps | {sum(trial.steps <= FEW_STEPS for trial in found)} |"
        yield f"| the longest time | {max(trial.seconds for trial in found):.0f} s |"
    for where in sorted({f"{trial.vms} VMs at once, {trial.accelerator}" for trial in trials}):
        yield f"| explored with | {where} |"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
