# SPDX-License-Identifier: GPL-2.0-only
"""The page of an exploration, opened from a file in headless Chromium; and the numbers over time that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from harness.compare import Verdict
from harness.errors import HarnessError
from harness.explore.chart import growth, lasting
from harness.explore.findings import Finding, GivenUp, Store, Symptom, UnitDone
from harness.explore.page import publisher, render
from harness.explore.story import tell
from harness.program.text import render as as_text
from tests.sample_runs import HOSTILE
from tests.test_explore import FINDING, PROGRAM, UNIT, _program

DRAWN = _program("a: map x anon 1 rw\na: read x\na: read x\na: write x 7\n")
CRASH = Symptom("mirror", Verdict.CRASHED, "WARNING in do_swap_page")
NEW_YEAR = 1_767_225_600.0  # 2026-01-01 00:00 UTC
DAY = 86400.0


def _unit(number: int, began: float, ended: float, *found: Symptom) -> UnitDone:
    return replace(
        UNIT,
        number=number,
        binding=("interval", "mirror")[number % 2],
        began=began,
        ended=ended,
        seconds=10.0,
        operations=1000,
        kernel="debian:6.1",
        flavour="plain",
        findings=tuple(symptom.id for symptom in found),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two VMs for 20 seconds, one for 10 more two days later; a finding at 10 s, one at 30 s."""
    begun, later = NEW_YEAR, NEW_YEAR + 2 * DAY
    with Store(tmp_path / "kept") as store:
        store.add_program(PROGRAM, ["a", "b"], begun + 10)
        store.add_program(PROGRAM, ["c"], later + 10)
        store.add_finding(replace(FINDING, found=DRAWN, explanation=("FAIL x", "  step 2: buf[1]: saw rw STALE")))
        store.add_finding(replace(FINDING, symptom=CRASH, shown=0, runs=0, before=(DRAWN,)))
        store.add_unit(_unit(0, begun, begun + 10, FINDING.symptom))
        store.add_unit(_unit(1, begun, begun + 12))
        store.add_unit(_unit(2, begun + 10, begun + 20, FINDING.symptom))
        store.add_unit(_unit(3, later, later + 10, CRASH))
        store.add_error(GivenUp("unit 7/9", "two workers were lost", "t", 7, 9, later))
        store.add_error(GivenUp("unit 7/3", "two workers were lost", "t", 7, 3, begun))
        yield store


def test_time_is_what_was_spent_exploring(store: Store) -> None:
    """A pause of two days takes none; two VMs at once take as long as one."""
    story = tell(store)
    assert story.seconds == 30.0
    assert story.operations == ((10.0, 1000), (12.0, 2000), (20.0, 3000), (30.0, 4000))
    assert story.situations == ((10.0, 2), (30.0, 3))
    assert story.seen == ((10.0, 1), (30.0, 2))
    assert story.found == {FINDING.symptom.id: 10.0, CRASH.id: 30.0}
    assert (story.total.units, story.total.programs, story.total.seconds) == (4, 4 * UNIT.programs, 40.0)
    assert {binding: share.units for binding, share in story.shares.items()} == {"interval": 2, "mirror": 2}
    assert [error.what for error in story.errors] == ["unit 7/9"], "unit 3 was done since"


def test_units_that_are_in_the_store_twice_count_once(store: Store) -> None:
    store.add_unit(_unit(0, NEW_YEAR + 5 * DAY, NEW_YEAR + 5 * DAY + 10))
    assert tell(store).total.units == 4
    assert tell(store).seconds == 30.0


def test_what_was_kept_before_there_were_times_came_first(store: Store) -> None:
    for number in (10, 11):
        store.add_unit(replace(_unit(number, 0.0, 0.0), seconds=20.0))
    story = tell(store)
    assert story.seconds == 70.0
    assert story.operations[:3] == ((20.0, 1000), (40.0, 2000), (50.0, 3000))


def test_nothing_can_be_shown_too(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        text = render(tell(store))
    assert "Nothing was found in 0 operations" in text
    assert 'id="findings"' not in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (754, "12 min 34 s"), (7200, "2 h"), (90000, "1 d 1 h")],
)
def test_times_are_short(seconds: float, shown: str) -> None:
    assert lasting(seconds) == shown


@pytest.mark.parametrize("most", [0, 1, 3, 4, 5, 9, 10, 44, 1770, 999_999, 1_000_001])
def test_the_axis_goes_as_far_as_the_curve_and_not_much_further(most: int) -> None:
    chart = growth("x", [(1.0, most)], 10.0)
    numbers = [each.partition("</text>")[0].rpartition(">")[2] for each in chart.split('<text class="y"')[1:]]
    assert 2 <= len(numbers) <= 6
    sizes = {"k": 1000, "M": 1_000_000}
    top = float(numbers[-1].rstrip("kM")) * sizes.get(numbers[-1][-1], 1)
    assert most <= top <= max(2.5 * most, 1)


def test_a_curve_of_many_points_is_as_long_as_one_of_few() -> None:
    many = [(number / 100, number) for number in range(50_000)]
    chart = growth("x", many, 500.0)
    assert len(chart) < 20_000
    assert chart == growth("x", many, 500.0)
    assert "49,999 after 8 min 20 s" in chart


class Page:
    """The page in the browser."""

    def __init__(self, browser: webdriver.Chrome, path: Path) -> None:
        self.browser = browser
        browser.get("about:blank")
        browser.get(path.as_uri())

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.browser.find_elements(By.CSS_SELECTOR, selector)]

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]  # type: ignore[no-untyped-call]


