# SPDX-License-Identifier: GPL-2.0-only
"""Real bugs of kernels: who has them, how they show, and the programs that tell such a kernel from a mended one.

bugs.toml beside this file is the table. A crash that is one of them says so; it stays a crash: to know why is not to
have an answer from that kernel.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.compare import Verdict
from harness.defaults import DEFAULT_FLAVOUR
from harness.errors import UsageError
from harness.report.results import Result
from harness.target.crashes import Crash

TABLE = Path(__file__).with_name("bugs.toml")
_RED = frozenset({Verdict.FAIL, Verdict.CRASHED, Verdict.DEVIATION})


@dataclass(frozen=True)
class Bug:
    """A bug: `title` and `commit` are those of its fix, if there is one, `where` is the function that has it.

    `has` and `mended` are kernels with and without it, each as (kernel, flavour). On `binding` of the first, each of
    `programs` is red, a recorded deviation or a report of the kernel for instance, and `shows` is in what is said of
    it; on the second it passes. `why`: there is no program. `functions`: in the report of a crash that is this bug,
    each as the kernel prints it.
    """

    id: str
    where: str
    symptom: str
    title: str = ""
    commit: str = ""
    has: tuple[tuple[str, str], ...] = ()
    mended: tuple[tuple[str, str], ...] = ()
    programs: tuple[str, ...] = ()
    binding: str = "interval"
    shows: str = ""
    functions: tuple[str, ...] = ()
    why: str = ""

    @property
    def source(self) -> str:
        """Where it is, and what mended it."""
        if not self.title:
            return self.where
        commit = f"{self.commit} " if self.commit else ""
        return f'{self.where}; mended by {commit}"{self.title}"'

    @property
    def kernels(self) -> tuple[tuple[str, str], ...]:
        """All that it is looked for on."""
        return (*self.has, *self.mended)

    def is_told(self, result: Result) -> bool:
        """Whether a result of one of its programs is as it should be on that kernel."""
        if (result.kernel, result.flavour) in self.has:
            return result.status in _RED and bool(self.evidence(result))
        return result.status is Verdict.PASS

    def evidence(self, result: Result) -> str:
        """What of `result` shows this bug: the reason, or one of the kernel's reports; "" if nothing does.

        A kernel may have several bugs, and report that of another row first.
        """
        said = (result.reason, *(report.title for report in result.reports))
        return next((each for each in said if self.shows and self.shows in each), "")


@cache
def load(path: Path = TABLE) -> tuple[Bug, ...]:
    """The table. Raises `ValueError`, `KeyError` or `TypeError` if it is not in the form described here."""
    return tuple(_bug(each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["bug"])


def _bug(data: dict[str, Any]) -> Bug:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    for name in ("has", "mended"):
        values[name] = tuple(_kernel(each) for each in values.get(name, ()))
    return Bug(**values)


def _kernel(text: str) -> tuple[str, str]:
    """ "debian:6.12.8 debug", or without the flavour."""
    kernel, _, flavour = text.partition(" ")
    return kernel, flavour or DEFAULT_FLAVOUR


def select(ids: Sequence[str]) -> list[Bug]:
    """The bugs of these ids; all without one. Raises `UsageError` for one that there is not."""
    known = {bug.id: bug for bug in load()}
    for each in ids:
        if each not in known:
            raise UsageError(f"there is no bug {each!r}", hint=f"one of: {', '.join(known)}")
    return [known[each] for each in dict.fromkeys(ids)] if ids else list(known.values())


def describe(bugs: Sequence[Bug]) -> Iterator[str]:
    """The table for people, a line each."""
    for bug in bugs:
        yield bug.id
        yield f"    {bug.symptom}"
        yield f"    {bug.source}"
        if bug.programs:
            yield f"    on {_names(bug.has)}: {', '.join(bug.programs)} ({bug.binding}) red: {bug.shows}"
            yield f"    on {_names(bug.mended)}: green"
        else:
            yield f"    no program: {bug.why}"
        yield ""


def named(kernel: tuple[str, str]) -> str:
    """ "debian:6.1", with its flavour if that is not the usual one."""
    spec, flavour = kernel
    return spec if flavour == DEFAULT_FLAVOUR else f"{spec} ({flavour})"


def _names(kernels: Sequence[tuple[str, str]]) -> str:
    return ", ".join(map(named, kernels))


def known_bug(crash: Crash) -> Bug | None:
    """The known bug that `crash` is; None if it is none."""
    return next((bug for bug in load() if bug.functions and _is(bug, crash.lines)), None)


def _is(bug: Bug, lines: Sequence[str]) -> bool:
    return all(
        any(f"{function}+0x" in line or f"{function}()" in line for line in lines) for function in bug.functions
    )


def with_bug(reason: str, found: Sequence[Crash]) -> str:
    """`reason`, and what is known of the first of the crashes that it is about."""
    bug = known_bug(found[0]) if found else None
    return reason if bug is None else f"{reason}; a known bug: {bug.symptom} ({bug.source})"
