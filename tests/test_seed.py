# SPDX-License-Identifier: GPL-2.0-only
"""The seed table against the programs, the driver, and, where there is one, the header itself."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict, obstacle
from harness.conformance import catalogue, seed
from harness.conformance.seed import Difference, Kind, Only, Row, Shown, Table
from harness.model.allowed import Expectation
from harness.model.rules import FEATURES, RULES, Rules, rules_for
from harness.model.world import World
from harness.program.observations import USAGE, Observation, Status
from harness.program.operations import Call, DeviceOperation, Move
from harness.program.program import Program
from tests.needs import seed_tree

REPOSITORY = Path(__file__).parent.parent
KMOD = REPOSITORY / "kmod"
TABLE = seed.load()
PROGRAMS = {program.name: program for program in catalogue.select([])}
NATIVE = rules_for("mirror", TABLE.features)

# What no program exercises, and nothing else can, or a test of its own does: no more and no fewer.
UNREACHABLE = {("hmm_mm_destroy", 401), ("hmm_mm_init", 402), ("hmm_mm_destroy", 573), ("hmm_mm_init", 574)}
BY_A_TEST_ALONE = {
    ("internal", 393),
    ("hmm_devmem.completion", 498), ("hmm_devmem.ref", 505), ("hmm_devmem_remove", 515), ("hmm_devmem_remove", 524),
    ("hmm_device.minor", 561), ("hmm_device_put", 570),
}  # fmt: skip


def test_ids_are_in_the_order_of_the_header() -> None:
    assert [row.id for row in TABLE.rows] == [f"SEED-{number}" for number in range(1, len(TABLE.rows) + 1)]
    firsts = [row.lines[0] for row in TABLE.rows]
    assert firsts == sorted(firsts)
    assert all(first <= last for first, last in (row.lines for row in TABLE.rows))


def test_each_row_is_exercised() -> None:
    bare = {(row.name, row.lines[0]) for row in TABLE.rows if not row.programs}
    assert bare == UNREACHABLE | BY_A_TEST_ALONE
    assert {(row.name, row.lines[0]) for row in TABLE.rows if row.unreachable} == UNREACHABLE
    for row in TABLE.rows:
        assert bool(row.programs or row.tests) != bool(row.unreachable), row.id
        assert (row.kind is Kind.RULE) == bool(row.says), row.id
        assert (row.only is not None) == bool(row.why), f"{row.id}: who alone can show it has a reason"
        assert not Counter(row.programs) - Counter(set(row.programs)), f"{row.id} names a program twice"


def _runs(name: str, rules: Rules) -> bool:
    program = PROGRAMS[name]
    cannot = any(
        isinstance(step, DeviceOperation)
        and step.verb in rules.cannot
        and not (isinstance(step, Move) and step.call in (Call.PLAIN, Call.LOCKED))  # refused at times
        for step in program.steps
    )
    return not cannot and obstacle(program, rules) is None


@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.id)
def test_the_programs_of_a_row_run_on_the_binding(row: Row) -> None:
    unknown = [name for name in row.programs if name not in PROGRAMS]
    assert not unknown, f"{row.id} names programs that do not exist"
    crash = {name for each in TABLE.differences if each.native is Verdict.CRASHED for name in each.programs}
    native = [name for name in row.programs if _runs(name, NATIVE) and name not in crash]
    compat = [name for name in row.programs if _runs(name, RULES["mirror"])]
    assert set(native) | set(compat) | crash >= set(row.programs)
    if row.programs:
        assert native or row.only is Only.COMPAT
        assert compat or row.only is Only.NATIVE


def test_tests_that_rows_name_exist() -> None:
    for row in TABLE.rows:
        for named in row.tests:
            file, function = named.split("::")
            text = (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", text, re.MULTILINE), f"{row.id}: there is no {named}"


def _without_comments(text: str) -> str:
    """The text of C with comments blanked, each line where it was."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda comment: re.sub(r"[^\n]", " ", comment[0]), text, flags=re.DOTALL)


def _driver() -> str:
    """The code of the binding `mirror` that is the same for native and compat."""
    files = [KMOD / name for name in ("seed.c", "seed_devmem.c", "devmem.c", "compat.h")]
    return "\n".join(_without_comments(path.read_text(encoding="utf-8")) for path in files)


@pytest.mark.parametrize(
    "row", [row for row in TABLE.rows if row.kind is not Kind.RULE and not row.unreachable], ids=lambda row: row.id
)
def test_the_driver_uses_what_the_header_declares(row: Row) -> None:
    _, dot, member = row.name.rpartition(".")
    tag = f"{row.kind} " if row.kind in (Kind.STRUCT, Kind.ENUM) else ""
    words = rf"(\.|->){member}\b" if dot else rf"\b{tag}{row.name}\b"
    used = re.search(words, _driver()) is not None
    assert used or row.inside, f"{row.name} is nowhere in the driver"
    assert not (used and row.inside and not dot), f"{row.name} is in the driver after all"


