# SPDX-License-Identifier: GPL-2.0-only
"""Builds with the compiler of another suite: in a root directory of its packages, without root rights.

The root is only read. A user name space, so that nobody has to be root; a mount name space, so that nothing stays
mounted; /proc, since objtool reads it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.target.artifacts import Kernel

WORK = Path("/build")  # where the only writable directory is seen
PLACES = ("build", "dev", "proc")  # that a root has to have
_ENTER = """
set -e
root=$1 work=$2 mode=$3
shift 3
mount --bind "$root" "$root"
mount --bind "$work" "$root/build"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
[ "$mode" = rw ] || mount -o remount,bind,ro "$root"
cd /
exec chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin TMPDIR=/build "$@"
"""


def inside(root: Path, work: Path, argv: Sequence[str | Path], *, writable: bool = False) -> list[str]:
    """The command that runs `argv` in `root`, with `work` as /build and as the place for temporary files."""
    return [
        "unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child",
        "sh", "-c", _ENTER, "sh", os.fspath(root), os.fspath(work), "rw" if writable else "ro",
        *(os.fspath(word) for word in argv),
    ]  # fmt: skip


def make_module(kernel: Kernel, work: Path, *words: str) -> list[str]:
    """The command that runs make for a module whose source is in `work`, as `kernel` wants it."""
    build, place = kernel.build, work
    if kernel.chroot is not None:
        build, place = Path("/") / kernel.build.relative_to(kernel.chroot), WORK
    argv = ["make", "-C", os.fspath(build), f"M={place}", *kernel.make_variables, *words]
    return argv if kernel.chroot is None else inside(kernel.chroot, work, argv)
