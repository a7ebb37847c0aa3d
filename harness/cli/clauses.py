# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness clauses`: what HMM promises, where it says so, and what proves it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli import candidates
from harness.cli.options import BINDINGS, completed, manual, own_command
from harness.errors import ExitCode
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands
    from harness.conformance.clauses import Clause, Contract


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    command = manual(
        commands,
        "clauses",
        help="list or explain what HMM promises, with its sources and proofs",
        description="""\
            Lists the clauses of HMM's contract: each has an id, a sentence, its source, the bindings and kernels that
            it holds for, and the programs of which at least one fails if the promise is broken. With ids (RANGE-29,
            or 29), explains these. With other words, lists the clauses that have all of them.""",
        examples=(
            ("clauses", "all"),
            ("clauses --area range", "one area"),
            ("clauses RANGE-29", "all about one: where the kernel says so, what proves it, how to run that"),
            ("clauses poison --binding interval", "those about poisoned memory that hold for a binding"),
            (
                "clauses --kernel debian:7.3",
                "those that hold on a kernel, as its last run found it",
            ),
            ("clauses --kernel DEVMEM,HMM_DMA", "those that hold on a kernel that has these features"),
            ("clauses --unproven", "those that neither a program nor a test proves, and why"),
            ("clauses --markdown > clauses.md", "a page of all"),
            ("run --clause RANGE-29", "runs the programs of one"),
        ),
    )
    command.set_defaults(run_command=_clauses)
    words = command.add_argument("word", nargs="*", help="ids, or words that a clause must have")
    completed(words, candidates.clauses)
    area = command.add_argument("--area", action="append", default=[], help="only this area; may be repeated")
    completed(area, candidates.areas)
    kernel = command.add_argument("--kernel", help="a kernel that has been run on, or features with commas")
    completed(kernel, candidates.kernels)
    command.add_argument(
        "--binding", action="append", choices=BINDINGS, default=[], help="only what holds for it; may be repeated"
    )
    command.add_argument("--unproven", action="store_true", help="only those that nothing proves yet")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything about them, as JSON")
    form.add_argument("--markdown", action="store_true", help="everything about them, as a page of Markdown")


def _clauses(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.conformance import clauses
    from harness.errors import UsageError

    contract = clauses.load()
    named = [word for word in options.word if contract.is_id(word)]
    if named and len(named) < len(options.word):
        other = next(word for word in options.word if word not in named)
        raise UsageError(f"ids and other words at once: {other!r}", hint="ids explain clauses, words search them")
    if named:
        chosen = list(dict.fromkeys(map(contract.find, named)))
    else:
        features = None if options.kernel is None else _features(options.kernel)
        chosen = contract.select(options.word, areas=options.area, features=features, bindings=options.binding)
    if options.unproven:
        chosen = [clause for clause in chosen if clause.unproven]
    if not chosen:
        raise UsageError("no clause is like that", hint="`hmm-harness clauses` lists all")
    _print(options, contract, chosen, explain=bool(named) or options.unproven)
    return ExitCode.PASS


def _print(options: argparse.Namespace, contract: Contract, chosen: list[Clause], *, explain: bool) -> None:
    import json
    import shutil

    from harness.conformance import catalogue, clauses, describe

    if options.json:
        print(json.dumps([clauses.as_data(clause) for clause in chosen], indent=2))
        return
    if not explain and not options.markdown:
        width = min(shutil.get_terminal_size((118, 0)).columns, 118)
        print("\n".join(describe.listed(contract, chosen, width=width)))
        return
    names = clauses.programs_of(chosen)
    titles = {program.name: program.title for program in catalogue.select(names)} if names else {}
    if options.markdown:
        print("\n".join(describe.markdown(contract, chosen, titles)))
        return
    command = " ".join(own_command())
    print("\n\n".join("\n".join(describe.explained(clause, titles, command=command)) for clause in chosen))


def _features(kernel: str) -> frozenset[str]:
    """What a kernel has: what is said of it (words of `FEATURES`, with commas), or what it said in its last run."""
    from harness.errors import UsageError
    from harness.model.rules import FEATURES
    from harness.report import runs

    words = frozenset(filter(None, kernel.split(",")))
    if words and words <= FEATURES.keys():
        return words
    target = runs.last_target(kernel)
    if target is None:
        raise UsageError(
            f"nothing is known of the kernel {kernel!r}",
            hint=f"`hmm-harness run --kernel {kernel} snapshot/hole` asks it; or name some of: {', '.join(FEATURES)}",
        )
    return frozenset(target.features)
