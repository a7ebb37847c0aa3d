# SPDX-License-Identifier: GPL-2.0-only
"""A store in which a value is of another type than it should be: its line is refused, or every report works."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import _parser
from harness.cli import run as command
from harness.compare import Verdict
from harness.conformance import clauses
from harness.errors import ExitCode, UsageError
from harness.progress import Progress
from harness.report.records import build
from harness.report.results import Source, Store, read
from tests.sample_runs import sample_run

_OTHERS: tuple[Any, ...] = (
    None,
    True,
    7,
    -2.5,
    10**400,
    float("inf"),
    "\udcff\nx",
    [],
    [3],
    [["x"]],
    {},
    {"x": 1},
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A record of each kind, in which nothing is empty."""
    run = sample_run(kernels=("debian:6.1",), bindings=("interval",), programs=40)
    chosen = {each.status: each for each in run.results}
    run.programs = {each.program: run.programs[each.program] for each in chosen.values()}
    run.clauses, run.cases, run.wrong, run.directory = ("RANGE-29",), ("*",), ("skip-retry",), "/somewhere"
    path = tmp_path_factory.mktemp("records") / "store"
    with Store(path) as store:
        store.begin(run)
        store.target(run.targets[0])
        store.plan({"hmm-tests/hmm.x": Source("A case.", "TEST_F(hmm, x)")})
        for status in (Verdict.FAIL, Verdict.CRASHED):
            store.add(replace(chosen[status], details=("detail",), left_out=1))
        assert run.end is not None
        store.end(run.end)
    return [json.loads(line) for line in path.read_text().splitlines()]


def _places(value: Any, *before: Any) -> Iterator[tuple[Any, ...]]:
    """Every place of a value in `value`."""
    yield before
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], *before, key)
    elif isinstance(value, list) and value:
        yield from _places(value[0], *before, 0)


def _variants(records: list[Any]) -> Iterator[tuple[int, list[Any]]]:
    """The records with one value replaced, or a member away or added, and in which of them that is."""
    for number, record in enumerate(records):
        for place in _places(record):
            for other in _OTHERS:
                yield number, _with(records, (number, *place), other)
            if place and isinstance(place[-1], str):
                changed = copy.deepcopy(records)
                del _at(changed, (number, *place[:-1]))[place[-1]]
                yield number, changed
            if isinstance(_at(records, (number, *place)), dict):
                yield number, _with(records, (number, *place, "another"), 1)


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _with(records: list[Any], place: tuple[Any, ...], value: Any) -> list[Any]:
    changed = copy.deepcopy(records)
    _at(changed, place[:-1])[place[-1]] = value
    return changed


def test_no_type_of_a_value_is_a_traceback(
    records: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything but a UsageError would be."""
    contract = clauses.load()
    monkeypatch.setattr(clauses, "load", lambda: contract)  # once
    store = tmp_path / "bad.jsonl"
    words = ["report", str(store), "--reports", str(tmp_path / "out"), "--clauses"]
    every = _parser().parse_args([*words, "--changed", "debian:6.1", "debian:6.1"])
    but_changes = _parser().parse_args(words)
    refused = written = 0
    for number, changed in _variants(records):
        store.write_text("".join(json.dumps(record) + "\n" for record in changed))
        try:
            read(store)
        except UsageError as error:
            refused += 1
            assert error.message.startswith(f"{store}:{number + 1}: no results of hmm-harness: ")
            assert error.hint
            continue
        try:
            command._report(every, Progress(io.StringIO()))
        except UsageError as error:
            assert "there is no kernel" in error.message
            command._report(but_changes, Progress(io.StringIO()))
        written += 1
    assert refused > 500
    assert written > 50


def test_a_value_of_another_type_is_named_with_its_line(records: list[Any], tmp_path: Path) -> None:
    store = tmp_path / "bad.jsonl"
    number = next(number for number, record in enumerate(records) if record["type"] == "result")
    changed = _with(records, (number, "seconds"), "x")
    store.write_text("".join(json.dumps(record) + "\n" for record in changed))
    ended = subprocess.run(
        [sys.executable, "-m", "harness", "report", str(store), "--junit", "-"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == ExitCode.USAGE
    assert f"{store}:{number + 1}: no results of hmm-harness: 'seconds' is no number\n" in ended.stderr


def test_what_is_nested_too_deeply_is_no_store(tmp_path: Path) -> None:
    store = tmp_path / "bad.jsonl"
    store.write_text("[" * 100_000 + "\n")
    with pytest.raises(UsageError, match=r"bad\.jsonl:1: no results of hmm-harness"):
        command._report(_parser().parse_args(["report", str(store), "--html", "-"]), Progress(io.StringIO()))


@dataclass(frozen=True)
class _Inner:
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Outer:
    number: float
    pair: tuple[str, int]
    inner: Mapping[str, _Inner]
    status: Verdict
    maybe: int | None = None


def test_a_dataclass_is_made_of_json() -> None:
    made = build(
        _Outer, {"number": 3, "pair": ["a", 1], "inner": {"x": {"names": ["b", "c"]}}, "status": "PASS", "maybe": 4}
    )
    assert made == _Outer(3.0, ("a", 1), {"x": _Inner(("b", "c"))}, Verdict.PASS, 4)
    assert type(made.number) is float


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("number", True, "'number' is no number"),
        ("pair", ["a"], "'pair' has 1 parts instead of 2"),
        ("pair", ["a", True], "'pair' is no whole number"),
        ("inner", {"x": {"names": ["b", 1]}}, "'names' is no text"),
        ("inner", {"x": {}}, "there is no 'names' in 'inner'"),
        ("inner", {"x": {"names": [], "more": 1}}, "nothing is called 'more' in 'inner'"),
        ("status", "GOOD", "'GOOD' is not a valid Verdict"),
        ("maybe", "x", "'maybe' is no whole number"),
    ],
)
def test_what_is_not_as_declared_is_named(name: str, value: object, words: str) -> None:
    record = {"number": 3, "pair": ["a", 1], "inner": {}, "status": "PASS"} | {name: value}
    with pytest.raises(ValueError, match=words):
        build(_Outer, record)
