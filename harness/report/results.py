# SPDX-License-Identifier: GPL-2.0-only
"""Results, and their store: one JSON object per line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.compare import Verdict
from harness.errors import ExitCode, HarnessError


@dataclass(frozen=True)
class Result:
    """One program on one binding of one kernel.

    `seconds`: in the guest, 0.0 if it never ran. `replay`: the command that runs it again. `explanation`:
    lines for a person, empty for a PASS. `left_out`: queries that the binding does not have. `log`: kernel log
    lines of that time.
    """

    program: str
    kernel: str
    flavour: str
    binding: str
    status: Verdict
    reason: str
    seconds: float
    replay: str
    left_out: int = 0
    explanation: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


_EXIT_BY_STATUS = (  # the first that any result has decides
    (Verdict.CRASHED, ExitCode.CRASH),
    (Verdict.FAIL, ExitCode.FAIL),
    (Verdict.TIMEOUT, ExitCode.TIMEOUT),
    (Verdict.ERROR, ExitCode.INFRASTRUCTURE),
    (Verdict.INCONCLUSIVE, ExitCode.INFRASTRUCTURE),
)


def exit_code(statuses: set[Verdict]) -> ExitCode:
    """The exit code of a run with results of these statuses."""
    for status, code in _EXIT_BY_STATUS:
        if status in statuses:
            return code
    return ExitCode.PASS if statuses & {Verdict.PASS, Verdict.DEVIATION} else ExitCode.SKIPPED


class Store:
    """Writes results to `path` as they come; a reader never meets half a line. None writes nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: RawIOBase | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._path.open("wb", buffering=0)
            except OSError as error:
                raise HarnessError(
                    f"cannot write results to {self._path}: {error.strerror}", hint="name a file that can be written"
                ) from None
            if not self._file.seekable():
                self._file.close()
                raise HarnessError(
                    f"cannot write results to {self._path}: it is a pipe or a terminal",
                    hint="name a regular file: half a line can be taken back from it when the disk is full",
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, result: Result) -> None:
        """Appends one line."""
        if self._file is None:
            return
        line = json.dumps(asdict(result)).encode() + b"\n"
        start = self._file.tell()
        try:
            if self._file.write(line) == len(line):
                return
            self._file.truncate(start)
            reason = "no space left"
        except OSError as error:
            reason = str(error.strerror)
        raise HarnessError(
            f"cannot write results to {self._path}: {reason}", hint="free space there, or name another file"
        )
