# SPDX-License-Identifier: GPL-2.0-only
"""The contract: every clause has a source and a program, and every program proves a clause."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import candidates
from harness.compare import obstacle
from harness.conformance import catalogue, clauses, describe, deviations
from harness.conformance.clauses import SEED, Clause, alternatives, programs_of
from harness.errors import ExitCode, UsageError
from harness.model.allowed import RECORDED
from harness.model.rules import FEATURES, RULES, rules_for
from harness.program.operations import DeviceOperation
from tests.guest_executor import ROOT
from tests.needs import source_tree

CONTRACT = clauses.load()
CLAUSES = list(CONTRACT.clauses.values())
PROGRAMS = {program.name: program for program in catalogue.select([])}

# Clauses that nothing proves; each says why in `unproven`. There is to be none: no more than these.
UNPROVEN = {
    "RANGE-44", "RANGE-60",
}  # fmt: skip
# Those that no program can show; a test does.
TESTED = {"SEED-107", "SEED-138"}
# What test_hmm never does: its own mirror, its own requests, its own migrations
_NEVER = {"request", "watch", "miswatch", "dma-map", "refuse", "move", "returns", "evict-by", "unbind"}


def test_there_are_as_many_as_the_kernel_promises() -> None:
    assert len(CLAUSES) >= 120
    assert sum(clause.area != SEED for clause in CLAUSES) >= 120


def test_each_has_a_source_and_a_program() -> None:
    assert {clause.id for clause in CLAUSES if clause.unproven} == UNPROVEN
    assert {clause.id for clause in CLAUSES if not clause.programs} == UNPROVEN | TESTED
    for clause in CLAUSES:
        assert clause.says, clause.id
        assert clause.source, clause.id
        assert clause.bindings, clause.id
        assert bool(clause.unproven) != bool(clause.programs or clause.tests), f"{clause.id}: why is there no proof?"


_NAMES = re.compile(r"\b(\w+)\(\)|\b([A-Z][A-Z_]{5,}|[a-z]+_[a-z_]+)\b")


@pytest.mark.parametrize("kernels", sorted({each.kernels for clause in CLAUSES for each in clause.source}))
def test_sources_are_there_to_be_read(kernels: str) -> None:
    """Files, and the functions, names and quoted words in them, where there is a tree of that kernel."""
    tree = source_tree(kernels)
    for clause in CLAUSES:
        for source in clause.source:
            if source.kernels != kernels:
                continue
            text = (tree / source.file).read_text(encoding="utf-8")
            flat = re.sub(r"\s+", " ", text.replace("\n *", " "))
            for words in re.findall(r"'([^']+)'", source.where):
                assert words in flat, f"{clause.id}: {source}"
            bare = re.sub(r"'[^']*'", "", source.where)
            for function, name in _NAMES.findall(bare):
                assert re.search(rf"\b{function or name}\b", text), f"{clause.id}: {source}"
            for first in re.findall(r"lines? (\d+)", bare):
                assert int(first) <= text.count("\n"), f"{clause.id}: {source}"


def test_numbers_are_told_once_and_none_is_left_out() -> None:
    numbers = sorted(clause.number for clause in CLAUSES if clause.area != SEED)
    assert len(numbers) == len(set(numbers))
    assert set(range(1, 230)) <= set(numbers)
    assert len({clause.says for clause in CLAUSES}) == len(CLAUSES)


def test_what_they_name_is_there() -> None:
    mistakes = set(candidates.mistakes(""))
    for clause in CLAUSES:
        assert set(clause.programs) <= PROGRAMS.keys(), clause.id
        assert len(set(clause.programs)) == len(clause.programs), clause.id
        assert set(clause.bindings) <= RULES.keys(), clause.id
        assert {name for need in clause.needs for name in alternatives(need)} <= FEATURES.keys(), clause.id
        assert set(clause.deviations) <= RECORDED.keys(), clause.id
        assert set(clause.wrong) <= mistakes, clause.id
        for test in clause.tests:
            assert (ROOT / "tests" / test.partition("::")[0]).exists(), clause.id


def test_every_program_proves_a_clause() -> None:
    assert PROGRAMS.keys() - set(programs_of(clause for clause in CLAUSES if clause.area != SEED)) == set()


def test_every_deviation_breaks_a_clause_that_its_program_proves() -> None:
    breaking = {name: [clause for clause in CLAUSES if name in clause.deviations] for name in RECORDED}
    for row in deviations.load().rows:
        shown = {program for each in row.shown for program in each.programs}
        assert breaking[row.name], f"{row.name} breaks no promise"
        for clause in breaking[row.name]:
            assert shown & set(clause.programs), f"{clause.id}: no program of it shows {row.name}"


def test_comments_name_clauses_that_there_are() -> None:
    known = {clause.number for clause in CLAUSES if clause.area != SEED}
    named = 0
    for path in [*ROOT.glob("harness/**/*.py"), *ROOT.glob("kmod/**/*.[ch]"), *ROOT.glob("harness/guest/**/*.[ch]")]:
        for match in re.finditer(r"\b[Cc]lauses? (\d+)(?: and (\d+))?", path.read_text(encoding="utf-8")):
            numbers = {int(number) for number in match.groups() if number}
            assert numbers <= known, f"{path}: {match[0]}"
            named += 1
    assert named > 20


def _may_run(name: str, binding: str, features: set[str]) -> bool:
    rules = rules_for(binding, features)
    steps = [step for step in PROGRAMS[name].steps if isinstance(step, DeviceOperation)]
    never = _NEVER if binding == "test_hmm" else rules.cannot.keys() - {"move"}  # which they can but for a few ways
    return obstacle(PROGRAMS[name], rules) is None and not any(step.verb in never for step in steps)


@pytest.mark.parametrize("clause", [each for each in CLAUSES if each.programs], ids=lambda clause: clause.id)
def test_each_binding_has_a_program_that_runs_where_the_clause_holds(clause: Clause) -> None:
    """What a clause needs is enough for one of its programs, and on each binding there is one at all."""
    for binding in clause.bindings:
        assert any(_may_run(name, binding, set(FEATURES)) for name in clause.programs), binding
        if clause.area != SEED:
            least = {name for need in clause.needs for name in alternatives(need)}
            if "COHERENT" in least:  # the guest has such memory
                least |= {"INTERVAL_COHERENT", "TEST_HMM_COHERENT"}
            assert any(_may_run(name, binding, least) for name in clause.programs), f"{binding} with {least}"


@pytest.mark.parametrize(
    "clause", [each for each in CLAUSES if each.programs and each.needs], ids=lambda each: each.id
)
def test_what_a_clause_needs_its_programs_need(clause: Clause) -> None:
    """Without it, one of them at least cannot be run; but for two, which no obstacle of the model is about."""
    for need in clause.needs:
        rest = set(FEATURES) - set(alternatives(need))
        missing = [name for name in clause.programs if not _may_run(name, clause.bindings[0], rest)]
        assert missing or need in {"FOLIO_SPLIT", "MIGRATE_FAULT_PAGE"}, need


def test_a_clause_is_found_by_id_and_by_number() -> None:
    assert CONTRACT.find("range-29") is CONTRACT.find("29") is CONTRACT.clauses["RANGE-29"]
    assert CONTRACT.find("seed-29").area == SEED
    for wrong in ("RANGE-1", "0", "1000"):
        with pytest.raises(UsageError, match="no clause"):
            CONTRACT.find(wrong)


def test_clauses_are_selected_by_area_kernel_binding_and_words() -> None:
    assert {clause.area for clause in CONTRACT.select(areas=["dma"])} == {"DMA"}
    assert not CONTRACT.select(areas=["DMA"], features=["DEVMEM"])
    assert CONTRACT.select(areas=["DMA"], features=["HMM_DMA"])
    either = CONTRACT.select(["device", "itself"], features=["MAKE_DEVICE_EXCLUSIVE_RANGE"])
    assert "EXCLUSIVE-201" in {clause.id for clause in either}
    assert {clause.bindings for clause in CONTRACT.select(bindings=["mirror"], areas=[SEED])} == {("mirror",)}
    assert [clause.id for clause in CONTRACT.select(["request/WRITE-alone"])] == ["RANGE-30"]
    with pytest.raises(UsageError, match="no area 'NOSUCH'"):
        CONTRACT.select(areas=["nosuch"])


def _table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "range.toml").write_text(f'area = "RANGE"\ntitle = "t"\n{text}')
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[clause]]\nid = "RANGE-1"\nsays = "s"\nsource = ["mm/hmm.c"]\nbindings = []\n', "no source"),
        (
            '[[clause]]\nid = "DMA-1"\nsays = "s"\nsource = ["mm/hmm.c f(), 7.3"]\nbindings = []\n',
            "no id of the area",
        ),
        (
            '[[clause]]\nid = "RANGE-x"\nsays = "s"\nsource = ["mm/hmm.c f(), 7.3"]\nbindings = []\n',
            "no id of the area",
        ),
        ('[[clause]]\nid = "RANGE-1"\nsays = "s"\nsource = ["mm/hmm.c f(), 7.3"]\nbindings = []\n' * 2, "number of"),
        ('[[clause]]\nid = "RANGE-1"\nsays = "s"\nsource = ["a b, 7.3"]\nbindings = []\nneed = []\n', "need"),
    ],
)
def test_a_table_in_another_form_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        clauses.load(_table(tmp_path, text))


def test_a_clause_can_be_read_by_people() -> None:
    titles = {name: program.title for name, program in PROGRAMS.items()}
    for clause in CLAUSES:
        text = "\n".join(describe.explained(clause, titles, command="hmm-harness"))
        for word in (clause.id, clause.says, *clause.programs, *clause.deviations, clause.lacks, clause.no_program):
            assert word in text
        assert (f"run --clause {clause.id}" in text) == bool(clause.programs)
    page = "\n".join(describe.markdown(CONTRACT, CLAUSES, titles))
    assert all(f"\n### {clause.id}\n" in page for clause in CLAUSES)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, check=False)


def test_the_command_lists_explains_and_gives_data() -> None:
    ended = _run("clauses")
    assert ended.returncode == ExitCode.PASS
    assert ended.stdout.rstrip().endswith(
        f"{len(CLAUSES)} clauses, {len(TESTED)} proven by a test, not by a program, {len(UNPROVEN)} without a program"
    )
    assert max(map(len, ended.stdout.splitlines())) <= 118
    ended = _run("clauses", "29", "range-44")
    assert "request/default-write" in ended.stdout
    assert "a guest of two nodes" in ended.stdout
    data = json.loads(_run("clauses", "--json").stdout)
    assert [each["id"] for each in data] == list(CONTRACT.clauses)
    assert all(each["source"] and (each["programs"] or each["tests"] or each["unproven"]) for each in data)
    assert "### DMA-216" in _run("clauses", "--area", "dma", "--markdown").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clauses", "RANGE-1"), "no clause 'RANGE-1'"),
        (("clauses", "29", "zero"), "ids and other words at once"),
        (("clauses", "frobnicate"), "no clause is like that"),
        (("clauses", "--area", "nosuch"), "no area 'NOSUCH'"),
        (("clauses", "--kernel", "tree:/nosuch"), "nothing is known of the kernel"),
        (("run", "--clause", "nosuch"), "no clause 'nosuch'"),
        (("run", "--clause", "RANGE-44"), "no program proves RANGE-44"),
        (("run", "--resume", "x.jsonl", "--clause", "29"), "does not go with --clause"),
        (("run", "--resume", "x.jsonl", "--all-clauses"), "does not go with --all-clauses"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], words: str) -> None:
    ended = _run(*arguments)
    assert ended.returncode == ExitCode.USAGE, ended.stderr
    assert words in ended.stderr
    assert "hint: " in ended.stderr


def test_a_shell_completes_clauses_and_areas() -> None:
    assert "RANGE-" in candidates.clauses("")
    assert "RANGE-29" in candidates.clauses("range-2")
    assert candidates.clauses("nosuch") == []
    assert "SEED" in candidates.areas("")
