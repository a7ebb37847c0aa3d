# SPDX-License-Identifier: GPL-2.0-only
"""`host`: the kernel that this machine runs, in a VM."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import MissingError, UsageError
from harness.progress import Progress
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import given
from harness.target.kernels.provider import Offer

BOOT = Path("/boot")
MODULES = Path("/lib/modules")


def check(what: str, flavour: str) -> None:  # noqa: ARG001  as every provider
    """See `Provider`."""
    if what:
        raise UsageError(f"host takes nothing after the word: {what!r}")


def provide(what: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """See `Provider`. Raises MissingError for a machine without its kernel's image or headers."""
    check(what, flavour)
    image, build = places()
    return given.kernel(
        "host", flavour, image=image, build=build, source=None, origin=f"this machine's {os.uname().release}",
        cache=cache, progress=progress,
    )  # fmt: skip


def places() -> tuple[Path, Path]:
    """The image, and the directory that modules are built against. Raises MissingError if one is not here."""
    release = os.uname().release
    image = BOOT / f"vmlinuz-{release}"
    if not image.is_file():
        raise MissingError(
            f"the running kernel {release} is not on this machine's disk: there is no {image}",
            hint="a container or a virtual machine runs somebody else's kernel: use debian: or stock:",
        )
    if not os.access(image, os.R_OK):
        raise MissingError(f"{image} cannot be read", hint=f"sudo chmod +r {image}")
    build = MODULES / release / "build"
    if not build.is_dir():
        raise MissingError(
            f"no module can be built for the running kernel: there is no {build}",
            hint=f"apt-get install linux-headers-{release}",
        )
    return image, build


def offers(*, cache: Cache, progress: Progress) -> list[Offer]:  # noqa: ARG001  as every provider
    """See `Provider`."""
    release = os.uname().release
    return [Offer("host", f"Linux {release}", 0)] if (BOOT / f"vmlinuz-{release}").is_file() else []
