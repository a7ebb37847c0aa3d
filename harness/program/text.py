# SPDX-License-Identifier: GPL-2.0-only
"""The text form of programs: read, and written back to the same program.

    # One sentence: the promise under test.
    a: map buf anon 8 rw
    d0: bind a
    a: write buf 100          # page 0 holds 100, page 1 holds 101, ...
    d0: to-device buf[0:4]    # pages 0 to 3
    a: read buf[2]            # page 2
    a: fork b

    # A race: two actors, each a thread, and who runs when (harness/program/race.py).
    a: map buf anon 4 rw
    d0: bind a
    actor x: d0: fault buf write
    actor y: a: advise buf dontneed
    schedule x@walk.lock y x

Each line is `actor: verb argument...`. Subjects are called what you like, the first is `a`; devices are
`d0` and `d1`, and `c0` and `c1`, whose memory the CPU reaches. `buf` alone means all of the region.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from enum import StrEnum
from typing import NoReturn, get_type_hints

from harness.program.operations import (
    DEVICE_OPERATIONS,
    DEVICES,
    MAX_CHOICES,
    MAX_PATTERN,
    SUBJECT_OPERATIONS,
    Choices,
    Map,
    Operation,
    Pattern,
    Remap,
    Span,
)
from harness.program.program import Program, ProgramError
from harness.program.race import Actor, Race, Schedule, ScheduleError, make_race, parse_schedule

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RACE = re.compile(
    r"\s*(?:actor\s+(?P<actor>[A-Za-z]\w*)\s*:(?P<step>.*)|(?P<word>schedule|needs)\s+(?P<rest>[^:\s].*))"
)
_SPAN = re.compile(r"([A-Za-z][A-Za-z0-9_]*)(?:\[(\d{1,9})(?::(\d{1,9}))?\])?")


class ProgramSyntaxError(ValueError):
    """A line cannot be read; `str()` is `file:line: what is wrong`, `hint` what to write instead."""

    def __init__(self, file: str, line: int, message: str, hint: str | None = None) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.file = file
        self.line = line
        self.hint = hint


# Whether a device can do it, then its verb
_KINDS: dict[bool, dict[str, type[Operation]]] = {
    False: {kind.verb: kind for kind in SUBJECT_OPERATIONS},
    True: {kind.verb: kind for kind in DEVICE_OPERATIONS},
}
_HINTS = {kind: get_type_hints(kind) for kinds in _KINDS.values() for kind in kinds.values()}


def parse(text: str, *, file: str, name: str | None = None) -> Program:
    """The program that `text` spells. Raises `ProgramSyntaxError`, with `file` and the line."""
    parser = _Parser(file)
    for number, line in enumerate(text.splitlines(), 1):
        parser.line(number, line)
    if not parser.steps:
        raise ProgramSyntaxError(
            file, 1, "there is no operation in it", "a program has at least one line `a: map ...`"
        )
    try:
        if parser.actors or parser.schedule is not None:
            return parser.race(name or file)
        return Program(name or file, tuple(parser.steps), " ".join(parser.title))
    except ProgramError as error:
        raise ProgramSyntaxError(file, parser.number_of(error.step), error.message, error.hint) from None


def render(program: Program) -> str:
    """The text form; `parse` reads it back to the same program."""
    lines = [f"# {program.title}"] if program.title else []
    if isinstance(program, Race):
        lines += _render_race(program)
    else:
        lines += [render_step(step, program) for step in program.steps]
    return "\n".join(lines) + "\n"


def _render_race(race: Race) -> list[str]:
    """What is written of it: not the steps that check what came of it."""
    lines = [f"needs {' '.join(race.needs)}"] if race.needs else []
    lines += [render_step(step, race) for step in race.steps[: race.first]]
    for actor in race.actors:
        for step, promise in zip(actor.steps, actor.promises, strict=True):
            lines.append(f"actor {actor.name}: {render_step(step, race)}" + (f" => {promise}" if promise else ""))
    lines += [render_step(step, race) for step in race.steps[race.last : race.last + race.after]]
    return [*lines, f"schedule {race.schedule}"]


def render_step(step: Operation, program: Program) -> str:
    """One operation as a line without its end."""
    words = [_render_field(getattr(step, name), program) for name in _arguments(type(step))]
    return " ".join([f"{step.actor}: {step.verb}", *words])


def _render_field(value: object, program: Program) -> str:
    if not isinstance(value, Span):
        return str(value)
    if (value.start, value.stop) == (0, program.regions[value.region].pages):
        return value.region
    if value.count == 1:
        return f"{value.region}[{value.start}]"
    return f"{value.region}[{value.start}:{value.stop}]"


def _arguments(kind: type[Operation]) -> list[str]:
    return [field.name for field in fields(kind) if field.name != "actor"]


_FORMS: dict[type, str] = {
    Span: "REGION[FROM:TO]",
    int: "NUMBER",
    str: "NAME",
    Pattern: "PATTERN",
    Choices: "CHOICES",
}


def _usage(kind: type[Operation], actor: str) -> str:
    hints = _HINTS[kind]
    words = []
    for name in _arguments(kind):
        form = hints[name]
        words.append("|".join(form) if issubclass(form, StrEnum) else _FORMS[form])
    return " ".join([f"`{actor}: {kind.verb}", *words]) + "`"


class _Parser:
    def __init__(self, file: str) -> None:
        self._file = file
        self._number = 0
        self._sizes: dict[str, int] = {}  # pages of each region so far, for `buf` alone
        self._readers: dict[type, Callable[[str], object]] = {
            Span: self._span,
            int: self._integer,
            str: self._name,
            Pattern: self._pattern,
            Choices: self._choices,
        }
        self.title: list[str] = []
        self.steps: list[Operation] = []
        self.numbers: list[int] = []  # the line of each step
        self.actors: dict[str, list[tuple[int, str]]] = {}  # which of the steps are theirs, each with its promise
        self.schedule: Schedule | None = None
        self.needs: list[str] = []

    def race(self, name: str) -> Race:
        """What the lines make if there are actors. Raises `ProgramError` too."""
        if self.schedule is None or not self.actors:
            self._fail("a race has actors and a schedule", "write `schedule x@walk.lock y x`, for one")
        first, theirs = self._split()
        try:
            return make_race(
                name,
                " ".join(self.title),
                before=self.steps[:first],
                actors=[
                    Actor(actor, tuple(self.steps[at] for at, _ in steps), tuple(promise for _, promise in steps))
                    for actor, steps in self.actors.items()
                ],
                after=self.steps[first + len(theirs) :],
                schedule=self.schedule,
                needs=self.needs,
            )
        except ScheduleError as error:
            self._fail(error.message, error.hint)

    def number_of(self, step: int) -> int:
        """The line of a step, by its number in the program that comes of the lines."""
        first, theirs = self._split()
        order = [*range(first), *theirs, *range(first + len(theirs), len(self.steps))]
        return self.numbers[order[step]] if step < len(order) else self.numbers[-1]

    def _split(self) -> tuple[int, list[int]]:
        """How many steps are before the race, and which are the actors', one actor after the other."""
        theirs = [at for steps in self.actors.values() for at, _ in steps]
        return min(theirs, default=len(self.steps)), theirs

    def _of_race(self, match: re.Match[str]) -> None:
        """A line that only races have."""
        if match["word"] == "needs":
            self.needs += match["rest"].split()
        elif match["word"] == "schedule":
            try:
                self.schedule = parse_schedule(match["rest"])
            except ScheduleError as error:
                self._fail(error.message, error.hint)
        else:
            first, theirs = self._split()
            if theirs and len(self.steps) > first + len(theirs):
                self._fail("an actor behind the race", "write all lines of actors one after the other")
            step, arrow, promise = match["step"].partition("=>")
            if arrow and not promise.strip():
                self._fail("nothing behind =>", "`=> nothing`, for one")
            self._step(step)
            words = " ".join(promise.split())
            self.actors.setdefault(match["actor"], []).append((len(self.steps) - 1, words))

    def line(self, number: int, line: str) -> None:
        self._number = number
        code, _, comment = line.partition(" #") if _RACE.match(line) else line.partition("#")
        if not code.strip():
            if comment and not self.steps and "SPDX-License-Identifier" not in comment:
                self.title.append(comment.strip())
            return
        match = _RACE.fullmatch(code)
        if match is not None:
            self._of_race(match)
        else:
            self._step(code)

    def _step(self, code: str) -> None:
        actor, colon, rest = code.partition(":")
        actor = actor.strip()
        words = rest.split()
        if not colon or not words or not _NAME.fullmatch(actor):
            self._fail(
                f"cannot read {code.strip()!r}", "a line is `actor: verb argument...`, as in `a: read buf[0:4]`"
            )
        step = self._operation(actor, words[0], words[1:])
        if isinstance(step, Map):
            self._sizes[step.region] = step.pages
        elif isinstance(step, Remap):
            self._sizes[step.region] = step.span.count
        self.steps.append(step)
        self.numbers.append(self._number)

    def _fail(self, message: str, hint: str | None = None) -> NoReturn:
        raise ProgramSyntaxError(self._file, self._number, message, hint)

    def _operation(self, actor: str, verb: str, words: list[str]) -> Operation:
        kinds = _KINDS[actor in DEVICES]
        kind = kinds.get(verb)
        if kind is None:
            who = "device" if actor in DEVICES else "subject"
            near = get_close_matches(verb, kinds, 1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            self._fail(f"unknown operation {verb!r} of a {who}", f"{guess}a {who} can: {', '.join(kinds)}")
        names = _arguments(kind)
        if len(words) != len(names):
            self._fail(f"{verb!r} takes {len(names)} arguments, not {len(words)}", f"write {_usage(kind, actor)}")
        hints = _HINTS[kind]
        return kind(actor, *(self._argument(hints[name], word) for name, word in zip(names, words, strict=True)))

    def _argument(self, form: type, word: str) -> object:
        if issubclass(form, StrEnum):
            try:
                return form(word)
            except ValueError:
                self._fail(f"{word!r} is no {form.__name__.lower()}", f"one of: {', '.join(form)}")
        return self._readers[form](word)

    def _integer(self, word: str) -> int:
        try:
            return int(word, 0)
        except ValueError:
            self._fail(f"{word!r} is no number", "decimal, or hexadecimal with 0x")

    def _name(self, word: str) -> str:
        if not _NAME.fullmatch(word):
            self._fail(f"{word!r} is no name", "a letter, then letters, digits and _")
        return word

    def _pattern(self, word: str) -> Pattern:
        if len(word) > MAX_PATTERN or len(Pattern(word).asked) != len(word):
            self._fail(
                f"{word!r} does not say what is asked of each page",
                f"1 to {MAX_PATTERN} letters: `f` fault, `w` write, `b` both, `.` none; they begin again at the end",
            )
        return Pattern(word)

    def _choices(self, word: str) -> Choices:
        if len(word) > MAX_CHOICES or set(word) - set("m.p"):
            self._fail(
                f"{word!r} does not say what becomes of each page",
                f"1 to {MAX_CHOICES} letters: `m` moves, `.` stays, `p` moves in pieces; they begin again at the end",
            )
        return Choices(word)

    def _span(self, word: str) -> Span:
        match = _SPAN.fullmatch(word)
        if match is None:
            self._fail(f"{word!r} is no range of pages", "write `buf`, `buf[3]` or `buf[0:4]`")
        region, first, last = match.groups()
        if first is None:
            return Span(region, 0, self._sizes.get(region, 1))
        start = int(first)
        return Span(region, start, start + 1 if last is None else int(last))
