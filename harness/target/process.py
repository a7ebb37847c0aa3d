# SPDX-License-Identifier: GPL-2.0-only
"""Runs the tools that build things, so that none of them outlives us and all that they say is kept."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import BuildError, MissingError
from harness.target.children import end, spawn

_TELLING = re.compile(r"^(?!  [A-Z]+ ).*\b(?i:error|fatal|undefined reference|not found)\b|^make.*\*\*\*")
_TELLING_LINES = 12
_NO_SPACE = "No space left on device"
# What would leak into the kernel's build from a make or a shell around us.
_FOREIGN = re.compile(
    r"MAKE.*|MFLAGS|GNUMAKEFLAGS|K?BUILD_.*|KCONFIG_.*|KCFLAGS|KCPPFLAGS|KAFLAGS|ARCH|CROSS_COMPILE|"
    r"CC|LD|LLVM|HOSTCC|CFLAGS|LDFLAGS|CPPFLAGS|INSTALL_.*|[CMOVW]"
)


def environment(**extra: str) -> dict[str, str]:
    """Ours without what changes the outcome of a kernel build, in the C locale, with `extra`."""
    own = {name: value for name, value in os.environ.items() if not _FOREIGN.fullmatch(name)}
    return own | {"LC_ALL": "C", **extra}


def run_tool(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    each_line: Callable[[str], None] | None = None,
) -> None:
    """Runs `argv` to its end; what it says goes to the end of `log`, and line by line to `each_line`.

    The tool and all that it started end when we do: on an exception they are killed, and if we are killed
    the tool gets a SIGTERM, which make hands on to its children. Raises BuildError with the first telling
    lines if it fails, MissingError if it is not installed, OSError(ENOSPC) if the disk is full. What it leaves in
    $TMPDIR when it is killed goes.
    """
    command = shlex.join(os.fspath(each) for each in argv)
    said: list[str] = []
    with ExitStack() as stack:
        kept = stack.enter_context(log.open("a", buffering=1))
        scratch = stack.enter_context(TemporaryDirectory(prefix="hmm-harness.", ignore_cleanup_errors=True))
        kept.write(f"$ {command}\n")
        child = spawn(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**(environment() if env is None else env), "TMPDIR": scratch},
            death="TERM",
        )
        try:
            assert child.stdout is not None
            for raw in child.stdout:
                line = raw.decode(errors="replace").rstrip("\n")
                said.append(line)
                kept.write(f"{line}\n")
                if each_line is not None:
                    each_line(line)
            status = child.wait()
        except BaseException:
            end(child)
            raise
    if status == 0:
        return
    if any(_NO_SPACE in line for line in said):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if status == 127 and len(said) <= 1:
        raise MissingError(f"{argv[0]} is not installed", hint="make setup")
    telling = [line for line in said if _TELLING.search(line)][:_TELLING_LINES] or said[-_TELLING_LINES:]
    raise BuildError(
        "\n".join([f"this failed with status {status}: {command}", *(f"    {line}" for line in telling)]),
        hint=f"all that it said is in {log}",
    )
