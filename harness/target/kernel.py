# SPDX-License-Identifier: GPL-2.0-only
"""Builds the kernels under test from the distribution's source packages, each once.

    ENTRY/bzImage               what boots
    ENTRY/modules/*.ko          the kernel's own modules
    ENTRY/source/               as much of the source as modules, tests and checkpatch need
    ENTRY/source/build/         as much of the build tree as `make -C ... M=...` needs

The build tree lies in the source tree, so that each finds the other by a relative path and the entry can be
moved.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from harness.errors import MissingError, UsageError
from harness.progress import Progress, Step
from harness.target import kconfig
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.places import VM_IMAGES
from harness.target.process import environment, run_tool

_RECIPE = "2"  # another number whenever this file makes something else of the same input
_SOURCES = Path("/usr/src")  # where Debian's linux-source-SERIES packages put their tarballs
_PATTERN = "linux-source-*.tar.xz"
_CONFIGS = VM_IMAGES / "kernel"
_BASE = "base"
_MIB = 1 << 20
NEEDS = 3072 * _MIB  # bytes of disk for the unpacked source and all objects, while a build runs
_COMPILED = re.compile(r"  (?:CC|AS|HOSTCC|LD|AR)\b.*\.(?:o|a|ko)")
_FILES = 1600  # that a build of base.config compiles, for the progress; other kernels come close

# Not read by any build for x86: half of the source, and most of the time that unpacking takes.
_NOT_UNPACKED = (
    "*/Documentation/*/*",
    "*/sound/*.[ch]",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/tools/perf/*",
    "*/arch/[!x]*/*.[chS]",  # not their Kconfig files, which others include
    "*/arch/[!x]*/*.dts*",
    "*/arch/xtensa/*.[chS]",
)

# What stays of the source: what Debian's linux-headers packages have, and what we read ourselves.
_KEPT_SOURCE = (
    "COPYING",
    "LICENSES",
    "Kbuild",
    "Makefile",
    "include",
    "scripts",
    "arch/x86/Makefile*",
    "arch/x86/include",
    "tools/include",
    "lib/test_hmm*",  # the uapi of the test_hmm binding
    "mm/gup_test.h",  # hmm-tests
    "tools/testing/selftests/kselftest*.h",  # hmm-tests
    "tools/testing/selftests/vm",  # hmm-tests, up to 6.3
    "tools/testing/selftests/mm",  # hmm-tests, from 6.4 on
)
_KEPT_BUILD = (
    ".config",
    "Makefile",
    "Module.symvers",
    "System.map",
    "vmlinux",  # symbols, for gdb
    "include",
    "scripts",
    "arch/x86/include",
    "tools/objtool/objtool",
)


def provide_kernel(spec: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """The kernel `spec` ("debian:6.1") in `flavour` ("plain"), from the cache or built now.

    Raises UsageError for a spec or flavour that does not exist, MissingError if the source package is not
    installed, BuildError if it does not build, HarnessError if there is no space.
    """
    tarball = _tarball(spec)
    options = _options(flavour)
    source = cache.file_digest(tarball)
    key = digest_of(_RECIPE, source, kconfig.render(options), _toolchain())
    name = f"kernel {spec} ({flavour})"

    def build(out: Path) -> None:
        progress.say(f"{name} is not in the cache: building it, once")
        with progress.step(f"building {name}") as step:
            _build(tarball, options, out, name=name, log=cache.log(f"kernel-{key[:12]}"), step=step)

    entry = cache.entry("kernel", key, build, progress=progress, needs=NEEDS)
    tree = entry / "source" / "build"
    return Kernel(
        name=spec,
        flavour=flavour,
        release=(tree / "include/config/kernel.release").read_text().strip(),
        key=key,
        image=entry / "bzImage",
        build=tree,
        source=entry / "source",
        modules={module.stem.replace("-", "_"): module for module in sorted((entry / "modules").glob("*.ko"))},
        config=tree / ".config",
    )


def flavours() -> list[str]:
    """The names that `provide_kernel` takes as flavour."""
    return sorted(path.stem for path in _CONFIGS.glob("*.config") if path.stem != _BASE)


def installed() -> list[str]:
    """The specs whose source package is installed."""
    return [f"debian:{series}" for series in sorted(_series_of(path.name) for path in _SOURCES.glob(_PATTERN))]


def _series_of(file_name: str) -> str:
    return file_name.removeprefix("linux-source-").removesuffix(".tar.xz")


def _tarball(spec: str) -> Path:
    distribution, _, series = spec.partition(":")
    here = ", ".join(installed()) or "none"
    if distribution != "debian" or not re.fullmatch(r"\d+\.\d+", series):
        raise UsageError(
            f"no such kernel: {spec!r}",
            hint=f"a kernel is debian:SERIES, where linux-source-SERIES is a source package; installed: {here}",
        )
    tarball = _SOURCES / _PATTERN.replace("*", series)
    if tarball.is_file():
        return tarball
    known = _packaged()
    if known and series not in known:
        raise UsageError(
            f"no such kernel: {spec!r}: this system has no package linux-source-{series}",
            hint=f"installed: {here}; to be had: {', '.join(f'debian:{each}' for each in known)}",
        )
    raise MissingError(
        f"the source of kernel {spec} is not installed: {tarball} does not exist",
        hint=f"apt-get install --no-install-recommends linux-source-{series}",
    )


def _packaged() -> list[str]:
    """Series of the source packages that apt knows; none where there is no apt or it has no lists."""
    if shutil.which("apt-cache") is None:
        return []
    names = subprocess.run(
        ["apt-cache", "pkgnames", "linux-source-"], capture_output=True, text=True, check=False, env=environment()
    ).stdout.split()
    series = [name.removeprefix("linux-source-") for name in names]
    return sorted(each for each in series if re.fullmatch(r"\d+\.\d+", each))


def _options(flavour: str) -> list[kconfig.Option]:
    if flavour not in flavours():
        raise UsageError(f"no such flavour: {flavour!r}", hint=f"there are: {', '.join(flavours())}")
    fragments = [kconfig.read_fragment(_CONFIGS / f"{name}.config") for name in (_BASE, flavour)]
    return list(kconfig.merge(fragments).values())


def _toolchain() -> str:
    """What the compiler, the assembler and the linker say that they are."""
    said = []
    for argv in (["gcc", "-v"], ["ld", "-v"]):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment())
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise MissingError(f"no working {argv[0]}: {error}", hint="make setup") from error
        said.append(done.stdout + done.stderr)
    return "\n".join(said)


def make_environment() -> dict[str, str]:
    """The environment of every kernel and module build: nothing of this machine or this day gets into it."""
    return environment(
        KBUILD_BUILD_USER="hmm",
        KBUILD_BUILD_HOST="harness",
        KBUILD_BUILD_VERSION="1",
        KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 1970",
    )


def _build(tarball: Path, options: list[kconfig.Option], out: Path, *, name: str, log: Path, step: Step) -> None:
    log.write_text("")
    source = out / "work"  # removed with `out` when anything fails
    source.mkdir()
    step.update("unpacking the source")
    run_tool(
        [
            "tar", "--extract", f"--file={tarball}", f"--directory={source}", "--strip-components=1",
            "--use-compress-program=xz --threads=0",  # the tarball has many blocks: as many CPUs
            "--no-same-owner",
            *(f"--exclude={pattern}" for pattern in _NOT_UNPACKED),
        ],
        log=log,
    )  # fmt: skip
    tree = source / "build"
    tree.mkdir()
    step.update("configuring")
    fragment = tree / "requested.config"
    # Kernels come and go with options; what one of them does not know, it cannot lack.
    known = kconfig.defined(source)
    options = [option for option in options if option.name in known]
    fragment.write_text(kconfig.render(options))
    make = ["make", f"--directory={source}", f"O={tree}"]
    env = make_environment()
    run_tool([*make, "allnoconfig"], log=log, env=env | {"KCONFIG_ALLCONFIG": str(fragment)})
    kconfig.verify(options, (tree / ".config").read_text(), what=name)

    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        if _COMPILED.match(line):
            compiled += 1
            step.update(f"{compiled} of about {max(_FILES, compiled)} files")

    jobs = len(os.sched_getaffinity(0))
    run_tool([*make, f"--jobs={jobs}", "bzImage", "modules"], log=log, env=env, each_line=count)
    step.update("keeping what is needed")
    _keep(source, out)
    shutil.rmtree(source)


def _keep(source: Path, out: Path) -> None:
    tree = source / "build"
    shutil.move(tree / "arch/x86/boot/bzImage", out / "bzImage")
    (out / "modules").mkdir()
    for module in sorted(tree.rglob("*.ko")):
        shutil.move(module, out / "modules" / module.name)
    for origin, patterns, target in (
        (tree, _KEPT_BUILD, out / "source/build"),
        (source, _KEPT_SOURCE, out / "source"),
    ):
        for pattern in patterns:
            for path in sorted(origin.glob(pattern)):
                place = target / path.relative_to(origin)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)
    for left in (out / "source/build").rglob("*"):
        if left.suffix in {".o", ".a", ".cmd"} and left.is_file():
            left.unlink()
