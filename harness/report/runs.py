# SPDX-License-Identifier: GPL-2.0-only
"""Where runs are kept: XDG_STATE_HOME/hmm-harness/runs, the last ones, so that each can be resumed and reported."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from harness.compare import Verdict
from harness.errors import HarnessError, UsageError
from harness.report.results import Run, read

_KEPT = 20  # runs; older ones are removed when another begins
_FINAL = frozenset(set(Verdict) - {Verdict.ERROR, Verdict.INCONCLUSIVE})  # the others say nothing of the kernel


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def place(json: Path | None, reports: Path | None, resume: str | None) -> tuple[Path, bool]:
    """Where a run is to be stored, and whether it goes on with what is there.

    `json`, `reports`, `resume` are the options: `resume` is empty for the last run. Raises `UsageError` if there is
    nothing to go on with.
    """
    if resume is not None:
        if json is not None:
            raise UsageError("--resume FILE adds to FILE, --json begins another", hint="leave --json away")
        return (Path(resume) if resume else last()), True
    if json is not None:
        return json, False
    if reports is not None:
        return reports / "results.jsonl", False
    directory = _directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(
            f"cannot keep results in {directory}: {error.strerror}", hint="set XDG_STATE_HOME, or use --json FILE"
        ) from None
    for old in _all()[:-_KEPT]:
        with suppress(OSError):
            old.unlink()
    return directory / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.jsonl", False


def last() -> Path:
    """The run that was written last. Raises `UsageError` if there is none."""
    kept = _all()
    if not kept:
        raise UsageError("there is no run yet", hint="`hmm-harness run` makes one")
    return kept[-1]


def take_over(path: Path, run: Run) -> set[str]:
    """Gives `run` the verdicts that `path` holds for it; returns the identities of those results.

    What does not belong to the plan any more, and what was no verdict on a kernel, is left to be done again.
    """
    before = read(path)
    planned = {
        (*kernel, program, binding) for kernel in run.kernels for program in run.programs for binding in run.bindings
    }
    kept = {}
    for result in before.results:
        mark = (result.kernel, result.flavour, result.program, result.binding)
        if mark in planned and result.identity and result.status in _FINAL:
            kept[mark] = result
    run.results += kept.values()
    run.targets += [target for target in before.targets if not target.error]
    return {result.identity for result in kept.values()}


def _directory() -> Path:
    configured = os.environ.get("XDG_STATE_HOME", "")
    base = Path(configured) if configured else Path.home() / ".local/state"
    return base / "hmm-harness" / "runs"


def _all() -> list[Path]:
    """The kept runs, the newest last."""
    try:
        return sorted(_directory().glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    except OSError:
        return []
