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


def place(json: Path | None, reports: Path | None) -> Path:
    """Where a new run is to be stored: `json` and `reports` are the options; else among the last runs."""
    if json is not None:
        return json
    if reports is not None:
        return reports / "results.jsonl"
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
    return directory / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"


def last() -> Path:
    """The run that was written last. Raises `UsageError` if there is none."""
    kept = _all()
    if not kept:
        raise UsageError("there is no run yet", hint="`hmm-harness run` makes one")
    return kept[-1]


def resumed(path: Path) -> Run:
    """The run of `path`, to go on with: without the results that were no verdict on a kernel."""
    run = read(path)
    run.results = [result for result in run.results if result.identity and result.status in _FINAL]
    run.targets = [target for target in run.targets if not target.error]
    run.end = None
    return run


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
