# SPDX-License-Identifier: GPL-2.0-only
"""What suites on kselftest_harness.h print, as those of four kernels did: tests/kselftest/toy-tests.c."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.target.kselftest import Document, read
from harness.target.places import CHECKOUT

_DATA = Path(__file__).parent / "kselftest"
VERSIONS = ("5.10", "6.1", "6.12", "7.3")


def toy(version: str) -> str:
    """What the toy suite printed with the harness of a kernel; it ended with status 1."""
    return (_DATA / f"{version}.txt").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_test_has_its_name_and_its_word(version: str) -> None:
    document = read(toy(version), 1)
    assert document.oddities == ()
    assert len(document.tests) == 18
    words = {test.name: test.word for test in document.tests}
    assert words["toy.one.good"] == "pass"
    assert words["toy.one.bad"] == "fail"
    assert words["toy.one.skips"] == words["toy.one.shrugs"] == "skip"
    assert words["toy.none.good"] == ("pass" if version == "6.1" else "skip")  # exit(0) is no SKIP to it


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_printed_in_a_test_is_its_own(version: str) -> None:
    document = read(toy(version), 1)

    def of(name: str) -> tuple[list[str], list[str], str, str]:
        test = document.find(f"toy.one.{name}")
        assert test is not None
        return test.assertions, test.skips, test.reason, test.verdict

    assert of("good") == ([], [], "", "")
    assert of("bad") == (["toy-tests.c:36: Expected self->fd (3) == -1 (-1)"], [], "", "Test terminated by assertion")
    assert of("skips") == ([], ["not today"], "not today", "")
    assert of("shrugs") == ([], [""], "", "")
    assert of("dies") == ([], [], "", "Test terminated unexpectedly by signal 11")
    assert of("sleeps") == ([], [], "", "Test terminated by timeout")
    assertions, skips, reason, _ = of("late_skip")
    assert (assertions, skips, reason) == (["toy-tests.c:70: Expected 1 (1) == 2 (2)"], ["after all"], "after all")
    child = document.find("toy.one.child")
    assert child is not None
    assert child.assertions == ["toy-tests.c:44: Expected 1 (1) == 2 (2)"]
    assert child.word == ("pass" if version in ("5.10", "6.1") else "fail")
    returns = document.find("toy.one.returns")
    assert returns is not None
    assert returns.lines == ("# hmm-harness: mmap 12",)


def _oddities(text: str, status: int = 1) -> str:
    return "; ".join(read(text, status).oddities)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_does_not_add_up_is_told(version: str) -> None:
    text = toy(version)
    assert "ended with status 0, though a test failed" in _oddities(text, 0)
    assert "planned 19 tests and printed 18 results" in _oddities(text.replace("1..18", "1..19"))
    assert "no plan" in _oddities(text.replace("1..18", ""))
    assert "totals do not add up" in _oddities(re.sub("Totals: pass:\\d+", "Totals: pass:77", text))
    assert "no totals" in _oddities(re.sub("# Totals.*", "", text))
    assert "not numbered" in _oddities(text.replace("not ok 2 ", "not ok 3 "))
    named = text.replace("ok 6 toy.one.returns", "ok 6 toy.one.other")
    assert "the result of toy.one.other came when toy.one.returns had begun" in _oddities(named)


def test_a_suite_that_dies_has_a_test_without_a_result() -> None:
    whole = toy("7.3")
    cut = whole[: whole.index("not ok 7")]
    document = read(cut, -9)
    last = document.find("toy.one.dies")
    assert last is not None
    assert (last.word, last.verdict) == ("", "Test terminated unexpectedly by signal 11")
    assert "planned 18 tests and printed 6 results" in document.oddities[0]


def test_a_test_that_was_begun_anew_is_not_the_result_of_the_one_before() -> None:
    totals = "# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0\n"
    text = f"1..2\n#  RUN           a.one ...\n#  RUN           a.two ...\nok 1 a.two\n{totals}"
    document = read(text, 0)
    assert [(test.name, test.word) for test in document.tests] == [("a.one", ""), ("a.two", "pass")]
    assert document.oddities == ("it planned 2 tests and printed 1 results",)


def test_other_directives() -> None:
    lines = ["ok 1 a.one # XFAIL known", "ok 2 a.two # XPASS unknown", "not ok 3 a.three #  a reason"]
    text = "1..3\n" + "".join(f"#  RUN           {line.split('ok ')[1].split()[1]} ...\n{line}\n" for line in lines)
    document = read(text + "# Totals: pass:0 fail:1 xfail:1 xpass:1 skip:0 error:0\n", 1)
    assert [(test.word, test.reason) for test in document.tests] == [
        ("xfail", "known"),
        ("xpass", ""),
        ("fail", "a reason"),
    ]
    assert document == Document(document.tests, ())


_SUITE = """
#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
	for (int number = 1; number <= 3; number++) {
		pid_t pid = fork();
		if (!pid) {
			if (!fork()) {
				printf("child of %d\\n", number);
				return 0;
			}
			wait(NULL);
			ioctl(-1, _IOWR('H', 2, int), NULL);
			ioctl(-1, _IOWR('X', 2, int), NULL);
			mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			printf("case %d: %d\\n", number, errno == EINVAL);
			fflush(stdout);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	return 0;
}
"""


@pytest.mark.parametrize(("chosen", "cases"), [("", [1, 2, 3]), ("2", [2]), ("9", [])])
def test_the_witness_lets_one_case_run_and_tells_what_it_asks(tmp_path: Path, chosen: str, cases: list[int]) -> None:
    (tmp_path / "suite.c").write_text(_SUITE)
    witness = CHECKOUT / "harness/guest/peer/witness.c"
    wrap = "-Wl,--wrap=fork,--wrap=ioctl,--wrap=mmap"
    argv = ["gcc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "suite.c", str(witness), wrap, "-o", "suite"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    environment = {"HMM_HARNESS_CASE": chosen} if chosen else {}
    done = subprocess.run(["./suite"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [line for case in cases for line in (f"child of {case}", f"case {case}: 1")]
    assert done.stderr.splitlines() == ["# hmm-harness: ioctl 2 9", "# hmm-harness: mmap 22"] * len(cases)
