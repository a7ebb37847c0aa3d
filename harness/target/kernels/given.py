# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that somebody else has built: checked; image and modules are taken as they are now, the rest stays there.

ENTRY/bzImage         what boots
ENTRY/modules/*.ko    the kernel's own modules
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError, MissingError
from harness.progress import Progress
from harness.target import checkconfig
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.kernels import build as recipe
from harness.target.kernels.initrd import BOOT_MODULES, INIT, make_initrd, needed, unpacked

_RECIPE = "given 2"
RELEASE = "include/config/kernel.release"
_HEADERS = ("Makefile", ".config", "include/generated/autoconf.h", RELEASE)
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
    content: str = "",
    make_variables: Sequence[str] = (),
    cache: Cache,
    progress: Progress,
) -> Kernel:
    """The kernel `image`, with modules to be built against `build`, with `make_variables` for make.

    Its key changes with `content`, too: what else is known of what modules are built of. Where its drivers are
    modules, they are loaded from an initramfs if they are in /lib/modules.

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
    release = (build / RELEASE).read_text().strip()
    modules_load = drivers_load(build)
    report = checkconfig.check(config.read_text(), flavour, modules_load=modules_load)
    if report.essential:
        lines = [f"    {line}" for line in report.lines(report.essential)]
        raise HarnessError(
            "\n".join([f"{spec} cannot be used with its configuration:", *lines]),
            hint=shlex.join(["hmm-harness", "kernel", "check-config", "--flavour", flavour, spec]),
        )
    own = [build / name for name in _OWN_MODULES if (build / name).is_file()]
    digests = {path: cache.file_digest(path) for path in (image, *own, config, symbols)}
    key = digest_of(_RECIPE, content, *digests.values())
    initrd = _initrd(release, key, cache, progress) if modules_load else None

    def take(out: Path) -> None:
        (out / "modules").mkdir()
        for path, target in ((image, out / "bzImage"), *((path, out / "modules" / path.name) for path in own)):
            shutil.copyfile(path, target)
            with target.open("rb") as file:
                taken = hashlib.file_digest(file, "sha256").hexdigest()
            if taken != digests[path]:
                raise HarnessError(f"{path} changes at this moment", hint="start again when it is at rest")

    # A copy: a later VM of this run, or of a saved boot, must not get what somebody builds there meanwhile.
    entry = cache.entry("given", key, take, progress=progress)
    return Kernel(
        name=spec,
        flavour=flavour,
        release=release,
        key=key,
        image=entry / "bzImage",
        build=build,
        source=source,
        modules={path.stem: path for path in sorted((entry / "modules").glob("*.ko"))},
        config=config,
        origin=origin,
        initrd=initrd,
        make_variables=tuple(make_variables),
    )


def drivers_load(build: Path) -> bool:
    """Whether drivers of the kernel that was built in `build` may be modules: they are where we load them from."""
    told = build / RELEASE
    return told.is_file() and (_MODULES / told.read_text().strip() / "modules.dep").is_file()


def _initrd(release: str, key: str, cache: Cache, progress: Progress) -> Path:
    """What loads the drivers of `release`, from /lib/modules."""

    def make(out: Path) -> None:
        (out / "boot").mkdir()
        boot = needed(lambda argv: argv, release, BOOT_MODULES, required=True)
        make_initrd([unpacked(Path("/") / each, out / "boot") for each in boot], out / "initrd")
        shutil.rmtree(out / "boot")

    return cache.entry("initrd", digest_of(key, INIT.read_text()), make, progress=progress) / "initrd"
