# SPDX-License-Identifier: GPL-2.0-only
"""The programs that come with the product, and those that a user names."""

from __future__ import annotations

import stat
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.program.program import Program
from harness.program.text import ProgramSyntaxError, parse

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX = ".hmm"
_PROGRAMS = Path(__file__).parent / "programs"
_MOST = 1 << 20  # characters of a program: /dev/zero has no end
RACES = "race/"  # what the names of those begin with that are races: harness/program/race.py


def names() -> list[str]:
    """Names of the programs that come with the product: their paths without the suffix."""
    return sorted(path.relative_to(_PROGRAMS).with_suffix("").as_posix() for path in _PROGRAMS.rglob(f"*{SUFFIX}"))


def select(patterns: list[str]) -> list[Program]:
    """The programs that `patterns` name: files, names, or shell patterns of names; all without a pattern.

    Raises `UsageError` for a pattern that nothing matches and for a program that cannot be read.
    """
    known = names()
    chosen: dict[str, Path] = {}
    for pattern in patterns or ["*"]:
        matching = [name for name in known if fnmatch(name, pattern) or fnmatch(name, f"{pattern}/*")]
        if matching:
            chosen.update((name, _PROGRAMS / f"{name}{SUFFIX}") for name in matching)
        elif _is_file(pattern):
            chosen[pattern] = Path(pattern)
        elif _mode(pattern, stat.S_ISDIR):
            raise UsageError(f"{pattern!r} is a directory", hint=f"its programs: {pattern.rstrip('/')}/*{SUFFIX}")
        else:
            raise UsageError(
                f"no program {pattern!r}",
                hint="`hmm-harness list` shows the programs there are; or name a file that holds one",
            )
    return [_load(name, path) for name, path in chosen.items()]


def _is_file(path: str) -> bool:
    """Whether it can be read as a file: `<(...)` of a shell, a FIFO and /dev/stdin, too, if it is named by a path."""
    return _mode(path, lambda mode: stat.S_ISREG(mode) or ("/" in path and not stat.S_ISDIR(mode)))


def _mode(path: str, test: Callable[[int], bool]) -> bool:
    """Whether what `path` names is there and passes `test`."""
    try:
        return test(Path(path).stat().st_mode)
    except (OSError, ValueError):  # longer than a name can be, for instance
        return False


def _load(name: str, path: Path) -> Program:
    try:
        with path.open(encoding="utf-8-sig") as file:  # as editors of other systems write it, too
            text = file.read(_MOST + 1)
        if len(text) > _MOST:
            raise UsageError(f"{path}: more than {_MOST >> 20} MiB", hint="a program is a text file")
        return parse(text, file=str(path), name=name)
    except ProgramSyntaxError as error:
        raise UsageError(str(error), hint=error.hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="a program is a text file in UTF-8") from None
