# SPDX-License-Identifier: GPL-2.0-only
"""The program `hmm-harness`: reads the command line and calls the room that does the work.

A module of this package is a group of commands. Everything that is slow to import is imported where it is used:
`--help` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

from harness.cli import campaign, clauses, completion, config, explore, kernel, power, race, reproduce, run, tools, vm
from harness.cli.options import Command
from harness.errors import ExitCode, HarnessError
from harness.progress import Progress, let_go

if TYPE_CHECKING:
    from types import FrameType

# Each with `add`, in the order in which --help shows them
_COMMANDS = (run, clauses, explore, campaign, power, race, reproduce, kernel, vm, tools, config, completion)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the result is the exit code (`harness.errors.ExitCode`)."""
    # A caller may have closed them; what is printed then goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  for good
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: names of files can be in any encoding
    progress = _Remarks()
    debug = False
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else by nohup
            signal.signal(signal.SIGHUP, _interrupt)
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks
            from harness.cli.completion import complete

            complete(parser)
        options = parser.parse_args(arguments)
        debug = options.debug
        if keys := getattr(options, "one_kernel", ()):
            from harness.cli import settings

            settings.fill(options, *keys, one_kernel=True)
        code = int(options.run_command(options, progress))
        sys.stdout.flush()
        return code
    except HarnessError as error:
        if debug:
            raise
        for line in getattr(error, "console", "").splitlines():  # of a VM that failed
            progress.say(f"    {line}")
        progress.say(f"hmm-harness: {error.message}")
        if error.hint:
            progress.say(f"hint: {error.hint}")
        return error.exit_code
    except KeyboardInterrupt:
        progress.say("hmm-harness: interrupted")
        return ExitCode.INTERRUPTED
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):
            return ExitCode.CLOSED  # silently, as whom SIGPIPE ends
        if debug:
            raise
        progress.say(f"hmm-harness: {error if error.filename else error.strerror or error}")
        remedy = "is there space and permission there?"
        if error.errno == errno.EMFILE:
            remedy = "`ulimit -n` allows too few"
        elif not error.filename:
            remedy = "is there space where standard output leads to, and where hmm-harness keeps its files?"
        progress.say(f"hint: {remedy} `hmm-harness --debug ...` shows where it happened")
        return ExitCode.INFRASTRUCTURE
    except Exception:  # noqa: BLE001  status 1 would say that a kernel diverged
        import traceback

        progress.say(traceback.format_exc().rstrip())
        progress.say("hmm-harness: this is a bug of hmm-harness, not of a kernel; no verdict")
        return ExitCode.INFRASTRUCTURE
    finally:
        let_go(sys.stdout)  # what is left of it cannot be written, perhaps


class _Remarks(Progress):
    """What is said on standard error; that nobody can hear it ends no work."""

    def say(self, text: str, *, to: TextIO | None = None, ours: bool = False) -> None:
        try:
            super().say(text, to=to, ours=ours)
        except OSError:
            if to not in (None, sys.stderr):
                raise
            let_go(sys.stderr)


def _is_closed(stream: TextIO) -> bool:
    """Whether whoever read the pipe or socket of `stream` has gone."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # of a stream that is no file's
        return False


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code.value:3}  {code.meaning}" for code in ExitCode)
    parser = Command(
        prog="hmm-harness",
        description="Checks a Linux kernel's Heterogeneous Memory Management against a reference model, in QEMU.",
        epilog=f"Each command has its own --help, with examples.\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback for expected errors, too")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in _COMMANDS:
        group.add(commands)
    return parser
