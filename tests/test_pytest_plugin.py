# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin in pytest runs of its own, on a kernel that is none."""

from __future__ import annotations

import pytest

from harness.target.places import CHECKOUT

pytest_plugins = ["pytester"]

CONFTEST = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(CHECKOUT)!r})
import pytest
from tests.fake_lab import FakeLab, fake_machine

@pytest.fixture(scope="session")
def hmm_machine(request):
    return fake_machine(*getattr(request, "param", ("debian:6.1", "plain")))

@pytest.fixture(scope="session")
def hmm_lab(hmm_machine):
    return FakeLab(hmm_machine, Path({{journal!r}}))
"""
COW = '''
def test_cow_after_fork(lockstep):
    """The device must not keep the page that the child still reads."""
    a, d0 = lockstep.subject("a"), lockstep.device("d0")
    {name} = a.map("anon", pages=8, prot="rw", name="{name}")
    a.write({name}, 10)
    d0.bind(a)
    d0.read({name})
    b = a.fork()
    a.write({name}[0:4], 50)
    d0.table({name})
    d0.read({name}); b.read({name})
'''


class Pytest:
    """A pytest run in a directory of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.journal = pytester.path / "journal"
        pytester.makeconftest(CONFTEST.format(journal=str(self.journal)))

    def run(self, code: str, *arguments: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_it=code)
        return self.again(*arguments)

    def again(self, *arguments: str) -> pytest.RunResult:
        self.journal.unlink(missing_ok=True)
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    @property
    def ran(self) -> list[str]:
        """What the fake kernel was told to run."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line for line in lines if line != "discard"]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Pytest:
    for name in ("KERNEL", "FLAVOUR", "BINDING", "TIMEOUT", "SEED", "VMS", "NO_RESTORE"):
        monkeypatch.delenv(f"HMM_HARNESS_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    return Pytest(pytester)


def test_a_test_of_ten_lines(run: Pytest) -> None:
    result = run.run(COW.format(name="buf"), "-v")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*test_cow_after_fork?interval? PASSED*", "*test_cow_after_fork?test_hmm? SKIPPED*"])
    assert run.ran == ["debian:6.1 interval 30 9"]


def test_a_divergence_is_a_failure_that_says_what_a_run_says(run: Pytest) -> None:
    result = run.run(COW.format(name="stale"), "--hmm-binding=interval")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["step 7: stale?0?: saw rw STALE, allowed is -", "    test_it.py:10, FAIL on debian:6.1 (plain), interval"]
    )
