# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own hmm-tests: their cases by the source, and the verdict on each by what it printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.compare import Verdict
from harness.errors import BuildError, HarnessError, MissingError, UsageError
from harness.guest.kernel import LOST_LINES
from harness.peer import Peers
from harness.report.results import Planned, Result
from harness.run import Plan
from harness.target import upstream
from harness.target.crashes import crashes
from harness.target.upstream import Case, Outcome, Suite, choose, read_cases
from harness.upstream import judge
from tests.fake_lab import fake_machine
from tests.test_kselftest import VERSIONS, toy

SUITE = Suite(b"", {0: "READ", 2: "MIGRATE_TO_DEV"}, frozenset({"EFAULT", "ENOENT", "ENOTTY"}))

_SOURCE = """\
FIXTURE(hmm)
{
\tint fd;
};

FIXTURE_VARIANT(hmm)
{
\tint number;
};

FIXTURE_VARIANT_ADD(hmm, hmm_private)
{
\t.number = 0,
};

FIXTURE_VARIANT_ADD(hmm, hmm_coherent)
{
\t.number = 2,
};

FIXTURE(plain)
{
};

/*
 * Simple NULL test
 * of device open/close.
 */
TEST_F(hmm, open_close)
{
}

TEST_F(plain, snapshot)
{
\tif (1) {
\t}
}

/* See whether
 * it is fast. */
TEST_F_TIMEOUT(hmm, benchmark, 120)
{
\treturn;
}

TEST_HARNESS_MAIN
"""


def _cases() -> list[Case]:
    return list(read_cases(_SOURCE, SUITE))


def test_cases_are_in_the_order_in_which_the_harness_runs_them() -> None:
    assert [(case.number, case.test) for case in _cases()] == [
        (1, "hmm.hmm_private.open_close"),
        (2, "hmm.hmm_private.benchmark"),
        (3, "hmm.hmm_coherent.open_close"),
        (4, "hmm.hmm_coherent.benchmark"),
        (5, "plain.snapshot"),
    ]
    first, second = _cases()[:2]
    assert (first.name, first.seconds) == ("hmm-tests/hmm.hmm_private.open_close", 30.0)
    assert first.title == "Simple NULL test of device open/close."
    assert first.text == "TEST_F(hmm, open_close)\n{\n}\n"
    assert (second.title, second.seconds) == ("See whether it is fast.", 120.0)


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("*", [1, 2, 3, 4, 5]),
        ("open_close", [1, 3]),
        ("hmm", [1, 2, 3, 4]),
        ("hmm.hmm_coherent", [3, 4]),
        ("*coherent*close", [3]),
        ("hmm-tests/plain.snapshot", [5]),
        ("clos", []),
    ],
)
def test_cases_are_chosen_by_patterns(pattern: str, numbers: list[int]) -> None:
    assert [case.number for case in choose(_cases(), [pattern])] == numbers


def _case(test: str) -> Case:
    return Case(test, 1, "", "", 30.0, SUITE)


def _outcome(output: str, *, log: Sequence[str] = (), status: int = 1) -> Outcome:
    return Outcome(output, status, False, (), 0.1, tuple(log), (), tuple(crashes(log)), 0)


def _verdict(test: str, outcome: Outcome) -> tuple[Verdict, str]:
    verdict, reason, _ = judge(_case(test), outcome)
    return verdict, reason


