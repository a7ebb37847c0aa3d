# SPDX-License-Identifier: GPL-2.0-only
"""Results, and their store: JSON lines, from which every report is made.

    {"type": "run", ...}       first: `Run` without what follows here
    {"type": "planned", ...}   programs that are planned, too, as it turned out: the cases of a kernel's hmm-tests,
                               or another text of a program; its results so far do not count then
    {"type": "target", ...}    a `Target`, before its results; those of another kernel of that name do not count then
    {"type": "result", ...}    a `Result`, when it is known
    {"type": "reports", ...}   where reports are to be written when the run ends: `Reports`
    {"type": "pause", ...}     last, if the run was interrupted and could say so: `Pause`
    {"type": "end", ...}       last, unless the run was interrupted: `End`

A run that is resumed adds to the same file, and ends it again.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.compare import Verdict
from harness.defaults import PEER
from harness.errors import ExitCode, HarnessError, UsageError
from harness.report.records import build

FORMAT = 1  # another number whenever an old reader would misunderstand
_HINT = "name a file that `hmm-harness run --json FILE` wrote"
_LATER = ("targets", "results", "end")  # of a `Run`, which have records of their own


@dataclass(frozen=True)
class PageTables:
    """A region's page tables as one device sees them, the model's beside the kernel's, after the step that diverged.

    `heads`: column titles, the region first. `rows`: a cell for each column; equal pages are one row, `[2:5]`.
    """

    device: str
    region: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Report:
    """A report of the kernel that is never fine: its class ("KASAN"), its title, and its lines of the log."""

    kind: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One program on one binding of one kernel.

    `seconds`: in the guest, 0.0 if it never ran. `replay`: the command that runs it again. `explanation`:
    lines for a person, empty for a PASS. `left_out`: queries that the binding does not have. `log`: kernel log
    lines of that time. `step`: of the program, from 0, where it diverged, and `details` what was seen there.
    `reports`: what the kernel itself complained of. `identity`: the same for the same program, binding and
    kernel, module and guest: what a resumed run need not do again.
    """

    program: str
    kernel: str
    flavour: str
    binding: str
    status: Verdict
    reason: str
    seconds: float
    replay: str
    left_out: int = 0
    explanation: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    step: int | None = None
    details: tuple[str, ...] = ()
    tables: tuple[PageTables, ...] = ()
    reports: tuple[Report, ...] = ()
    identity: str = ""

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Where it belongs in a run: kernel, flavour, program, binding."""
        return (self.kernel, self.flavour, self.program, self.binding)


@dataclass(frozen=True)
class Target:
    """Where results come from: a kernel in a flavour, and what ran it.

    `release`: of uname. `key`: the hash of its source, configuration and compiler. `origin`: the package or tree.
    `error`: why there is no such target (it did not build, it did not boot); nothing else is known then.
    """

    kernel: str
    flavour: str
    release: str = ""
    key: str = ""
    origin: str = ""
    accelerator: str = ""
    qemu: str = ""
    cpus: int = 0
    memory_mib: int = 0
    banner: str = ""
    features: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Source:
    """A program that was planned: its promise and its text."""

    title: str
    text: str


@dataclass(frozen=True)
class Planned:
    """Programs that are planned, too, as it turned out when a kernel was there."""

    programs: Mapping[str, Source]


@dataclass(frozen=True)
class End:
    """The end of a run that came to its end. `finished`: UTC, ISO 8601."""

    finished: str
    seconds: float
    exit_code: int


@dataclass(frozen=True)
class Reports:
    """Where the reports of a run go, which it renews when it is resumed. `paths`: absolute ones, by their form."""

    paths: Mapping[str, str]


@dataclass(frozen=True)
class Pause:
    """A run was interrupted after `seconds`."""

    seconds: float


@dataclass
class Run:
    """All of a run: what was planned, and what came of it as far as it is known.

    `started`: UTC, ISO 8601. `command`: as it was typed. `kernels`: (kernel, flavour) in the order of the plan.
    `clauses`: ids of those that the programs were chosen for. `cases`: patterns of cases of the kernels' hmm-tests,
    which are among the programs as soon as they are known. `directory`: where it began, from which the names of
    programs that are files lead; empty if that is not known. `spent`: seconds so far, also before it was resumed.
    `reports`: `Reports.paths`.
    """

    started: str
    command: tuple[str, ...]
    version: str
    programs: Mapping[str, Source]
    bindings: tuple[str, ...]
    kernels: tuple[tuple[str, str], ...]
    clauses: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    timeout: float = 0.0
    directory: str = ""
    targets: list[Target] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    end: End | None = None
    spent: float = field(default=0.0, init=False, compare=False)
    reports: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _places: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False, compare=False)

    def add(self, result: Result) -> None:
        """Takes a result, in place of an earlier one of the same program, binding and kernel."""
        if len(self._places) != len(self.results):
            self._places = {each.place for each in self.results}
        if result.place in self._places:
            self.results = [each for each in self.results if each.place != result.place]
        self._places.add(result.place)
        self.results.append(result)

    def plan(self, programs: Mapping[str, Source]) -> None:
        """Takes programs that are planned, too; what is there of one that had another text is no result of it.

        A case of hmm-tests has a text on each kernel, of which the plan shows one.
        """
        changed = {name for name, source in programs.items() if self.programs.get(name, source).text != source.text}
        self.results = [each for each in self.results if each.program not in changed or each.binding == PEER]
        self.programs = {**self.programs, **programs}

    def reach(self, target: Target) -> None:
        """Takes a target in place of an earlier one; the results of another kernel of that name are none of it."""
        place = (target.kernel, target.flavour)
        for before in self.targets:
            if (before.kernel, before.flavour) == place and target.key and before.key not in ("", target.key):
                self.results = [each for each in self.results if (each.kernel, each.flavour) != place]
        self.targets = [each for each in self.targets if (each.kernel, each.flavour) != place] + [target]

    def finish(self, end: End) -> None:
        """Takes the end of what was done now; that of the run has the seconds of all that was done before, too."""
        self.spent = round(self.spent + end.seconds, 3)
        self.end = replace(end, seconds=self.spent)

    @property
    def is_waiting_for_cases(self) -> bool:
        """Whether no case of the hmm-tests is known, which are to be run."""
        return bool(self.cases) and not any(belongs(program, PEER) for program in self.programs)

    @property
    def planned(self) -> int:
        """How many results there should be."""
        pairs = sum(belongs(program, binding) for program in self.programs for binding in self.bindings)
        return len(self.kernels) * (pairs + self.is_waiting_for_cases)

    @property
    def exit_code(self) -> ExitCode:
        """What the run ends with, or would have: what was not run is no PASS."""
        code = exit_code(result.status for result in self.results)
        if len(self.results) < self.planned and code in (ExitCode.PASS, ExitCode.SKIPPED):
            return ExitCode.INFRASTRUCTURE
        return code

    def in_order(self) -> list[Result]:
        """The results in the order of the plan, whatever the order in which they came."""
        plans: tuple[Iterable[object], ...] = (self.kernels, self.programs, self.bindings)
        places = [{name: place for place, name in enumerate(names)} for names in plans]

        def place(result: Result) -> tuple[int, ...]:
            names = ((result.kernel, result.flavour), result.program, result.binding)
            return tuple(known.get(name, len(known)) for known, name in zip(places, names, strict=True))

        return sorted(self.results, key=place)


def belongs(program: str, binding: str) -> bool:
    """Whether there is a result of `program` on `binding`: the kernel's own tests are a binding by themselves."""
    return (binding == PEER) == (program.partition("/")[0] == PEER and not program.endswith(".hmm"))


