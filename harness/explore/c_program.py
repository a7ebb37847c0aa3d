# SPDX-License-Identifier: GPL-2.0-only
"""A program as a stand-alone C program, to be compiled and mailed: it needs libc and hmm_harness.h, nothing else.

It carries out the same steps in the same order, by the pieces of reproducer.c.in that it needs. A program of one
process is one process, which operates its devices as well; else each subject is a process, and the driver is another.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from harness.compare import Verdict, show_error
from harness.errors import UsageError
from harness.explore.c_checks import check, settled, short_names
from harness.explore.c_steps import LEFT_OUT, TRANSLATIONS, CCall, Names, huge_pages, is_said, performer, sizes
from harness.explore.witness import Witness
from harness.model.allowed import Entries, Tokens
from harness.program.observations import Mark, Signal, Status
from harness.program.operations import (
    COHERENT,
    DEVICES,
    FIRST_SUBJECT,
    DeviceOperation,
    Exit,
    Fork,
    Operation,
    Poison,
    Reap,
)
from harness.program.program import Program
from harness.program.text import render_step

_PIECES = Path(__file__).with_name("reproducer.c.in")
_NODES = {"interval": "/dev/hmm_harness", "mirror": "/dev/hmm_mirror"}
_WIDTH = 100  # columns, a tab has 8
_STUCK_SECONDS = 30
_MOST_DETAILS = 8
_VARIANTS = ("store", "load", "poison", "token")  # what there is in a form that outlives signals, too
_CHECKED = ("request", "move")  # what there is in a form that looks at the kernel's own words, too
_WORDS = {
    "STALE": "a device's entry that contradicts the CPU's page table",
    "device": "in the memory of the device that is asked",
    "other-device": "in the memory of another device",
    "torn": "the page holds no one token, but parts of several, or of none",
    "exclusive": "the device has the page to itself",
}


def c_program(program: Program, binding: str, witness: Witness = Witness(), *, apart: bool = False) -> str:  # noqa: B008
    """The text. It ends with 1 where it shows what `witness` saw, with 0 where it does not.

    `apart`: the subject is a process of its own, as the harness has it, even if there is but one.
    Raises `UsageError` if that cannot be said in C.
    """
    if binding not in _NODES:
        raise UsageError(
            f"a C program is for our own module, not for {binding}", hint="--binding interval, or --binding mirror"
        )
    return Composer(program, binding, witness, apart).text()


@dataclass
class _Piece:
    """A piece of reproducer.c.in."""

    name: str
    needs: tuple[str, ...]
    headers: tuple[str, ...]
    text: str


@cache
def pieces() -> dict[str, _Piece]:
    """All of them, in their order."""
    found: dict[str, _Piece] = {}
    for part in _PIECES.read_text(encoding="utf-8").split("\n//! ")[1:]:
        head, _, text = part.partition("\n")
        name, _, needs = head.partition(":")
        words = needs.split()
        found[name] = _Piece(
            name,
            tuple(word for word in words if word[0] != "<"),
            tuple(word for word in words if word[0] == "<"),
            text.strip("\n"),
        )
    return found


def used_pieces(needs: Iterable[str], *, apart: bool = False) -> list[_Piece]:
    """Those that `needs` and what these need name, in their order. `apart`: ending a process is a piece, too."""
    todo, used = list(needs), set()
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            todo += pieces()[name].needs
            todo += ["quit"] if apart and "quit(" in pieces()[name].text else []
    return [piece for name, piece in pieces().items() if name in used]


@dataclass
class Composer:
    """The text of one program, and which pieces it needs. `silent`: it does not say what it does."""

    program: Program
    binding: str
    witness: Witness
    apart: bool
    silent: bool = False
    needs: set[str] = field(default_factory=set)
    checks: list[str] = field(default_factory=list)  # lines that may have short names of marks
    judges: bool = False  # there is a step in question

    def __post_init__(self) -> None:
        last = self.witness.step
        self.steps: Sequence[Operation] = self.program.steps[: None if last is None else last + 1]
        self.leaks = self.witness.verdict is Verdict.FAIL and last is None and bool(self.witness.leaked)
        seen = self.witness.observation
        self.dies = seen is not None and seen.status is Status.SUBJECT_DIED
        self.apart = self.apart or self.leaks or self.dies
        self.apart = self.apart or any(isinstance(step, Fork | Exit | Reap) for step in self.steps)
        self.names = Names(self.program, self.steps)
        self.stuck = self.witness.verdict is Verdict.TIMEOUT

    def text(self) -> str:
        """The whole program."""
        if self.steps and type(self.steps[-1]) in LEFT_OUT and self.witness.expectation is not None:
            verb = self.steps[-1].verb
            raise UsageError(
                f"step {len(self.steps)}, `{verb}`, cannot be said in C: what {LEFT_OUT[type(self.steps[-1])]}",
                hint="--format pytest, or --format hmm",
            )
        body = self._main()
        self.needs |= {"quit"} if self.apart and "quit(" in "\n".join(body) else set()
        used = used_pieces(self.needs, apart=self.apart)
        headers = sorted({header for piece in used for header in piece.headers})
        parts = [
            "// SPDX-License-Identifier: GPL-2.0-only\n" + self._comment(),
            "#define _GNU_SOURCE\n" + "\n".join(f"#include {header}" for header in headers),
            '#include "hmm_harness.h"',
            "#define PAGE 4096UL",
            *filter(None, ["\n".join(short_names(self.checks))]),
            *(self._fill(piece.text) for piece in used if piece.text),
            self._end_of_processes("\n".join(body)),
        ]
        return "\n\n".join(parts) + "\n"

    def _fill(self, text: str) -> str:
        seen, data = sizes(self.steps)
        if self.leaks:
            seen = max(seen, 7)
        diverging = None if self.witness.step is None else self.steps[-1]
        private = diverging is not None and diverging.actor not in COHERENT
        marks = [f"MARK({mark.name})," for mark in Mark]
        words = {
            "SEEN": str(seen),
            "DATA": str(data),
            "PROCESSES": ", ".join(self.names.processes.values()),
            "DEATH": "1" if self.dies else "2",
            "PRIVATE": str(int(private)),
            "MARKS": "\n".join(textwrap.wrap(" ".join(marks), 84, initial_indent="\t\t", subsequent_indent="\t\t")),
        }
        text = re.sub("@([A-Z]+)@", lambda found: words[found[1]], text)
        return self._end_of_processes(text)

    def _end_of_processes(self, text: str) -> str:
        """Where there is one process, its end is that of all."""
        return text if self.apart else re.sub(r"\bquit\(", "exit(", text)

    def function(self, name: str) -> list[str]:
        """The lines of a function that does the steps, of a program of one process. Nothing is prepared for them."""
        steps = [line for number, step in enumerate(self.steps) for line in self._step(number, step)]
        return [f"static void {name}(void)", "{", *self._declarations(steps), "", *steps, "}"]

    # main()

    def _main(self) -> list[str]:
        steps: list[str] = []
        for number, step in enumerate(self.steps):
            steps += self._step(number, step)
        steps += self._end()
        return ["int main(void)", "{", *self._declarations(steps), "", *self._begin(), *steps, "}"]

    def _declarations(self, steps: Sequence[str]) -> list[str]:
        code = re.sub(r'"(\\.|[^"\\])*"', "", "\n".join(steps))
        used = set(re.findall(r"\w+", code))
        lines = [
            f"\tchar *const {name} = (char *){self.program.regions[region].address:#x};"
            for region, name in self.names.regions.items()
            if name in used
        ]
        for device in DEVICES:
            capabilities = self._capabilities(device)
            if capabilities is None:
                continue
            self.needs.add("device")
            node = f"{_NODES[self.binding]}{DEVICES.index(device)}"
            lines += _wrapped(f'int {device} = open_device("{node}", {capabilities});', 1)
        if self.judges and not self.apart:
            lines.append("\tint found = 0;")
        lines += ["\tint error;"] if "error" in used else []
        lines += ["\t__u64 i;"] if "i" in used else []
        return lines

    def _capabilities(self, device: str) -> str | None:
        """What a device has to be capable of; None if the program does not use it."""
        mine = [step for step in self.steps if isinstance(step, DeviceOperation) and step.actor == device]
        if not mine and not (self.leaks and device in self.witness.leaked):
            return None
        calls = [self._call(step) for step in mine if type(step) not in LEFT_OUT]
        names = dict.fromkeys(name for call in calls for name in call.capabilities)
        return " | ".join(f"HMM_HARNESS_CAP_{name}" for name in names) or "0"

    def _begin(self) -> list[str]:
        lines = ["setbuf(stdout, NULL);"]
        if any(isinstance(step, DeviceOperation) for step in self.steps):
            self.needs.add("one-cpu")
            lines.append("stay_on_one_cpu();")
        if self._caught and self.needs & {"store-caught", "load-caught", "poison-caught"}:
            lines += ["signal(SIGSEGV, on_fault);", "signal(SIGBUS, on_fault);"]
        huge = huge_pages(self.steps)
        if huge:
            self.needs.add("pool")
            lines.append(f"fill_pool({huge});")
        if self.stuck:
            self.needs.add("late")
            lines += ["signal(SIGALRM, late);", f"alarm({_STUCK_SECONDS});"]
        if self.apart:
            self.needs |= {"turn", "fork", "step"}
            lines += [
                "for (int who = 0; who < PROCESSES; who++)",
                "\tif (pipe(baton[who]))",
                "\t\treturn 2;",
                f"if (fork_as({self.names.processes[FIRST_SUBJECT]}))",
                "\treturn 2;",
            ]
        return [*(f"\t{line}" for line in lines), ""]

    def _step(self, number: int, step: Operation) -> list[str]:
        label = f"step {number + 1}: {render_step(step, self.program)}"
        last = number == self.witness.step
        if type(step) in LEFT_OUT:
            return [f"\t/* {label}: what {LEFT_OUT[type(step)]} */"]
        if isinstance(step, Exit) and step.actor not in self.names.dying(number):
            self.needs.add("leave")
            return [f'\tleave({self.names.processes[step.actor]}, "{label}");']
        call = self._call(step, number)
        self.needs |= {self._variant(name) for name in call.needs}
        if last and self.witness.expectation is not None and not self.dies:
            lines = [*(f"{line};" for line in call.before), *self._check(step, call)]
        else:
            lines = [*(f"{line};" for line in call.before), *self._done(number, step, call)]
        if not self.apart:
            return [*([] if self.silent else [f'\tputs("{label}");']), *_indented(lines, 1)]
        subject = performer(step)
        who = "DRIVER" if subject is None else self.names.processes[subject]
        condition = f'\tif (step({who}, "{label}"))'
        after = [f"\t{line}" for line in call.after]
        if len(lines) == 1:
            return [condition, *_indented(lines, 2), *after]
        return [f"{condition} {{", *_indented(lines, 2), "\t}", *after]

    def _call(self, step: Operation, number: int = 0) -> CCall:
        if not is_said(step):
            raise UsageError(f"`{step.verb}` cannot be said in C yet", hint="--format pytest, or --format hmm")
        return TRANSLATIONS[type(step)](step, self.names, number)

    @cached_property
    def _caught(self) -> bool:
        """Whether accesses have to outlive the signals that they raise."""
        witness = self.witness
        if not witness.observations:
            return True
        expectation = witness.expectation
        elements = () if expectation is None else expectation.elements
        return any(
            any(isinstance(element, Signal) for element in seen.elements)
            or (isinstance(step, Poison) and show_error(seen.error) == "EFAULT")
            for step, seen in zip(self.steps, witness.observations, strict=False)
        ) or any(isinstance(value, Signal) for each in elements if isinstance(each, Tokens) for value in each.values)

    def _variant(self, piece: str) -> str:
        """The form of a piece that this program needs."""
        if piece in _VARIANTS and self._caught:
            return f"{piece}-caught"
        return f"{piece}-checked" if piece == self._checked else piece

    @cached_property
    def _checked(self) -> str | None:
        """The operation of which it was seen that the kernel's own words do not fit together, if there was one."""
        seen = self.witness.observation
        if self.witness.step is None or seen is None or show_error(seen.error) != "EPROTO":
            return None
        return next((name for name in self._call(self.steps[-1]).needs if name in _CHECKED), None)

    def _done(self, number: int, step: Operation, call: CCall) -> list[str]:
        """A step that is not the one in question."""
        witness = self.witness
        lines = [f"{call.text};"]
        if call.fails:
            known = witness.errors(number)
            if len(known) != 1:
                self.needs.add("note")
                return [f"note({call.text});"]
            (error,) = known
            self.needs.add("expect")
            lines = [f"expect({call.text}, {show_error(error) if error else 0});"]
        if witness.step is not None and number < len(witness.expectations):
            free = settled(step, witness.expectations[number], witness.observations[number])
            self.needs |= {"expect-seen"} if free else set()
            self.checks += free
            lines += free
        return lines

    def _check(self, step: Operation, call: CCall) -> list[str]:
        """The step in question."""
        assert self.witness.expectation is not None
        checked = check(
            step, call, self.witness, earlier=self.steps[:-1], found="turn.found" if self.apart else "found"
        )
        self.needs |= {self._variant(name) for name in checked.needs}
        self.checks += checked.lines
        self.judges = True
        return checked.lines

    def _end(self) -> list[str]:
        lines: list[str] = []
        found = "turn.found" if self.apart else "found"
        if self.apart:
            lines += ["if (!step(DRIVER, NULL))", "\tfor (;;)", "\t\tpause();"]
        if self.leaks:
            lines += self._look_for_leaks()
        if self.judges or self.leaks:
            lines += [f'puts({found} ? "the symptom is there" : "no symptom");', f"return {found};"]
        elif self.dies or self.stuck:
            lines += ['puts("no symptom");', "return 0;"]
        else:
            title = self.witness.titles[0] if self.witness.titles else "what the kernel complains of"
            crashed = self.witness.verdict is Verdict.CRASHED
            lines += [f'puts("look at dmesg for: {_quoted(title)}");'] if crashed else []
            lines.append("return 0;")
        self.needs.add("stdio")
        return [f"\t{line}" for line in lines]

    def _look_for_leaks(self) -> list[str]:
        self.needs |= {"end-all", "usage", "expect"}
        used = [device for device in DEVICES if self._capabilities(device) is not None]
        lines = ["end_all();", *(f"close({device});" for device in used)]
        for device in self.witness.leaked:
            node = f"{_NODES[self.binding]}{DEVICES.index(device)}"
            lines += [
                f'{device} = open_device("{node}", 0);',
                f"expect(usage({device}), 0);",
                "if (seen[0]) {",
                f'\tprintf("    %llu pages of {device} are in use after every process is gone\\n", seen[0]);',
                "\tturn.found = 1;",
                "}",
            ]
        return lines

    # the comment

    def _comment(self) -> str:
        witness = self.witness
        lines: list[str] = []

        def say(text: str) -> None:
            lines.extend(textwrap.wrap(text, _WIDTH - 4) or [""])

        say(f"{self.program.name}: {self.program.title}" if self.program.title else self.program.name)
        if witness.scene is not None:
            lines.append("")
            say(f"Run on {witness.scene}:")
            say(f"{witness.verdict}: {witness.reason}" if witness.reason else f"{witness.verdict}")
            for title in witness.titles[1:]:
                say(f"    and then {title}")
        lines += ["", *self._listing(), *self._glossary(), ""]
        lines.append("To compile, where hmm-harness is:")
        lines.append("    gcc -Wall -Wextra -I kmod/include/uapi -o reproducer reproducer.c")
        say(f"To run, as root, where its module hmm_harness is loaded ({_NODES[self.binding]}*): ./reproducer")
        if witness.scene is not None and witness.scene.wrong:
            lines.append("Before that, the driver is to be made wrong; no name makes it right again:")
            lines.append(f"    {_switch(witness.scene.wrong)}")
        say(self._statuses())
        if witness.replay:
            lines += ["The same by the harness:", f"    {witness.replay}"]
        return "\n".join(["/*", *(f" * {_harmless(line)}".rstrip() for line in lines), " */"])

    def _statuses(self) -> str:
        ends = "It ends with 77 if the kernel or the module lacks something, with 2 if it got nowhere"
        if self.judges or self.dies or self.leaks or self.stuck:
            return f"{ends}, with 1 if it shows the symptom, and with 0 if not."
        if self.witness.verdict is Verdict.CRASHED:
            return f"{ends}, and else with 0: the symptom is in dmesg."
        return f"{ends}, and else with 0."

    def _listing(self) -> list[str]:
        """The program's text, with what was seen below the step in question."""
        lines = []
        for number, step in enumerate(self.program.steps):
            marked = number == self.witness.step and self.witness.verdict is not Verdict.PASS
            lines.append(f"{'>' if marked else ' '} {number + 1:3}  {render_step(step, self.program)}")
            if number != self.witness.step:
                continue
            details = self.witness.details
            lines += [f"         {detail}" for detail in details[:_MOST_DETAILS]]
            if len(details) > _MOST_DETAILS:
                lines.append(f"         ... and {len(details) - _MOST_DETAILS} more")
        return lines

    def _glossary(self) -> list[str]:
        """What words of the report mean."""
        text = " ".join((self.witness.reason, *self.witness.details))
        known = [f"{word}: {meaning}" for word, meaning in _WORDS.items() if re.search(rf"\b{word}\b", text)]
        expectation = self.witness.expectation
        if expectation is not None and any(isinstance(each, Entries) for each in expectation.elements):
            known.insert(0, "-: no entry; r, rw: an entry for reading, for reading and writing")
        return ["", *known] if known else []


