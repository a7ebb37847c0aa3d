# SPDX-License-Identifier: GPL-2.0-only
"""Reports are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.progress import let_go

STDOUT = Path("-")


def write(path: Path, text: str) -> None:
    """Makes `path` a file with `text`, in UTF-8, by a rename; "-" is standard output, devices and pipes are written.

    Parent directories are made. Raises HarnessError.
    """
    data = text.encode("utf-8", errors="backslashreplace")  # names of files can hold what UTF-8 cannot
    if path == STDOUT:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            let_go(sys.stdout)
            if isinstance(error, BrokenPipeError):  # whoever closed it has seen enough
                return
            raise HarnessError(
                f"cannot write the report to standard output: {error.strerror}", hint="name a file instead of -"
            ) from None
        return
    with _told(path):
        if is_ordinary(path):
            _replace(path.resolve(), data)  # a symbolic link stays one
        else:
            path.write_bytes(data)


def is_ordinary(path: Path) -> bool:
    """Whether a report at `path` is a file that another one replaces: no standard output, no device, no pipe."""
    return path != STDOUT and (path.is_file() or not path.exists())


def check(path: Path) -> None:
    """Raises HarnessError if a report cannot be written to `path`, as far as that can be told without doing so.

    Parent directories are made, and a file is beside `path` for a moment.
    """
    if path == STDOUT:
        return
    with _told(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_ordinary(path):
            beside = _beside(path.resolve())
            beside.touch(exist_ok=False)
            beside.unlink()
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Makes the parent directories of `path`; what goes wrong with these and in the body is a HarnessError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise HarnessError(
            f"cannot write the report {path}: {error.strerror}", hint="name a file in a directory that can be written"
        ) from None


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")


def _replace(path: Path, data: bytes) -> None:
    """Puts `data` in place of what `path` was."""
    beside = _beside(path)
    try:
        with beside.open("xb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
