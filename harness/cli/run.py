# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness run` and `hmm-harness report`: the main job, and its reports once more."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import closing, nullcontext, suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from harness.cli import candidates
from harness.cli.options import (
    BINDINGS,
    CONFIGURED,
    add_gdb,
    add_kdir,
    add_timeout,
    add_wrong,
    check_mistakes,
    completed,
    manual,
    number,
    open_cache,
    own_command,
    words,
)
from harness.defaults import DEFAULT_FLAVOUR, DEFAULT_KERNEL, DEFAULT_TIMEOUT, PEER
from harness.errors import ExitCode, HarnessError, UsageError
from harness.printable import some
from harness.progress import Progress, let_go

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.cli.options import Commands
    from harness.conformance.clauses import Clause
    from harness.matrix import Resources
    from harness.program.program import Program
    from harness.report.results import Run, Source, Store
    from harness.run import Plan
    from harness.target.keeper import Keeper

_FEW = 8  # names in one line


def add(commands: Commands) -> None:
    """Adds the commands to the parser."""
    command = manual(
        commands,
        "run",
        help="run programs on kernels and in the model, and compare",
        description="""\
            Runs each program on every kernel, flavour and binding that is asked for, in VMs, and in the reference
            model. Where a kernel shows what the model does not allow, it says so: the step, both page tables, the
            kernel's log, and a command that replays it. Kernels are built, or taken from the cache. The exit
            status is in `hmm-harness --help`. Whoever closes standard output does not end it.

            Up to twenty programs have a row each, on one kernel. Of more, a line tells what is not good, and the end
            counts the reasons of the others: `hmm-harness report --table` prints all of it afterwards.""",
        examples=(
            ("run", "every program on the default kernel"),
            ("run migrate devmem/own-fault", "those whose name begins with migrate/, and one more"),
            ("run my.hmm", "a program of your own"),
            ("run --clause RANGE-29", "what proves one clause of the contract: `hmm-harness clauses`"),
            ("run --kernel debian:6.1 --kernel debian:6.12 --flavour plain,debug --reports out", "a matrix in CI"),
            ("run --binding interval --wrong skip-invalidate invalidate", "a driver that is wrong on purpose"),
            ("run --upstream migrate", "and the kernel's own hmm-tests, in the same report"),
            ("run --resume", "go on with the last run, which was interrupted"),
            ("run --keep my.hmm", "leave the VM in which it fails running; `vm shell vm1` enters it"),
            ("run --gdb --no-restore my.hmm", "with gdb from the first instruction of the boot"),
            ("run --dry-run", "look at the programs, and print QEMU's command line, to change and to start by hand"),
        ),
        files=(
            ("$XDG_CACHE_HOME/hmm-harness", "kernels, images and saved VMs (default: ~/.cache/...)"),
            ("$XDG_STATE_HOME/hmm-harness/runs", "results of the last runs (default: ~/.local/state/...)"),
            ("hmm-harness.toml, pyproject.toml", "settings: `hmm-harness config --help`"),
        ),
        environment=(*CONFIGURED, ("NO_COLOR", "if set, no colours")),
    )
    command.set_defaults(run_command=_run)
    programs = command.add_argument("program", nargs="*", help="a file, a name, or a pattern of names (default: all)")
    completed(programs, candidates.programs)
    clause = command.add_argument(
        "--clause",
        action="append",
        default=[],
        metavar="ID",
        help="the programs that prove this clause (`hmm-harness clauses`); may be repeated",
    )
    completed(clause, candidates.clauses)
    command.add_argument("--all-clauses", action="store_true", help="the programs of all clauses")
    command.add_argument("--upstream", action="store_true", help="the kernels' own hmm-tests, too")
    _add_kernels(command)
    command.add_argument(
        "--binding", action="append", choices=BINDINGS, help="the driver to run on; may be repeated (default: all)"
    )
    add_wrong(command, " (default binding then: interval)")
    add_timeout(command)
    _add_manner(command)
    _add_forms(command)
    command.set_defaults(case=[])

    command = manual(
        commands,
        "upstream",
        help="run the kernel's own hmm-tests, and say what they swallow",
        description="""\
            Builds hmm-tests.c of each kernel under test from its source and runs its cases in VMs, each in a process
            of its own, against the kernel's own test_hmm module. What the kernel's log says of a case is a CRASH of
            it, whatever hmm-tests say; so is a case without a result. An assertion that failed, and a request to the
            device that failed against all expectation, is a FAIL, and what returned before it did anything is a SKIP,
            even where hmm-tests call it ok. The results are stored and reported as those of `run` are; `run
            --upstream` runs both. The exit status is in `hmm-harness --help`.""",
        examples=(
            ("upstream", "every case on the default kernel"),
            ("upstream migrate 'hmm.*coherent*'", "cases by their last part, or by a pattern of the whole name"),
            ("upstream --kernel debian:6.1 --kernel debian:7.3 --html cases.html", "two kernels, one page"),
            ("run --upstream --kernel debian:6.12 --reports out", "our programs and hmm-tests, in one report"),
        ),
        files=(("$XDG_STATE_HOME/hmm-harness/runs", "results of the last runs (default: ~/.local/state/...)"),),
        environment=CONFIGURED,
    )
    command.set_defaults(
        run_command=_run,
        program=None,
        upstream=True,
        clause=[],
        all_clauses=False,
        binding=None,
        wrong=None,
        timeout=None,
    )
    command.add_argument("case", nargs="*", help="names, their last parts, or patterns (default: all)")
    _add_kernels(command)
    _add_manner(command)
    _add_forms(command)

    command = manual(
        commands,
        "report",
        help="write reports of a run that is over",
        description="""\
            Writes reports of what `run` stored. The exit status is that of the run.""",
        examples=(
            ("report --html last.html", "of the last run"),
            ("report results.jsonl --junit junit.xml --ktap -", "of one that was kept; KTAP on standard output"),
            ("report --table", "of the last run, each program and each reason, on the terminal"),
            ("report --clauses", "what became of each clause of the contract, on the terminal"),
            ("report --changed debian:6.12 debian:7.3", "which clauses stand differently on the second kernel"),
            ("report old.jsonl new.jsonl --changed debian:6.1 tree:linux", "likewise, of two runs"),
        ),
        files=(("$XDG_STATE_HOME/hmm-harness/runs", "results of the last runs (default: ~/.local/state/...)"),),
    )
    command.set_defaults(run_command=_report)
    command.add_argument(
        "results", nargs="*", type=Path, help="what --json wrote (default: the last run); several for --changed"
    )
    command.add_argument(
        "--table",
        action="store_true",
        help="print a row for each program, and each reason with its programs",
    )
    command.add_argument("--clauses", action="store_true", help="print what became of the clauses")
    command.add_argument(
        "--changed", nargs=2, metavar="KERNEL", help="print the clauses that stand differently on the second kernel"
    )
    _add_forms(command)


