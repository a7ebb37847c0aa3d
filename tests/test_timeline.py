# SPDX-License-Identifier: GPL-2.0-only
"""Timelines: of races that ran (tests/record_race.py), as rows, as text, as a picture, and as a page in Chromium."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from harness.cli.timelines import Drawings
from harness.compare import Verdict
from harness.conformance import catalogue
from harness.program.operations import Map, Span
from harness.program.race import MAX_LOOK_PAGES, MAX_LOOKS, Course, Ending, Gate, Look, Race, recorded
from harness.program.text import parse, render
from harness.report import files, timeline_page, timeline_svg, timeline_text
from harness.report.timeline import Kind, Row, Rule, State, Timeline, draw
from harness.target.lab import Execution
from tests.record_race import Record, load
from tests.sample_runs import HOSTILE

NAMES = ("lock-skip-retry", "valid", "migrating")
RULE = Rule("MIRROR-4", "What a device takes over it checks under its lock.")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def record() -> Record:
    """race/lock with the mistake skip-retry, on a real kernel."""
    return load("lock-skip-retry")


@pytest.fixture(scope="module")
def waits() -> Record:
    """race/valid, in which an actor waits, with nothing wrong."""
    return load("valid")


def _drawn(record: Record) -> Timeline:
    return draw(
        record.race,
        record.comparison,
        record.observations,
        record.course,
        where=f"on {record.kernel} (plain), interval",
        rules=[RULE],
        replay=f"hmm-harness race replay {record.race.name} '{record.race.schedule}'",
    )


def _of(timeline: Timeline, *kinds: Kind) -> list[Row]:
    return [row for row in timeline.rows if row.kind in kinds]


# Rows


def test_rows_are_in_the_order_of_time(record: Record) -> None:
    rows = _drawn(record).rows
    times = [row.time for row in rows if row.time is not None]
    assert times == sorted(times)
    assert times[0] == 0
    assert all(row.time is None for row in rows[len(times) :])


def test_gates_are_in_the_order_in_which_actors_came_by(record: Record) -> None:
    timeline = _drawn(record)
    assert timeline.actors == ("x", "y")
    shown = [(row.actor, row.text) for row in _of(timeline, Kind.GATE, Kind.PARKED)]
    assert shown == [
        *((0, gate) for gate in ("walk.begin", "walk.sequence", "walk.locked", "walk.seen", "walk.lock")),
        *((1, f"invalidate.{gate}") for gate in ("begin", "locked", "sequence", "removed", "end")),
        *((0, gate) for gate in ("walk.valid", "walk.entered", "walk.end")),
    ]
    (parked,) = _of(timeline, Kind.PARKED)
    assert (parked.actor, parked.text) == (0, Gate.WALK_LOCK)
    assert parked.states == (State.PARKED, State.IDLE)


def test_what_an_actor_does_is_known_at_each_row(record: Record) -> None:
    states = [row.states for row in _drawn(record).rows]
    seen = [state for number, state in enumerate(states) if number == 0 or states[number - 1] != state]
    assert seen == [
        (State.IDLE, State.IDLE),
        (State.RUNS, State.IDLE),
        (State.PARKED, State.IDLE),
        (State.PARKED, State.RUNS),
        (State.PARKED, State.DONE),
        (State.RUNS, State.DONE),
        (State.DONE, State.DONE),
    ]


def test_steps_begin_and_end_with_what_they_showed(record: Record) -> None:
    timeline = _drawn(record)
    assert [(row.actor, row.text) for row in _of(timeline, Kind.BEGINS)] == [
        (0, "d0: fault buf[1] write"),
        (1, "a: advise buf[0:2] dontneed"),
    ]
    assert [row.text for row in _of(timeline, Kind.ENDS)] == ["advise: done", "fault: rw"]


def test_an_event_is_in_the_column_of_the_thread_that_ran_then(record: Record) -> None:
    timeline = _drawn(record)
    (event,) = _of(timeline, Kind.EVENT)
    assert event.text == "d0 hears clear buf[0:2]"
    assert event.actor == 1
    at = timeline.rows.index(event)
    assert timeline.rows[at - 1].text == "invalidate.removed"
    assert timeline.rows[at + 1].text == "invalidate.end"


def test_both_page_tables_are_shown_at_each_stop(record: Record) -> None:
    timeline = _drawn(record)
    looks = _of(timeline, Kind.TABLES)
    assert [row.text for row in looks] == ["before", "after x@walk.lock", "after y", "after x", "at the end"]
    shown = [
        {strip.who: " ".join(f"{run.pages} {run.entry}" for run in strip.runs) for strip in row.strips}
        for row in looks
    ]
    assert shown[0] == shown[1] == {"CPU a": "[0:4] rw", "d0": "[0:4] -"}
    assert shown[2] == {"CPU a": "[0:2] - [2:4] rw", "d0": "[0:4] -"}
    assert shown[3] == shown[4] == {"CPU a": "[0:2] - [2:4] rw", "d0": "[0] - [1] rw STALE [2:4] -"}
    assert [row.same for row in looks] == [False, True, False, False, True]


def test_the_broken_rule_is_marked_where_it_is_first_seen_and_where_it_was_judged(record: Record) -> None:
    timeline = _drawn(record)
    assert record.comparison.verdict is Verdict.FAIL
    assert not timeline.good
    broken = [row for row in timeline.rows if row.broken]
    assert [row.text for row in broken] == ["after x", "checked after the race: d0: table buf"]
    assert broken[0].broken == ("from here on d0's buf[1] contradicts the CPU's page table",)
    assert broken[1].broken[0] == "buf[1]: saw rw STALE, allowed is -"


def test_who_waits_is_shown_with_the_place_and_goes_on_when_it_can(waits: Record) -> None:
    timeline = _drawn(waits)
    assert timeline.good
    assert not any(row.broken for row in timeline.rows)
    (row,) = _of(timeline, Kind.WAITS)
    assert row.actor == 1
    assert row.text.startswith("waits in ")
    assert row.states == (State.PARKED, State.WAITS)
    (goes_on,) = _of(timeline, Kind.GOES_ON)
    assert goes_on.states == (State.RUNS, State.WAITS)
    behind = timeline.rows[timeline.rows.index(goes_on) :]
    assert (State.DONE, State.DONE) in [row.states for row in behind]
    while_locked = [row for row in _of(timeline, Kind.TABLES) if row.text.startswith(("after x@walk", "after y!"))]
    assert len(while_locked) == 2, "a look waits for nobody: x is parked with the lock, and y waits for it"


def test_who_was_not_made_to_wait_is_marked(waits: Record) -> None:
    stops = tuple(replace(stop, ending=Ending.ENDED) for stop in waits.course.stops)
    comparison = replace(waits.comparison, verdict=Verdict.FAIL, reason="not made to wait")
    timeline = draw(waits.race, comparison, waits.observations, replace(waits.course, stops=stops))
    (row,) = [row for row in timeline.rows if row.broken]
    assert row.actor == 1
    assert row.broken == ("y was to be made to wait, and was not",)


def test_a_step_of_an_actor_that_diverged_is_marked(record: Record) -> None:
    divergence = record.comparison.divergence
    assert divergence is not None
    step = record.race.first + 1  # in the order y, x: what x did
    program = record.race.in_order((step, record.race.first))
    comparison = replace(record.comparison, program=program, divergence=replace(divergence, step=step))
    timeline = draw(record.race, comparison, record.observations, record.course)
    broken = [row for row in timeline.rows if row.broken and row.kind is Kind.ENDS]
    assert [(row.actor, row.broken) for row in broken] == [(0, divergence.details)]


def test_of_many_pages_that_diverged_the_first_are_named(record: Record) -> None:
    divergence = record.comparison.divergence
    assert divergence is not None
    details = tuple(f"buf[{page}]: saw rw STALE, allowed is -" for page in range(500))
    comparison = replace(record.comparison, divergence=replace(divergence, details=details))
    *named, more = draw(record.race, comparison, record.observations, record.course).rows[-1].broken
    assert tuple(named) == details[: len(named)]
    assert more == f"... and {500 - len(named)} more pages"
    assert 1 < len(named) < 20


def test_what_an_actor_does_again_and_again_is_shown_once(record: Record) -> None:
    first, *more = record.course.passings[1]
    last = more[-1].clock
    loop = [replace(each, clock=last + 1 + number) for number, each in enumerate([first, *more] * 25)]
    course = replace(record.course, passings=(record.course.passings[0], (first, *more, *loop)))
    timeline = draw(record.race, record.comparison, record.observations, course)
    (again,) = _of(timeline, Kind.AGAIN)
    assert again.text == "these 5, 24 more times"
    assert again.actor == 1
    assert again.time == loop[-2].clock - record.course.stops[0].begun, "a round ends where the first one began"
    assert len(timeline.rows) == len(_drawn(record).rows) + 6
    assert not _of(_drawn(record), Kind.AGAIN)


def test_what_is_not_known_is_said(record: Record) -> None:
    passings = (record.course.passings[0][:1] * 128, record.course.passings[1])
    timeline = draw(
        record.race, record.comparison, record.observations, replace(record.course, passings=passings, lost=2)
    )
    assert timeline.remark == "2 events were lost; of x the last 128 gates are known"
    assert any(line.startswith("note: ") for line in timeline_text.render(timeline))


def test_a_verdict_that_is_about_no_step_is_told_at_the_end(record: Record) -> None:
    comparison = replace(
        record.comparison, verdict=Verdict.CRASHED, reason="KASAN: use-after-free", divergence=None, program=None
    )
    timeline = draw(record.race, comparison, record.observations, record.course)
    assert timeline.rows[-1].broken == ("KASAN: use-after-free",)


def test_of_a_race_that_was_not_recorded_gates_and_steps_are_known(record: Record) -> None:
    course = Course(record.course.stops, record.course.times, 0, record.course.passings)
    timeline = draw(replace(record.race, looks=()), record.comparison, record.observations, course)
    assert [row.text for row in _of(timeline, Kind.TABLES)] == ["at the end"]
    assert not _of(timeline, Kind.EVENT)
    assert len(_of(timeline, Kind.GATE)) > 8


# What is recorded


def test_a_recorded_race_is_the_same_race() -> None:
    for race in catalogue.select([f"{catalogue.RACES}*"]):
        assert isinstance(race, Race)
        looked = recorded(race)
        assert replace(looked, looks=()) == race
        assert render(looked) == render(race)
        assert 0 < len(looked.looks) <= MAX_LOOKS
        sizes = {step.region: step.pages for step in race.steps if isinstance(step, Map)}
        for look in looked.looks:
            assert look.span.count <= MAX_LOOK_PAGES
            assert look.span.stop <= sizes[look.span.region]


def test_of_long_regions_the_part_that_actors_touch_is_looked_at() -> None:
    text = (
        "a: map buf anon 512 rw\na: map other anon 2 rw\nd0: bind a\nd1: bind a\n"
        "actor x: d0: fault buf[200:202] write\nactor y: a: advise buf[190:400] dontneed\nschedule x y\n"
    )
    race = parse(text, file="x")
    assert isinstance(race, Race)
    span = Span("buf", 190, 190 + MAX_LOOK_PAGES)
    assert recorded(race).looks == (Look("d0", span), Look("d1", span))


# Text


@pytest.mark.parametrize("name", NAMES)
def test_the_text_can_be_put_into_a_mail(name: str) -> None:
    lines = timeline_text.render(_drawn(load(name)))
    assert all(line.isascii() for line in lines)
    assert all(line.isprintable() and line == line.rstrip() for line in lines)
    assert max(len(line) for line in lines if not line.startswith("replay: ")) <= 100
    assert lines[-1].startswith("replay: hmm-harness race replay race/")


def test_the_text_says_all_that_there_is(record: Record) -> None:
    timeline = _drawn(record)
    lines = timeline_text.render(timeline)
    text = "\n".join(lines)
    assert lines[0] == "FAIL race/lock on debian:7.3 (plain), interval"
    assert "schedule: x@walk.lock y x" in lines
    assert "broken:   MIRROR-4: What a device takes over it checks under its lock." in lines
    for row in timeline.rows:
        assert row.kind is Kind.GOES_ON or row.text.split()[0] in text
    head = next(line for line in lines if line.split() == ["us", "x", "y"])
    parked = next(line for line in lines if "# walk.lock, parked" in line)
    other = next(line for line in lines if "+ a: advise" in line)
    assert parked.index("#") == head.index("x")
    assert other.index("+") == head.index("y")
    assert other[head.index("x")] == ":", "x is parked meanwhile"
    assert any(line.strip().startswith(">>>") and "saw rw STALE, allowed is -" in line for line in lines)
    assert any("d0" in line and "[1] rw STALE" in line for line in lines)


def _hostile(record: Record) -> Timeline:
    """A timeline in which every text is one that could do harm."""
    timeline = _drawn(record)
    text = " ".join(each[:80] for each in HOSTILE)
    rows = tuple(
        replace(
            row,
            text=text,
            broken=(text,),
            same=False,
            strips=tuple(
                replace(
                    strip,
                    who=text,
                    region=text,
                    note=text,
                    runs=tuple(replace(run, entry=text) for run in strip.runs),
                )
                for strip in row.strips
            ),
        )
        for row in timeline.rows
    )
    return replace(
        timeline, name=text, where=text, reason=text, promise=text, schedule=text, remark=text, replay=text,
        rules=(Rule(text, text),), before=(text,), rows=rows,
    )  # fmt: skip


def test_no_text_acts_on_the_terminal(record: Record) -> None:
    for line in timeline_text.render(_hostile(record)):
        assert line.isprintable() or set(line) & {"\u202e"}
        assert "\x1b" not in line


# The picture


@pytest.mark.parametrize("name", NAMES)
def test_each_row_of_the_picture_is_an_item_with_words(name: str) -> None:
    timeline = _drawn(load(name))
    root = ElementTree.fromstring(timeline_svg.render(timeline, "it"))
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}" == "it-title it-desc"
    assert timeline.schedule in (title.text or "")
    items = root.findall(f".//{SVG}g[@role='listitem']")
    assert len(items) == len(timeline.rows)
    assert [item.get("tabindex") for item in items] == ["0", *["-1"] * (len(items) - 1)]
    for item, row in zip(items, timeline.rows, strict=True):
        label = item.get("aria-label") or ""
        assert row.text in label
        assert (row.actor is None) == ("actor " not in label)
        assert bool(row.broken) == ("rule broken: " in label) == ("broken" in (item.get("class") or "").split())


def test_everything_is_inside_the_picture(record: Record) -> None:
    root = ElementTree.fromstring(timeline_svg.render(_drawn(record)))
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for element in root.iter():
        x, y = float(element.get("x") or 0), float(element.get("y") or 0)
        assert 0 <= x <= width
        assert 0 <= y <= height
        if element.tag == f"{SVG}rect":
            assert x + float(element.get("width") or 0) <= width
            assert y + float(element.get("height") or 0) <= height


def test_a_stale_entry_has_a_box_of_its_own_kind(record: Record) -> None:
    root = ElementTree.fromstring(timeline_svg.render(_drawn(record)))
    boxes = root.findall(f".//{SVG}rect[@class='box stale']")
    assert len(boxes) == 1, "at the end it is as before"


def test_no_text_acts_in_the_picture(record: Record) -> None:
    root = ElementTree.fromstring(timeline_svg.render(_hostile(record)))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg", "title", "desc", "g", "line", "rect", "text", "tspan", "circle", "path",
    }  # fmt: skip


# The commands


def _options(*, timeline: bool = False, html: Path | None = None) -> Namespace:
    return Namespace(timeline=timeline, html=html, kernel="debian:7.3", flavour="plain", wrong=["skip-retry"])


def _executed(record: Record, course: Course | None) -> Execution:
    return Execution(record.observations, 0.1, (), (), (), {}, course=course)


def test_the_commands_print_it_and_write_the_page(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "timeline.html"
    drawings = Drawings(_options(timeline=True, html=path))
    assert drawings.prepared(replace(record.race, looks=())) == record.race
    drawings.see(record.race, record.comparison, _executed(record, record.course))
    drawings.draw("interval", "hmm-harness race replay race/lock")
    drawings.draw("interval", "what was seen is drawn once")
    drawings.write()
    told = capsys.readouterr().out.strip().splitlines()
    assert told[0] == "FAIL race/lock on debian:7.3 (plain), interval, wrong on purpose: skip-retry"
    assert any(line.startswith("broken:   MIRROR-4: ") for line in told), "the clause that skip-retry breaks"
    assert not any("RANGE-" in line for line in told)
    assert told[-1] == "replay: hmm-harness race replay race/lock"
    assert path.read_text().count("<figure>") == 1


def test_a_race_that_did_not_end_has_no_timeline(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    drawings = Drawings(_options(timeline=True))
    drawings.see(record.race, record.comparison, _executed(record, None))
    drawings.draw("interval", "")
    assert "no timeline" in capsys.readouterr().out


def test_nothing_is_recorded_that_nobody_asked_for(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    race = replace(record.race, looks=())
    drawings = Drawings(_options())
    assert drawings.prepared(race) is race
    drawings.see(race, record.comparison, _executed(record, record.course))
    drawings.draw("interval", "")
    drawings.write()
    assert not capsys.readouterr().out


# The page


@pytest.fixture
def page(browser: webdriver.Chrome, record: Record, waits: Record, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """The page of two races, opened; it must be to the browser's liking."""
    path = tmp_path / "timeline.html"
    files.write(path, timeline_page.render([_drawn(record), _drawn(waits)]))
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
    browser.get("about:blank")


