# SPDX-License-Identifier: GPL-2.0-only
"""Makes the corpus in tests/console: provokes each class of crash in a VM and keeps what the kernel said.

    .venv/bin/python -m tests.make_corpus debian:6.1 plain debug kcsan
    .venv/bin/python -m tests.make_corpus debian:7.3 plain --only oops,bug

A file is tests/console/NAME-SERIES.log. Its first line tells the bits that were added to the taint, the others are
the kernel's log from the trigger on. Kernels that are not in the cache are built, which takes minutes for each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.crashes import crashes
from harness.target.lab import prepare
from harness.target.vm import Machine, start
from tests.provoking import PROVOCATIONS, Provocation, build_crash, load_crash, provoke

CONSOLES = Path(__file__).parent / "console"
_HEADING = "# taint "


@dataclass(frozen=True)
class Recorded:
    """A file of the corpus."""

    provocation: Provocation
    kernel: str  # "6.1"
    log: list[str]
    taint: int


def corpus() -> list[Recorded]:
    """All that has been recorded."""
    found = []
    for provocation in PROVOCATIONS:
        for path in sorted(CONSOLES.glob(f"{provocation.name}-[0-9]*.log")):
            heading, *log = path.read_text().splitlines()
            taint = int(heading.removeprefix(_HEADING), 16)
            found.append(Recorded(provocation, path.stem.removeprefix(f"{provocation.name}-"), log, taint))
    return found


def record(machine: Machine, wanted: Iterable[Provocation], *, cache: Cache, progress: Progress) -> None:
    """Provokes each in a clean VM of its own and writes the files."""
    crash = build_crash(machine.kernel)
    series = ".".join(machine.kernel.release.split(".")[:2])
    for provocation in wanted:
        with start(machine, cache=cache, progress=progress) as vm:
            load_crash(vm, crash)
            log, taint = provoke(vm, provocation)
        text = "\n".join([f"{_HEADING}{taint:#x}", *(line.rstrip() for line in log)])
        (CONSOLES / f"{provocation.name}-{series}.log").write_text(f"{text}\n")
        for each in crashes(log, taint):
            progress.say(f"{provocation.name} on {series}: {each.fingerprint}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", help="debian:6.1 and the like")
    parser.add_argument("flavours", nargs="+", help="plain, debug, kcsan: each provokes what only it can notice")
    parser.add_argument("--only", default="", help="names of provocations, with commas between them")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    cache, progress = Cache(), Progress(sys.stderr)
    for flavour in options.flavours:
        wanted = [each for each in PROVOCATIONS if each.flavour == flavour and (not only or each.name in only)]
        machine = prepare(options.kernel, flavour, cache=cache, progress=progress)
        record(machine, wanted, cache=cache, progress=progress)


if __name__ == "__main__":
    main()