_EXIT_BY_STATUS = (  # the first that any result has decides
    (Verdict.CRASHED, ExitCode.CRASH),
    (Verdict.FAIL, ExitCode.FAIL),
    (Verdict.TIMEOUT, ExitCode.TIMEOUT),
    (Verdict.ERROR, ExitCode.INFRASTRUCTURE),
    (Verdict.INCONCLUSIVE, ExitCode.INFRASTRUCTURE),
)


def exit_code(statuses: Iterable[Verdict]) -> ExitCode:
    """The exit code of a run with results of these statuses."""
    found = set(statuses)
    for status, code in _EXIT_BY_STATUS:
        if status in found:
            return code
    return ExitCode.PASS if found & {Verdict.PASS, Verdict.DEVIATION} else ExitCode.SKIPPED


class Store:
    """Writes a run to `path` as it goes; a reader never meets half a line. None writes nowhere.

    With `resume`, what is in the file stays and is added to.
    """

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        self._path = path
        self._resume = resume
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            flags = os.O_RDWR | os.O_CLOEXEC | (0 if self._resume else os.O_CREAT)
            try:
                self._file = file = FileIO(os.open(self._path, flags, 0o666), "r+")
            except OSError as error:
                raise HarnessError(
                    f"cannot write results to {self._path}: {error.strerror}", hint="name a file that can be written"
                ) from None
            if not file.seekable():
                file.close()
                raise HarnessError(
                    f"cannot write results to {self._path}: it is a pipe or a terminal",
                    hint="name a regular file: half a line can be taken back from it when the disk is full",
                )
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                self._claim(file)
                file.truncate(_whole_lines(file) if self._resume else 0)
                file.seek(0, 2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _claim(self, file: FileIO) -> None:
        """Two that write the same file would leave neither's results in it. A process that ends lets go."""
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise HarnessError(
                f"another run is writing its results to {self._path}",
                hint="wait for it, or name another file or directory",
            ) from None
        except OSError:  # a file system without locks
            pass

    def begin(self, run: Run) -> None:
        """Writes what is planned."""
        plan = {each.name: getattr(run, each.name) for each in fields(run) if each.init}
        for later in _LATER:
            del plan[later]
        plan["programs"] = {name: asdict(source) for name, source in run.programs.items()}
        self._write({"type": "run", "format": FORMAT} | plan)

    def plan(self, programs: Mapping[str, Source]) -> None:
        """Appends what is planned, too."""
        self._write({"type": "planned", "programs": {name: asdict(source) for name, source in programs.items()}})

    def target(self, target: Target) -> None:
        """Appends a target."""
        self._write({"type": "target"} | asdict(target))

    def add(self, result: Result) -> None:
        """Appends a result."""
        self._write({"type": "result"} | asdict(result))

    def reports(self, reports: Reports) -> None:
        """Appends where the reports go."""
        self._write({"type": "reports"} | asdict(reports))

    def pause(self, pause: Pause) -> None:
        """Appends that the run was interrupted."""
        self._write({"type": "pause"} | asdict(pause))

    def end(self, end: End) -> None:
        """Appends the end, with the seconds since the run was resumed last."""
        self._write({"type": "end"} | asdict(end))

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None:
            return
        line = json.dumps(record).encode() + b"\n"
        start = self._file.tell()
        try:
            if self._file.write(line) == len(line):
                return
            self._file.truncate(start)
            reason = "no space left"
        except OSError as error:
            reason = str(error.strerror)
        raise HarnessError(
            f"cannot write results to {self._path}: {reason}", hint="free space there, or name another file"
        )


def _whole_lines(file: FileIO) -> int:
    """Where the last whole line ends: whoever wrote the file may have been killed in the middle of one."""
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def read(path: Path) -> Run:
    """The run that `path` holds; half a line at its end, of a run that was killed, is left out.

    Raises `UsageError` if it is no such file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        inside = path / "results.jsonl"  # of --reports
        there = isinstance(error, IsADirectoryError) and inside.is_file()
        hint = f"name the file in it: {inside}" if there else _HINT
        raise UsageError(f"cannot read results from {path}: {error.strerror}", hint=hint) from None
    run: Run | None = None
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            run = _take(run, json.loads(line))
        except UnicodeDecodeError:
            raise UsageError(f"{path}:{number}: no results of hmm-harness: no text", hint=_HINT) from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number}: no results of hmm-harness: {error}"[:300], hint=_HINT) from None
    if run is None:
        raise UsageError(f"{path} holds no run", hint=_HINT)
    run.results = list(
        {result.place: result for result in run.results}.values()
    )  # the last word, where there are two
    return run


def _take(run: Run | None, record: object) -> Run:
    """The run with one more record. Raises ValueError if it is none."""
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    kind = record.pop("type", None)
    if kind == "run":
        if record.pop("format", None) != FORMAT:
            raise ValueError("another format")
        for later in _LATER:
            if later in record:
                raise ValueError(f"{later!r} is no part of a plan")
        return build(Run, record)
    if run is None:
        raise ValueError("it does not begin with what was planned")
    run.end = None  # it was resumed
    if kind == "planned":
        run.plan(build(Planned, record).programs)
    elif kind == "target":
        run.reach(build(Target, record))
    elif kind == "result":
        run.results.append(build(Result, record))
    elif kind == "reports":
        run.reports = build(Reports, record).paths
    elif kind == "pause":
        run.spent += build(Pause, record).seconds
    elif kind == "end":
        run.finish(build(End, record))
    else:
        raise ValueError(f"unknown record {kind!r}")
    return run