def _press(page: webdriver.Chrome, *keys: str) -> str:
    """Presses keys; the label of what has the focus then."""
    ActionChains(page).send_keys(*keys).perform()
    return page.switch_to.active_element.get_attribute("aria-label") or ""


def test_the_page_has_a_picture_of_each_race(page: webdriver.Chrome, record: Record) -> None:
    assert page.title == "2 races - hmm-harness"
    assert [each.text for each in page.find_elements(By.CSS_SELECTOR, "h2 b")] == ["FAIL", "PASS"]
    pictures = page.find_elements(By.CSS_SELECTOR, "figure svg.timeline")
    assert len(pictures) == 2
    assert all(picture.is_displayed() and picture.size["height"] > 300 for picture in pictures)
    rows = pictures[0].find_elements(By.CSS_SELECTOR, ".row")
    assert len(rows) == len(_drawn(record).rows)
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))


def test_rows_are_gone_through_by_keys(page: webdriver.Chrome, record: Record) -> None:
    rows = _drawn(record).rows
    page.execute_script("document.querySelector('figure .row').focus()")
    assert "page tables" not in _press(page, Keys.ARROW_DOWN)
    assert rows[2].text in _press(page, Keys.ARROW_DOWN)
    assert rows[1].text in _press(page, Keys.ARROW_UP)
    assert "rule broken: " in _press(page, "n")
    assert "saw rw STALE" in _press(page, "n")
    assert "from here on" in _press(page, "p")
    assert rows[0].text in _press(page, Keys.HOME)
    assert rows[-1].text in _press(page, Keys.END)
    one = "return document.querySelectorAll('figure')[0].querySelectorAll('.row[tabindex=\"0\"]').length"
    assert page.execute_script(one) == 1


