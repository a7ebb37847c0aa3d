# SPDX-License-Identifier: GPL-2.0-only
"""Moments of a run that goes on: what its store has so far."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 300.0


def await_stored(path: Path, words: str, child: subprocess.Popen[str]) -> None:
    """Returns when a line of the store has these words; `child`, which writes it, must still run then."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (path.is_file() and words in path.read_text(encoding="utf-8")):
        assert child.poll() is None, "it has ended"
        assert time.monotonic() < deadline, f"no {words!r} in the store"
        time.sleep(_POLL_SECONDS)
    assert child.poll() is None, "it has ended"


def await_result(path: Path, program: str, child: subprocess.Popen[str]) -> None:
    """Likewise, when a result of the program, or of all below the name, is there."""
    await_stored(path, f'"type": "result", "program": "{program}', child)
