# SPDX-License-Identifier: GPL-2.0-only
"""Kernel configuration fragments: options with a reason each, and the check that a .config has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BuildError, UsageError

_LINE = re.compile(r"(CONFIG_[A-Za-z0-9_]+)=(\S+)(?:\s+#\s*(\S.*))?")
_SET = re.compile(r"(CONFIG_[A-Za-z0-9_]+)=(.*)")
_DEFINED = re.compile(r"^\s*(?:menu)?config\s+([A-Za-z0-9_]+)", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """One line of a fragment."""

    name: str  # CONFIG_...
    value: str  # as in a .config; "n" for an option that must be off
    reason: str
    place: str  # file:line

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def read_fragment(path: Path) -> list[Option]:
    """The options of a fragment. Raises UsageError for a line that is none, or that gives no reason."""
    options = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        place = f"{path.name}:{number}"
        match = _LINE.fullmatch(text)
        if match is None or match[3] is None:
            raise UsageError(
                f"{path}:{number}: not an option with a reason: {text}",
                hint="write `CONFIG_NAME=value  # who needs it`",
            )
        options.append(Option(match[1], match[2], match[3], place))
    return options


def merge(fragments: Iterable[Iterable[Option]]) -> dict[str, Option]:
    """All options by name; a later fragment overrides an earlier one."""
    return {option.name: option for fragment in fragments for option in fragment}


def render(options: Iterable[Option]) -> str:
    """The options as Kconfig reads them (KCONFIG_ALLCONFIG)."""
    return "".join(f"{option}\n" for option in options)


def defined(source: Path) -> frozenset[str]:
    """The names of all options that the Kconfig files of a kernel's source define, CONFIG_ included."""
    names: set[str] = set()
    for path in source.rglob("Kconfig*"):
        if path.is_file():
            names.update(_DEFINED.findall(path.read_text(errors="replace")))
    return frozenset(f"CONFIG_{name}" for name in names)


def missing(options: Iterable[Option], config: str) -> list[tuple[Option, str]]:
    """Each option that the text of a .config does not have as asked, with the value that it has there."""
    values = {match[1]: match[2] for match in map(_SET.fullmatch, config.splitlines()) if match}
    return [
        (option, values.get(option.name, "n")) for option in options if values.get(option.name, "n") != option.value
    ]


def verify(options: Iterable[Option], config: str, *, what: str) -> None:
    """Raises BuildError that lists every option of `what` that its .config lacks, and who needs it."""
    lacking = missing(options, config)
    if lacking:
        lines = [f"    {option} ({option.place}; {option.reason}): is {has}" for option, has in lacking]
        raise BuildError(
            "\n".join([f"{what} does not take {len(lacking)} of the options that are asked for:", *lines]),
            hint="an option that this kernel does not have, or that depends on another one: see its Kconfig help",
        )