def test_texts_do_not_run_into_each_other(page: webdriver.Chrome) -> None:
    """Of each row, no two texts cover the same place, as the browser draws them."""
    script = """
      const found = [];
      for (const row of document.querySelectorAll(".row")) {
        const boxes = [...row.querySelectorAll("text")].map((text) => [text.textContent, text.getBBox()]);
        for (const [one, a] of boxes) for (const [other, b] of boxes)
          if (one < other && a.x < b.x + b.width && b.x < a.x + a.width
              && a.y + 3 < b.y + b.height && b.y + 3 < a.y + a.height)
            found.push([one, other]);
      }
      return found;"""
    assert page.execute_script(script) == []
    inside = """
      return [...document.querySelectorAll("svg.timeline text")].filter((text) => {
        const box = text.getBBox();
        return box.x < 0 || box.x + box.width > text.ownerSVGElement.viewBox.baseVal.width;
      }).map((text) => text.textContent);"""
    assert page.execute_script(inside) == []


def test_it_is_dark_where_the_system_is_and_where_one_wants(page: webdriver.Chrome) -> None:
    def colours() -> list[str]:
        script = (
            "return [getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg.timeline .what')).fill]"
        )
        return list(page.execute_script(script))

    system = {}
    for scheme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        system[scheme] = colours()
    assert system["dark"] != system["light"]
    button = page.find_element(By.ID, "theme")
    button.click()
    assert colours() == system["dark"]
    button.click()
    assert colours() == system["light"]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_text_for_a_mail_is_on_the_page(page: webdriver.Chrome, record: Record) -> None:
    page.find_element(By.CSS_SELECTOR, "details summary").click()
    text = page.find_element(By.CSS_SELECTOR, "details pre").text
    assert text.splitlines()[0] == timeline_text.render(_drawn(record))[0]


def test_no_text_acts_on_the_page(browser: webdriver.Chrome, record: Record, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    files.write(path, timeline_page.render([_hostile(record)]))
    browser.get(path.as_uri())
    assert "taken" not in browser.title.split()[:1]
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    assert len(browser.find_elements(By.CSS_SELECTOR, "figure .row")) == len(_drawn(record).rows)
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_a_page_of_nothing_says_so(browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "nothing.html"
    files.write(path, timeline_page.render([]))
    browser.get(path.as_uri())
    assert "Nothing was found" in browser.find_element(By.TAG_NAME, "main").text
