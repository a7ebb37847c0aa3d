# SPDX-License-Identifier: GPL-2.0-only
"""The Debian archive that this machine's apt uses: which kernels its suites hold, their files, and sources of tools.

All is fetched and verified by apt itself, with its proxies and keyrings, but with indices of our own: the machine's
are not changed, and no root rights are needed. What an index says of kernels is kept in the cache until somebody
asks to read it again, so that a spec means the same tomorrow and without a network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cmp_to_key
from pathlib import Path

from harness.errors import BuildError, HarnessError, MissingError
from harness.progress import Progress, Step
from harness.target.cache import Cache, digest_of
from harness.target.children import end, run, spawn
from harness.target.process import environment

_FORMAT = "1"  # of index.json; another number whenever it holds something else
_HELPER = "/usr/lib/apt/apt-helper"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIB = 1 << 20
# Suites with kernels, those first whose indices are small: they have the newest versions of each series, too.
SMALL_SUITES = (
    "bullseye-security",
    "bookworm-security",
    "bookworm-backports",
    "trixie-security",
    "trixie-backports",
)
LARGE_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid")
SUITES = (*SMALL_SUITES, *LARGE_SUITES)

_PACKAGE = re.compile(r"linux-(?:source|image|binary|modules|base|headers)-\d\S*")
_ORIGINAL = re.compile(r"(?m)^ ([0-9a-f]{64}) (\d+) (linux(?:-[\d.]+)?_\S+\.orig\.tar\.xz)$")
ORIGINAL = "linux"  # `File.package` of an original tarball


@dataclass(frozen=True)
class File:
    """A file of the archive, as a signed index describes it."""

    package: str  # "linux-source-7.3"; ORIGINAL for an original tarball
    version: str  # Debian's: "7.3.4-1~bpo13+1"
    suite: str
    path: str  # relative to the archive's base URI
    size: int  # bytes
    sha256: str

    @property
    def upstream(self) -> str:
        """The version without Debian's part: "7.3.4"."""
        return self.version.rpartition("-")[0]


@dataclass(frozen=True)
class Bases:
    """Base URIs, with a slash at the end. Suites called *-security are in an archive of their own."""

    main: str
    security: str

    def of(self, suite: str) -> str:
        """The base URI of `suite`."""
        return self.security if suite.endswith("-security") else self.main


def bases() -> Bases:
    """The archive that apt uses here. Raises MissingError if apt knows of no Debian archive."""
    try:
        said = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(ORIGIN)", "Created-By: Packages"],
            capture_output=True, text=True, check=True, env=environment(),
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(
            f"kernels are fetched from the archive that apt uses, and apt cannot be asked: {error}",
            hint="give a kernel of your own: tree:PATH, or image:PATH with --kdir",
        ) from error
    found: dict[bool, str] = {}
    for line in said.splitlines():
        uri, codename, origin = (*line.split(), "", "")[:3]
        if origin == "Debian" and codename:
            found.setdefault(codename.endswith("-security"), uri)
    if False not in found:
        raise MissingError(
            "apt has no index of a Debian archive",
            hint="apt-get update; on another distribution give a kernel of your own: tree:PATH, or image:PATH",
        )
    return Bases(main=found[False], security=found.get(True, found[False]))


def suite_lines(where: Bases, suite: str, *, sources: bool = False) -> str:
    """The lines of a sources.list that name `suite`; with `sources`, its source packages, too."""
    signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
    # target: neither translations nor what other programs have told apt to fetch along
    lines = f"deb [arch=amd64 target=Packages{signed}] {where.of(suite)} {suite} main\n"
    if sources:
        lines += source_line(where, suite)
    return lines


def source_line(where: Bases, suite: str) -> str:
    """The line of a sources.list that names the source packages of `suite`."""
    signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
    return f"deb-src [target=Sources{signed}] {where.of(suite)} {suite} main\n"


