# SPDX-License-Identifier: GPL-2.0-only
"""Where runs are kept: XDG_STATE_HOME/hmm-harness/runs, the last ones, so that each can be resumed and reported."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from harness.basedir import base_directory
from harness.compare import Verdict
from harness.errors import HarnessError, UsageError
from harness.report.results import Run, Target, read

_KEPT = 20  # runs; older ones are removed when another begins
# The others are no verdict on the kernel: what was late may have had no CPU. JUnit calls them errors, too.
_FINAL = frozenset(set(Verdict) - {Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.TIMEOUT})


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def named(json: Path | None, reports: Path | None) -> Path | None:
    """Where the options `json` and `reports` want a new run to be stored, if they do."""
    return json if json is not None or reports is None else reports / "results.jsonl"


def place(json: Path | None, reports: Path | None) -> Path:
    """Where a new run is to be stored: `json` and `reports` are the options; else among the last runs.

    One that is stored elsewhere has a symbolic link among the last runs, if there can be one.
    """
    elsewhere = named(json, reports)
    directory = _directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if elsewhere is not None:
            return elsewhere
        raise HarnessError(
            f"cannot keep results in {directory}: {error.strerror}", hint="set XDG_STATE_HOME, or use --json FILE"
        ) from None
    for old in _all()[:-_KEPT]:
        with suppress(OSError):
            old.unlink()
    here = directory / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}.jsonl"
    if elsewhere is None:
        return here
    with suppress(OSError):
        here.symlink_to(elsewhere.absolute())
    return elsewhere


def last() -> Path:
    """The run that was written last. Raises `UsageError` if there is none."""
    kept = _all()
    if not kept:
        raise UsageError("there is no run yet", hint="`hmm-harness run` makes one")
    return kept[-1].resolve()


def last_target(kernel: str) -> Target | None:
    """What the last kept run that reached `kernel` knows of it, in whatever flavour."""
    for path in reversed(_all()):
        try:
            run = read(path)
        except UsageError:  # of another version, or not one at all
            continue
        for target in run.targets:
            if target.kernel == kernel and not target.error:
                return target
    return None


def resumed(path: Path) -> Run:
    """The run of `path`, to go on with: without the results that were no verdict on a kernel."""
    run = read(path)
    run.results = [result for result in run.results if result.identity and result.status in _FINAL]
    run.targets = [target for target in run.targets if not target.error]
    run.end = None
    return run


def state_directory() -> Path:
    """Where what is found is kept from one run to the next: XDG_STATE_HOME/hmm-harness."""
    return base_directory("XDG_STATE_HOME", ".local/state") / "hmm-harness"


def kept_for(kind: str, *names: str) -> Path:
    """Where what is of one kind is kept, of a kernel for instance, and whatever else tells it from others."""
    return state_directory() / kind / "-".join(names).replace("/", "_").replace(":", "-")


def _directory() -> Path:
    return state_directory() / "runs"


def _all() -> list[Path]:
    """The kept runs, the newest last; a link whose run is gone goes, too."""
    found = []
    for path in _directory().glob("*.jsonl"):
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:
            with suppress(OSError):
                path.unlink()
    return [path for _, path in sorted(found)]
