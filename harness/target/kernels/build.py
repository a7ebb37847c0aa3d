# SPDX-License-Identifier: GPL-2.0-only
"""Builds a kernel from its source with our configuration, and keeps what running and testing it takes.

    ENTRY/bzImage               what boots
    ENTRY/modules/*.ko          the kernel's own modules
    ENTRY/source/               as much of the source as modules, tests and checkpatch need
    ENTRY/source/build/         as much of the build tree as `make -C ... M=...` needs

The build tree lies in the source tree, so that each finds the other by a relative path and the entry can be
moved.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import MissingError, UsageError
from harness.progress import Progress, Step
from harness.target import kconfig
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.kernels import forms
from harness.target.process import environment, run_tool
from harness.target.room import cpus

RECIPE = "2"  # another number whenever this file makes something else of the same input
CONFIGS = forms.CONFIGS
_MIB = 1 << 20
NEEDS = 3072 * _MIB  # bytes of disk for the unpacked source and all objects, while a build runs
_COMPILED = re.compile(r"  (?:CC|AS|HOSTCC|LD|AR)\b.*\.(?:o|a|ko)")
_VARIABLE = re.compile(r"(\w[\w.]*=\S+)\s+#\s*\S.*")
_WORD = re.compile(r"(\w[\w.]*=\S+)\s+#\s*\S.*")  # not a bare word, which init would be given
_FILES = 1600  # that a build of base.config compiles, for the progress; other kernels come close

_MAKEFILE = """\
export KBUILD_OUTPUT := $(realpath $(dir $(lastword $(MAKEFILE_LIST))))
include $(KBUILD_OUTPUT)/../Makefile
"""

# Options that some kernels know by another name
_RENAMED = {"CONFIG_PROC_SYSCTL": "CONFIG_SYSCTL"}  # since 7.3

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
    "mm/*.gcno",  # what the counters of the flavour `coverage` stand for
)


def flavours() -> list[str]:
    """The names of all flavours."""
    return forms.flavours(CONFIGS)


def options(flavour: str, *more: str) -> list[kconfig.Option]:
    """What a flavour, and the fragments `more`, ask for. Raises UsageError if there is no such flavour."""
    if flavour not in flavours():
        raise UsageError(f"no such flavour: {flavour!r}", hint=f"there are: {', '.join(flavours())}")
    fragments = [kconfig.read_fragment(CONFIGS / f"{name}.config") for name in (forms.BASE, flavour, *more)]
    return list(kconfig.merge(fragments).values())


def variables(flavour: str) -> list[str]:
    """What make is told for a flavour: NAME=value. Raises UsageError for a line of its file that gives no reason."""
    path = CONFIGS / f"{flavour}.make"
    return _with_reasons(path, _VARIABLE, "variable", "NAME=value  # why") if path.exists() else []


def command_line(flavour: str) -> str:
    """What a flavour adds to the kernel's command line, "" for most; no part of what a kernel is built of.

    Raises UsageError for a line of its file that gives no reason.
    """
    path = CONFIGS / f"{flavour}.cmdline"
    return " ".join(_with_reasons(path, _WORD, "word of the command line", "WORD  # why")) if path.exists() else ""


def _with_reasons(path: Path, pattern: re.Pattern[str], kind: str, form: str) -> list[str]:
    """The first group of `pattern` in each line of a file."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = pattern.fullmatch(line)
            if match is None:
                raise UsageError(f"{path}:{number}: not a {kind} with a reason: {line}", hint=form)
            found.append(match[1])
    return found


def key_of(source: str, flavour: str) -> str:
    """The key of the kernel that is built of a source with the digest `source`."""
    return digest_of(RECIPE, source, kconfig.render(options(flavour)), toolchain(), *variables(flavour))


def from_tarball(
    spec: str,
    digest: str,
    tarball: Callable[[], Path],
    flavour: str,
    *,
    origin: str,
    cache: Cache,
    progress: Progress,
) -> Kernel:
    """The kernel `spec` of a source with the digest `digest`, from the cache or built now of `tarball()`."""
    key = key_of(digest, flavour)
    name = f"kernel {spec} ({flavour})"

    def build(out: Path) -> None:
        progress.say(f"{name} is not in the cache: building it, once")
        packed = tarball()
        with progress.step(f"building {name}") as step:
            log = cache.log(f"kernel-{key[:12]}")
            log.write_text("")
            source = out / "work"  # removed with `out` when anything fails
            (source / "build").mkdir(parents=True)
            build_in(source, packed, flavour, name=name, log=log, step=step)
            step.update("keeping what is needed")
            keep(source, source / "build", out, shutil.move)
            shutil.rmtree(source)

    entry = cache.entry("kernel", key, build, progress=progress, needs=NEEDS)
    return kernel_of(entry, key, spec, flavour, origin=origin)


def build_in(source: Path, tarball: Path, flavour: str, *, name: str, log: Path, step: Step) -> None:
    """Unpacks `tarball` in the directory `source` and builds it in `source`/build, which is there."""
    step.update("unpacking the source")
    unpack(tarball, source, log=log)
    tree = source / "build"
    configure(source, tree, options(flavour), name=name, log=log, step=step)
    compile_all(source, tree, variables(flavour), log=log, step=step)


