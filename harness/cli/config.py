# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness config`: what is set, and where."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.options import manual
from harness.errors import ExitCode
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    command = manual(
        commands,
        "config",
        help="show what is set in files and in the environment",
        description="""\
            Shows every setting, its value, and where it is from. What is set outranks, from the first to the last:
            the command line; the environment; the project's file; the user's file; the default.

            A file is TOML. Its keys are long options of `hmm-harness run`; in hmm-harness.toml and in the user's
            file they stand at the top, in pyproject.toml in the table [tool.hmm-harness]:

                kernel = ["debian:6.1", "debian:6.12"]
                flavour = "plain"
                vms = 2
                timeout = 60

            In an environment variable the words of a list are separated by commas. A key that does not exist and
            a value of the wrong kind are errors, with the place.""",
        examples=(
            ("config", "what holds here"),
            ("run --kernel debian:6.12 snapshot", "whatever is set elsewhere"),
        ),
        files=(
            ("hmm-harness.toml", "the project's, searched from the working directory upward"),
            ("pyproject.toml", "... or its table [tool.hmm-harness]"),
            ("$XDG_CONFIG_HOME/hmm-harness/config.toml", "the user's (default: ~/.config/...)"),
        ),
        more=_settings,
    )
    command.set_defaults(run_command=_show)


def _settings() -> str:
    from harness.cli import settings

    return f"keys, environment variables:\n{settings.manual()}"


def _show(_options: argparse.Namespace, _progress: Progress) -> int:
    from harness.cli import settings

    here = Path.cwd()
    found = settings.effective(here, os.environ)
    width = max(len(_shown(source.value)) for source in found.values())
    for key, source in found.items():
        print(f"{key:11} {_shown(source.value):{width}}  {source.origin}")
    project = settings.project_file(here)
    user = settings.user_file(os.environ)
    print(f"\nproject's file: {project or 'none'}")
    print(f"user's file:    {user}{'' if user.is_file() else ' (there is none)'}")
    return ExitCode.PASS


def _shown(value: Any) -> str:
    """A value as a person would write it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
