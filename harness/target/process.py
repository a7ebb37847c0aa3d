# SPDX-License-Identifier: GPL-2.0-only
"""Runs the tools that build things, so that none of them outlives us and all that they say is kept."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import BuildError, MissingError

_PATIENCE = 10.0  # seconds from SIGTERM to SIGKILL; make needs some to remove half-written files
_TELLING = re.compile(r"(?:error|Error|ERROR|fatal|undefined|No rule|warning)\b.*[:\]]|^\*\*\*|^make.*\*\*\*")
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

    The tool and all that it started end when we do: on an exception they are terminated, and if we are
    killed the kernel signals the tool (make hands that on to its children). Raises BuildError with the
    first telling lines if it fails, MissingError if it is not installed, OSError(ENOSPC) if the disk
    is full.
    """
    command = [os.fspath(each) for each in argv]
    with log.open("a", errors="replace") as kept:
        kept.write(f"$ {' '.join(command)}\n")
        kept.flush()
        start = kept.tell()
        try:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment() if env is None else dict(env),
                start_new_session=True,  # Ctrl-C reaches us alone; we end the group in order
                text=True,
                errors="replace",
            )
        except FileNotFoundError as error:
            raise MissingError("setpriv is not installed", hint="apt-get install util-linux") from error
        try:
            assert child.stdout is not None
            for line in child.stdout:
                kept.write(line)
                if each_line is not None:
                    each_line(line.rstrip("\n"))
            child.wait()
        except BaseException:
            _end(child)
            raise
    if child.returncode != 0:
        _raise(command, child.returncode, log, start)


def _end(child: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _raise(command: Sequence[str], status: int, log: Path, start: int) -> None:
    with log.open(errors="replace") as kept:
        kept.seek(start)
        said = kept.read()
    if _NO_SPACE in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = said.splitlines()
    telling = [line for line in lines if _TELLING.search(line)][:_TELLING_LINES] or lines[-_TELLING_LINES:]
    if status == 127 and not telling:
        raise MissingError(f"{command[0]} is not installed", hint="make setup")
    raise BuildError(
        "\n".join([f"`{' '.join(command)}` failed with status {status}:", *(f"    {line}" for line in telling)]),
        hint=f"all that it said is in {log}",
    )