def kernel_of(entry: Path, key: str, spec: str, flavour: str, *, origin: str) -> Kernel:
    """The kernel that `keep` left in `entry`."""
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
        origin=origin,
    )


def toolchain() -> str:
    """What the compiler, the assembler and the linker say that they are."""
    return "\n".join(_version(name, shutil.which(name)) for name in ("gcc", "ld"))


@functools.cache
def _version(name: str, _where: str | None) -> str:
    """What the program says of itself. Asked once: a list of kernels has hundreds whose keys it is a part of."""
    try:
        done = subprocess.run([name, "-v"], capture_output=True, text=True, check=True, env=environment())
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise MissingError(f"no working {name}: {error}", hint="make setup") from error
    return done.stdout + done.stderr


def make_environment() -> dict[str, str]:
    """The environment of every kernel and module build: nothing of this machine or this day gets into it."""
    return environment(
        KBUILD_BUILD_USER="hmm",
        KBUILD_BUILD_HOST="harness",
        KBUILD_BUILD_VERSION="1",
        KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 1970",
    )


def unpack(tarball: Path, source: Path, *, log: Path) -> None:
    """Unpacks what a build for x86 reads of a packed source."""
    run_tool(
        [
            "tar", "--extract", f"--file={tarball}", f"--directory={source}", "--strip-components=1",
            "--use-compress-program=xz --threads=0",  # the tarball has many blocks: as many CPUs
            "--no-same-owner",
            *(f"--exclude={pattern}" for pattern in _NOT_UNPACKED),
        ],
        log=log,
    )  # fmt: skip


def configure(source: Path, tree: Path, asked: Sequence[kconfig.Option], *, name: str, log: Path, step: Step) -> None:
    """Writes `tree`/.config: allnoconfig and `asked`. Raises BuildError if an option is not taken."""
    step.update("configuring")
    fragment = tree / "requested.config"
    # Kernels come and go with options; what one of them does not know, it cannot lack.
    known = kconfig.defined(source)
    renamed = [replace(option, name=_RENAMED[option.name]) for option in asked if option.name in _RENAMED]
    asked = [option for option in (*asked, *renamed) if option.name in known]
    fragment.write_text(kconfig.render(asked))
    env = make_environment() | {"KCONFIG_ALLCONFIG": str(fragment)}
    run_tool(["make", f"--directory={source}", f"O={tree}", "allnoconfig"], log=log, env=env)
    kconfig.verify(asked, (tree / ".config").read_text(), what=name)


def compile_all(source: Path, tree: Path, words: Sequence[str], *, log: Path, step: Step) -> None:
    """Makes the kernel and its modules in `tree`, which has a .config; `words` go to make."""
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        if _COMPILED.match(line):
            compiled += 1
            step.update(f"{compiled} of about {max(_FILES, compiled)} files")

    run_tool([*_make(source, tree, words), "bzImage", "modules"], log=log, env=make_environment(), each_line=count)


def compile_image(source: Path, tree: Path, words: Sequence[str], *, log: Path, step: Step) -> None:
    """Makes the kernel in `tree` again after a change of some source files."""
    step.update("compiling what changed")
    run_tool([*_make(source, tree, words), "bzImage"], log=log, env=make_environment())


def _make(source: Path, tree: Path, words: Sequence[str]) -> list[str]:
    jobs = cpus() + 1  # some wait for the disk
    return ["make", f"--directory={source}", f"O={tree}", f"--jobs={jobs}", *words]


def _make_movable(makefile: Path) -> None:
    """Since 6.13 the Makefile of a build tree names both trees by their absolute paths: here by their place."""
    if "KBUILD_OUTPUT" in makefile.read_text():
        makefile.write_text(_MAKEFILE)


def keep(source: Path, tree: Path, out: Path, take: Callable[[Path, Path], object]) -> None:
    """Takes what is needed of a finished build into `out`; `take` moves or copies a file or a directory."""
    take(tree / "arch/x86/boot/bzImage", out / "bzImage")
    (out / "modules").mkdir()
    for module in sorted(tree.rglob("*.ko")):
        take(module, out / "modules" / module.name)
    for origin, patterns, target in (
        (tree, _KEPT_BUILD, out / "source/build"),
        (source, _KEPT_SOURCE, out / "source"),
    ):
        for pattern in patterns:
            for path in sorted(origin.glob(pattern)):
                place = target / path.relative_to(origin)
                place.parent.mkdir(parents=True, exist_ok=True)
                take(path, place)
    for notes in sorted((out / "source/build/mm").glob("*.gcno")):  # with the lines that were counted
        (out / "source/mm").mkdir(exist_ok=True)
        take(source / "mm" / f"{notes.stem}.c", out / "source/mm" / f"{notes.stem}.c")
    _make_movable(out / "source/build/Makefile")
    for left in (out / "source/build").rglob("*"):
        if left.suffix in {".o", ".a", ".cmd"} and left.is_file():
            left.unlink()
