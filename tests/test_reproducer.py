# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers: every operation can be said in C and in Python, what is written compiles, and says what it should."""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from harness.cli import main
from harness.compare import Verdict, compare, obstacle
from harness.conformance import catalogue
from harness.errors import ExitCode, UsageError
from harness.explore.c_program import c_program, pieces
from harness.explore.c_steps import LEFT_OUT, NOT_YET, TRANSLATIONS, is_said
from harness.explore.pytest_file import pytest_file
from harness.explore.reproducer import program_file
from harness.explore.witness import Scene, Witness, witness_of
from harness.model.rules import FEATURES, Rules, rules_for
from harness.program.observations import Entry, Mark, Observation, Signal, Status
from harness.program.operations import DEVICE_OPERATIONS, SUBJECT_OPERATIONS, Operation
from harness.program.program import Program
from harness.program.text import parse, render
from harness.pytest_plugin.model import Model
from harness.pytest_plugin.writer import Writer
from harness.target.places import CHECKOUT
from tests.needs import need
from tests.strategies import programs

HEADERS = CHECKOUT / "kmod/include/uapi"
BINDINGS = ("interval", "mirror")
SCENE = Scene("debian:6.1", "plain", "6.1.192", "interval")


def _rules(binding: str = "interval") -> Rules:
    return rules_for(binding, FEATURES)


def _program(text: str) -> Program:
    return parse(text, file="<test>", name="a/program")


def _passing(program: Program, binding: str = "interval") -> Witness:
    """Of a kernel that does the first thing that is allowed."""
    rules = _rules(binding)
    seen = Model(rules).obedient(program)
    return replace(witness_of(program, rules, seen, compare(program, rules, seen)), scene=SCENE, replay="run it")


def _failing(program: Program, number: int, wrong: Observation) -> Witness:
    """Of a kernel that shows `wrong` in step `number`, from 0, and else does as it should."""
    seen = list(Model(_rules()).obedient(program))
    seen[number] = wrong
    found = compare(program, _rules(), seen)
    assert found.verdict is Verdict.FAIL, found
    return replace(witness_of(program, _rules(), seen, found), scene=SCENE)


