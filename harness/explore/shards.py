# SPDX-License-Identifier: GPL-2.0-only
"""The work of an exploration in pieces that any machine can do: a value in JSON in, JSON lines out.

What comes of a shard depends on what is in it, and on what the kernel shows. What it was made for is in it by its
hash: a machine that has another kernel, module or guest, or another hmm-harness, does not begin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import harness
from harness.explore.campaign import Started, Terms, Told, explore_unit, is_shown, look_into
from harness.explore.findings import Finding, UnitDone, packed, unpacked
from harness.program.program import Program
from harness.program.text import parse, render
from harness.report.records import build
from harness.target.cache import digest_of
from harness.target.lab import Lab


class Task(StrEnum):
    """What is to be done."""

    PREPARE = "prepare"  # get the kernel, the module and the guest ready, and say what they are
    EXPLORE = "explore"  # a unit
    LOOK = "look"  # into what a unit found suspicious
    AGAIN = "again"  # whether a finding is still there


@dataclass(frozen=True)
class Shard:
    """A piece of work.

    `target`, `code`, `corpus_hash`: hashes of what is under test, of this program, and of `corpus`. `number`: of the
    unit. `place`: where the smallest program of `finding` is going to be. `begun`: when the exploration began, by the
    clock.
    """

    task: Task
    kernel: str
    flavour: str
    terms: Terms
    code: str
    target: str = ""
    begun: float = 0.0
    number: int | None = None
    corpus_hash: str = ""
    corpus: tuple[str, ...] = ()
    met: tuple[str, ...] = ()
    finding: Finding | None = None
    place: str = ""

    def dump(self) -> str:
        """As JSON."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        told |= {"terms": asdict(self.terms), "finding": None if self.finding is None else packed(self.finding)}
        return json.dumps(told)

    @classmethod
    def load(cls, text: str) -> Shard:
        """The value again."""
        told = json.loads(text)
        terms: dict[str, Any] = {
            key: tuple(each) if isinstance(each, list) else each for key, each in told["terms"].items()
        }
        told |= {"task": Task(told["task"]), "terms": Terms(**terms)}
        told |= {key: tuple(told[key]) for key in ("corpus", "met")}
        if told["finding"] is not None:
            told["finding"] = unpacked(told["finding"])
        return cls(**told)


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Of this program's own source: the model, and how programs are drawn and judged."""
    place = Path(harness.__file__).parent
    files = sorted(place.rglob("*.py"))
    return digest_of(*(f"{each.relative_to(place)}\n{each.read_text(encoding='utf-8')}" for each in files))[:16]


def carry_out(shard: Shard, lab: Lab) -> Iterator[str]:
    """Does it; what came of it, a line each. Raises what the work raises."""
    for line in _carry_out(shard, lab):
        yield json.dumps(line)


def told_by(lines: str, shard: Shard) -> Iterator[Told]:
    """What a campaign is to be told, of the lines that came of `shard`."""
    corpus: list[tuple[Program, tuple[str, ...]]] = []
    for line in map(json.loads, lines.splitlines()):
        match line:
            case {"suspicion": told}:
                yield Told(suspicion=unpacked(told))
            case {"program": text, "situations": situations}:
                corpus.append((parse(text, file="corpus", name="corpus"), tuple(situations)))
            case {"unit": told}:
                yield Told(unit=build(UnitDone, told), corpus=tuple(corpus))
            case {"finding": told}:
                yield Told(finding=unpacked(told))
            case {"shown": shown}:
                assert shard.finding is not None
                yield Told(again=(shard.finding, bool(shown)))


def _carry_out(shard: Shard, lab: Lab) -> Iterator[Mapping[str, Any]]:
    if shard.task is Task.EXPLORE:
        assert shard.number is not None
        started = Started(
            shard.terms, shard.target, _parsed(shard.corpus), shard.corpus_hash, frozenset(shard.met), shard.begun
        )
        explored = explore_unit(started, shard.number, lab)
        for suspicion in explored.suspicions:
            yield {"suspicion": packed(suspicion)}
        for program, situations in explored.corpus:
            yield {"program": render(program), "situations": situations}
        yield {"unit": asdict(explored.done)}
        return
    assert shard.finding is not None
    if shard.task is Task.LOOK:
        yield {"finding": packed(look_into(shard.terms, shard.finding, shard.place, lab))}
    else:
        yield {"shown": is_shown(shard.terms, shard.finding, lab)}


@lru_cache(maxsize=2)
def _parsed(corpus: tuple[str, ...]) -> tuple[Program, ...]:
    return tuple(parse(text, file="corpus", name=f"corpus/{number}") for number, text in enumerate(corpus))
