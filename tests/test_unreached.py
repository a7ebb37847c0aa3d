# SPDX-License-Identifier: GPL-2.0-only
"""What programs cannot reach: the list is in order, and follows the code by its text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.conformance.unreached import KINDS, Reason, account, lines_of, load
from harness.coverage import complaints, not_reached, reachable
from harness.target.coverage import FileCoverage
from tests.needs import source_tree

_SOURCE = """\
static int other(int a);

static int half(int number)
{
	if (number % 2)
		return -1;
	if (number < 0 ||
		number > 100)
		return -2;
	return number / 2;
}

static struct half *
find(int number)
{
	if (number % 2)
		return NULL;
	return half(number);
}
""".splitlines()
_PATH = "mm/half.c"


def _reason(text: str = "", *, function: str = "half", branches: int = 0, series: str = "7.3") -> Reason:
    lines = tuple(line.strip() for line in text.splitlines())
    return Reason(_PATH, function, "race", "it would take two CPUs", (series,), lines, branches)


def _coverage(missed: set[int], untaken: dict[int, int]) -> FileCoverage:
    """Of `_SOURCE`: lines with code, of which some never ran; and lines with two or four branches."""
    lines = Counter({line: int(line not in missed) for line in (3, 5, 6, 7, 8, 9, 10, 14, 16, 17, 18)})
    branches: Counter[tuple[int, int, int]] = Counter()
    for line, count in {5: 2, 7: 4, 16: 2}.items():
        for index in range(count):
            branches[line, 0, index] = int(index >= untaken.get(line, 0) and line not in missed)
    return FileCoverage(lines, branches)


def test_the_code_is_found_by_its_text_and_function() -> None:
    assert lines_of(_reason(), _SOURCE) == range(3, 12)
    assert lines_of(_reason(function="find"), _SOURCE) == range(14, 20)
    assert lines_of(_reason("if (number % 2)\nreturn -1;"), _SOURCE) == range(5, 7)
    assert lines_of(_reason("if (number % 2)", function="find"), _SOURCE) == range(16, 17)


def test_code_that_is_not_there_or_twice_is_not_found() -> None:
    assert lines_of(_reason("if (number % 3)"), _SOURCE) is None
    assert lines_of(_reason(function="other"), _SOURCE) is None  # declared, not defined
    assert lines_of(_reason("return -1;\nreturn -2;"), _SOURCE) is None  # not one after the other
    assert lines_of(_reason("return -1;"), [*_SOURCE, *_SOURCE]) is None


def test_code_is_followed_when_it_moves() -> None:
    assert lines_of(_reason("return -2;"), ["", "/* new */", *_SOURCE]) == range(11, 12)


def test_what_is_not_reached_is_told_by_reason() -> None:
    coverage = _coverage({6, 9, 17}, {5: 1, 7: 2, 16: 1})
    reasons = [_reason("if (number % 2)\nreturn -1;", branches=1), _reason("number > 100)\nreturn -2;")]
    found = account(_PATH, coverage, _SOURCE, "7.3", reasons)
    assert found.lines == {6: reasons[0], 9: reasons[1], 17: None}
    assert found.branches == {5: [reasons[0]], 7: [None, None], 16: [None]}
    assert (found.bare_lines, found.bare_branches) == ([17], {7: 2, 16: 1})
    assert (found.line_share.covered, found.line_share.total) == (8, 9)
    assert (found.branch_share.covered, found.branch_share.total) == (4, 7)
    assert found.reasons == reasons
    assert not found.outdated
    # The plain figures stay what they are.
    assert (coverage.line_share.covered, coverage.line_share.total) == (8, 11)
    assert (coverage.branch_share.covered, coverage.branch_share.total) == (4, 8)


def test_branches_of_a_line_that_never_ran_are_as_that_line_is() -> None:
    reason = _reason("if (number < 0 ||\nnumber > 100)\nreturn -2;")
    found = account(_PATH, _coverage({7, 8, 9}, {}), _SOURCE, "7.3", [reason])
    assert found.lines == {7: reason, 8: reason, 9: reason}
    assert found.branches == {7: [reason] * 4}


def test_more_branches_than_listed_have_no_reason() -> None:
    reason = _reason("if (number < 0 ||\nnumber > 100)", branches=1)
    found = account(_PATH, _coverage(set(), {7: 3}), _SOURCE, "7.3", [reason])
    assert found.branches == {7: [reason, None, None]}


@pytest.mark.parametrize(
    ("text", "branches"), [("return -1;", 0), ("if (number % 2)", 2), ("if (number % 2)\nreturn -1;", 1)]
)
def test_what_is_reached_after_all_is_outdated(text: str, branches: int) -> None:
    reason = _reason(text, branches=branches)
    found = account(_PATH, _coverage(set(), {5: min(branches, 1) if branches == 2 else 0}), _SOURCE, "7.3", [reason])
    assert found.outdated == [reason]
    assert "is reached" in complaints({_PATH: found})[0]


def test_code_of_a_series_that_was_looked_at_must_be_found() -> None:
    reason = _reason("return -3;")
    found = account(_PATH, _coverage(set(), {}), _SOURCE, "7.3", [reason])
    assert found.lost == [reason]
    assert "no such code" in complaints({_PATH: found})[0]


def test_another_series_has_the_reasons_whose_code_it_has() -> None:
    reasons = [_reason("return -1;", series="6.1"), _reason("return -2;"), _reason("return -3;")]
    coverage = _coverage({6, 9}, {})
    looked_at = account(_PATH, coverage, _SOURCE, "7.3", reasons)
    assert looked_at.lines == {6: None, 9: reasons[1]}
    other = account(_PATH, coverage, _SOURCE, "6.12", reasons)
    assert other.lines == {6: reasons[0], 9: reasons[1]}
    assert not other.lost


def test_what_is_not_reached_is_shown_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "mm").mkdir()
    (tmp_path / _PATH).write_text("\n".join(_SOURCE))
    accounts = {
        _PATH: account(_PATH, _coverage({6, 9}, {5: 1, 7: 1}), _SOURCE, "7.3", [_reason("return -1;")]),
    }
    assert not_reached(accounts, tmp_path) == [
        "mm/half.c:5: 1 branches never taken: if (number % 2)",
        "    no reason is listed",
        "mm/half.c:6: return -1;",
        "    race: it would take two CPUs",
        "mm/half.c:7: 1 branches never taken: if (number < 0 ||",
        "    no reason is listed",
        "mm/half.c:9: return -2;",
        "    no reason is listed",
    ]
    assert reachable(accounts)[1].split() == [
        _PATH, "90.0%", "75.0%", "1", "reasons;", "without", "a", "reason:", "1", "lines,", "2", "branches",
    ]  # fmt: skip


def test_the_list_is_in_order() -> None:
    reasons = load()
    assert len(reasons) == len(set(reasons))
    for reason in reasons:
        assert reason.kind in KINDS
        assert reason.kernels, reason
        assert reason.file.startswith("mm/")


@pytest.mark.parametrize(
    "entry",
    [
        'file = "mm/hmm.c"\nfunction = "f"\nkind = "laziness"\nkernels = ["7.3"]\nwhy = "x"',
        'file = "mm/hmm.c"\nfunction = "f"\nkind = "race"\nkernels = ["7.3"]\nwhy = ""',
        'file = "mm/hmm.c"\nfunction = "f"\nkind = "race"\nkernels = ["7.3"]\nwhy = "x"\nbranches = 1',
        'file = "mm/hmm.c"\nfunction = "f"\nkind = "race"\nwhy = "x"',
        'file = "mm/hmm.c"\nfunction = "f"\nkind = "race"\nkernels = ["7.3"]\nwhy = "x"\nline = 7',
    ],
)
def test_a_list_that_is_out_of_order_is_refused(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "unreached.toml"
    path.write_text(f"[[unreached]]\n{entry}\n")
    with pytest.raises((ValueError, KeyError, TypeError)):
        load(path)


@pytest.mark.parametrize("series", sorted({series for reason in load() for series in reason.kernels}))
def test_the_code_is_in_the_source(series: str) -> None:
    tree = source_tree(series)
    sources = {
        path: (tree / path).read_text(errors="replace").splitlines() for path in {reason.file for reason in load()}
    }
    for reason in load():
        if series in reason.kernels:
            assert lines_of(reason, sources[reason.file]) is not None, reason
