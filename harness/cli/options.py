# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands share, and what their values may be."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from harness.defaults import DEFAULT_FLAVOUR, DEFAULT_KERNEL, DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from harness.target.cache import Cache

    Commands = argparse._SubParsersAction["Command"]

BINDINGS = ("interval", "mirror", "test_hmm")


class _Page(argparse.RawDescriptionHelpFormatter):
    """--help with texts as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Command(argparse.ArgumentParser):
    """A parser whose --help may end with text that is made when it is asked for."""

    more: Callable[[], str] | None = None

    def format_help(self) -> str:
        """As a whole."""
        text = super().format_help()
        return f"{text}\n{self.more()}\n" if self.more else text


def manual(
    commands: Commands,
    name: str,
    *,
    help: str,
    description: str,
    examples: Sequence[tuple[str, str]],
    files: Sequence[tuple[str, str]] = (),
    environment: Sequence[tuple[str, str]] = (),
    more: Callable[[], str] | None = None,
) -> Command:
    """Adds a command whose --help is its manual page.

    `examples` are command lines without "hmm-harness", each with what it does; `files` and `environment` are names
    with their meanings; `more` makes what follows them.
    """
    shown = [(f"hmm-harness {line}", meaning) for line, meaning in examples]
    lines = []
    for title, entries in (("examples", shown), ("files", files), ("environment", environment)):
        if entries:
            lines += [f"{title}:", *(f"  {entry}\n      {meaning}" for entry, meaning in entries), ""]
    made = commands.add_parser(
        name, help=help, description=dedent(description), epilog="\n".join(lines[:-1]), formatter_class=_Page
    )
    made.more = more
    return made


def completed(action: argparse.Action, candidates: Callable[[str], Iterable[str]]) -> None:
    """Has the shell complete an option's value with those of `candidates(prefix)` that begin with the prefix."""

    def completer(prefix: str, **_context: object) -> Iterable[str]:
        return candidates(prefix)

    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks for it


CONFIGURED = (("HMM_HARNESS_KERNEL, HMM_HARNESS_FLAVOUR, ...", "in place of options: `hmm-harness config --help`"),)


def add_kdir(command: argparse.ArgumentParser) -> None:
    """--kdir of a command that takes kernels; `harness.cli.settings.fill` makes it a part of --kernel."""
    command.add_argument("--kdir", type=Path, metavar="DIR", help="what modules are built against, for image:PATH")


def add_kernel(command: argparse.ArgumentParser, *others: str) -> None:
    """--kernel and --flavour of a command that works on one kernel; `others` can be set elsewhere, too."""
    from harness.cli import candidates

    kernel = command.add_argument("--kernel", help=f"the kernel under test (default: {DEFAULT_KERNEL})")
    completed(kernel, candidates.kernels)
    flavour = command.add_argument("--flavour", help=f"its configuration (default: {DEFAULT_FLAVOUR})")
    completed(flavour, candidates.flavours)
    add_kdir(command)
    command.set_defaults(one_kernel=("kernel", "flavour", *others))  # main() fills in what is set elsewhere


def add_wrong(command: argparse.ArgumentParser, remark: str = "") -> None:
    """--wrong of a command that runs programs; `remark` ends its help."""
    from harness.cli import candidates

    wrong = command.add_argument(
        "--wrong", type=words, metavar="NAME,...", help=f"switch on deliberate mistakes of our driver{remark}"
    )
    completed(wrong, candidates.mistakes)


def add_timeout(command: argparse.ArgumentParser) -> None:
    """--timeout of a command that runs programs."""
    command.add_argument("--timeout", type=seconds, help=f"seconds for one program (default: {DEFAULT_TIMEOUT:g})")


def check_mistakes(names: Sequence[str]) -> None:
    """Raises `UsageError` if our driver knows no such mistake.

    The module in the VM has the last word; that is half a minute later where it has to be built.
    """
    from harness.cli import candidates
    from harness.errors import UsageError

    known = candidates.mistakes("")
    for name in names:
        if name not in known:
            raise UsageError(f"the driver knows no mistake {name!r}", hint=f"one of: {', '.join(known)}")


def add_gdb(command: argparse.ArgumentParser) -> None:
    """--gdb and --gdb-port: `gdb` is the port, 0 for a free one, None for no debugger."""
    command.add_argument(
        "--gdb",
        action="store_const",
        const=0,
        help="let gdb connect; a VM that boots waits for it, and nothing is late",
    )
    command.add_argument("--gdb-port", type=port, dest="gdb", metavar="PORT", help="likewise, on this port")


def words(text: str) -> list[str]:
    """The words of a list with commas; at least one. image:PATH,kdir=DIR is one word."""
    found = [word for word in re.split(r",(?!kdir=)", text) if word]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return found


def seconds(text: str) -> float:
    """A time of at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 86400")
    return value


def duration(text: str) -> float:
    """A time such as 90s, 10m or 8h, in seconds; at most a week."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        value = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        value = 0.0
    if not 1 <= value <= 7 * 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 90s, 10m or 8h")
    return value


def count(text: str) -> int:
    """A number from 0 to 2^32 - 1."""
    if not (text.isdecimal() and int(text) < 1 << 32):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {(1 << 32) - 1}")
    return int(text)


def number(text: str) -> int:
    """A number from 1 to 1000."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return value


def port(text: str) -> int:
    """A TCP port."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return value


def open_cache() -> Cache:
    """The user's cache."""
    from harness.target.cache import Cache

    return Cache()


def own_command() -> tuple[str, ...]:
    """How a person would start this program from here."""
    from pathlib import Path

    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return (Path(sys.executable).name, "-m", "harness")
    if "/" not in sys.argv[0]:
        return (sys.argv[0],)
    here = Path.cwd()
    return (str(path.relative_to(here) if path.is_relative_to(here) else path),)
