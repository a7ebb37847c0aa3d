# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong, by who has to act, and the exit codes of the program.

An expected failure is raised as a `HarnessError`: it says what happened and, in `hint`, what to do about
it. The front doors print both and exit with `exit_code`; they show no traceback unless asked to.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `hmm-harness`; the table in README.md is generated from this one."""

    PASS = 0, "every result is PASS, SKIP or DEVIATION, and at least one is not SKIP"
    FAIL = 1, "a kernel diverged from the model"
    USAGE = 2, "the command line, a program or a configuration file is wrong"
    INFRASTRUCTURE = 3, "something that the harness needs is missing or broke: no verdict"
    SKIPPED = 4, "nothing was tested: every result is SKIP"
    CRASH = 5, "a kernel crashed, oopsed or printed a warning"
    TIMEOUT = 124, "a program or a VM did not end in time"
    INTERRUPTED = 130, "Ctrl-C, SIGTERM or SIGHUP"
    CLOSED = 141, "whoever read standard output closed it; `run` goes on without"

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str


class HarnessError(Exception):
    """A failure that was foreseen: `message` says the cause, `hint` the remedy."""

    exit_code = ExitCode.INFRASTRUCTURE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HarnessError):
    """The user has to change what they typed or wrote."""

    exit_code = ExitCode.USAGE


class MissingError(HarnessError):
    """Something has to be installed or built first."""


class BuildError(HarnessError):
    """A kernel, image or module does not build; `message` ends with the first lines that say why."""


class GuestError(HarnessError):
    """The VM or the agent in it did not do its part."""