def _switch(wrong: Sequence[str]) -> str:
    return f"echo {','.join(wrong)} > /sys/module/hmm_harness/parameters/wrong"


def _indented(lines: Sequence[str], depth: int) -> list[str]:
    return [each for line in lines for each in _wrapped(line, depth)]


def _wrapped(line: str, depth: int) -> list[str]:
    """A line of code, in pieces that are not too long."""
    inner = len(line) - len(line.lstrip("\t"))
    depth, line = depth + inner, line.lstrip("\t")
    lines, indent = [], depth
    while len(line) + 8 * indent > _WIDTH:
        room = _WIDTH - 8 * indent
        for between in (r" && ", r", | \|\| | \| "):  # not within a condition where it can be helped
            places = [found.end() for found in re.finditer(between, line) if found.end() <= room + 1]
            places = [place for place in places if not _inside_text(line, place)]
            if places:
                break
        if not places:
            break
        lines.append("\t" * indent + line[: places[-1]].rstrip())
        line, indent = line[places[-1] :], depth + 2
    return [*lines, "\t" * indent + line]


def _inside_text(line: str, place: int) -> bool:
    return len(re.findall(r'(?<!\\)"', line[:place])) % 2 == 1


def _quoted(text: str) -> str:
    """As the inside of a C string."""
    return re.sub(r"[^ -~]", "?", text).replace("\\", "\\\\").replace('"', '\\"').replace("??", '?""?')


def _harmless(text: str) -> str:
    """As a line in a C comment."""
    return text.replace("*/", "* /").replace("/*", "/ *")
