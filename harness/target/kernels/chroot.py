# SPDX-License-Identifier: GPL-2.0-only
"""Builds with the compiler of another suite: in a root directory of its packages, without root rights.

The root is only read. A user name space, so that nobody has to be root; a mount name space, so that nothing stays
mounted; /proc, since objtool reads it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingError
from harness.target.artifacts import Kernel

WORK = Path("/build")  # where the only writable directory is seen
PLACES = ("build", "dev", "proc")  # that a root has to have
_SPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
_SYSCTLS = {  # what forbids them, and the value with which it does not
    "kernel.unprivileged_userns_clone": "1",  # Debian
    "kernel.apparmor_restrict_unprivileged_userns": "0",  # Ubuntu
    "user.max_user_namespaces": "10000",  # 0 on hardened systems
}
_PROC_SYS = Path("/proc/sys")
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
        *_SPACES, "sh", "-c", _ENTER, "sh", os.fspath(root), os.fspath(work), "rw" if writable else "ro",
        *(os.fspath(word) for word in argv),
    ]  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Why such name spaces cannot be had here: the machine's word, and the command that changes it, if one does."""

    reason: str
    command: str

    @property
    def advice(self) -> str:
        """What to do."""
        if self.command:
            return self.command
        return (
            "a container does, unless it is run with --privileged, or with --security-opt seccomp=unconfined and "
            "--security-opt systempaths=unconfined; debian: kernels need none"
        )


def refusal() -> Refusal | None:
    """Whether the name spaces that `inside` needs can be had here, by trying; None if they can."""
    try:
        tried = subprocess.run(
            [*_SPACES, "mount", "-t", "proc", "proc", "/proc"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return Refusal(f"{error.filename} is not installed", "apt-get install util-linux")
    if tried.returncode == 0:
        return None
    said = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
    for name, value in _SYSCTLS.items():
        path = _PROC_SYS / name.replace(".", "/")
        if path.is_file() and (path.read_text().strip() == "0") == (value != "0"):
            return Refusal(f"{said} ({name} is {path.read_text().strip()})", f"sudo sysctl {name}={value}")
    return Refusal(said, "")


def insist() -> None:
    """Raises MissingError where the name spaces cannot be had, before anything is fetched or compiled."""
    found = refusal()
    if found is not None:
        raise MissingError(
            f"stock: kernels are built for in a user name space, which this machine refuses: {found.reason}",
            hint=found.advice,
        )


def make_module(kernel: Kernel, work: Path, *words: str) -> list[str]:
    """The command that runs make for a module whose source is in `work`, as `kernel` wants it.

    Raises MissingError where that cannot be.
    """
    build, place = kernel.build, work
    if kernel.chroot is not None:
        build, place = Path("/") / kernel.build.relative_to(kernel.chroot), WORK
    argv = ["make", "-C", os.fspath(build), f"M={place}", *kernel.make_variables, *words]
    if kernel.chroot is None:
        return argv
    insist()
    return inside(kernel.chroot, work, argv)
