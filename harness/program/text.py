# SPDX-License-Identifier: GPL-2.0-only
"""The text form of programs: read, and written back to the same program.

    # One sentence: the promise under test.
    a: map buf anon 8 rw
    d0: bind a
    a: write buf 100          # page 0 holds 100, page 1 holds 101, ...
    d0: to-device buf[0:4]    # pages 0 to 3
    a: read buf[2]            # page 2
    a: fork b

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

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
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
        return Program(name or file, tuple(parser.steps), " ".join(parser.title))
    except ProgramError as error:
        raise ProgramSyntaxError(file, parser.numbers[error.step], error.message, error.hint) from None


def render(program: Program) -> str:
    """The text form; `parse` reads it back to the same program."""
    lines = [f"# {program.title}"] if program.title else []
    lines += [render_step(step, program) for step in program.steps]
    return "\n".join(lines) + "\n"


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

    def line(self, number: int, line: str) -> None:
        self._number = number
        code, _, comment = line.partition("#")
        if not code.strip():
            if comment and not self.steps and "SPDX-License-Identifier" not in comment:
                self.title.append(comment.strip())
            return
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
        self.numbers.append(number)

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