@pytest.mark.parametrize("version", VERSIONS)
def test_what_hmm_tests_say_is_said_and_what_they_swallow_too(version: str) -> None:
    outcome = _outcome(toy(version))
    swallows = version in ("5.10", "6.1")
    ok = "hmm-tests call it"
    child = "toy-tests.c:44: Expected 1 (1) == 2 (2)"
    late = "toy-tests.c:70: Expected 1 (1) == 2 (2)"
    returned = (
        "it returned before it asked the device for anything: mmap() failed with ENOMEM (Cannot allocate memory)"
    )
    expected = {
        "good": (Verdict.PASS, ""),
        "bad": (Verdict.FAIL, "toy-tests.c:36: Expected self->fd (3) == -1 (-1)"),
        "child": (Verdict.FAIL, f"swallowed: {child} failed, and {ok} ok" if swallows else child),
        "skips": (Verdict.SKIP, "not today"),
        "shrugs": (Verdict.SKIP, "hmm-tests give no reason"),
        "returns": (Verdict.SKIP, f"{returned} (which {ok[:-3]} ok)"),
        "dies": (Verdict.FAIL, "Test terminated unexpectedly by signal 11"),
        "late_skip": (Verdict.FAIL, f"swallowed: {late} failed, and {ok} a SKIP"),
        "sleeps": (Verdict.TIMEOUT, "hmm-tests gave it up after 30 s"),
    }
    assert {name: _verdict(f"toy.one.{name}", outcome) for name in expected} == expected


def test_a_skip_that_hmm_tests_call_ok_is_a_skip() -> None:
    assert _verdict("toy.none.good", _outcome(toy("6.1"))) == (
        Verdict.SKIP,
        "no such device (which hmm-tests call ok)",
    )
    assert _verdict("toy.none.good", _outcome(toy("7.3"))) == (Verdict.SKIP, "no such device")


def test_a_request_that_fails_against_all_expectation_is_swallowed() -> None:
    output = toy("7.3").replace("# hmm-harness: ioctl 0 25", "# hmm-harness: ioctl 2 12")
    assert _verdict("toy.one.good", _outcome(output)) == (
        Verdict.FAIL,
        "swallowed: MIGRATE_TO_DEV failed with ENOMEM, which no case expects, and hmm-tests call it ok",
    )
    assert _verdict("toy.one.good", _outcome(output.replace("ioctl 2 12", "ioctl 0 4"))) == (Verdict.PASS, "")


def test_a_pass_tells_which_requests_failed_and_what_was_left_behind() -> None:
    output = toy("7.3").replace("ioctl 0 25", "ioctl 0 14\n# hmm-harness: ioctl 0 14\n# hmm-harness: ioctl 2 0")
    verdict, _, details = judge(_case("toy.one.good"), replace(_outcome(output), left=("hmm-tests",)))
    assert verdict is Verdict.PASS
    assert details == ("READ failed with EFAULT, 2 times", "it left a process behind: hmm-tests")


_WARNING = (
    "[    1.0] ------------[ cut here ]------------",
    "[    1.0] WARNING: CPU: 0 PID: 77 at mm/memcontrol.c:778 folio_lruvec_lock_irqsave+0x1/0x2",
    "[    1.0] Call Trace:",
    "[    1.0]  migrate_device_finalize+0x3/0x4",
    "[    1.0] ---[ end trace 0000000000000000 ]---",
)


def test_the_kernels_word_outranks_that_of_hmm_tests() -> None:
    assert _verdict("toy.one.good", _outcome(toy("7.3"), log=_WARNING)) == (
        Verdict.CRASHED,
        "WARNING in folio_lruvec_lock_irqsave, and hmm-tests call it ok",
    )
    assert _verdict("toy.one.bad", _outcome(toy("7.3"), log=_WARNING))[1].endswith("and hmm-tests call it fail")
    assert _verdict("toy.one.good", _outcome(toy("7.3"), log=[LOST_LINES]))[0] is Verdict.INCONCLUSIVE


def test_no_result_is_a_crash_and_never_a_pass() -> None:
    whole = toy("7.3")
    killed = _outcome(whole[: whole.index("not ok 7")], status=-9)
    assert _verdict("toy.one.dies", killed) == (
        Verdict.CRASHED,
        "it has no result: hmm-tests were killed by signal 9",
    )
    assert _verdict("toy.none.bad", killed)[1].endswith(" before it began")
    assert _verdict("toy.one.good", _outcome("", status=0))[0] is Verdict.CRASHED
    late = replace(_outcome(whole[: whole.index("not ok 7")]), late=True)
    assert _verdict("toy.one.dies", late)[0] is Verdict.TIMEOUT


