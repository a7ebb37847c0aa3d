# SPDX-License-Identifier: GPL-2.0-only
"""`image:`: a bzImage that somebody has built, with the directory that modules are built against."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UsageError
from harness.progress import Progress
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import given
from harness.target.kernels.bzimage import release_of
from harness.target.kernels.forms import FORMS
from harness.target.kernels.provider import Offer

_KDIR = ",kdir="
_PACKAGED = re.compile(r"vmlinuz-(\S+)")


def check(what: str, flavour: str) -> None:  # noqa: ARG001  as every provider
    """See `Provider`."""
    if not what.partition(_KDIR)[0]:
        raise UsageError("image: without a path", hint=": ".join(FORMS["image"][0]))


def provide(what: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """See `Provider`. Nothing is built but, where its drivers are modules, an initramfs."""
    check(what, flavour)
    image, build = places(what)
    release = release_of(image)
    told = build / given.RELEASE
    if told.is_file() and told.read_text().strip() != release:
        raise UsageError(
            f"{image} is Linux {release}, {build} is of {told.read_text().strip()}: modules would not load",
            hint="the directory that this image was built in, or the headers' package of the same version",
        )
    return given.kernel(
        f"image:{what}",
        flavour,
        image=image,
        build=build,
        source=build / "source" if (build / "source").is_dir() else None,
        origin=f"{image}, with {build}",
        cache=cache,
        progress=progress,
    )


def places(what: str) -> tuple[Path, Path]:
    """The image, and the directory that modules are built against. Raises UsageError if that is not known."""
    path, _, directory = what.partition(_KDIR)
    image = Path(path).expanduser().resolve()
    return image, Path(directory).expanduser().resolve() if directory else _beside(image)


def offers(*, cache: Cache, progress: Progress) -> list[Offer]:  # noqa: ARG001  as every provider
    """See `Provider`: the user names the place."""
    return []


def needs_kdir(spec: str) -> bool:
    """Whether `spec` is an image: that does not say what modules for it are built against."""
    return spec.startswith("image:") and _KDIR not in spec


def with_kdir(spec: str, kdir: Path) -> str:
    """The spec that --kdir makes of one that needs it."""
    return f"{spec}{_KDIR}{kdir}"


def _beside(image: Path) -> Path:
    """Where what belongs to `image` usually is. Raises UsageError if its place does not tell."""
    if image.parts[-4:] == ("arch", "x86", "boot", "bzImage"):
        return image.parents[3]
    packaged = _PACKAGED.fullmatch(image.name)
    if packaged is not None:
        return Path("/lib/modules") / packaged[1] / "build"
    raise UsageError(
        f"what are modules for {image} built against?",
        hint=f"--kdir DIR, or the same in one word: image:{image},kdir=DIR",
    )
