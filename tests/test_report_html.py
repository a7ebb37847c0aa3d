# SPDX-License-Identifier: GPL-2.0-only
"""The HTML page, opened from a file in headless Chromium and used as a person uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from harness.compare import Verdict
from harness.conformance import clauses
from harness.defaults import PEER
from harness.model.allowed import RECORDED
from harness.report import files, html
from harness.report.results import Result, Run, Source
from tests.sample_runs import FLAVOURS, HOSTILE, KERNELS, interrupted_run, sample_run
from tests.test_report_peer import peer_run

_PATIENCE = 60.0  # seconds: for machines that do much else


class Page:
    """The page of a run in the browser, and what a person sees and does there."""

    def __init__(self, browser: webdriver.Chrome, run: Run, path: Path) -> None:
        self.browser = browser
        self.run = run
        files.write(path, html.render(run))
        self.address = path.as_uri()
        self.open("")

    def open(self, fragment: str) -> None:
        """Loads the page anew at `fragment`."""
        self.browser.get("about:blank")
        self.browser.get(self.address + fragment)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        """Presses keys where the focus is."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for it; what is looked at may be replaced meanwhile."""
        waiting = WebDriverWait(self.browser, _PATIENCE, 0.05, ignored_exceptions=[StaleElementReferenceException])
        waiting.until(lambda _: condition())

    def cell(self, result: Result) -> WebElement:
        """The cell of a result that is shown."""
        name = f"{result.status} {result.program}, {result.kernel} {result.flavour}, {result.binding}"
        return self.one(f'td[aria-label="{name}"]')

    def focused(self) -> str:
        """The label of what has the focus."""
        return self.browser.switch_to.active_element.get_attribute("aria-label") or ""

    def shown(self) -> list[str]:
        """The labels of the cells that match the filters, of those drawn."""
        script = "return [...document.querySelectorAll('td[data-key]:not(.other)')].map((each) => each.ariaLabel)"
        return list(self.browser.execute_script(script))

    def programs(self) -> list[str]:
        script = "return [...document.querySelectorAll('tbody tr:not(.room) th')].map((each) => each.title)"
        return [title.partition("\n")[0] for title in self.browser.execute_script(script)]

    def errors(self) -> list[str]:
        """What the browser complained of: errors of the script, requests that the policy forbids."""
        return [entry["message"] for entry in self.browser.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(browser, sample_run(flavours=("plain", "debug")), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the page as it is when it is opened, and leaves no complaint of the browser."""
    if "page" not in request.fixturenames:
        yield
        return
    page: Page = request.getfixturevalue("page")
    page.open("")
    yield
    assert page.errors() == []


def _first(run: Run, status: Verdict) -> Result:
    return next(result for result in run.results if result.status is status)


def _address(result: Result) -> str:
    words = (result.kernel, result.flavour, result.binding, result.program)
    return "#/" + "/".join(quote(word, safe="") for word in words)


def test_the_matrix_has_every_result(page: Page) -> None:
    expected = {
        f"{each.status} {each.program}, {each.kernel} {each.flavour}, {each.binding}" for each in page.run.results
    }
    shown = page.shown()
    assert len(shown) == len(page.run.results)
    assert set(shown) == expected
    assert page.programs() == list(page.run.programs)
    assert page.browser.title.startswith(page.one("#heading").text)


def test_the_tiles_have_the_counts(page: Page) -> None:
    counts = Counter(each.status.value for each in page.run.results)
    shown = {
        tile.get_attribute("data-status"): tile.find_element(By.TAG_NAME, "b").text for tile in page.all(".tile")
    }
    assert shown == {status: str(number) for status, number in counts.items()}
    bad = sum(counts[each] for each in Verdict if each not in ("PASS", "SKIP", "DEVIATION"))
    assert page.one("#heading").text == f"{bad} of {len(page.run.results)} results need attention"


def test_filter_by_status(page: Page) -> None:
    page.one('[data-status="FAIL"]').click()
    failed = [each for each in page.run.results if each.status is Verdict.FAIL]
    assert len(page.shown()) == len(failed)
    assert set(page.programs()) == {each.program for each in failed}
    assert page.one('[data-status="FAIL"]').get_attribute("aria-pressed") == "true"
    page.one('[data-status="CRASHED"]').click()
    assert len(page.shown()) == len(failed) + sum(each.status is Verdict.CRASHED for each in page.run.results)
    page.one("#clear").click()
    assert len(page.shown()) == len(page.run.results)


def test_filter_by_kernel_flavour_and_binding(page: Page) -> None:
    for name, value in (("kernel", "debian:6.12"), ("flavour", "debug"), ("binding", "test_hmm")):
        page.one(f'[data-facet="{name}"][data-value="{value}"]').click()
    assert len(page.shown()) == len(page.run.programs)
    assert all(label.endswith(", debian:6.12 debug, test_hmm") for label in page.shown())


@pytest.mark.parametrize("text", ["Devmem/FORK", "use-after-free"])
def test_filter_by_text(page: Page, text: str) -> None:
    page.press("/")
    page.press(text)
    found = [each for each in page.run.results if text.lower() in f"{each.program}\n{each.reason}".lower()]
    assert 0 < len(found) < len(page.run.results)
    page.until(lambda: len(page.shown()) == len(found))
    page.press(Keys.ESCAPE)
    assert len(page.shown()) == len(page.run.results)


def test_nothing_that_matches_says_so(page: Page) -> None:
    page.press("/")
    page.press("no such thing")
    page.until(lambda: page.all(".empty"))
    assert "Nothing matches" in page.one("#matrix").text


def test_a_failing_cell_opens_to_all_that_is_known(page: Page) -> None:
    failed = _first(page.run, Verdict.FAIL)
    page.cell(failed).click()
    page.until(lambda: page.one("#panel").is_displayed())
    panel = page.one("#panel")
    assert failed.program in panel.text
    assert page.run.programs[failed.program].title in panel.text
    assert page.one(".reason").text == failed.reason
    assert page.one(".diverged").text.split() == ["▶", "7", "d0:", "table", "buf"]
    assert [each.text.strip() for each in page.all(".saw")] == list(failed.details)
    heads = [each.text for each in page.all(".pages thead th")]
    assert heads == list(failed.tables[0].heads)
    assert [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in page.all(".pages tbody tr")
    ] == [list(row) for row in failed.tables[0].rows]
    assert [each.text for each in page.all(".differs")] == ["rw STALE"]
    assert all(line in page.one(".panel pre").text for line in failed.log)
    assert page.one(".panel dl").text.splitlines()[:2] == ["Release", f"{failed.kernel.partition(':')[2]}.94"]


def test_a_crash_shows_the_kernels_report(page: Page) -> None:
    crashed = _first(page.run, Verdict.CRASHED)
    page.open(_address(crashed))
    assert page.one(".report summary").text == "KASAN slab-use-after-free in mn_tree_invalidate"
    assert page.one(".report pre").text.splitlines() == list(crashed.reports[0].lines)
    assert len(page.all(".complaint")) == len([line for line in crashed.reports[0].lines if line])


@pytest.mark.parametrize("allowed", [True, False])
def test_the_replay_command_is_copied(page: Page, allowed: bool) -> None:
    setting = "granted" if allowed else "denied"
    for name in ("clipboard-read", "clipboard-write"):
        page.browser.execute_cdp_cmd("Browser.setPermission", {"permission": {"name": name}, "setting": setting})
    failed = _first(page.run, Verdict.FAIL)
    page.open(_address(failed))
    button = page.one("#panel .copy")
    button.click()
    page.until(lambda: button.text == "Copied")
    # Pasted as a person would: what was copied is in the field.
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.one("#panel").is_displayed())
    page.press("/")
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
    page.until(lambda: page.one("#search").get_attribute("value") == failed.replay)


def test_by_keyboard_alone(page: Page) -> None:
    programs, run = list(page.run.programs), page.run
    page.press("/")
    page.press(Keys.ARROW_DOWN)
    assert f" {programs[0]}, debian:6.1 plain, interval" in page.focused()
    page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert f" {programs[1]}, debian:6.1 debug, interval" in page.focused()
    page.press(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP)
    assert f" {programs[0]}, debian:6.1 plain, test_hmm" in page.focused()
    page.press(Keys.END)
    assert f" {programs[0]}, {run.kernels[-1][0]} debug, test_hmm" in page.focused()
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys(Keys.END).key_up(Keys.CONTROL).perform()
    here = page.focused()
    assert f" {programs[-1]}, {run.kernels[-1][0]} debug, test_hmm" in here
    page.press(Keys.ENTER)
    page.until(lambda: page.one("#panel").is_displayed())
    assert page.browser.switch_to.active_element.text == programs[-1]
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.one("#panel").is_displayed())
    assert page.focused() == here
    assert page.browser.switch_to.active_element.value_of_css_property("outline-style") == "solid"


def test_next_and_previous_go_through_what_needs_attention(page: Page) -> None:
    run = page.run
    bad = [each for each in run.results if each.status not in ("PASS", "SKIP", "DEVIATION")]
    bad.sort(key=lambda each: list(run.programs).index(each.program))  # by rows, then as they came: by columns
    for key, result in (("n", bad[0]), ("n", bad[1]), ("n", bad[2]), ("p", bad[1]), ("p", bad[0]), ("p", bad[-1])):
        page.press(key)
        page.until(lambda wanted=result: _opened(page) == wanted)  # type: ignore[misc]


def _opened(page: Page) -> Result | None:
    """The result that the panel shows."""
    fragment = page.browser.current_url.partition("#")[2]
    titles = [each.text for each in page.all("#panel-title")]
    return next(
        (each for each in page.run.results if _address(each) == f"#{fragment}" and [each.program] == titles), None
    )


def test_a_link_to_a_result_opens_it_and_the_browser_goes_back(page: Page) -> None:
    failed = _first(page.run, Verdict.FAIL)
    page.open(_address(failed))
    assert page.one("#panel-title").text == failed.program
    assert "open" in str(page.cell(failed).get_attribute("class"))
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.one("#panel").is_displayed())
    page.browser.back()
    page.until(lambda: page.one("#panel").is_displayed())
    page.open("#/no/such/thing/%")
    assert not page.one("#panel").is_displayed()


def test_a_kernels_heading_opens_what_is_known_of_it(page: Page) -> None:
    page.one(".kernel button").click()
    page.until(lambda: page.one("#panel").is_displayed())
    text = page.one("#panel").text
    assert all(word in text for word in ("6.1.94", page.run.targets[0].key, "TCG", "512 MiB", "migrate_vma"))


def test_what_needs_attention_is_listed_once_for_each_crash(page: Page) -> None:
    items = page.all(".attention li button")
    crashes = [item for item in items if "KASAN" in item.text]
    assert len(crashes) == 1
    crashes[0].click()
    page.until(lambda: page.one("#panel").is_displayed())
    assert "CRASHED" in page.one(".badge").text


def _background(page: Page) -> str:
    return page.one("body").value_of_css_property("background-color")


def test_dark_and_light(page: Page) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        page.browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        seen[scheme] = _background(page)
    assert seen["light"] != seen["dark"]
    page.one("#theme").click()
    assert page.one("#theme").text == "Colours: dark"
    assert _background(page) == seen["dark"]
    page.one("#theme").click()
    assert _background(page) == seen["light"]
    page.open("")
    assert _background(page) == seen["light"]  # remembered
    page.one("#theme").click()
    assert page.one("#theme").text == "Colours: auto"


def test_a_narrow_screen_is_not_left_sideways(page: Page) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 420, "height": 860, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        for fragment in ("", _address(_first(page.run, Verdict.FAIL))):
            page.open(fragment)
            wide = page.browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 420
        inner = page.browser.execute_script("return document.documentElement.clientWidth")
        assert page.one("#panel").size["width"] == inner
        assert page.one("#page").get_attribute("inert") is not None  # Tab stays in the panel that covers it
        page.press(Keys.ESCAPE)
        page.until(lambda: page.focused().startswith("FAIL "))
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _edges(page: Page, selector: str) -> dict[str, float]:
    """Where its border is on the screen."""
    script = "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()"
    return dict(page.browser.execute_script(script, selector))


def test_the_matrix_ends_where_the_rest_does_and_there_is_one_scroll_bar(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    run = sample_run(kernels=KERNELS[:1], bindings=("interval", "mirror", "test_hmm"), programs=250)
    page = Page(browser, run, tmp_path / "report.html")
    size = {"width": 1300, "height": 850, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open("")
        ends = {
            _edges(page, each)["right"] for each in ("#matrix", "#matrix table", "#bar", "#attention", "#clauses")
        }
        assert max(ends) - min(ends) <= 1  # a border
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert browser.execute_script("const box = arguments[0]; return box.scrollHeight <= box.clientHeight",
                                      page.one("#matrix"))  # fmt: skip
        page.press("/")
        page.press(Keys.ARROW_DOWN, *[Keys.PAGE_DOWN] * 4)
        assert _edges(page, "#matrix thead th")["top"] == 0  # the headings stay in sight
        for key in (Keys.ARROW_UP, Keys.ARROW_DOWN):
            page.press(*[key] * 30)
            cell = _edges(page, "td:focus")
            assert _edges(page, "#matrix thead tr:last-child th")["bottom"] <= cell["top"]
            assert cell["bottom"] <= 850
        ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.END).key_up(Keys.CONTROL).perform()
        assert len(page.shown()) == len(run.results)
        assert _edges(page, "td:focus")["bottom"] <= 850
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_matrix_that_is_too_wide_scrolls_by_itself(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, sample_run(kernels=KERNELS, flavours=FLAVOURS, programs=60), tmp_path / "report.html")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.press("/")
    page.press(Keys.ARROW_DOWN, Keys.END)
    cell, box = _edges(page, "td:focus"), _edges(page, "#matrix")
    assert box["left"] < cell["left"] < cell["right"] <= box["right"]
    assert _edges(page, "#matrix tbody tr:not(.room) th")["left"] >= box["left"]
    page.one('[data-facet="kernel"][data-value="debian:6.1"]').click()
    page.one('[data-facet="flavour"][data-value="plain"]').click()
    assert "wide" not in str(page.one("#matrix").get_attribute("class")).split()


def test_hostile_texts_stay_texts(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, sample_run(hostile=True), tmp_path / "report.html")
    assert "attention" in browser.title
    assert len(page.shown()) == len(page.run.results)
    script = HOSTILE[0]
    result = next(each for each in page.run.results if each.reason == script)
    page.open(_address(result))
    assert page.one(".reason").text == script
    assert script in page.one(".panel pre").text
    assert "attention" in browser.title
    scripts = browser.execute_script("return document.scripts.length")
    assert scripts == 2
    assert page.errors() == []


def test_an_interrupted_run_shows_what_has_not_run(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, interrupted_run(), tmp_path / "report.html")
    assert "interrupted" in page.one("#facts").text
    assert sum(label.startswith("NOT RUN ") for label in page.shown()) == 27
    assert page.one(".kernel.broken").text.split("\n") == ["debian:6.12", "plain: no kernel"]
    page.one(".kernel.broken button").click()
    page.until(lambda: page.one("#panel").is_displayed())
    assert "it did not build: drivers/base/node.c:12" in page.one(".reason").text


def test_ten_thousand_results_can_be_used(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, sample_run(kernels=KERNELS, flavours=FLAVOURS, programs=250), tmp_path / "report.html")
    run = page.run
    assert len(run.results) == 10_000
    # Only what can be seen soon is drawn.
    assert 40 * 60 <= len(page.all("td[data-key]")) < 5000
    last = run.in_order()[-1]
    page.open(_address(last))
    assert page.one("#panel-title").text == last.program
    assert page.cell(last).is_displayed()
    page.press(Keys.ESCAPE)
    page.until(lambda: page.focused().endswith(f" {last.program}, {last.kernel} {last.flavour}, {last.binding}"))
    page.one('[data-status="FAIL"]').click()
    assert "of 10,000" in page.one("#shown").text
    page.one("#clear").click()
    page.press(Keys.ARROW_DOWN)
    ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.END).key_up(Keys.CONTROL).perform()
    assert len(page.shown()) == 10_000
    assert page.errors() == []


def _contract_run() -> Run:
    """Two kernels; a clause is broken on the first, one deviates on both, one has nothing to run."""
    run = sample_run(kernels=KERNELS[1:3], bindings=("interval", "mirror"), programs=1)
    contract = clauses.load()
    run.clauses = ("RANGE-30", "RANGE-132", "DMA-216", "RANGE-44")
    names = clauses.programs_of(map(contract.find, run.clauses))
    run.programs = {name: Source("", "a: map buf anon 4 rw\n") for name in names}
    run.targets = [replace(target, features=("GUARD",)) for target in run.targets]
    guard = RECORDED["guard-faultable"]
    told = {
        "request/write-alone": (Verdict.PASS, ""),
        "trap/guard-snapshot": (Verdict.DEVIATION, f"{guard.name}: {guard.summary}"),
        "dma/again": (Verdict.SKIP, "needs hmm_dma_map_pfn(), which this kernel does not have"),
    }
    run.results = [
        Result(name, kernel, flavour, binding, verdict, reason, 0.1, "replay")
        for kernel, flavour in run.kernels
        for name, (verdict, reason) in told.items()
        for binding in run.bindings
    ]
    first = run.results[0]
    run.results[0] = replace(first, status=Verdict.FAIL, reason=HOSTILE[0])
    return run


def test_the_contract_says_where_each_clause_stands(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, _contract_run(), tmp_path / "report.html")
    page.until(lambda: page.all("#contract td a"))
    times, _, counts = page.one("#clauses summary span").text.partition(": ")
    assert times == "4 clauses \N{MULTIPLICATION SIGN} 2 kernels \N{MULTIPLICATION SIGN} 2 bindings"
    assert sum(int(count.split()[0]) for count in counts.split(", ")) == 4 * 2 * 2
    old, new = (f"{kernel} {flavour}" for kernel, flavour in page.run.kernels)
    labels = {each.get_attribute("aria-label") for each in page.all("#contract td a")}
    assert labels >= {
        f"broken RANGE-30, {old}, interval", f"proven RANGE-30, {new}, interval",
        f"not applicable RANGE-30, {old}, mirror", f"deviating RANGE-132, {new}, mirror",
        f"not applicable DMA-216, {old}, interval", f"no program RANGE-44, {new}, interval",
    }  # fmt: skip
    page.one('[data-standing="broken"]').click()
    assert [each.text for each in page.all("#contract tbody tr:not(.room) th")] == ["RANGE-30"]
    # One click to the clause, one more to the evidence.
    page.one(f'#contract a[aria-label="broken RANGE-30, {old}, interval"]').click()
    page.until(lambda: page.one("#panel").is_displayed())
    panel = page.one("#panel").text
    assert "HMM_PFN_REQ_WRITE without HMM_PFN_REQ_FAULT faults nothing." in panel
    assert "mm/hmm.c hmm_pte_need_fault(), 7.3" in panel
    assert f"request/write-alone: FAIL: {HOSTILE[0]}" in panel
    page.one("#panel .evidence a.FAIL").click()
    page.until(lambda: page.one("#panel-title").text == "request/write-alone")
    assert [each.text.split()[-1] for each in page.all('#panel a[href^="#clause/"]')] == ["RANGE-30"]
    assert page.errors() == []


def test_what_changed_between_two_kernels_is_shown(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, _contract_run(), tmp_path / "report.html")
    page.until(lambda: page.all("#contract td a"))
    assert len(page.all("#contract tbody tr:not(.room)")) == 4
    for which, place in (("from", 0), ("to", 1)):
        Select(page.one(f"#clauses-{which}")).select_by_value(str(place))
    assert [each.text for each in page.all("#contract tbody tr:not(.room) th")] == ["RANGE-30"]
    assert page.one("#clauses-shown").text == "1 of 4 stand differently"
    Select(page.one("#clauses-to")).select_by_value("0")
    assert len(page.all("#contract tbody tr:not(.room)")) == 4
    assert page.errors() == []


def test_a_run_that_says_nothing_of_a_clause_has_no_contract(browser: webdriver.Chrome, tmp_path: Path) -> None:
    run = sample_run(programs=1)
    run.programs = {"mine.hmm": Source("", "a: map buf anon 4 rw\n")}
    run.results = [replace(result, program="mine.hmm") for result in run.results]
    page = Page(browser, run, tmp_path / "report.html")
    assert not page.one("#clauses").is_displayed()
    page.open("#clause/RANGE-30")
    assert not page.one("#panel").is_displayed()


def test_it_says_what_matters_without_javascript(browser: webdriver.Chrome, page: Page) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open("")
        text = page.one(".plain").text
        failed = _first(page.run, Verdict.FAIL)
        assert "need attention" in text
        assert failed.replay in text
        assert not page.one("#page").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_page_asks_for_nothing() -> None:
    text = html.render(sample_run(programs=5))
    policy = text.partition('content="')[2].partition('"')[0]
    assert policy.startswith("default-src &#x27;none&#x27;; img-src data:; style-src &#x27;sha256-")
    for attribute in (" src=", "@import", "url(", "fetch(", "XMLHttpRequest"):
        assert attribute not in text
    assert text.count("http") == text.count("http-equiv") + text.count("http://www.w3.org/2000/svg")


def test_the_kernels_own_tests_are_rows_of_their_own(browser: webdriver.Chrome, tmp_path: Path) -> None:
    run = peer_run()
    page = Page(browser, run, tmp_path / "report.html")
    assert len(page.shown()) == len(run.results)
    assert page.programs() == list(run.programs)
    case = next(each for each in run.results if each.binding == PEER and each.status is Verdict.FAIL)
    page.cell(case).click()
    page.until(lambda: page.one("#panel-title").text == case.program)
    panel = page.one("#panel").text
    assert "READ failed with EFAULT, 2 times" in panel
    assert "TEST_F(hmm2.snapshot)" in panel
    page.press(Keys.ESCAPE)
    page.until(lambda: page.focused().startswith(f"FAIL {case.program}"))
    page.press(Keys.ARROW_LEFT)  # there is no result of it on another binding: only on another kernel, which is right
    assert page.focused().startswith(f"FAIL {case.program}")
    page.press(*[Keys.ARROW_UP] * len(run.programs))
    assert page.focused().split()[1] == f"{next(iter(run.programs))},"
    page.one('[data-facet="binding"][data-value="hmm-tests"]').click()
    assert len(page.shown()) == len([each for each in run.results if each.binding == PEER])
    assert page.errors() == []
