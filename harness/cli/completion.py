# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness completion`: what makes a shell complete our command lines.

The shell asks this program, which answers from its parser (argcomplete): what it completes is what there is.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli.options import manual
from harness.errors import ExitCode
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands

_SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    command = manual(
        commands,
        "completion",
        help="print a script that makes a shell complete hmm-harness",
        description="""\
            Prints a script for bash, zsh or fish that completes commands, options, programs, kernels, flavours,
            bindings, deliberate mistakes, VMs and files. hmm-harness has to be on the PATH, or to be typed with
            its path.""",
        examples=(
            ('completion bash > "${XDG_DATA_HOME:-$HOME/.local/share}/bash-completion/completions/hmm-harness"',
             "for good, where bash-completion is installed; else source the script from ~/.bashrc"),
            ("completion zsh > ~/.zfunc/_hmm-harness", "for good, with fpath+=(~/.zfunc) before compinit in .zshrc"),
            ("completion fish > ~/.config/fish/completions/hmm-harness.fish", "for good"),
        ),
    )  # fmt: skip
    command.set_defaults(run_command=_print)
    command.add_argument("shell", choices=_SHELLS, help="the shell that is to read it")


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell that asks, and ends the program. What nothing else is known of are files."""
    import argcomplete

    from harness.cli import candidates

    class Files(argcomplete.completers.BaseCompleter):
        def __call__(self, *, prefix: str, **_context: object) -> list[str]:
            return candidates.files(prefix, "")

    argcomplete.autocomplete(parser, default_completer=Files())


def _print(options: argparse.Namespace, _progress: Progress) -> int:
    from argcomplete.shell_integration import shellcode

    # Where we have nothing, bash would offer files, be a kernel asked for; where files are meant, we offer them.
    print(shellcode(["hmm-harness"], shell=options.shell, use_defaults=False))
    return ExitCode.PASS