def _opened(browser: webdriver.Chrome, store: Store, tmp_path: Path, *, last: bool = True) -> Page:
    path = tmp_path / "page.html"
    publisher(path, store.path, pytest.fail)(last)
    return Page(browser, path)


def test_it_shows_charts_findings_and_what_ran(browser: webdriver.Chrome, store: Store, tmp_path: Path) -> None:
    page = _opened(browser, store, tmp_path)
    assert page.texts("h1") == ["2 findings in 4,000 operations"]
    facts = page.texts("header .facts span")
    assert {"debian:6.1 plain", "30 s of exploring", "133 operations/s", "seed 7"} <= {*facts}
    assert "2026-01-01 00:00 to 2026-01-03 00:00 UTC" in facts
    assert page.texts("figcaption b") == ["3", "4,000", "2"]
    labels = [each.get_attribute("aria-label") for each in browser.find_elements(By.CSS_SELECTOR, "svg.chart")]
    assert labels == [
        "Situations of the model: 3 after 30 s",
        "Operations: 4,000 after 30 s",
        "Findings: 2 after 30 s",
    ]
    assert page.texts(".findings tbody tr") == [
        "FAIL table: saw rw STALE interval 5 of 5 2 10 s",
        "CRASHED WARNING in do_swap_page mirror not looked into 2 30 s",
    ]
    assert page.texts(f"[id='{FINDING.symptom.id}'] > pre.program") == [as_text(FINDING.program).rstrip()]
    assert "step 2: buf[1]: saw rw STALE" in page.texts(f"[id='{FINDING.symptom.id}'] > pre")[1]
    assert page.texts(".numbers tbody tr")[0].startswith("interval 2 384 2,000 20 s 100")
    assert page.texts(".errors li") == ["unit 7/9 two workers were lost"]
    assert not browser.find_elements(By.CSS_SELECTOR, "script, meta[http-equiv=refresh]")
    assert page.errors() == []


def test_a_mark_in_the_chart_leads_to_the_finding(browser: webdriver.Chrome, store: Store, tmp_path: Path) -> None:
    page = _opened(browser, store, tmp_path)
    marks = browser.find_elements(By.CSS_SELECTOR, "#chart-found a")
    assert [each.get_attribute("aria-label") for each in marks] == [str(FINDING.symptom), str(CRASH)]
    browser.find_element(By.CSS_SELECTOR, "#chart-found a:nth-of-type(2) circle").click()
    assert browser.current_url.endswith(f"#{CRASH.id}")
    browser.find_element(By.CSS_SELECTOR, f"[id='{CRASH.id}'] summary").click()
    assert page.texts(f"[id='{CRASH.id}'] details pre") == [as_text(DRAWN).rstrip()]


def test_dark_and_light_and_narrow(browser: webdriver.Chrome, store: Store, tmp_path: Path) -> None:
    page = _opened(browser, store, tmp_path)
    seen = {}
    try:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            parts = ("body", ".chart .line", "pre.program")
            found = [browser.find_element(By.CSS_SELECTOR, each) for each in parts]
            seen[scheme] = [
                each.value_of_css_property(name)
                for each, name in zip(found, ("background-color", "stroke", "background-color"), strict=True)
            ]
        assert all(one != other for one, other in zip(seen["light"], seen["dark"], strict=True))
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 420, "height": 860, "deviceScaleFactor": 1, "mobile": False},
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 420
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert page.errors() == []


def test_hostile_texts_stay_texts(browser: webdriver.Chrome, store: Store, tmp_path: Path) -> None:
    words = [text.encode(errors="replace").decode() for text in HOSTILE]  # those of a symptom are of a kernel's log
    hostile: list[Finding] = [
        replace(FINDING, symptom=Symptom("interval", Verdict.CRASHED, word), explanation=(text,), kernel=text)
        for word, text in zip(words, HOSTILE, strict=True)
    ]
    for finding in hostile:
        store.add_finding(finding)
    store.add_error(GivenUp(HOSTILE[0], HOSTILE[1], HOSTILE[2], 7, None, 1.0))
    page = _opened(browser, store, tmp_path)
    assert browser.title == f"{len(HOSTILE) + 2} findings in 4,000 operations - hmm-harness"
    assert HOSTILE[0] in page.texts(".findings td a")
    assert len(page.texts("article")) == len(HOSTILE) + 2
    assert browser.execute_script("return document.scripts.length") == 0
    assert page.errors() == []


def test_while_it_is_under_way_the_page_says_so_and_looks_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    publish = publisher(path, store.path, pytest.fail)
    publish(False)
    assert '<meta http-equiv="refresh" content="30">' in path.read_text()
    assert "still exploring, as of" in path.read_text()
    publish(True)
    assert "refresh" not in path.read_text().partition("<style>")[0]


def test_a_page_that_cannot_be_written_is_told_at_once_and_later_once(store: Store, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot write the report"):
        publisher(tmp_path, store.path, pytest.fail)
    said: list[str] = []
    path = tmp_path / "page.html"
    publish = publisher(path, store.path, said.append)
    path.mkdir()
    publish(False)
    publish(True)
    assert len(said) == 1


def test_it_asks_for_nothing(store: Store) -> None:
    text = render(tell(store))
    policy = text.partition('content="')[2].partition('"')[0]
    assert policy.startswith("default-src &#x27;none&#x27;; img-src data:; style-src &#x27;sha256-")
    assert "script-src" not in policy
    for attribute in (" src=", "@import", "url(", "fetch("):
        assert attribute not in text
    assert text.count("http") == text.count("http-equiv")
