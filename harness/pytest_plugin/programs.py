# SPDX-License-Identifier: GPL-2.0-only
"""The programs that a test names: files beside it, or those of the product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.conformance import catalogue
from harness.program.program import Program


def select(patterns: Sequence[str], directory: Path) -> list[Program]:
    """The programs that `patterns` name: files in `directory`, or else what `hmm-harness run` takes.

    All of the product without a pattern. A file's program is called by the path as a person would type it here.
    Raises `UsageError` for a pattern that nothing matches and for a program that cannot be read.
    """
    found: list[str] = []
    for pattern in patterns:
        files = [] if Path(pattern).is_absolute() else sorted(directory.glob(pattern))
        found += [_from_here(path) for path in files if path.is_file()] or [pattern]
    return catalogue.select(found)


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
