# SPDX-License-Identifier: GPL-2.0-only
"""What an exploration keeps in its directory, so that it can be killed at any moment and goes on where it was.

    campaign.jsonl       a line for each unit that is done: `UnitDone`
    errors.jsonl         a line for each time that one was given up: `GivenUp`
    corpus.jsonl         programs that met something new, with what that was, and when
    findings/ID/         finding.json, program.hmm (the smallest that was found), found.hmm (as it was drawn)

A line is written whole or is not there; a finding appears when all of it is written, and is there ever after: what
takes its place is written before it goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from harness.compare import Verdict
from harness.errors import UsageError
from harness.program.program import Program
from harness.program.text import ProgramSyntaxError, parse, render
from harness.report.records import build
from harness.report.results import Result
from harness.target.cache import digest_of

_CAMPAIGN, _ERRORS, _CORPUS, _FINDINGS = "campaign.jsonl", "errors.jsonl", "corpus.jsonl", "findings"
_PROGRAM, _FOUND, _FINDING = "program.hmm", "found.hmm", "finding.json"
_LOCK = "lock"
_FRESH, _OLD = ".new-", ".old-"  # in front of ID: what is being written, and what has just been replaced
_NUMBER = re.compile(r"0x[0-9a-f]+|[1-9]\d*")  # nothing is not just any number
_PLACE = re.compile(r"^(step \d+: )?\w+(\[[\d:]+\])?: ")
_ALLOWED = re.compile(r", (allowed is|at most|not) .*")
_Line = TypeVar("_Line")


@dataclass(frozen=True)
class Symptom:
    """What a result shows, without what differs from one program to another: pages, tokens, what was allowed."""

    binding: str
    status: Verdict
    words: str

    @property
    def id(self) -> str:
        """Short, and the same for the same symptom."""
        return digest_of(self.binding, self.status, self.words)[:10]

    def __str__(self) -> str:
        return f"{self.status} on {self.binding}: {self.words}"


def symptom_of(result: Result, program: Program) -> Symptom | None:
    """None for what is no news: it passed, deviated as is known, did not run, or said nothing of the kernel."""
    match result.status:
        case Verdict.CRASHED:
            words = result.reports[0].title if result.reports else result.reason
        case Verdict.FAIL:
            verb = "" if result.step is None else program.steps[result.step].verb
            said = _ALLOWED.sub("", _PLACE.sub("", result.details[0] if result.details else result.reason))
            words = f"{verb}: {said}" if verb else said
        case Verdict.TIMEOUT:
            words = result.reason
        case _:
            return None
    return Symptom(result.binding, result.status, _NUMBER.sub("N", words))


@dataclass(frozen=True)
class Finding:
    """A symptom, how many of `runs` in clean VMs by the smallest program showed it, and a result that did.

    `before`: the programs that ran in the VM before, if it was not seen in a clean one.
    """

    symptom: Symptom
    kernel: str
    flavour: str
    unit: str
    shown: int
    runs: int
    program: Program
    found: Program
    explanation: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0  # from the start of the exploration until it was seen
    before: tuple[Program, ...] = ()


@dataclass(frozen=True)
class _Told:
    """What there is to say of a finding besides its programs: its finding.json. `steps`: of the smallest program."""

    symptom: Symptom
    kernel: str
    flavour: str
    unit: str
    shown: int
    runs: int
    steps: int
    explanation: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class UnitDone:
    """What came of a unit. `new`: situations that were met in it for the first time, as far as it could know.

    `began`, `ended`: by the clock, in seconds since 1970; 0.0 if that is not known.
    """

    seed: int
    number: int
    binding: str
    target: str  # hash of kernel, module, guest, and of the deliberate mistakes
    corpus: str  # hash of the programs that it began with
    programs: int
    operations: int
    seconds: float
    verdicts: Mapping[str, int] = field(default_factory=dict)
    new: int = 0
    findings: tuple[str, ...] = ()
    began: float = 0.0
    ended: float = 0.0
    kernel: str = ""
    flavour: str = ""

    @property
    def place(self) -> tuple[str, int, int]:
        """What tells it from others: it is done once."""
        return (self.target, self.seed, self.number)


@dataclass
class Totals:
    """What came of several units. `seconds`: of VMs (two at once count twice), but for looking into findings."""

    units: int = 0
    programs: int = 0
    operations: int = 0
    seconds: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, done: UnitDone) -> None:
        """Counts one more unit."""
        self.include(Totals(1, done.programs, done.operations, done.seconds, Counter(done.verdicts)))

    def include(self, others: Totals) -> None:
        """Counts other units, too."""
        self.units += others.units
        self.programs += others.programs
        self.operations += others.operations
        self.seconds += others.seconds
        self.verdicts.update(others.verdicts)


@dataclass(frozen=True)
class GivenUp:
    """A piece of work that came to nothing: an ERROR, no verdict. `number`: of the unit, if it is one."""

    what: str
    reason: str
    target: str
    seed: int
    number: int | None
    at: float  # by the clock, in seconds since 1970


@dataclass(frozen=True)
class Met:
    """A program of the corpus, as text, what it met that nobody had met, and when that was told (0.0: not known)."""

    program: str
    situations: tuple[str, ...]
    at: float = 0.0


class Store:
    """The directory of an exploration, for one process at a time. Used as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Raises `UsageError` if another process explores there."""
        (self.path / _FINDINGS).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(f"another process explores in {self.path}", hint="--dir names another place") from None
        self._clear_up()
        return self

    def _clear_up(self) -> None:
        """After a process that was killed: a finding that was to be replaced, and is not, is still one."""
        for left in (self.path / _FINDINGS).glob(".*"):
            place = left.with_name(left.name.removeprefix(_OLD))
            if left.name.startswith(_OLD) and not place.exists():
                left.rename(place)
            else:
                shutil.rmtree(left, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def add_unit(self, done: UnitDone) -> None:
        """It will not be done again."""
        _append(self.path / _CAMPAIGN, asdict(done))

    def units(self) -> Iterator[UnitDone]:
        """All that are done. What cannot be read any more is left out."""
        return _read_lines(UnitDone, self.path / _CAMPAIGN)

    def add_error(self, given_up: GivenUp) -> None:
        """Somebody should know; the next exploration tries it again."""
        _append(self.path / _ERRORS, asdict(given_up))

    def errors(self) -> Iterator[GivenUp]:
        """All that was given up, also what was done later. What cannot be read any more is left out."""
        return _read_lines(GivenUp, self.path / _ERRORS)

    def add_program(self, program: Program, situations: Sequence[str], at: float = 0.0) -> None:
        """It met `situations` for the first time, at that time of the clock."""
        _append(self.path / _CORPUS, asdict(Met(render(program), tuple(situations), round(at, 1))))

    def corpus(self) -> tuple[list[Program], set[str]]:
        """The programs that met something new, and all that was met. What is no program any more is left out."""
        programs: list[Program] = []
        met: set[str] = set()
        for number, line in enumerate(self.meetings()):
            try:
                programs.append(parse(line.program, file=_CORPUS, name=f"corpus/{number}"))
            except ProgramSyntaxError:  # the vocabulary has changed
                continue
            met.update(line.situations)
        return programs, met

    def meetings(self) -> Iterator[Met]:
        """Each line of the corpus as it is, the oldest first, whether it is a program still or not."""
        return _read_lines(Met, self.path / _CORPUS)

    def add_finding(self, finding: Finding) -> Path:
        """Writes a finding, in place of what was known of that symptom; its directory."""
        place = self.path / _FINDINGS / finding.symptom.id
        fresh, old = (place.with_name(f"{mark}{place.name}") for mark in (_FRESH, _OLD))
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        programs = [(_PROGRAM, finding.program), (_FOUND, finding.found)]
        programs += [(f"before-{number:03}.hmm", each) for number, each in enumerate(finding.before)]
        for name, program in programs:
            _write(fresh / name, render(program))
        _write(fresh / _FINDING, json.dumps(_told(finding), indent=2) + "\n")
        _sync(fresh)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        fresh.rename(place)
        _sync(place.parent)
        shutil.rmtree(old, ignore_errors=True)
        return place

    def findings(self) -> Iterator[Finding]:
        """All that are known, the oldest first. What cannot be read any more is left out."""
        for place in sorted((self.path / _FINDINGS).glob("[!.]*"), key=lambda each: each.stat().st_mtime):
            try:
                told = build(_Told, json.loads((place / _FINDING).read_text(encoding="utf-8")))
                names = [_PROGRAM, _FOUND, *sorted(each.name for each in place.glob("before-*.hmm"))]
                yield _finding(told, [_read(place / name) for name in names])
            except (OSError, ValueError, RecursionError):
                continue

    def place(self, symptom: Symptom) -> Path:
        """Where the smallest program that shows it is, or will be."""
        return self.path / _FINDINGS / symptom.id / _PROGRAM


def existing(path: Path) -> Store:
    """What is kept in a directory of an exploration. Raises `UsageError` if it is none."""
    if not (path / _FINDINGS).is_dir():
        raise UsageError(
            f"{path} is no exploration", hint="name what `explore --dir` named; `hmm-harness explore` makes one"
        )
    return Store(path)


def packed(finding: Finding) -> dict[str, Any]:
    """A whole finding as one JSON object, programs included."""
    programs = [finding.program, finding.found, *finding.before]
    return _told(finding) | {"programs": [{"name": each.name, "text": render(each)} for each in programs]}


def unpacked(told: Mapping[str, Any]) -> Finding:
    """The finding again. Raises `ProgramSyntaxError` if its programs are of another vocabulary."""
    programs = [parse(each["text"], file=each["name"], name=each["name"]) for each in told["programs"]]
    return _finding(build(_Told, {key: value for key, value in told.items() if key != "programs"}), programs)


def _told(finding: Finding) -> dict[str, Any]:
    said = {each.name: getattr(finding, each.name) for each in fields(_Told) if each.name != "steps"}
    return asdict(_Told(**said, steps=len(finding.program.steps)))


def _finding(told: _Told, programs: Sequence[Program]) -> Finding:
    said = {each.name: getattr(told, each.name) for each in fields(_Told) if each.name != "steps"}
    program, found, *before = programs
    return Finding(**said, program=program, found=found, before=tuple(before))


def _read(path: Path) -> Program:
    return parse(path.read_text(encoding="utf-8"), file=str(path), name=str(path))


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Writes a whole line behind the last whole one: of a process that was killed there may be half of one."""
    is_new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        while end and os.pread(file, 1, end - 1) != b"\n":
            end -= 1
        os.ftruncate(file, end)
        data = json.dumps(line).encode() + b"\n"
        while data:
            written = os.pwrite(file, data, end)
            data, end = data[written:], end + written
        os.fsync(file)
    finally:
        os.close(file)
    if is_new:
        _sync(path.parent)


def _sync(directory: Path) -> None:
    """What was made or renamed in a directory is there after a power cut, too."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _read_lines(kind: type[_Line], path: Path) -> Iterator[_Line]:
    """A `kind` of each line; what is none, of a machine that lost its power or of another version, is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.endswith("\n"):
                try:
                    yield build(kind, json.loads(line))
                except (ValueError, RecursionError):
                    continue