def _add_kernels(command: argparse.ArgumentParser) -> None:
    kernel = command.add_argument(
        "--kernel",
        action="append",
        metavar="KERNEL",
        help=f"a kernel under test; may be repeated (default: {DEFAULT_KERNEL})",
    )
    completed(kernel, candidates.kernels)
    flavour = command.add_argument(
        "--flavour",
        type=words,
        metavar="NAME,...",
        help=f"configurations, each for every kernel (default: {DEFAULT_FLAVOUR})",
    )
    completed(flavour, candidates.flavours)
    add_kdir(command)


def _add_manner(command: argparse.ArgumentParser) -> None:
    """How what is to be run is run."""
    command.add_argument("--vms", type=number, metavar="N", help="VMs at once (default: as many as fit)")
    command.add_argument("--no-restore", action="store_true", default=None, help="boot each VM, restore none")
    command.add_argument(
        "--keep", action="store_true", help="leave the VM of the first program that does not pass running"
    )
    add_gdb(command)
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="print commands that boot such VMs, and end; makes what they boot if it is not there",
    )
    command.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="go on with an interrupted run, as it was planned: the last one, or the one that wrote FILE",
    )


def _add_forms(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("reports", "one FILE may be -, for standard output; not --json of a run")
    group.add_argument("--json", type=Path, metavar="FILE", help="results as JSON lines, written as they come")
    group.add_argument("--ktap", type=Path, metavar="FILE", help="KTAP, as the kernel's own tests print it")
    group.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML, which every CI system reads")
    group.add_argument("--html", type=Path, metavar="FILE", help="one page that needs nothing else, to look at")
    group.add_argument("--conformance", type=Path, metavar="FILE", help="what became of each clause, Markdown")
    group.add_argument("--reports", type=Path, metavar="DIR", help="all of them, in this directory")


def _run(options: argparse.Namespace, progress: Progress) -> int:
    from harness.report import runs
    from harness.report.results import Store

    resume = options.resume is not None
    _fill(options, resume)
    if options.dry_run and resume:
        raise UsageError(
            "--dry-run does not go with --resume", hint="name the kernels: run --dry-run --kernel KERNEL"
        )
    if options.dry_run:
        return _dry_run(options, progress)
    keeper: Keeper | None = None
    if options.keep:
        from harness.target.keeper import stay_behind

        keeper = stay_behind()
    changed: dict[str, Source] = {}
    named: Path | None
    if resume:
        named = path = Path(options.resume) if options.resume else runs.last()
        run = _resumed(path, options)
        programs = _programs_of(run, progress)
        changed = _changed(run, programs, progress)
        progress.say(f"going on with {path}: {len(run.results)} of {run.planned} results are there")
    else:
        run, programs = _planned(options)
        named = runs.named(options.json, options.reports)
    reports = _renewed(run, named) | _chosen(options, named)
    _try(reports, named, [(f"the program {each.name}", Path(run.directory, each.name)) for each in programs])
    if not resume:
        path = runs.place(options.json, options.reports)  # which is `named`, if that is anything
    from harness.matrix import Resources
    from harness.run import Plan
    from harness.target.catch import Catch

    bindings = tuple(binding for binding in run.bindings if binding != PEER)
    plan = Plan(programs, bindings, run.wrong, run.timeout, own_command(), cases=run.cases)
    catch = Catch() if keeper is not None else None
    resources = Resources(
        cache=open_cache(),
        progress=progress,
        vms=options.vms if options.gdb is None else 1,
        restore=not options.no_restore,
        gdb=options.gdb,
        catch=catch,
    )
    with catch or nullcontext():
        with Store(path, resume=resume) as store:
            code = _execute(run, plan, resources, store, resume=resume, changed=changed, reports=reports)
        if keeper is not None and catch is not None:
            if catch.vm is None:
                progress.say("no VM is kept: every program passed, or QEMU had ended")
            else:
                keeper.keep(catch.vm, catch.reason, code, command=own_command(), say=progress.say)
    return code


def _execute(
    run: Run,
    plan: Plan,
    resources: Resources,
    store: Store,
    *,
    resume: bool,
    changed: Mapping[str, Source] | None = None,
    reports: Mapping[str, Path],
) -> int:
    """Runs what is left of `run`, shows it, and writes the reports. Returns the exit code.

    `changed`: programs that had another text when `run` began. The reports are there from the beginning, without
    results: whenever this ends, even by SIGKILL, there is none of an earlier run beside the store. A report on
    standard output has it for itself: the table goes to standard error then. Nobody has to read standard output: the
    store and the reports are what counts.
    """
    from harness.matrix import run_matrix
    from harness.report import files, runs
    from harness.report.live import Live
    from harness.report.results import End, Pause, Planned, Reports, Result
    from harness.report.terminal import Table

    started = time.monotonic()
    done = {result.place: result.identity for result in run.results}
    out = sys.stderr if files.STDOUT in reports.values() else sys.stdout
    table = Table(run, resources.progress, out=out, colour=_in_colour(out))
    failures: list[HarnessError] = []
    written: list[Path] = []
    heard = True
    kept = set(done)
    ended = False

    def show(say: Callable[[], None]) -> None:
        nonlocal heard
        try:
            if heard:
                say()
        except OSError as error:
            heard = False
            let_go(out)
            if isinstance(error, BrokenPipeError):
                resources.progress.say("hmm-harness: standard output was closed: the run goes on without it")
            else:
                hint = "the results are stored: `hmm-harness report` writes reports of them"
                failures.append(HarnessError(f"cannot print the results: {error.strerror}", hint=hint))

    try:
        if not resume:
            store.begin(run)
        elif changed:
            store.plan(changed)
        places = {name: str(path.absolute()) for name, path in reports.items() if path != files.STDOUT}
        if places != run.reports:
            run.reports = places
            store.reports(Reports(places))
        # What goes wrong here does so again, or not any more, when there is something to write.
        _write(run, {name: path for name, path in reports.items() if files.is_ordinary(path)})
        matrix = run_matrix(plan, run.kernels, resources, done=done)
        with resources.progress.overview(Live(run)), closing(matrix) as told:
            for each in told:
                if isinstance(each, Result):
                    run.add(each)
                    store.add(each)
                    kept.discard(each.place)
                    show(partial(table.add, each))
                elif isinstance(each, Planned):
                    run.plan(each.programs)
                    store.plan(each.programs)
                else:
                    there = len(run.results)
                    run.reach(each)
                    if len(run.results) < there:
                        resources.progress.say(
                            f"{each.kernel} {each.flavour} is another kernel by now: "
                            f"{there - len(run.results)} results of it are not kept"
                        )
                    store.target(each)
                    show(partial(table.target, each))
        ended = True
    finally:  # also what was found until then is shown
        code = run.exit_code
        spent = time.monotonic() - started
        end = End(runs.now(), round(spent, 3), int(code))
        if ended:
            run.finish(end)
        else:
            run.spent += spent
        failures += _write(run, reports, written)  # before all that can go wrong
        if ended:
            store.end(end)
        else:
            with suppress(HarnessError):  # it may be what the run ends with
                store.pause(Pause(end.seconds))
        if len(kept) < len(done):
            resources.progress.say(
                f"{len(done) - len(kept)} of the results that were there were of another kernel, driver or guest, "
                "and were made anew"
            )
        if run.targets:
            show(partial(table.foot, run.spent))
        _tell(failures, resources.progress)
        _locate(written, resources.progress)
    return _with(failures, code)


def _fill(options: argparse.Namespace, resume: bool) -> None:
    """Takes what is set elsewhere; a run that is resumed keeps its plan."""
    from harness.cli import settings

    keys = ["vms", "no-restore"]
    if not resume:
        keys += ["kernel", "flavour", "timeout"]
        if not options.wrong:  # mistakes are for one binding
            keys.append("binding")
    if not options.json and not resume:  # it says where this run is to be written
        keys.append("reports")
    settings.fill(options, *keys)


def _dry_run(options: argparse.Namespace, progress: Progress) -> int:
    from harness.target.byhand import by_hand
    from harness.target.lab import prepare

    _planned(options)  # a mistake in it would be met only when it is run
    cache = open_cache()
    for kernel in dict.fromkeys(options.kernel):
        for flavour in dict.fromkeys(options.flavour):
            machine = prepare(kernel, flavour, cache=cache, progress=progress)
            print(by_hand(machine, gdb=options.gdb, cache=cache), end="\n\n")
    return ExitCode.PASS


def _planned(options: argparse.Namespace) -> tuple[Run, list[Program]]:
    """What the options ask for."""
    from importlib.metadata import version

    from harness.conformance import catalogue
    from harness.conformance.clauses import programs_of
    from harness.program.text import render
    from harness.report import runs
    from harness.report.results import Run, Source
    from harness.target.kernel import check

    wrong = tuple(options.wrong or ())
    if wrong and "test_hmm" in (options.binding or ()):
        raise UsageError(
            "test_hmm is the kernel's own and makes no deliberate mistakes",
            hint="--wrong goes with --binding interval",
        )
    check_mistakes(wrong)
    kernels = tuple(
        product(
            dict.fromkeys(options.kernel or [DEFAULT_KERNEL]), dict.fromkeys(options.flavour or [DEFAULT_FLAVOUR])
        )
    )
    for kernel, flavour in kernels:  # before hours are spent on the others
        check(kernel, flavour)
    clauses = _contract(options)
    names = programs_of(clauses)
    if clauses and not names and not options.program:
        raise UsageError(
            f"no program proves {', '.join(clause.id for clause in clauses)}",
            hint="`hmm-harness clauses ID` tells why",
        )
    programs = catalogue.select([*options.program, *names]) if options.program is not None else []
    bindings = tuple(dict.fromkeys(options.binding or (["interval"] if wrong else BINDINGS))) if programs else ()
    directory = ""
    with suppress(OSError):  # it may have been removed
        directory = str(Path.cwd())
    run = Run(
        started=runs.now(),
        command=(*own_command(), *sys.argv[1:]),
        version=version("hmm-harness"),
        programs={program.name: Source(program.title, render(program)) for program in programs},
        bindings=(*bindings, PEER) if options.upstream else bindings,
        kernels=kernels,
        clauses=tuple(clause.id for clause in clauses),
        cases=tuple(options.case or ["*"]) if options.upstream else (),
        wrong=wrong,
        timeout=options.timeout or DEFAULT_TIMEOUT,
        directory=directory,
    )
    return run, programs


def _contract(options: argparse.Namespace) -> list[Clause]:
    """The clauses that the options name, each once."""
    if not options.clause and not options.all_clauses:
        return []
    from harness.conformance.clauses import load

    contract = load()
    if options.all_clauses:
        return list(contract.clauses.values())
    return list(dict.fromkeys(map(contract.find, options.clause)))


def _resumed(path: Path, options: argparse.Namespace) -> Run:
    """The run of `path` as far as it came."""
    from harness.report import runs

    planned = ["program", "case", "clause", "all-clauses", "kernel", "flavour", "binding", "wrong", "timeout", "json"]
    if options.program is not None:  # else it is the name of the command
        planned.append("upstream")
    for name in planned:
        if getattr(options, name.replace("-", "_")):
            raise UsageError(
                f"a resumed run keeps its plan: --resume does not go with "
                f"{'--' * (name not in ('program', 'case'))}{name}",
                hint="leave it away, or begin another run",
            )
    return runs.resumed(path)


def _programs_of(run: Run, progress: Progress) -> list[Program]:
    """The programs of a run that is resumed: as they are now, or, where there is none any more, as they were.

    Names of files lead from where the run began, if that is still there.
    """
    from dataclasses import replace

    from harness.conformance import catalogue
    from harness.program.text import ProgramSyntaxError, parse
    from harness.report.results import belongs

    directory = f"{run.directory}/" if run.directory and Path(run.directory).is_dir() else ""
    ours = set(catalogue.names())
    names = {}  # of what is there, by what it is found by
    gone: dict[str, Program] = {}
    for name, source in run.programs.items():
        if belongs(name, PEER):
            continue
        found_by = name if name in ours or Path(name).is_absolute() else directory + name
        if name in ours or Path(found_by).is_file():
            names[found_by] = name
            continue
        try:
            gone[name] = parse(source.text, file=name, name=name)
        except ProgramSyntaxError as error:
            raise UsageError(
                f"the program {name} is not there any more, and cannot be read as it was: {error}",
                hint=f"the run began in {run.directory or 'another directory'}; or begin another run",
            ) from None
    if gone:
        progress.say(f"not there any more, and run as it was: {some(list(gone), _FEW)}")
    found = catalogue.select(list(names)) if names else []
    there = gone | {names[each.name]: replace(each, name=names[each.name]) for each in found if each.name in names}
    return [there[name] for name in run.programs if name in there]


def _changed(run: Run, programs: Sequence[Program], progress: Progress) -> dict[str, Source]:
    """Plans those `programs` anew that are not as they were when `run` began: their results do not count."""
    from harness.program.text import render
    from harness.report.results import Source

    now = {program.name: Source(program.title, render(program)) for program in programs}
    changed = {name: source for name, source in now.items() if source != run.programs[name]}
    run.plan(changed)
    if changed:
        progress.say(f"changed since: {some(list(changed), _FEW)}")
    return changed


def _report(options: argparse.Namespace, progress: Progress) -> int:
    from harness.report import runs
    from harness.report.files import STDOUT
    from harness.report.results import read

    paths = options.results or [runs.last()]
    path, run = paths[0], read(paths[0])
    reports = _chosen(options, path)
    if options.json is not None:
        reports["json"] = options.json
    if not (reports or options.clauses or options.changed or options.table):
        raise UsageError(
            "no report is asked for", hint="name one, such as --table, --html FILE, or --reports DIR for all"
        )
    _try(reports, None, [("the results that are read", each) for each in paths])
    if len(paths) > 1 and (reports or options.table):
        raise UsageError(f"a report is of one run, not of {len(paths)}", hint="--clauses and --changed take several")
    lines = _standings([run, *map(read, paths[1:])], options)
    if (lines or options.table) and STDOUT in reports.values():
        raise UsageError("two reports on standard output would be mixed", hint="name a file for the other")
    written: list[Path] = []
    failures = _write(run, reports, written)
    if options.table:
        _show_whole(run, progress)
    for line in lines:  # of which a reader may have enough
        print(line)
    _tell(failures, progress)
    missing = f", {run.planned - len(run.results)} were not run" if len(run.results) < run.planned else ""
    progress.say(f"{len(run.results)} results of {path}{missing}")
    _locate(written, progress)
    return _with(failures, run.exit_code)


def _in_colour(out: TextIO) -> bool:
    return out.isatty() and "NO_COLOR" not in os.environ


def _show_whole(run: Run, progress: Progress) -> None:
    """Prints what `run` prints of few programs."""
    from harness.report.terminal import Table

    table = Table(run, progress, out=sys.stdout, colour=_in_colour(sys.stdout), whole=True)
    table.all()
    table.foot(run.spent)


def _standings(stored: Sequence[Run], options: argparse.Namespace) -> list[str]:
    """What --clauses and --changed print."""
    if not (options.clauses or options.changed):
        return []
    from harness.conformance.clauses import load
    from harness.report import standings
    from harness.report.conformance import changes, conformance

    contract = load()
    found = [each for run in stored for each in conformance(run, contract)]
    lines = list(standings.summary(found)) if options.clauses else []
    if options.changed:
        before, after = options.changed
        kernels = list(dict.fromkeys(each.kernel for each in found))
        for kernel in (before, after):
            if kernel not in kernels:
                raise UsageError(f"there is no kernel {kernel!r} in it", hint=f"there is: {', '.join(kernels)}")
        lines += [""] if lines else []
        lines += standings.changed(changes(found, before, after), before, after)
    return lines


def _chosen(options: argparse.Namespace, store: Path | None) -> dict[str, Path]:
    """The reports that are asked for, besides the `store` itself, by form. Makes the directory of --reports."""
    chosen: dict[str, Path] = {}
    if options.reports is not None:
        from harness.report.files import STDOUT
        from harness.report.forms import FORMS as ALL

        if options.reports == STDOUT:
            raise UsageError("--reports is for a directory", hint="--ktap -, --junit - or --html -, one of them")
        try:
            options.reports.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(
                f"cannot write reports to {options.reports}: {error.strerror}", hint="name a directory"
            ) from None
        chosen = {name: options.reports / form.file for name, form in ALL.items()}
        if store is not None and chosen["json"].resolve() == store.resolve():
            del chosen["json"]
    for name in ("ktap", "junit", "html", "conformance"):
        path = getattr(options, name)
        if path is not None:
            chosen[name] = path
    return chosen


def _renewed(run: Run, store: Path | None) -> dict[str, Path]:
    """The reports that a run that is resumed was to write."""
    paths = {name: Path(path) for name, path in run.reports.items()}
    return {name: path for name, path in paths.items() if store is None or path.resolve() != store.resolve()}


def _try(reports: Mapping[str, Path], store: Path | None, read: Sequence[tuple[str, Path]]) -> None:
    """Raises HarnessError if a report, or the `store`, could not be written: better now than after the run.

    Nor may two of them be one file, or one that is `read`, which are paths with what they are.
    """
    from harness.report import files

    if store == files.STDOUT:
        raise UsageError(
            "--json of a run is what --resume and `report` read, it cannot be standard output",
            hint="--json FILE; afterwards `hmm-harness report FILE --json -` prints it",
        )
    if list(reports.values()).count(files.STDOUT) > 1:
        raise UsageError("two reports on standard output would be mixed", hint="name a file for all but one")
    taken = {os.path.realpath(path): what for what, path in read}
    written = [(f"--{name}", path) for name, path in reports.items()]
    for what, path in [("the store of the results", store), *written] if store is not None else written:
        if path in (files.STDOUT, Path(os.devnull)):
            continue
        place = os.path.realpath(path)  # of whatever is not there, or goes round in circles, too
        if place in taken:
            raise UsageError(
                f"{taken[place]} and {what} are one file, {path}", hint="name another one: this one would be lost"
            )
        taken[place] = what
    for path in reports.values():
        files.check(path)


def _write(run: Run, reports: Mapping[str, Path], written: list[Path] | None = None) -> list[HarnessError]:
    """Writes each report, whatever becomes of the others; what went wrong. `written`: gets the other ones."""
    if not reports:
        return []
    from harness.report import forms

    failures = []
    for name, path in reports.items():
        try:
            forms.write(run, name, path)
        except HarnessError as error:
            failures.append(error)
        else:
            if written is not None:
                written.append(path)
    return failures


def _tell(failures: list[HarnessError], progress: Progress) -> None:
    for failure in failures:
        progress.say(f"hmm-harness: {failure.message}")
        if failure.hint:
            progress.say(f"hint: {failure.hint}")


def _locate(written: Sequence[Path], progress: Progress) -> None:
    """Says where the reports are, the one to look at first."""
    from harness.report.files import STDOUT

    files = sorted((path for path in written if path != STDOUT), key=lambda path: path.suffix != ".html")
    if files:
        progress.say(f"reports: {' '.join(map(str, files))}")


def _with(failures: list[HarnessError], code: ExitCode) -> ExitCode:
    """`code`, unless it would say that all is well."""
    return ExitCode.INFRASTRUCTURE if failures and code in (ExitCode.PASS, ExitCode.SKIPPED) else code
