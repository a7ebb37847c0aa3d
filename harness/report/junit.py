# SPDX-License-Identifier: GPL-2.0-only
"""JUnit XML, for CI systems: a test suite for each binding of each kernel and flavour, a test case for each program.

    PASS                  passed
    DEVIATION             passed, and system-out says which deviation
    SKIP                  skipped
    FAIL, CRASHED         failure: the kernel did what it may not do
    TIMEOUT, ERROR,
    INCONCLUSIVE,
    no result             error: there is no verdict on the kernel

`type` of a failure or an error is the status, "NOT RUN" without a result. What XML 1.0 cannot hold is taken out of
texts; long ones are cut, and say so, as are those for which no room is left.
"""

from __future__ import annotations

import re
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as ET

from harness.compare import Verdict
from harness.report.budget import Budget
from harness.report.planned import Case, Column, columns
from harness.report.results import Result, Run

_FAILURES = (Verdict.FAIL, Verdict.CRASHED)
_MOST_MESSAGE = 1000  # characters: CI systems show it in lists
# Bytes as they are written. CI systems refuse files of more than some ten MB; a list of what failed is no use without
# messages, which therefore have room of their own.
_MOST_TEXT = 16 << 10
_MOST_TEXTS = 16 << 20
_MOST_MESSAGES = 4 << 20
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ESCAPED_IN_ATTRIBUTE = _ESCAPED | {'"': "&quot;", "\n": "&#10;", "\t": "&#09;"}
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # "\r", too: readers make it "\n"


def render(run: Run) -> str:
    """The whole document."""
    document = _Document()
    found = columns(run)
    root = ET.Element("testsuites", name="hmm-harness")
    for column in found:
        root.append(document.suite(run, column))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.attrib[name]) for suite in root)))
    root.set("time", f"{run.end.seconds if run.end else sum(result.seconds for result in run.results):.3f}")
    root.set("timestamp", xml_text(run.started))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def xml_text(text: str) -> str:
    """`text` without the characters that XML 1.0 cannot hold, not even escaped."""
    return _NOT_XML.sub("", text)


class _Document:
    """Knows how much text there is already."""

    def __init__(self) -> None:
        self._texts = Budget(_MOST_TEXTS)
        self._messages = Budget(_MOST_MESSAGES)

    def suite(self, run: Run, column: Column) -> ET.Element:
        """A test suite with its properties and cases."""
        statuses = [case.result.status if case.result else None for case in column.cases]
        skipped = statuses.count(Verdict.SKIP)
        failures = sum(status in _FAILURES for status in statuses)
        suite = ET.Element(
            "testsuite",
            name=xml_text(f"{column.kernel} {column.flavour} {column.binding}"),
            tests=str(len(column.cases)),
            failures=str(failures),
            errors=str(sum(not case.good for case in column.cases) - failures),
            skipped=str(skipped),
            time=f"{sum(case.result.seconds for case in column.cases if case.result):.3f}",
            timestamp=xml_text(run.started),
        )
        properties = ET.SubElement(suite, "properties")
        for name, value in _properties(run, column):
            ET.SubElement(properties, "property", name=name, value=xml_text(value))
        # CI systems take what is before the last dot for a package: "debian:6.1" must not become one of "debian:6".
        package = xml_text(f"{column.kernel} {column.flavour}").replace(".", "_")
        for case in column.cases:
            suite.append(self._case(case, f"{package}.{xml_text(column.binding)}"))
        return suite

    def _case(self, case: Case, classname: str) -> ET.Element:
        result = case.result
        seconds = result.seconds if result else 0.0
        element = ET.Element("testcase", classname=classname, name=xml_text(case.program), time=f"{seconds:.6f}")
        if result is None:
            self._outcome(element, "error", "NOT RUN", case.why, [])
        elif result.status is Verdict.SKIP:
            ET.SubElement(element, "skipped", message=self._message(result.reason))
        elif result.status is Verdict.DEVIATION:
            self._text(element, "system-out", [f"DEVIATION: {result.reason}", f"replay: {result.replay}"])
        elif not case.good:
            tag = "failure" if result.status in _FAILURES else "error"
            self._outcome(element, tag, result.status, result.reason, _look(result))
            if self._texts.left:
                self._text(element, "system-out", [f"replay: {result.replay}"])
            if self._texts.left and result.log:
                self._text(element, "system-err", result.log)
        return element

    def _outcome(self, case: ET.Element, tag: str, kind: str, reason: str, lines: Iterable[str]) -> None:
        self._text(case, tag, lines).attrib.update(type=kind, message=self._message(reason))

    def _text(self, parent: ET.Element, tag: str, lines: Iterable[str]) -> ET.Element:
        """An element with a text, of which the end is kept if it is too long: there the kernel says why it died."""
        element = ET.SubElement(parent, tag)
        text = xml_text("\n".join(lines))
        most = min(_MOST_TEXT, self._texts.left)
        size = _size(text, _ESCAPED)
        if size > most:
            size, cut = most, _cut_before(text, most)
            text = f"({cut} characters before this were cut; the JSON and HTML reports have them)\n{text[cut:]}"
        self._texts.take(size)
        element.text = text
        return element

    def _message(self, text: str) -> str:
        plain = xml_text(text)
        if len(plain) > _MOST_MESSAGE:
            plain = f"{plain[:_MOST_MESSAGE]}... (cut)"
        return plain if self._messages.take(_size(plain, _ESCAPED_IN_ATTRIBUTE)) else "... (cut)"


def _size(text: str, escaped: Mapping[str, str]) -> int:
    """Bytes of `text` when it is written."""
    return len(text.encode()) + sum(
        text.count(character) * (len(escape) - 1) for character, escape in escaped.items()
    )


def _cut_before(text: str, most: int) -> int:
    """Where the longest end of `text` begins that is written in `most` bytes."""
    places = range(max(0, len(text) - most), len(text))  # a character has a byte at least
    return bisect_left(places, -most, key=lambda place: -_size(text[place:], _ESCAPED)) + places.start


def _look(result: Result) -> list[str]:
    """The explanation, or what is known without one."""
    lines = list(result.explanation) or [f"{result.status} {result.program}", result.reason, *result.details]
    for report in result.reports:
        lines += ["", f"{report.kind}: {report.title}", *report.lines]
    return lines


def _properties(run: Run, column: Column) -> list[tuple[str, str]]:
    """Where the results of this suite come from; what is not known is left out."""
    pairs = [
        ("kernel", column.kernel),
        ("flavour", column.flavour),
        ("binding", column.binding),
        ("command", shlex.join(run.command)),
        ("harness", run.version),
        ("started", run.started),
        ("finished", run.end.finished if run.end else ""),
        ("interrupted", "" if run.end else "yes"),
        ("wrong", ",".join(run.wrong)),
        ("timeout", f"{run.timeout:g}" if run.timeout else ""),
    ]
    target = column.target
    if target is not None:
        pairs += [
            ("release", target.release),
            ("key", target.key),
            ("origin", target.origin),
            ("accelerator", target.accelerator),
            ("qemu", target.qemu),
            ("cpus", str(target.cpus or "")),
            ("memory-mib", str(target.memory_mib or "")),
            ("features", " ".join(target.features)),
            ("target-error", target.error),
        ]
    return [(name, value) for name, value in pairs if value]
