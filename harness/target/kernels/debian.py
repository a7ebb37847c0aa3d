# SPDX-License-Identifier: GPL-2.0-only
"""`debian:`: kernels that are built of the distribution's source packages, or of the tarballs these began with."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BuildError, HarnessError, MissingError, UsageError
from harness.progress import Progress
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import build
from harness.target.kernels.archive import ORIGINAL, SMALL_SUITES, SUITES, Archive, File, newest
from harness.target.kernels.provider import Offer
from harness.target.process import environment, run_tool

SOURCES = Path("/usr/src")  # where the linux-source-SERIES packages put their tarballs
_PATTERN = "linux-source-*.tar.xz"
_SERIES = re.compile(r"\d+\.\d+")
_VERSION = re.compile(r"\d+\.\d+[0-9A-Za-z.+~-]*")
_NOTE = "sha256"
_NEAREST = 8  # versions that an error lists
_MIB = 1 << 20


@dataclass(frozen=True)
class Source:
    """A packed kernel source: on this machine as `tarball`, or in the archive as `file`."""

    origin: str
    tarball: Path | None = None
    file: File | None = None


def check(what: str, flavour: str) -> None:
    """See `Provider`."""
    build.options(flavour)  # complain of a wrong word before anything is fetched
    if not _VERSION.fullmatch(what):
        raise UsageError(
            f"no such kernel: {f'debian:{what}'!r}", hint="debian:SERIES or debian:VERSION: debian:6.1, debian:6.12.8"
        )


def provide(what: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """See `Provider`. Half an hour of one CPU for a kernel that is not in the cache."""
    spec = f"debian:{what}"
    check(what, flavour)
    source = find(what, Archive(cache, progress))

    def tarball() -> Path:
        return fetched(source, cache=cache, progress=progress)

    digest = _digest(source, cache=cache, progress=progress)
    return build.from_tarball(spec, digest, tarball, flavour, origin=source.origin, cache=cache, progress=progress)


def find(what: str, archive: Archive) -> Source:
    """The source that `what` means: one that is installed, else one of the archive.

    Raises UsageError if there is none, with those that come nearest; HarnessError if that cannot be known, since a
    suite could not be read.
    """
    here = _installed(what)
    if here is not None:
        return here
    if _SERIES.fullmatch(what):
        # A packaged source has Debian's fixes; where a series was never packaged, its original is there.
        found = []
        with suppress(BuildError):  # where none of these can be read, others may be
            found = list(archive.search(lambda file: file.package == f"linux-source-{what}", SMALL_SUITES))
        found = found or archive.first(lambda file: file.package == f"linux-source-{what}", SUITES)
        found = found or list(
            archive.search(lambda file: file.package == ORIGINAL and _in_series(file.upstream, what), SUITES)
        )
    else:
        found = archive.first(lambda file: _is_source(file) and what in (file.version, file.upstream), SUITES)
    if not found:
        known = {file.upstream for file in archive.search(_is_source, SUITES)} | {each for each, _ in _packages()}
        hint = f"the nearest that it has: {', '.join(f'debian:{each}' for each in nearest(what, known))}"
        if archive.gaps:
            raise HarnessError(f"what can be read of the archive has no debian:{what}; {archive.gaps}", hint=hint)
        raise UsageError(f"no such kernel: debian:{what}: the archive has no source of it", hint=hint)
    best = _best(found)
    return Source("; ".join(filter(None, [_describe(best), archive.gaps])), file=best)


def nearest(what: str, versions: Iterable[str]) -> list[str]:
    """The few of `versions` that come closest to `what`, in their order; those of its own series if there are any."""
    ordered = sorted(set(versions), key=_numbers)
    wanted = _numbers(what)
    ordered = [each for each in ordered if _numbers(each)[:2] == wanted[:2]] or ordered
    below = [each for each in ordered if _numbers(each) < wanted]
    above = [each for each in ordered if _numbers(each) >= wanted]
    return below[-_NEAREST // 2 :] + above[: _NEAREST // 2]


def offers(*, cache: Cache, progress: Progress) -> list[Offer]:
    """See `Provider`: the newest of each series, and every version that is known without asking the network."""
    series = {series: Source(_origin_here(series, tarball), tarball=tarball) for series, tarball in _packages()}
    versions: dict[str, Source] = {}
    try:
        files = list(filter(_is_source, Archive(cache, progress).known()))
    except MissingError:
        files = []  # no apt here: what is installed can be built all the same
    for name in {file.package.removeprefix("linux-source-") for file in files if file.package != ORIGINAL}:
        packaged = [file for file in files if file.package == f"linux-source-{name}"]
        if name not in series:
            best = _best([file for file in packaged if file.suite in SMALL_SUITES] or packaged)
            series[name] = Source(_describe(best), file=best)
    for version in {file.upstream for file in files}:
        best = _best(file for file in files if file.upstream == version)
        versions[version] = Source(_describe(best), file=best)
    return [
        _offer(f"debian:{name}", known[name], cache)
        for known in (series, versions)
        for name in sorted(known, key=_numbers)
    ]


def _best(files: Iterable[File]) -> File:
    """The newest, and a package rather than the original tarball, since it has Debian's fixes."""
    files = list(files)
    return newest([file for file in files if file.package != ORIGINAL] or files)[0]