class Archive:
    """What the archive has, suite by suite; each suite's index is read from the network once."""

    def __init__(self, cache: Cache, progress: Progress, *, where: Bases | None = None) -> None:
        self._cache = cache
        self._progress = progress
        self._where = where
        self._files: dict[str, tuple[File, ...]] = {}
        self._unread: dict[str, BuildError] = {}

    @property
    def where(self) -> Bases:
        """The base URIs."""
        if self._where is None:
            self._where = bases()
        return self._where

    def files(self, suite: str) -> tuple[File, ...]:
        """The kernel packages and original tarballs of `suite`.

        Raises HarnessError if the index cannot be had or its signature cannot be verified.
        """
        if suite not in self._files:
            entry = self._cache.entry(
                "index", self._key(suite), lambda out: self._read(suite, out), progress=self._progress
            )
            listed = json.loads((entry / "index.json").read_text())
            self._files[suite] = tuple(File(**each) for each in listed)
        return self._files[suite]

    @property
    def gaps(self) -> str:
        """Which suites could not be read when asked for: what is found may not be the newest. "" if all were."""
        return f"{', '.join(self._unread)} could not be read" if self._unread else ""

    def search(self, wanted: Callable[[File], bool], suites: Iterable[str] = SUITES) -> Iterator[File]:
        """What `wanted` says yes to, suite by suite; a suite that cannot be read is said and left out.

        Raises HarnessError if none can be read.
        """
        for files in self._readable(suites):
            yield from filter(wanted, files)

    def first(self, wanted: Callable[[File], bool], suites: Iterable[str] = SUITES) -> list[File]:
        """What the first suite has of it that has any: no more indices are read than it takes. As `search` else."""
        for files in self._readable(suites):
            found = list(filter(wanted, files))
            if found:
                return found
        return []

    def _readable(self, suites: Iterable[str]) -> Iterator[tuple[File, ...]]:
        failures = []
        count = 0
        for suite in suites:
            count += 1
            if suite not in self._unread:
                try:
                    yield self.files(suite)
                    continue
                except BuildError as error:
                    self._unread[suite] = error  # asked once: it may have taken its time to fail
                    self._progress.say(f"left out: {error.message.splitlines()[0]}")
            failures.append(self._unread[suite])
        if failures and len(failures) == count:
            raise failures[0]

    def known(self, suites: Iterable[str] = SUITES) -> Iterator[File]:
        """What is known without asking the network."""
        for suite in suites:
            if self._cache.has("index", self._key(suite)):
                yield from self.files(suite)

    def forget(self) -> None:
        """The indices are read from the network when they are needed next."""
        for suite in SUITES:
            self._cache.remove("index", self._key(suite))
        self._files.clear()

    def download(self, file: File, target: Path, step: Step) -> None:
        """Fetches `file` as `target`; its hash is that of the signed index.

        Raises HarnessError if it cannot be had.
        """
        uri = self.where.of(file.suite) + file.path
        child = spawn(
            [_HELPER, *_OPTIONS, "download-file", uri, target, f"SHA256:{file.sha256}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), death="TERM",
        )  # fmt: skip
        try:
            while True:
                try:
                    output, _ = child.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    here = target.stat().st_size if target.exists() else 0
                    step.update(f"{file.package} {file.version}, {here // _MIB} of {file.size // _MIB} MiB")
        except BaseException:
            end(child)
            raise
        if child.returncode:
            said = output.decode(errors="replace").strip().splitlines()
            raise HarnessError(
                "\n".join([f"cannot fetch {file.package} {file.version}:", *(f"    {line}" for line in said[-6:])]),
                hint="if the archive has removed it: `hmm-harness kernel list --update` reads anew what there is",
            )
        if target.is_symlink():  # an archive on this machine
            original = target.resolve()
            target.unlink()
            shutil.copyfile(original, target)

    def source(self, package: str, suite: str, out: Path) -> None:
        """Fetches the files of the newest source package `package` of `suite` into `out`, an empty directory.

        Raises HarnessError if they cannot be had or their signature cannot be verified.
        """
        with tempfile.TemporaryDirectory(prefix="hmm-harness-") as scratch:
            directory = Path(scratch)
            (directory / "sources.list").write_text(source_line(self.where, suite))
            apt = _private_apt(directory)
            _update(apt, suite)
            run(
                ["env", f"--chdir={out}", "apt-get", *apt, "--quiet", "--download-only", "source", package],
                what=f"fetching the source of {package} in {suite}",
                env=environment(),
            )

    def _key(self, suite: str) -> str:
        return digest_of(_FORMAT, self.where.of(suite), suite)

    def _read(self, suite: str, out: Path) -> None:
        with self._progress.step(f"reading which kernels {suite} has"):
            sources = out / "sources.list"
            sources.write_text(suite_lines(self.where, suite, sources=True))
            apt = _private_apt(out)
            _update(apt, suite)
            names = run(
                ["apt-get", *apt, "indextargets", "--format", "$(CREATED_BY) $(FILENAME)"],
                what="asking apt for its indices",
                env=environment(),
            )
            files: list[File] = []
            for kind, name in (line.split(maxsplit=1) for line in names.splitlines()):
                text = run([_HELPER, "cat-file", name], what="reading an index", env=environment())
                read = _binaries if kind == "Packages" else _originals
                files += read(text, suite)
            (out / "index.json").write_text(json.dumps([asdict(file) for file in files], indent=1))
            for left in ("lists", "cache"):
                shutil.rmtree(out / left)
            for name in ("sources.list", "apt.conf"):
                (out / name).unlink()


def remembered(cache: Cache) -> Iterator[File]:
    """What the indices in the cache say, of whatever archive they are; apt, which takes a second, is not asked."""
    for key in cache.keys("index"):
        if cache.has("index", key):
            listed = json.loads((cache.root / "index" / key / "index.json").read_text())
            yield from (File(**each) for each in listed)


# Ours alone may read the cache, so apt's own user cannot write there.
_OPTIONS = ("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2")


def _private_apt(directory: Path) -> list[str]:
    """Options for an apt that has its sources in sources.list of `directory`, and its state in there, too."""
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    # What the machine does after each of its own updates is no business of this one.
    config = directory / "apt.conf"
    config.write_text("#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n")
    settings = {
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::Lists": directory / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": directory / "cache",
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",  # an index that cannot be had is an error, not a warning
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return ["-c", str(config), *options, *_OPTIONS]


def _update(apt: list[str], suite: str) -> None:
    run(
        ["apt-get", *apt, "update"],
        what=f"reading the index of {suite}",
        env=environment(),
        hint="where apt lacks a suite's key: apt-get install --only-upgrade debian-archive-keyring; "
        "the check is never left out",
    )


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of an index that are about linux; the lines of a field's value are kept as they are."""
    for paragraph in text.split("\n\n"):
        if not paragraph.lstrip("\n").startswith("Package: linux"):
            continue
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.strip("\n").splitlines():
            if line.startswith((" ", "\t")):
                fields[name] += f"\n{line}"
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        yield fields


def _binaries(text: str, suite: str) -> Iterator[File]:
    for fields in _paragraphs(text):
        if _PACKAGE.fullmatch(fields["Package"]):
            yield File(
                fields["Package"], fields["Version"], suite, fields["Filename"], int(fields["Size"]), fields["SHA256"]
            )


def _originals(text: str, suite: str) -> Iterator[File]:
    for fields in _paragraphs(text):
        match = _ORIGINAL.search(fields.get("Checksums-Sha256", ""))
        if match is not None and re.fullmatch(r"linux(?:-\d+\.\d+)?", fields["Package"]):
            path = f"{fields['Directory']}/{match[3]}"
            yield File(ORIGINAL, fields["Version"], suite, path, int(match[2]), match[1])


def newest(files: Iterable[File]) -> list[File]:
    """Sorted by Debian's version, the newest first."""
    return sorted(files, key=cmp_to_key(_compare), reverse=True)


def _compare(one: File, other: File) -> int:
    if one.version == other.version:
        return 0
    argv = ["dpkg", "--compare-versions", one.version, "lt", other.version]
    less = subprocess.run(argv, check=False, env=environment())
    return -1 if less.returncode == 0 else 1