def test_the_driver_leaves_alone_what_is_internal_to_hmm() -> None:
    """SEED rows on lines 393 and 421 of the header."""
    code = "\n".join(_without_comments(path.read_text(encoding="utf-8")) for path in sorted(KMOD.glob("seed*.c")))
    assert "hmm_vma_fault" in code
    assert not re.search(r"\b(hmm_mm_\w+|page_fault|page_free|migrate_to_ram|hmm_devmem_ref\w*)\b", code)


# The header itself

DECLARATION = re.compile(
    r"""
      ^struct\s+(?P<struct>\w+)\s*\{(?P<members>.*?)^\};
    | ^enum\s+(?P<enum>\w+)\s*\{(?P<values>.*?)^\};
    | ^struct\s+(?P<opaque>\w+);
    | ^static\s+inline\s+[\w\s]*?\**(?P<inline>\w+)\s*\([^)]*\)\s*\{
    | ^(?!static)\w[\w ]*?[ *]+(?P<function>\w+)\s*\([^)]*\);
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
CALLBACK = re.compile(r"\(\*(\w+)\)\([^;]*\);", re.DOTALL)
FIELD = re.compile(r"\b(\w+);")
VALUE = re.compile(r"\b([A-Z_]\w*)\b(?=\s*[,=\n])")


def _declared(header: str) -> Iterator[tuple[Kind, str, int]]:
    """Kind, name and line of all that the header declares. What it only announces, and defines later, is one."""
    code = _without_comments(header)

    def line(offset: int) -> int:
        return code.count("\n", 0, offset) + 1

    opaque: dict[str, int] = {}
    structs: set[str] = set()
    for found in DECLARATION.finditer(code):
        if name := found["opaque"]:
            opaque.setdefault(name, line(found.start()))
        elif name := found["struct"]:
            structs.add(name)
            yield Kind.STRUCT, name, line(found.start())
            at = found.start("members")
            body = found["members"]
            for callback in CALLBACK.finditer(body):
                start = body.rindex("\n", 0, callback.start()) + 1
                yield Kind.CALLBACK, f"{name}.{callback[1]}", line(at + start)
            body = CALLBACK.sub(lambda callback: re.sub(r"[^\n]", " ", callback[0]), body)
            for field in FIELD.finditer(body):
                yield Kind.FIELD, f"{name}.{field[1]}", line(at + field.start())
        elif name := found["enum"]:
            yield Kind.ENUM, name, line(found.start())
            for value in VALUE.finditer(found["values"]):
                yield Kind.VALUE, value[1], line(found.start("values") + value.start())
        elif name := found["inline"]:
            yield Kind.INLINE, name, line(found.start())
        else:
            yield Kind.FUNCTION, found["function"], line(found.start())
    for name, number in opaque.items():
        if name not in structs:
            yield Kind.STRUCT, name, number


def _prose(lines: list[str]) -> str:
    """The text of comments in one line."""
    return " ".join(" ".join(re.sub(r"^\s*/?\*+/?|\*/\s*$|//", " ", line) for line in lines).split())


@pytest.fixture(scope="module")
def header() -> str:
    path = seed_tree() / "include/linux/hmm.h"
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == TABLE.header, f"{path} is not v4.20.1's"
    return content.decode()


def test_no_declaration_is_missing(header: str) -> None:
    tabled = [(row.kind, row.name, row.lines[0]) for row in TABLE.rows if row.kind is not Kind.RULE]
    found = list(_declared(header))
    assert len(found) > 70
    assert sorted(tabled, key=lambda each: each[2]) == sorted(found, key=lambda each: each[2])


def test_rules_are_the_header_s_words(header: str) -> None:
    lines = header.splitlines()
    for row in TABLE.rows:
        if row.says:
            first, last = row.lines
            assert " ".join(row.says.split()) in _prose(lines[first - 1 : last]), row.id


BINDING_WORDS = re.compile(r"\b(must|MUST|should|never|cannot|guarantees?|Returns?:|might|may|NOT|ONCE)\b")


def test_each_word_that_binds_is_in_a_rule(header: str) -> None:
    ruled = {line for row in TABLE.rows if row.says for line in range(row.lines[0], row.lines[1] + 1)}
    code = _without_comments(header).splitlines()
    words = []
    for number, (line, bare) in enumerate(zip(header.splitlines(), code, strict=True), 1):
        comment = "" if line == bare else line
        if number > 16 and BINDING_WORDS.search(comment):
            words.append(number)
            assert number in ruled, f"line {number} is in no rule: {line.strip()}"
    assert len(words) > 20


# Differences


def test_differences_are_of_programs_and_differ() -> None:
    assert seed.repeated(TABLE) == []
    for difference in TABLE.differences:
        assert difference.source
        assert difference.native is not difference.compat or difference.steps
        assert not difference.feature or difference.feature in FEATURES
        for name in difference.programs:
            assert name in PROGRAMS
            assert all(1 <= step <= len(PROGRAMS[name].steps) for step in difference.steps)


def test_what_v4_20_cannot_run_is_listed_for_each_kernel_that_can() -> None:
    """What native skips, and compat does not, differs: with every feature that makes the difference."""
    every = rules_for("mirror", FEATURES)
    listed = {name: each for each in TABLE.differences if each.native is Verdict.SKIP for name in each.programs}
    for name, program in PROGRAMS.items():
        if not _runs(name, every) or obstacle(program, NATIVE) is None:
            assert name not in listed, f"{name}: native has no reason of its own to skip it"
            continue
        assert name in listed, f"{name}: {obstacle(program, NATIVE)}"
        without = rules_for("mirror", FEATURES.keys() - {listed[name].feature})
        assert obstacle(program, without) is not None, f"{name}: does not need {listed[name].feature}"


def test_what_the_features_of_hugetlb_change_is_as_listed() -> None:
    """What the model allows of each step differs in what is listed: v4.20.1 was not asked."""
    for name in ("hugetlb/remap", "hugetlb/dontneed"):
        (known,) = (each for each in TABLE.differences if name in each.programs)
        allowed = []
        for features in ((), (known.feature,)):
            world = World(PROGRAMS[name], rules_for("mirror", [*TABLE.features, *features]))
            steps = []
            for step in PROGRAMS[name].steps:
                expectation = world.step(step, Observation(Status.DONE))
                steps.append((expectation.errors, expectation.elements, _duties(expectation)))
            allowed.append(steps)
        pairs = enumerate(zip(*allowed, strict=True), 1)
        assert tuple(number for number, (one, other) in pairs if one != other) == known.steps


def _duties(expectation: Expectation) -> object:
    return None if expectation.hearing is None else sorted(expectation.hearing.duties, key=str)


SHOWN = Observation(Status.DONE, elements=(1, 2))


def _shown(program: Program, *, other: int | None = None, verdict: Verdict = Verdict.PASS) -> Shown:
    """What a kernel shows of `program`; of step `other`, from 1, something else."""
    steps = [SHOWN if number != other else Observation(Status.DONE) for number in range(1, len(program.steps) + 1)]
    return Shown(verdict, tuple(steps))


def _table(*differences: Difference) -> Table:
    return replace(TABLE, differences=differences)


def test_what_differs_without_being_listed_is_told() -> None:
    program = PROGRAMS["access/read"]
    same = {program.name: _shown(program)}
    assert seed.disagreements([program], same, same, _table(), ()) == []
    other = {program.name: _shown(program, other=4)}
    assert seed.disagreements([program], same, other, _table(), ()) == [
        "access/read: native PASS, compat PASS, steps 4: not listed"
    ]
    crashed = {program.name: Shown(Verdict.CRASHED)}
    (line,) = seed.disagreements([program], crashed, same, _table(), ())
    assert "native CRASHED, compat PASS: not listed" in line


def test_what_is_listed_and_no_longer_differs_is_told() -> None:
    program = PROGRAMS["access/read"]
    same = {program.name: _shown(program)}
    other = {program.name: _shown(program, other=4)}
    listed = Difference((program.name,), Verdict.PASS, Verdict.PASS, "a reason", "a source", steps=(4,))
    assert seed.disagreements([program], same, other, _table(listed), ()) == []
    (line,) = seed.disagreements([program], same, same, _table(listed), ())
    assert "listed as native PASS, compat PASS, steps 4 (a reason)" in line
    only_with = replace(listed, feature="GUARD")
    assert seed.disagreements([program], same, same, _table(only_with), ()) == []
    assert seed.disagreements([program], same, other, _table(only_with), ("GUARD",)) == []


def test_counts_since_the_module_was_loaded_are_no_difference() -> None:
    program = PROGRAMS["migrate/to-device"]
    looks = [number for number, step in enumerate(program.steps) if step.verb == "usage"]
    assert len(looks) == 2 and len(USAGE) == 6

    def counting(start: int, often: int, freed: int) -> Shown:
        counts = [(8, start + 8, start, start, often, 8), (0, start + 8, start + freed, start + 8, often + 1, 0)]
        steps = list(_shown(program).observations)
        for number, elements in zip(looks, counts, strict=True):
            steps[number] = Observation(Status.DONE, elements=elements)
        return Shown(Verdict.PASS, tuple(steps))

    assert seed.differing_steps(program, counting(0, 1, 8), counting(77, 5, 8)) == ()
    assert seed.differing_steps(program, counting(0, 1, 8), counting(77, 5, 7)) == (looks[1] + 1,)