def _compile(directory: Path, texts: Sequence[str], *options: str) -> list[Path]:
    """Has gcc look at C programs; its warnings are errors."""
    need("gcc")
    files = []
    for number, text in enumerate(texts):
        files.append(directory / f"{number}.c")
        files[-1].write_text(text)
    argv = ["gcc", "-Wall", "-Wextra", "-Werror", f"-I{HEADERS}", *(options or ["-fsyntax-only"])]
    ended = subprocess.run([*argv, *map(str, files)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[:4000]
    return files


def _run(directory: Path, text: str) -> tuple[int, str]:
    """Status and output of a C program that uses no device."""
    program = directory / "reproducer"
    _compile(directory, [text], "-O2", "-o", str(program))
    ended = subprocess.run([program], capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("kind", [*SUBJECT_OPERATIONS, *DEVICE_OPERATIONS], ids=lambda kind: kind.__name__)
def test_each_operation_is_said_in_c_or_left_out_for_a_reason(kind: type[Operation]) -> None:
    assert [kind in each for each in (TRANSLATIONS, LEFT_OUT, NOT_YET)].count(True) == 1, (
        f"harness/explore/c_steps.py: TRANSLATIONS has no {kind.__name__} (`{kind.verb}`)"
    )


def test_each_piece_is_used_and_needs_what_there_is() -> None:
    known = pieces()
    code = "".join(
        (CHECKOUT / f"harness/explore/{name}.py").read_text() for name in ("c_program", "c_steps", "c_checks")
    )
    for piece in known.values():
        assert set(piece.needs) <= set(known), piece.name
        base = re.sub(r"-(caught|checked)$|^advice-.*", "", piece.name)
        assert not base or f'"{base}"' in code or any(piece.name in each.needs for each in known.values()), piece.name


def test_what_there_is_compiles(tmp_path: Path) -> None:
    texts = []
    for number, program in enumerate(catalogue.select([])):
        for binding in BINDINGS:
            if obstacle(program, _rules(binding)) is not None or _cannot(program, binding):
                continue
            if not _is_said(program):
                continue
            if binding == "mirror" and number % 8:  # no more than the node differs
                continue
            big = sum(region.pages for region in program.regions.values()) > 100  # the model takes its time
            witness = Witness() if big or number % 2 else _passing(program, binding)
            texts.append(c_program(program, binding, witness, apart=bool(number // 2 % 2)))
    assert len(texts) > 300
    code = [line for text in texts for line in text.partition("*/")[2].splitlines() if '"' not in line]
    assert not [line for line in code if len(line.expandtabs(8)) > 124]
    _compile(tmp_path, texts)


def _is_said(program: Program) -> bool:
    return all(is_said(step) or type(step) in LEFT_OUT for step in program.steps)


def _cannot(program: Program, binding: str) -> bool:
    cannot = _rules(binding).cannot
    return binding == "mirror" and any(step.verb in cannot for step in program.steps)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(program=programs())
def test_whatever_there_may_be_compiles(program: Program, tmp_path: Path) -> None:
    assume(_is_said(program))
    _compile(tmp_path, [c_program(program, "interval"), c_program(program, "interval", _passing(program))])


def test_names_that_c_has_for_itself(tmp_path: Path) -> None:
    known = {
        *re.findall(r"[A-Za-z]\w*", "\n".join(piece.text for piece in pieces().values())),
        "int",
        "linux",
        "puts",
    }
    lines = []
    for name in sorted(known):
        lines += [f"a: map {name} anon 1 rw", f"a: write {name} 5"]
    lines += [f"a: fork {child}" for child in ("A", "driver", "PAGE", "processes", "int", "b", "B")]
    _compile(tmp_path, [c_program(_program("\n".join(lines)), "interval")])


def test_it_is_as_short_as_the_program(tmp_path: Path) -> None:
    program = _program("# A promise.\na: map buf anon 2 rw\na: read buf")
    text = c_program(program, "interval", _passing(program))
    assert len(text.splitlines()) < 110
    for absent in ("fork", "sigsetjmp", "open_device", "poll"):
        assert absent not in text
    _compile(tmp_path, [text], "-O2", "-c", "-o", str(tmp_path / "o"))


def test_the_comment_says_all_that_is_known() -> None:
    program = _program("# A promise. */ /*\na: map buf anon 2 rw\nd0: bind a\nd0: table buf")
    stale = Entry(Mark.VALID | Mark.WRITE | Mark.STALE)
    witness = _failing(program, 2, Observation(Status.DONE, 0, (stale, Entry(Mark(0)))))
    witness = replace(witness, scene=replace(SCENE, wrong=("skip-invalidate",)), replay="hmm-harness run it")
    text = c_program(program, "interval", witness)
    comment = re.sub(r"\n \* (?=purpose)", " ", text[: text.index("*/") + 2])
    for words in (
        "A promise.",
        "Run on debian:6.1 (plain), Linux 6.1.192, binding interval, with a driver that is wrong on purpose:",
        ">   3  d0: table buf",
        "buf[0]: saw rw STALE, allowed is -",
        "STALE: a device's entry that contradicts the CPU's page table",
        "gcc -Wall -Wextra",
        "echo skip-invalidate > /sys/module/hmm_harness/parameters/wrong",
        "hmm-harness run it",
    ):
        assert words in comment, comment
    assert "seen[i] != 0" in text
    assert "step 3: d0: table buf" in text


COW = """\
a: map buf anon 4 rw
a: write buf 10
a: fork b
a: write buf[1:3] 50
b: fork c
b: exit
c: write buf[0] 70
a: read buf
c: read buf
"""


@pytest.mark.parametrize("text", [COW, "a: map buf anon 4 rw\na: write buf 10\na: read buf"], ids=["many", "one"])
@pytest.mark.parametrize("apart", [False, True], ids=["", "apart"])
def test_it_does_the_steps_and_sees_what_is_allowed(text: str, apart: bool, tmp_path: Path) -> None:
    program = _program(text)
    status, output = _run(tmp_path, c_program(program, "interval", _passing(program), apart=apart))
    assert status == 0, output
    expected = [f"step {number + 1}: {line}" for number, line in enumerate(text.splitlines())]
    assert output.splitlines() == [*expected, "no symptom"]


@pytest.mark.parametrize("apart", [False, True], ids=["", "apart"])
def test_it_sees_the_symptom_where_it_is(apart: bool, tmp_path: Path) -> None:
    """Some other kernel read 9, where this one reads what was written: the other way round it is the same."""
    program = _program("a: map buf anon 4 rw\na: write buf 10\na: read buf")
    allowed = _passing(program)
    expectation = allowed.expectations[2]
    wrong = replace(expectation, elements=(*expectation.elements[1:], expectation.elements[0]))
    witness = replace(allowed, verdict=Verdict.FAIL, expectations=(*allowed.expectations[:2], wrong))
    status, output = _run(tmp_path, c_program(program, "interval", witness, apart=apart))
    assert status == 1, output
    assert "    buf[0]: saw 10, allowed is 11\n    buf[1]: saw 11, allowed is 12\n" in output
    assert "    buf[3]: saw 13, allowed is 10\nthe symptom is there\n" in output


@pytest.mark.parametrize("apart", [False, True], ids=["", "apart"])
def test_a_step_that_ends_otherwise_than_it_did_says_nothing(apart: bool, tmp_path: Path) -> None:
    program = _program(
        "a: map buf anon 4 rw\na: unmap buf\na: advise buf willneed\na: map new anon 1 rw\na: read new"
    )
    assert _passing(program).errors(2) == {errno.ENOMEM}
    witness = _passing(program)
    status, output = _run(tmp_path, c_program(program, "interval", witness, apart=apart))
    assert status == 0, output
    expectations = list(witness.expectations)
    expectations[2] = replace(expectations[2], errors=frozenset({errno.EBADF}))
    witness = replace(witness, expectations=tuple(expectations))
    status, output = _run(tmp_path, c_program(program, "interval", witness, apart=apart))
    assert status == 2, output
    assert "Cannot allocate memory, not Bad file descriptor: this shows nothing" in output


@pytest.mark.parametrize("apart", [False, True], ids=["", "apart"])
def test_what_an_access_raises_is_seen(apart: bool, tmp_path: Path) -> None:
    program = _program("a: map buf anon 4 rw\na: write buf 10\na: protect buf[1:3] none\na: read buf")
    witness = _passing(program)
    assert Signal.SEGV in witness.observations[3].elements
    status, output = _run(tmp_path, c_program(program, "interval", witness, apart=apart))
    assert status == 0, output
    expectation = witness.expectations[3]
    wrong = replace(expectation, elements=(expectation.elements[0],) * 4)
    witness = replace(witness, expectations=(*witness.expectations[:3], wrong))
    status, output = _run(tmp_path, c_program(program, "interval", witness, apart=apart))
    assert status == 1
    assert "buf[1]: saw SIGSEGV, allowed is 10" in output


def test_a_subject_that_dies_is_the_symptom(tmp_path: Path) -> None:
    """Where it dies of itself: a signal that comes out of the blue is no program's."""
    program = _program("a: map buf anon 1 rw\na: protect buf none\na: read buf")
    witness = _failing(program, 2, Observation(Status.SUBJECT_DIED, 11))
    status, output = _run(tmp_path, c_program(program, "interval", witness))
    assert (status, output.splitlines()[-1]) == (1, "    a process was killed by signal 11")
    well = _program("a: map buf anon 1 rw\na: protect buf r\na: read buf")
    witness = _failing(well, 2, Observation(Status.SUBJECT_DIED, 11))
    status, output = _run(tmp_path, c_program(well, "interval", witness))
    assert (status, output.splitlines()[-1]) == (0, "no symptom")


def test_a_crash_is_looked_for_in_dmesg(tmp_path: Path) -> None:
    program = _program("a: map buf anon 1 rw\na: read buf")
    witness = Witness(SCENE, Verdict.CRASHED, "boom", titles=('BUG: "x" in y_z',))
    status, output = _run(tmp_path, c_program(program, "interval", witness))
    assert (status, output.splitlines()[-1]) == (0, 'look at dmesg for: BUG: "x" in y_z')


def test_what_was_free_has_to_be_as_it_was() -> None:
    program = _program("a: map buf anon 8 rw\nd0: bind a\na: write buf 10\nd0: to-device buf\na: read buf")
    rules = _rules()
    seen = list(Model(rules).obedient(program))
    stayed = (Entry(Mark(0)),) * 8
    moved = replace(seen[3], elements=stayed)
    seen[3] = moved
    found = compare(program, rules, seen)
    text = c_program(program, "interval", witness_of(program, rules, seen, found))
    free = "expect_seen(0, 8, 0);" in text
    assert free == (found.verdict is Verdict.PASS)


def test_a_missing_device_is_no_symptom(tmp_path: Path) -> None:
    if Path("/dev/hmm_harness0").exists():
        pytest.skip("the module is loaded here")
    program = _program("a: map buf anon 1 rw\nd0: bind a\nd0: read buf")
    assert _run(tmp_path, c_program(program, "interval", _passing(program)))[0] == 77


def test_what_cannot_be_said_is_refused() -> None:
    program = _program("a: map buf anon 1 rw\nd0: bind a\nd0: events")
    with pytest.raises(UsageError, match="for our own module, not for test_hmm"):
        c_program(program, "test_hmm")
    assert "/* step 3: d0: events: what the device heard is not looked at" in c_program(program, "interval")
    deaf = replace(_passing(program), step=2)
    with pytest.raises(UsageError, match="step 3, `events`, cannot be said in C"):
        c_program(program, "interval", deaf)


def _calls(text: str) -> Program:
    """The program that the test in `text` writes."""
    writer = Writer()
    module: dict[str, Any] = {}
    exec(compile(text, "test_x.py", "exec"), module)
    (test,) = (value for name, value in module.items() if name.startswith("test_"))
    test(writer)
    assert test.__doc__
    return writer.program("x", test.__doc__)


def test_a_test_writes_the_same_program() -> None:
    for program in catalogue.select([]):
        written = _calls(pytest_file(program, "interval", replace(Witness(), scene=SCENE, verdict=Verdict.FAIL)))
        assert written.steps == program.steps, program.name
        assert written.title == program.title


@settings(max_examples=100, deadline=None)
@given(program=programs())
def test_a_test_writes_any_program(program: Program) -> None:
    assert _calls(pytest_file(program, "interval")).steps == program.steps


def test_a_test_says_where_it_fails() -> None:
    program = _program('# A "promise" \\ of HMM.\na: map d0 anon 2 rw\na: fork lockstep\nlockstep: read d0')
    scene = replace(SCENE, wrong=("skip-invalidate", "hide-events"))
    text = pytest_file(program, "mirror", Witness(scene, Verdict.FAIL, "step 3: no", replay="hmm-harness run x"))
    assert _calls(text).steps == program.steps
    assert "@pytest.mark.hmm_binding(\"mirror\")\n@pytest.mark.hmm_wrong('skip-invalidate', 'hide-events')\n" in text
    assert "FAIL: step 3: no" in text
    assert "# hmm-harness run x\n" in text
    assert "# pytest --hmm-kernel debian:6.1 --hmm-flavour plain FILE\n" in text


def test_the_program_itself_is_the_same_program() -> None:
    program = _program("# A promise.\na: map buf anon 2 rw\na: read buf")
    text = program_file(program, "interval", Witness(SCENE, Verdict.FAIL, "step 2: no", replay="hmm-harness run x"))
    assert parse(text, file="x", name=program.name) == program
    assert text.startswith(render(program))
    assert "# FAIL on debian:6.1 (plain), Linux 6.1.192, binding interval: step 2: no\n# hmm-harness run x\n" in text


def test_the_command_writes_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bug.c"
    assert main(["reproduce", "invalidate/dontneed", "--no-run", "--apart", "--output", str(output)]) == ExitCode.PASS
    assert "fork_as(A)" in output.read_text()
    _compile(tmp_path, [output.read_text()])
    assert main(["reproduce", "invalidate/dontneed", "--no-run", "--format", "hmm"]) == ExitCode.PASS
    assert "d0: read buf\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["invalidate/dontneed", "--binding", "test_hmm"], "for our own module, not for test_hmm"),
        (["invalidate", "--no-run"], "names "),
        (["invalidate/dontneed", "--wrong", "nosuch"], "no mistake 'nosuch'"),
        (["invalidate/dontneed", "--no-run", "--apart", "--format", "hmm"], "--apart is for C programs"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
