# SPDX-License-Identifier: GPL-2.0-only
"""Runs a race once and keeps what the guest answered: what tests of timelines draw without a VM.

    python -m tests.record_race debian:7.3 interval race/lock skip-retry tests/races/lock-skip-retry.json

To be done again when harness/guest/wire.h says something else of races.
"""

from __future__ import annotations

import argparse
import base64
import json
import textwrap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli.options import open_cache
from harness.compare import Comparison
from harness.conformance import catalogue
from harness.model.rules import Rules, rules_for
from harness.program.observations import Observation
from harness.program.race import Course, Race, recorded
from harness.program.text import parse, render
from harness.progress import Progress
from harness.serial import judge_race
from harness.target import lab as labs
from harness.target.events import read_stream
from harness.target.wire import course_of, decode

RACES = Path(__file__).with_name("races")


@dataclass(frozen=True)
class Record:
    """A race that ran, and what is to be said of it."""

    race: Race
    rules: Rules
    observations: tuple[Observation, ...]
    course: Course
    comparison: Comparison
    kernel: str
    wrong: tuple[str, ...]


def load(name: str) -> Record:
    """What `tests/races/NAME.json` has."""
    told = json.loads((RACES / f"{name}.json").read_text())
    race = parse(told["text"], file=name, name=told["name"])
    assert isinstance(race, Race)
    race = recorded(race)
    response, heard = (zlib.decompress(base64.b64decode("".join(told[part]))) for part in ("response", "events"))
    stream = read_stream(heard, race)
    course = course_of(race, response, stream, binding=told["binding"])
    assert course is not None
    rules = rules_for(told["binding"], told["features"])
    observations = decode(race, response, stream, binding=told["binding"])
    comparison = judge_race(race, rules, observations, course)
    return Record(race, rules, observations, course, comparison, told["kernel"], tuple(told["wrong"]))


def _packed(data: bytes) -> list[str]:
    return textwrap.wrap(base64.b64encode(zlib.compress(data, 9)).decode(), 100)


def main() -> None:
    """Runs and writes one."""
    parser = argparse.ArgumentParser()
    for name in ("kernel", "binding", "race", "wrong"):
        parser.add_argument(name)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    (race,) = catalogue.select([options.race])
    assert isinstance(race, Race)
    wrong = [name for name in options.wrong.split(",") if name != "-"]
    answers: list[tuple[bytes, bytes]] = []
    understood = labs._execution

    def understand(job: labs.Job, result: Any, response: bytes, told: bytes) -> labs.Execution:
        answers.append((bytes(response), bytes(told)))
        return understood(job, result, response, told)

    labs._execution = understand
    cache, progress = open_cache(), Progress()
    machine = labs.prepare(options.kernel, "plain", cache=cache, progress=progress)
    with labs.Lab(machine, cache=cache, progress=progress) as lab:
        features = list(lab.features())
        lab.execute(recorded(race), options.binding, wrong=wrong, timeout=60)
    (response, told), = answers  # fmt: skip
    record = {
        "kernel": options.kernel,
        "binding": options.binding,
        "wrong": wrong,
        "features": features,
        "name": race.name,
        "text": render(race),
        "response": _packed(response),
        "events": _packed(told),
    }
    options.file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