def test_totals_that_do_not_add_up_are_an_error() -> None:
    output = toy("7.3").replace("Totals: pass:2", "Totals: pass:3")
    verdict, reason = _verdict("toy.one.good", _outcome(output))
    assert verdict is Verdict.ERROR
    assert "totals do not add up: they say 3 pass, 4 fail, 12 skip" in reason
    assert _verdict("toy.one.bad", _outcome(output))[0] is Verdict.FAIL  # that it failed is certain


def test_a_shortage_is_no_verdict() -> None:
    verdict, reason, _ = judge(_case("toy.one.bad"), _outcome(toy("7.3")), "the guest ran out of memory")
    assert (verdict, reason) == (Verdict.INCONCLUSIVE, "the guest ran out of memory")


# ---- several kernels


def _peers(monkeypatch: pytest.MonkeyPatch, suites: dict[str, list[str] | HarnessError], *patterns: str) -> Peers:
    def cases(kernel: object) -> list[Case]:
        found = suites[kernel.name]  # type: ignore[attr-defined]
        if isinstance(found, HarnessError):
            raise found
        return [_case(test) for test in found]

    monkeypatch.setattr(upstream, "cases", cases)
    plan = Plan((), (), cases=patterns or ("*",))
    return Peers(plan, [(name, "plain") for name in suites])


class _Silent:
    def step(self, _title: str) -> _Silent:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _plans(peers: Peers, *kernels: str) -> list[tuple[list[str], list[str]]]:
    told: list[tuple[Plan, Planned]] = [
        peers.plan(fake_machine(kernel, "plain"), progress=_Silent())  # type: ignore[arg-type]
        for kernel in kernels
    ]
    return [([case.name for case in plan.programs], list(planned.programs)) for plan, planned in told]


def _short(results: Sequence[Result]) -> list[tuple[str, str, Verdict, str]]:
    return [(each.kernel, each.program, each.status, each.reason) for each in results]


def test_a_case_that_another_kernel_has_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = _peers(monkeypatch, {"old": ["a.one"], "new": ["a.one", "a.two"]})
    assert _plans(peers, "old", "new") == [
        (["hmm-tests/a.one"], ["hmm-tests/a.one"]),
        (["hmm-tests/a.one", "hmm-tests/a.two"], ["hmm-tests/a.two"]),
    ]
    why = "the hmm-tests of this kernel have no such case"
    assert _short(list(peers.missing())) == [("old", "hmm-tests/a.two", Verdict.SKIP, why)]


def test_a_kernel_without_a_suite_skips_and_one_whose_suite_is_broken_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suites: dict[str, list[str] | HarnessError] = {
        "stock": MissingError("no source"),
        "mine": BuildError("it does not compile"),
        "good": ["a.one"],
    }
    peers = _peers(monkeypatch, suites)
    assert _plans(peers, *suites)[:2] == [([], []), ([], [])]
    assert _short(list(peers.missing())) == [
        ("stock", "hmm-tests/a.one", Verdict.SKIP, "no source"),
        ("mine", "hmm-tests/a.one", Verdict.ERROR, "it does not compile"),
    ]


def test_without_any_case_there_is_a_result_for_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = _peers(monkeypatch, {"stock": MissingError("no source")})
    assert _plans(peers, "stock") == [([], [])]
    (result,) = peers.missing()
    assert (result.program, result.binding, result.status) == ("hmm-tests", "hmm-tests", Verdict.SKIP)


def test_a_case_that_there_is_not_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = _peers(monkeypatch, {"only": ["hmm.migrate", "hmm.migrate_fault"]}, "migrat")
    with pytest.raises(UsageError, match="no case 'migrat'") as caught:
        _plans(peers, "only")
    assert "migrate" in str(caught.value.hint)


def test_nothing_is_missing_where_nothing_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "cases", lambda _kernel: pytest.fail("nobody asked"))
    assert list(Peers(Plan((), ()), [("k", "plain")]).missing()) == []
