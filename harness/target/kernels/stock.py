# SPDX-License-Identifier: GPL-2.0-only
"""`stock:`: kernels as the distribution ships them; only our module is built, by the compiler of their suite.

ENTRY/bzImage, ENTRY/config     the kernel as packaged
ENTRY/initrd                    what it needs to find its root file system
ENTRY/modules/*.ko              modules of the kernel that tests load, test_hmm among them if it can be built
ENTRY/source/                   what the test_hmm binding reads of the source
ENTRY/root/                     its headers and the compiler of its suite
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BuildError, HarnessError, MissingError, UsageError
from harness.progress import Progress, Step
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.children import run
from harness.target.kernels import build, debian
from harness.target.kernels.archive import SMALL_SUITES, SUITES, Archive, File, newest, suite_lines
from harness.target.kernels.chroot import PLACES, inside, insist, make_module
from harness.target.kernels.initrd import BOOT_MODULES, INIT, make_initrd, needed, unpacked
from harness.target.kernels.provider import Offer
from harness.target.process import run_tool

_RECIPE = "1"  # another number whenever this file makes something else of the same packages
_FLAVOUR = "plain"
_NEWEST = "newest"
_NEEDS = 1024 << 20  # bytes of disk
_IMAGE = re.compile(r"linux-image-(?P<abi>\d\S*?(?P<cloud>-cloud)?-amd64)")
# What the headers need beside the compiler that they depend on: a shell, and what the kernel's Makefiles call.
_TOOLS = ("binutils", "coreutils", "dash", "diffutils", "findutils", "grep", "kmod", "make", "mawk", "sed")
_MERGED = ("bin", "lib", "lib64", "sbin")  # links into usr/, whatever the packages of a suite have there
_UNUSED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/info", "var")
_ON_DEMAND = ("zram", "hwpoison_inject")
_MODULES_WITHOUT = ("CONFIG_DEBUG_INFO_BTF_MODULES=", "CONFIG_DEBUG_INFO_BTF=")  # no pahole, and no use for BTF
_DEVICE_PRIVATE = "CONFIG_DEVICE_PRIVATE=y"
_TEST_HMM = ("lib/test_hmm.c", "lib/test_hmm_uapi.h")


@dataclass(frozen=True)
class Package:
    """A packaged kernel: its release, and the files of the archive that it is made of."""

    release: str
    suite: str
    version: str
    image: tuple[File, ...]  # vmlinuz and modules
    headers: File
    cloud: bool

    @property
    def name(self) -> str:
        """linux-image-..."""
        return f"linux-image-{self.release}"


def check(what: str, flavour: str) -> None:
    """See `Provider`."""
    if flavour != _FLAVOUR:
        raise UsageError(
            f"stock:{what} is configured as it was shipped: there is no flavour {flavour!r} of it",
            hint=f"--flavour {_FLAVOUR}; debian:SERIES has all flavours",
        )


def provide(what: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """See `Provider`. A minute for a kernel that is not in the cache."""
    check(what, flavour)
    archive = Archive(cache, progress)
    package = find(what, archive)
    origin = "; ".join(filter(None, [f"{package.name} {package.version}, {package.suite}", archive.gaps]))
    name = f"stock:{what}"
    key = _key(package)

    def make(out: Path) -> None:
        insist()
        progress.say(f"kernel {name} is not in the cache: fetching {package.name}, once")
        with progress.step(f"preparing {package.name}") as step:
            log = cache.log(f"stock-{key[:12]}")
            log.write_text("")
            _make(package, archive, out, log=log, step=step)

    entry = cache.entry("stock", key, make, progress=progress, needs=_NEEDS)
    kernel = _kernel(entry, package, key, name, origin)
    if _DEVICE_PRIVATE not in kernel.config.read_text().splitlines():
        return kernel  # test_hmm is about device memory
    return _with_test_hmm(kernel, package, archive, cache=cache, progress=progress)


def find(what: str, archive: Archive) -> Package:
    """The packaged kernel that `what` means.

    Raises UsageError if there is none, with those that there are; HarnessError if that cannot be known, since a suite
    could not be read.
    """
    small: list[Package] = []
    with suppress(BuildError):  # where none of these can be read, others may be
        small = _packages(archive, SMALL_SUITES)
    found = _matching(what, small) or _matching(what, _packages(archive, SUITES))
    if not found:
        here = [f"stock:{package.name}" for package in small if package.cloud]
        hint = f"among others there are: {', '.join(sorted(here))}"
        if archive.gaps:
            raise HarnessError(f"what can be read of the archive has no stock:{what}; {archive.gaps}", hint=hint)
        raise UsageError(f"no such kernel: {f'stock:{what}'!r}", hint=hint)
    return found[0]


def offers(*, cache: Cache, progress: Progress) -> list[Offer]:
    """See `Provider`: those for clouds that are known without asking the network, by the names to type first."""
    try:
        packages = _assemble(list(Archive(cache, progress).known(SMALL_SUITES)))
    except MissingError:
        return []  # no apt here
    packages = [package for package in packages if package.cloud]
    series: dict[str, Package] = {}
    for package in packages:
        series.setdefault(_series(package.version), package)
    short = [(name, series[name]) for name in reversed(series)] + [(_NEWEST, package) for package in packages[:1]]
    return [
        *(_offer(name, package, cache, headline=True) for name, package in short),
        *(_offer(package.name, package, cache, headline=False) for package in reversed(packages)),
    ]


def names(files: Iterable[File]) -> list[str]:
    """The specs of what `files` have, those of series first."""
    packages = _pairs(list(files)).values()
    series = {_series(package.version) for package in packages if package.cloud}
    ordered = sorted(series, key=lambda name: tuple(map(int, name.split("."))))
    return [f"stock:{name}" for name in (_NEWEST, *ordered, *sorted({package.name for package in packages}))]


def _series(version: str) -> str:
    return ".".join(re.findall(r"\d+", version)[:2])


def _offer(name: str, package: Package, cache: Cache, *, headline: bool) -> Offer:
    key = _key(package)
    size = cache.size("stock", key)
    return Offer(
        f"stock:{name}",
        f"{package.name} {package.version}, {package.suite}",
        0 if size else sum(file.size for file in (*package.image, package.headers)),
        built=((_FLAVOUR, size),) if size else (),
        entries=(("stock", key),) if size else (),
        headline=headline,
    )


def _key(package: Package) -> str:
    return digest_of(_RECIPE, *(file.sha256 for file in (*package.image, package.headers)), INIT.read_text())


def _matching(what: str, packages: list[Package]) -> list[Package]:
    """Those of `packages` that `what` can mean, best first."""
    if what.startswith("linux-image-"):
        return [package for package in packages if package.name == what]
    for_clouds = [package for package in packages if package.cloud]
    if what == _NEWEST:
        return for_clouds
    if not re.fullmatch(r"\d+\.\d+[0-9.]*", what):
        return []
    return [package for package in for_clouds if re.match(rf"{re.escape(what)}(?![0-9])", package.version)]


def _packages(archive: Archive, suites: Iterable[str]) -> list[Package]:
    """The packaged kernels that have headers, the newest first."""
    return _assemble(list(archive.search(lambda file: file.package.startswith("linux-"), suites)))


def _assemble(every: list[File]) -> list[Package]:
    packages = _pairs(every)
    return [packages[file] for file in newest(packages)]


def _pairs(every: list[File]) -> dict[File, Package]:
    """The packaged kernels that have headers, by the file that has the name."""
    named = {(file.suite, file.package, file.version): file for file in every}
    packages: dict[File, Package] = {}
    for file in every:
        match = _IMAGE.fullmatch(file.package)
        if match is None:
            continue
        release = match["abi"]

        def part(kind: str, *, file: File = file, release: str = release) -> File | None:
            return named.get((file.suite, f"linux-{kind}-{release}", file.version))

        binary, modules, headers = part("binary"), part("modules"), part("headers")
        if headers is None:
            continue
        # since 6.19 the package that has the name is empty
        image = (binary, modules) if binary is not None and modules is not None else (file,)
        packages[file] = Package(release, file.suite, file.version, image, headers, bool(match["cloud"]))
    return packages


def _make(package: Package, archive: Archive, out: Path, *, log: Path, step: Step) -> None:
    root = out / "root"
    work = out / "work"
    work.mkdir()
    step.update(f"the packages and the compiler of {package.suite}")
    names = [*(file.package for file in package.image), package.headers.package, *_TOOLS]
    suite = package.suite.partition("-")[0]
    lines = [suite_lines(archive.where, each) for each in dict.fromkeys((suite, package.suite))]
    # fmt: off
    run(
        [
            "env", f"TMPDIR={work}",
            "mmdebstrap", "--quiet",
            "--format=directory",
            "--variant=extract",              # unpack only
            "--mode=chrootless",              # no root rights, no name spaces
            "--skip=check/chrootless",        # it warns root of maintainer scripts; none is run
            "--skip=output/dev",              # device nodes need root rights
            "--include=" + ",".join(names),
            suite, root, "-",
        ],
        what=f"unpacking {package.name} and its compiler",
        stdin="".join(lines).encode(),
        hint="a mirror that cannot be reached; if the archive has removed the kernel: "
        "`hmm-harness kernel list --update`",
    )
    # fmt: on
    _complete(root)
    step.update("choosing modules")
    modules = root / "usr/lib/modules" / package.release
    run_tool(inside(root, work, ["depmod", package.release], writable=True), log=log)

    def here(argv: list[str]) -> list[str]:
        return inside(root, work, argv)

    boot = needed(here, package.release, BOOT_MODULES, required=True)
    demanded = [each for each in needed(here, package.release, _ON_DEMAND) if each not in boot]
    (out / "modules").mkdir()
    (out / "boot").mkdir()
    make_initrd([unpacked(root / each, out / "boot") for each in boot], out / "initrd")
    for each in demanded:
        unpacked(root / each, out / "modules")
    image = modules / "vmlinuz"
    boot_directory = root / "boot"
    shutil.move(image if image.is_file() else boot_directory / f"vmlinuz-{package.release}", out / "bzImage")
    config = modules / "config"
    shutil.move(config if config.is_file() else boot_directory / f"config-{package.release}", out / "config")
    for left in (modules / "kernel", out / "boot", work, boot_directory):
        shutil.rmtree(left, ignore_errors=True)


def _complete(root: Path) -> None:
    """What maintainer scripts would do."""
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _MERGED:
        place = root / name
        if place.is_dir():  # packages of older suites still ship files there
            shutil.copytree(place, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(place)
        place.symlink_to(f"usr/{name}")
    shutil.rmtree(root / "dev")  # has a console if root unpacks
    for name in PLACES:
        (root / name).mkdir(exist_ok=True)
    awk = root / "usr/bin/awk"
    if not awk.is_symlink():
        awk.symlink_to("mawk")


def _with_test_hmm(kernel: Kernel, package: Package, archive: Archive, *, cache: Cache, progress: Progress) -> Kernel:
    """`kernel` and its own driver test_hmm, which is not shipped: built of the packaged source."""
    try:
        source = debian.find(package.version, archive)
    except HarnessError as error:
        progress.say(f"{kernel.name}: without test_hmm, there is no source of {package.version}: {error.message}")
        return kernel
    key = digest_of(_RECIPE, kernel.key, source.file.sha256 if source.file else source.origin)

    def make(out: Path) -> None:
        tarball = debian.fetched(source, cache=cache, progress=progress)
        with progress.step(f"building test_hmm for {kernel.name}") as step:
            step.update("unpacking its source")
            log = cache.log(f"test-hmm-{key[:12]}")
            log.write_text("")
            run_tool(
                [
                    "tar", "--extract", f"--file={tarball}", f"--directory={out}", "--strip-components=1",
                    "--use-compress-program=xz --threads=0", "--no-same-owner", "--wildcards",
                    *(f"*/{name}" for name in _TEST_HMM),
                ],
                log=log,
            )  # fmt: skip
            step.update("compiling")
            work = out / "work"
            shutil.copytree(out / "lib", work)
            (work / "Kbuild").write_text("obj-m := test_hmm.o\n")
            try:
                run_tool(make_module(kernel, work, "modules"), log=log, env=build.make_environment())
                (work / "test_hmm.ko").rename(out / "test_hmm.ko")
            except BuildError as error:
                progress.say(
                    f"{kernel.name}: without test_hmm, which does not build: {error.message.splitlines()[-1]}"
                )
            shutil.rmtree(work)

    entry = cache.entry("test-hmm", key, make, progress=progress)
    module = entry / "test_hmm.ko"
    if not module.is_file():
        return kernel
    return replace(kernel, key=key, source=entry, modules={**kernel.modules, "test_hmm": module})


def _kernel(entry: Path, package: Package, key: str, name: str, origin: str) -> Kernel:
    return Kernel(
        name=name,
        flavour=_FLAVOUR,
        release=package.release,
        key=key,
        image=entry / "bzImage",
        build=entry / "root/usr/src" / f"linux-headers-{package.release}",
        source=None,
        modules={module.stem.replace("-", "_"): module for module in sorted((entry / "modules").glob("*.ko"))},
        config=entry / "config",
        origin=origin,
        initrd=entry / "initrd",
        chroot=entry / "root",
        make_variables=_MODULES_WITHOUT,
    )
