# SPDX-License-Identifier: GPL-2.0-only
"""Reports are written whole or not at all."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from harness.errors import HarnessError

STDOUT = Path("-")


def write(path: Path, text: str) -> None:
    """Makes `path` a file with `text`, in UTF-8, by a rename; "-" is standard output, devices and pipes are written.

    Parent directories are made. Raises HarnessError.
    """
    data = text.encode("utf-8", errors="backslashreplace")  # names of files can hold what UTF-8 cannot
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)  # a symbolic link stays one
    except OSError as error:
        raise HarnessError(
            f"cannot write the report {path}: {error.strerror}", hint="name a file in a directory that can be written"
        ) from None


def _replace(path: Path, data: bytes) -> None:
    """Puts `data` in place of what `path` was."""
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
