# SPDX-License-Identifier: GPL-2.0-only
"""--help: every command has a manual page, whose examples are understood; it imports nothing slow."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.cli import _parser
from harness.cli.options import Command


def _commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, Command]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"{path}{name}", command
                yield from _commands(command, f"{path}{name} ")


COMMANDS = dict(_commands(_parser()))


def _examples(help_text: str) -> list[str]:
    """The command lines of a page, without "hmm-harness"."""
    _, _, rest = help_text.partition("\nexamples:\n")
    return [line.removeprefix("  hmm-harness ") for line in rest.splitlines() if line.startswith("  hmm-harness ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_manual_page(name: str) -> None:
    page = COMMANDS[name].format_help()
    assert COMMANDS[name].description
    assert _examples(page)
    assert max(len(line) for line in page.splitlines()) <= 118


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood(name: str) -> None:
    for example in _examples(COMMANDS[name].format_help()):
        line = re.sub(r" [<>] \S+| > \".*\"$", "", example)  # the shell's part
        assert _parser().parse_args(shlex.split(line)), example


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_slow(name: str) -> None:
    code = (
        "import sys, contextlib, io, harness.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    harness.cli.main({[*name.split(), '--help']!r})\n"
        "slow = {'argcomplete', 'cffi', 'concurrent.futures', 'cryptography', 'dataclasses', 'inspect', 'logging',\n"
        "        'paramiko', 'subprocess', 'tomllib', 'traceback', 'urllib.request'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_command_that_is_to_be_run_keeps_its_options() -> None:
    options = _parser().parse_args(["vm", "exec", "--kernel", "debian:6.12", "ls", "-l", "--kernel", "x"])
    assert options.kernel == "debian:6.12"
    assert options.words == ["ls", "-l", "--kernel", "x"]
