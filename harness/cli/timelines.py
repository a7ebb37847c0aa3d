# SPDX-License-Identifier: GPL-2.0-only
"""How races went, for the commands that run them: `--timeline` prints it, `--html` makes a page of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.labels import heading

if TYPE_CHECKING:
    from harness.compare import Comparison
    from harness.program.race import Race
    from harness.report.timeline import Rule, Timeline
    from harness.target.lab import Execution


def add(command: argparse.ArgumentParser) -> None:
    """The options."""
    group = command.add_argument_group("how it went")
    group.add_argument(
        "--timeline",
        action="store_true",
        help="print who came by which gate when, what devices heard, and both page tables at each stop",
    )
    group.add_argument(
        "--html", type=Path, metavar="FILE", help="the same as a page with a picture; it needs no other"
    )


class Drawings:
    """Draws races as `options` say: nothing without any of the two."""

    def __init__(self, options: argparse.Namespace) -> None:
        from harness.report import files

        self._options = options
        self._seen: tuple[Race, Comparison, Execution] | None = None
        self._drawn: list[Timeline] = []
        if options.html is not None:
            files.check(options.html)

    @property
    def wanted(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._options.timeline or self._options.html)

    def prepared(self, race: Race) -> Race:
        """The race as it is to be run."""
        from harness.program.race import recorded

        return recorded(race) if self.wanted else race

    def see(self, race: Race, comparison: Comparison, execution: Execution) -> None:
        """What came of a race, which `draw` may be called for."""
        self._seen = (race, comparison, execution)

    def draw(self, binding: str, replay: str) -> None:
        """Draws what was seen last, once, if it came to an end."""
        from harness.report import timeline, timeline_text

        seen, self._seen = self._seen, None
        if not self.wanted or seen is None:
            return
        race, comparison, execution = seen
        if execution.course is None:
            print("    no timeline: the race did not come to its end")
            return
        wrong = f", wrong on purpose: {', '.join(self._options.wrong)}" if self._options.wrong else ""
        drawn = timeline.draw(
            race,
            comparison,
            execution.observations,
            execution.course,
            where=f"on {heading(self._options.kernel, self._options.flavour)}, {binding}{wrong}",
            rules=_rules(race.name, self._options.wrong or ()),
            replay=replay,
        )
        self._drawn.append(drawn)
        if self._options.timeline:
            print("", *timeline_text.render(drawn), "", sep="\n", flush=True)

    def write(self) -> None:
        """Writes the page. Raises HarnessError if that cannot be."""
        from harness.report import files, timeline_page

        if self._options.html is not None:
            files.write(self._options.html, timeline_page.render(self._drawn))


def _rules(name: str, wrong: list[str] | tuple[()]) -> list[Rule]:
    """The clauses that the race proves; of these, those that what is wrong on purpose breaks, if there are any."""
    from harness.conformance import clauses
    from harness.report.timeline import Rule

    proven = [clause for clause in clauses.load().clauses.values() if name in clause.programs]
    broken = [clause for clause in proven if set(clause.wrong) & set(wrong)]
    return [Rule(clause.id, clause.says) for clause in broken or proven]