def installed() -> list[str]:
    """The specs whose source package is on this machine."""
    return [f"debian:{series}" for series, _ in _packages()]


def names(files: Iterable[File]) -> list[str]:
    """The specs of what is on this machine and of `files`, those of series first."""
    files = list(filter(_is_source, files))
    series = {series for series, _ in _packages()}
    series.update(file.package.removeprefix("linux-source-") for file in files if file.package != ORIGINAL)
    versions = {file.upstream for file in files} - series
    return [f"debian:{name}" for known in (series, versions) for name in sorted(known, key=_numbers)]


def _offer(spec: str, source: Source, cache: Cache) -> Offer:
    tarball = source.tarball
    entries: list[tuple[str, str]] = []
    fetch = 0
    if source.file is not None:
        if cache.has("source", source.file.sha256):
            tarball = _in_entry(cache.root / "source" / source.file.sha256)
            entries.append(("source", source.file.sha256))
        else:
            fetch = source.file.size
    built: list[tuple[str, int]] = []
    digest = _known_digest(tarball, source.file, cache)
    if digest is not None:
        for flavour in build.flavours():
            key = build.key_of(digest, flavour)
            size = cache.size("kernel", key)
            if size:
                built.append((flavour, size))
                entries.append(("kernel", key))
    headline = _SERIES.fullmatch(spec.partition(":")[2]) is not None
    return Offer(spec, source.origin, fetch, tuple(built), tuple(entries), headline)


def _is_source(file: File) -> bool:
    return file.package == ORIGINAL or file.package.startswith("linux-source-")


def _in_series(version: str, series: str) -> bool:
    return version == series or version.startswith(f"{series}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _describe(file: File) -> str:
    if file.package == ORIGINAL:
        return f"original tarball of linux {file.version}, {file.suite}"
    return f"{file.package} {file.version}, {file.suite}"


def _packages() -> list[tuple[str, Path]]:
    """The series of the tarballs on this machine."""
    found = []
    for path in SOURCES.glob(_PATTERN):
        series = path.name.removeprefix("linux-source-").removesuffix(".tar.xz")
        if _SERIES.fullmatch(series):
            found.append((series, path))
    return sorted(found, key=lambda each: _numbers(each[0]))


def _installed(what: str) -> Source | None:
    for series, tarball in _packages():
        if what == series:
            return Source(_origin_here(series, tarball), tarball=tarball)
        if _in_series(what, series):
            version = _installed_version(series)
            if what in (version, version.rpartition("-")[0]):
                return Source(_origin_here(series, tarball), tarball=tarball)
    return None


def _origin_here(series: str, tarball: Path) -> str:
    version = _installed_version(series)
    return f"linux-source-{series} {version}, installed" if version else f"{tarball}, of no installed package"


def _installed_version(series: str) -> str:
    """The version of the installed source package; "" if its tarball came some other way."""
    if shutil.which("dpkg-query") is None:
        return ""
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", f"linux-source-{series}"],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else ""


def _digest(source: Source, *, cache: Cache, progress: Progress) -> str:
    """The digest of a source's tarball. A package has to be unpacked for it, once: a note of it is kept.

    So a kernel that is in the cache is found without its source, by machines that keep nothing else for instance.
    """
    if source.tarball is not None:
        return cache.file_digest(source.tarball)
    file = source.file
    assert file is not None
    if file.package == ORIGINAL:
        return file.sha256

    def note(out: Path) -> None:
        (out / _NOTE).write_text(cache.file_digest(fetched(source, cache=cache, progress=progress)))

    return _noted(cache.entry("tarball", file.sha256, note, progress=progress))


def _known_digest(tarball: Path | None, file: File | None, cache: Cache) -> str | None:
    """As `_digest`, without fetching anything."""
    if tarball is not None:
        return cache.file_digest(tarball)
    if file is not None and file.package == ORIGINAL:
        return file.sha256
    if file is not None and cache.has("tarball", file.sha256):
        return _noted(cache.root / "tarball" / file.sha256)
    return None


def _noted(entry: Path) -> str:
    return (entry / _NOTE).read_text()


def _in_entry(entry: Path) -> Path:
    return next(entry.glob("*.tar.xz"))


def fetched(source: Source, *, cache: Cache, progress: Progress) -> Path:
    """The tarball of a source: on this machine, in the cache, or fetched now."""
    if source.tarball is not None:
        return source.tarball
    file = source.file
    assert file is not None

    def fetch(out: Path) -> None:
        with progress.step("fetching a kernel's source") as step:
            name = Path(file.path).name
            Archive(cache, progress).download(file, out / name, step)
            if name.endswith(".deb"):
                step.update("unpacking the package")
                log = cache.log(f"source-{file.sha256[:12]}")
                log.write_text("")
                run_tool(["dpkg-deb", "--extract", out / name, out / "package"], log=log)
                (tarball,) = (out / "package/usr/src").glob(_PATTERN)
                tarball.rename(out / tarball.name)
                shutil.rmtree(out / "package")
                (out / name).unlink()

    return _in_entry(cache.entry("source", file.sha256, fetch, progress=progress, needs=512 * _MIB))
