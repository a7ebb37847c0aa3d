# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that somebody else has built: checked, and used where they are."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import HarnessError, MissingError
from harness.progress import Progress
from harness.target import checkconfig
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.kernels import build as recipe
from harness.target.kernels.initrd import BOOT_MODULES, INIT, make_initrd, needed, unpacked

_RELEASE = "include/config/kernel.release"
_HEADERS = ("Makefile", ".config", "include/generated/autoconf.h", _RELEASE)
_SYMBOLS = "Module.symvers"
_MODULES = Path("/lib/modules")
_OWN_MODULES = ("lib/test_hmm.ko",)


def kernel(
    spec: str,
    flavour: str,
    *,
    image: Path,
    build: Path,
    source: Path | None,
    origin: str,
    cache: Cache,
    progress: Progress,
) -> Kernel:
    """The kernel `image`, with modules to be built against `build`.

    Where its drivers are modules, they are loaded from an initramfs if they are in /lib/modules.

    Raises MissingError for a file that is not there, HarnessError if the configuration lacks what the harness
    cannot do without, or what `flavour` is about.
    """
    recipe.options(flavour)  # a wrong word is complained of first
    if not image.is_file():
        raise MissingError(f"{spec}: there is no kernel {image}")
    lacking = [name for name in _HEADERS if not (build / name).is_file()]
    if lacking:
        raise MissingError(
            f"{spec}: no module can be built against {build}: it has no {', '.join(lacking)}",
            hint=f"make -C {build} modules_prepare; or the headers' package of the kernel",
        )
    symbols = build / _SYMBOLS
    if not symbols.is_file():
        raise MissingError(
            f"{spec}: {symbols} is missing: it says which symbols the kernel exports",
            hint=f"make -C {build} modules",
        )
    config = build / ".config"
    release = (build / _RELEASE).read_text().strip()
    modules_load = drivers_load(build)
    report = checkconfig.check(config.read_text(), flavour, modules_load=modules_load)
    if report.essential:
        lines = [f"    {line}" for line in report.lines(report.essential)]
        raise HarnessError(
            "\n".join([f"{spec} cannot be used with its configuration:", *lines]),
            hint=f"hmm-harness kernel check-config {config}",
        )
    key = digest_of("given", *(cache.file_digest(path) for path in (image, config, symbols)))
    initrd = _initrd(release, key, cache, progress) if modules_load else None
    modules = {Path(name).stem: build / name for name in _OWN_MODULES if (build / name).is_file()}
    return Kernel(
        name=spec,
        flavour=flavour,
        release=release,
        key=key,
        image=image,
        build=build,
        source=source,
        modules=modules,
        config=config,
        origin=origin,
        initrd=initrd,
    )


def drivers_load(build: Path) -> bool:
    """Whether drivers of the kernel that was built in `build` may be modules: they are where we load them from."""
    told = build / _RELEASE
    return told.is_file() and (_MODULES / told.read_text().strip() / "modules.dep").is_file()


def _initrd(release: str, key: str, cache: Cache, progress: Progress) -> Path:
    """What loads the drivers of `release`, from /lib/modules."""

    def make(out: Path) -> None:
        (out / "boot").mkdir()
        boot = needed(lambda argv: argv, release, BOOT_MODULES, required=True)
        make_initrd([unpacked(Path("/") / each, out / "boot") for each in boot], out / "initrd")
        shutil.rmtree(out / "boot")

    return cache.entry("initrd", digest_of(key, INIT.read_text()), make, progress=progress) / "initrd"
