# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness campaign`: explorations that are over, or under way, or spread over several machines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.explore import explored_at
from harness.cli.options import CONFIGURED, add_kernel, manual

if TYPE_CHECKING:
    from harness.cli.options import Commands
    from harness.progress import Progress

_KEPT = (
    ("$XDG_STATE_HOME/hmm-harness/explore/KERNEL-FLAVOUR", "what `explore` keeps (default: ~/.local/state/...)"),
)


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    group = manual(
        commands,
        "campaign",
        help="what explorations came to: totals, a page; shards merged",
        description="""\
            What `explore` kept: it can be shown while it grows, and those of several machines can be made one.""",
        examples=(
            ("campaign show --html explored.html", "totals, and a page with charts over time"),
            ("campaign merge all shard-1 shard-2", "of `explore --shard 1/2 --dir shard-1`, and of the other one"),
        ),
        files=_KEPT,
    )
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")
    command = manual(
        actions,
        "show",
        help="totals and findings, and a page of them",
        description="""\
            Tells what an exploration came to so far, also while it is under way.""",
        examples=(
            ("campaign show", "of the default kernel"),
            ("campaign show shards/all --html explored.html", "of a directory; and a page with charts over time"),
        ),
        files=_KEPT,
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_show)
    command.add_argument("dir", nargs="?", type=Path, help="what `explore --dir` named (default: as of --kernel)")
    add_kernel(command)
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    command = manual(
        actions,
        "merge",
        help="make one exploration of several of the same kernel",
        description="""\
            Adds to INTO, which may be none yet, the units, the corpus and the findings of the others, which stay as
            they are: those of `explore --shard I/N` on several machines. A unit that several have counts once; of two
            findings with the same symptom the one that is surer, then the smaller one, is kept.""",
        examples=(
            ("campaign merge all shard-1 shard-2 shard-3 shard-4", "what four machines kept with --dir"),
            ("explore --dir all", "and goes on with all that they know"),
        ),
    )
    command.set_defaults(run_command=_merge)
    command.add_argument("into", type=Path, metavar="INTO")
    command.add_argument("sources", type=Path, nargs="+", metavar="DIR")


def _show(options: argparse.Namespace, progress: Progress) -> int:
    from harness.errors import ExitCode
    from harness.explore.chart import lasting
    from harness.explore.findings import existing
    from harness.explore.page import publisher
    from harness.explore.story import tell

    place = options.dir or explored_at(options.kernel, options.flavour)
    store = existing(place)
    if options.html is not None:
        publisher(options.html, place, progress.say)(True)
    story = tell(store)
    total = story.total
    verdicts = ", ".join(f"{count} {name}" for name, count in sorted(total.verdicts.items()))
    print(
        f"{total.programs} programs, {total.operations} operations in {lasting(story.seconds)}, "
        f"{story.situations[-1][1] if story.situations else 0} situations; {verdicts or 'nothing ran'}; "
        f"{len(story.findings)} findings"
    )
    for finding in story.findings:
        shown = f"shown in {finding.shown} of {finding.runs}" if finding.runs else "nobody has looked into it yet"
        progress.say(f"{finding.symptom}: {shown}: {store.place(finding.symptom)}", to=sys.stdout)
    for error in story.errors:
        progress.say(f"ERROR: {error.what}: {error.reason}", to=sys.stdout)
    return ExitCode.PASS


def _merge(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.errors import ExitCode
    from harness.explore.merge import merge

    merged = merge(options.into, options.sources)
    print(
        f"{merged.units} units, {merged.programs} programs, {merged.operations} operations, {merged.situations} "
        f"situations, {merged.findings} findings are new in {options.into}; {merged.again} units were there already"
    )
    return ExitCode.PASS
