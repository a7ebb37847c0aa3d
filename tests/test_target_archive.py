# SPDX-License-Identifier: GPL-2.0-only
"""Sources of the archive: found, verified and fetched by apt, from an archive in a directory."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import HarnessError, MissingError, UsageError
from harness.progress import Progress, Step
from harness.target import kernel
from harness.target.cache import Cache
from harness.target.kernels import archive, build, debian, stock
from harness.target.kernels.archive import Archive, File
from harness.target.places import CHECKOUT
from tests.archive import FakeArchive
from tests.needs import need

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")

SMALL = ("bookworm-security", "trixie-backports")
TARBALL = b"the source of a kernel"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FakeArchive:
    """Two suites with packaged sources, one with originals only."""
    need("gpg")
    fake = FakeArchive(tmp_path_factory.mktemp("archive"))
    for suite, version in (
        ("bookworm-security", "6.66.9-1"),
        ("bookworm-security", "6.66.10-1"),
        ("trixie-backports", "7.77.1-1~bpo13+1"),
        ("trixie", "6.66.11-1"),
    ):
        series = ".".join(version.split(".")[:2])
        tarball = {f"usr/src/linux-source-{series}.tar.xz": TARBALL}
        fake.package(suite, f"linux-source-{series}", version, tarball)
    for release, files in (
        ("7.77.1+deb13-cloud-amd64", ("binary", "modules", "image", "headers")),
        ("7.77.1+deb13-amd64", ("image", "headers")),
        ("7.76.3+deb13-cloud-amd64", ("image", "headers")),
        ("7.75.1+deb13-cloud-amd64", ("image",)),
    ):
        for kind in files:
            fake.package("trixie-backports", f"linux-{kind}-{release}", f"{release.partition('+')[0]}-1~bpo13+1", {})
    fake.package("trixie-backports", "linux-image-7.77.1+deb13-rt-amd64", "7.77.1-1~bpo13+1", {})
    fake.original("trixie", "6.66.4-1", b"an older source")
    fake.original("trixie", "5.55.5-2", b"a series that was never packaged")
    fake.publish()
    return fake


@pytest.fixture
def cache(made: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache; the archive is the one made here, and nothing is installed."""
    monkeypatch.setattr(archive, "_KEYRING", made.keyring)
    monkeypatch.setattr(archive, "bases", lambda: made.bases)
    monkeypatch.setattr(debian, "SOURCES", tmp_path / "nothing")
    for module in (debian, stock):
        monkeypatch.setattr(module, "SMALL_SUITES", SMALL)
        monkeypatch.setattr(module, "SUITES", (*SMALL, "trixie"))
    return Cache(tmp_path / "cache")


def opened(cache: Cache, said: io.StringIO | None = None) -> Archive:
    return Archive(cache, Progress(said or io.StringIO()))


@pytest.mark.parametrize(
    ("what", "package", "version", "suite"),
    [
        ("6.66", "linux-source-6.66", "6.66.10-1", "bookworm-security"),
        ("7.77", "linux-source-7.77", "7.77.1-1~bpo13+1", "trixie-backports"),
        ("6.66.9", "linux-source-6.66", "6.66.9-1", "bookworm-security"),
        ("6.66.9-1", "linux-source-6.66", "6.66.9-1", "bookworm-security"),
        ("6.66.4", "linux", "6.66.4-1", "trixie"),
        ("5.55", "linux", "5.55.5-2", "trixie"),
    ],
)
def test_what_a_spec_means(cache: Cache, what: str, package: str, version: str, suite: str) -> None:
    file = debian.find(what, opened(cache)).file
    assert file is not None
    assert (file.package, file.version, file.suite) == (package, version, suite)


def test_a_version_that_cannot_be_had_names_the_nearest(cache: Cache) -> None:
    with pytest.raises(UsageError, match=r"debian:6\.66\.5") as caught:
        debian.find("6.66.5", opened(cache))
    assert caught.value.hint == (
        "the nearest that it has: debian:6.66.4, debian:6.66.9, debian:6.66.10, debian:6.66.11"
    )


def test_without_a_network_a_spec_means_what_it_meant(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = debian.find("6.66", opened(cache))
    monkeypatch.setattr(Archive, "_read", lambda *_: pytest.fail("asked the archive again"))
    assert debian.find("6.66", opened(cache)) == before


def fetched(cache: Cache, what: str, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What would be built for a spec."""
    tarballs: list[Path] = []

    def instead(_spec: str, digest: str, tarball: Callable[[], Path], _flavour: str, **_: object) -> None:
        tarballs.append(tarball())
        assert digest == hashlib.sha256(tarballs[0].read_bytes()).hexdigest()

    monkeypatch.setattr(build, "from_tarball", instead)
    debian.provide(what, "plain", cache=cache, progress=Progress(io.StringIO()))
    return tarballs


@pytest.mark.parametrize(("what", "content"), [("6.66", TARBALL), ("6.66.4", b"an older source")])
def test_a_source_is_fetched_once(cache: Cache, monkeypatch: pytest.MonkeyPatch, what: str, content: bytes) -> None:
    (tarball,) = fetched(cache, what, monkeypatch)
    assert tarball.read_bytes() == content
    assert tarball.is_relative_to(cache.root / "source")
    assert [each.name for each in tarball.parent.iterdir() if each.name != ".manifest.json"] == [tarball.name]
    monkeypatch.setattr(Archive, "download", lambda *_: pytest.fail("fetched again"))
    assert fetched(cache, what, monkeypatch) == [tarball]


@pytest.mark.parametrize("what", ["6.66", "6.66.4"])
def test_a_kernel_that_is_built_needs_no_source(cache: Cache, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Where the cache holds what CI systems keep, after the examples for them: nothing is fetched but indices."""
    progress = Progress(io.StringIO())
    with monkeypatch.context() as patched:
        (tarball,) = fetched(cache, what, patched)

    def built(out: Path) -> None:
        (out / "source/build/include/config").mkdir(parents=True)
        (out / "source/build/include/config/kernel.release").write_text("6.66.6\n")

    key = build.key_of(hashlib.sha256(tarball.read_bytes()).hexdigest(), "plain")
    cache.entry("kernel", key, built, progress=progress)
    kept = re.findall(r"hmm-harness/([a-z-]+)$", (CHECKOUT / ".ci/examples/gitlab.yml").read_text(), re.MULTILINE)
    for path in cache.root.iterdir():
        if path.is_file():
            path.unlink()
        elif path.name not in kept:
            shutil.rmtree(path)
    monkeypatch.setattr(Archive, "download", lambda *_: pytest.fail("fetched a source"))
    kernel = debian.provide(what, "plain", cache=Cache(cache.root), progress=progress)
    assert (kernel.key, kernel.release) == (key, "6.66.6")
    (offer,) = (each for each in debian.offers(cache=cache, progress=progress) if each.spec == f"debian:{what}")
    assert [flavour for flavour, _ in offer.built] == ["plain"]


def test_a_file_that_is_not_what_the_index_says(cache: Cache, tmp_path: Path) -> None:
    archive_ = opened(cache)
    file = debian.find("6.66", archive_).file
    assert file is not None
    other = File(file.package, file.version, file.suite, file.path, file.size, "0" * 64)
    with pytest.raises(HarnessError, match=r"cannot fetch linux-source-6\.66"):
        archive_.download(other, tmp_path / "file", Step("fetching"))


def test_a_signature_of_somebody_else_is_refused(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(archive, "_KEYRING", FakeArchive(tmp_path / "other").keyring)
    with pytest.raises(HarnessError, match="reading the index of bookworm-security failed") as caught:
        debian.find("6.66", opened(cache))
    assert "never left out" in str(caught.value.hint)
    assert cache.keys("index") == []


def test_a_suite_that_cannot_be_read_is_said_and_left_out(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(debian, "SMALL_SUITES", ("bullseye-security", *SMALL))
    assert debian.find("6.66", opened(cache, said)).file is not None
    assert "left out: reading the index of bullseye-security failed" in said.getvalue()


@pytest.mark.parametrize("what", ["6.66.11", "5.55"])
def test_an_early_suite_that_cannot_be_read_does_not_hide_the_others(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The first is read alone, where others do not follow in the same search; then not even a small one is there."""
    said = io.StringIO()
    for small in (("bullseye-security", *SMALL), ("bullseye-security",)):
        for module in (debian, stock):
            monkeypatch.setattr(module, "SMALL_SUITES", small)
            monkeypatch.setattr(module, "SUITES", (*small, "trixie"))
        file = debian.find(what, opened(cache, said)).file
        assert file is not None
        assert (file.suite, file.upstream.startswith(what)) == ("trixie", True)
    assert said.getvalue().count("left out: reading the index of bullseye-security failed") == 2, "once each time"


def test_where_a_kernel_is_from_tells_which_suite_may_have_a_newer_one(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (debian, stock):
        monkeypatch.setattr(module, "SMALL_SUITES", ("trixie-security", *SMALL))
        monkeypatch.setattr(module, "SUITES", ("trixie-security", *SMALL, "trixie"))
    missing = "trixie-security could not be read"
    origin = debian.find("6.66", opened(cache)).origin
    assert origin == f"linux-source-6.66 6.66.10-1, bookworm-security; {missing}"
    for find in (debian.find, stock.find):  # that it does not exist is not known then
        with pytest.raises(HarnessError, match=missing) as caught:
            find("6.99.9", opened(cache))
        assert not isinstance(caught.value, UsageError)


def test_kernels_as_shipped(cache: Cache) -> None:
    archive_ = opened(cache)
    newest = stock.find("newest", archive_)
    assert newest.name == "linux-image-7.77.1+deb13-cloud-amd64"
    assert [file.package.split("-")[1] for file in newest.image] == ["binary", "modules"]
    assert stock.find("7.77", archive_) == stock.find("7.77.1", archive_) == newest
    assert stock.find(newest.name, archive_) == newest
    whole = stock.find("7.76", archive_)
    assert [file.package for file in whole.image] == [whole.name]
    assert not stock.find("linux-image-7.77.1+deb13-amd64", archive_).cloud


@pytest.mark.parametrize("what", ["7.7", "7.75", "9.9", "", "linux-image-7.77.1+deb13-rt-amd64"])
def test_kernels_that_are_not_shipped_or_have_no_headers(cache: Cache, what: str) -> None:
    with pytest.raises(UsageError, match="no such kernel") as caught:
        stock.find(what, opened(cache))
    assert "stock:linux-image-7.77.1+deb13-cloud-amd64" in str(caught.value.hint)


def test_what_is_offered_is_what_is_known(cache: Cache) -> None:
    progress = Progress(io.StringIO())
    assert debian.offers(cache=cache, progress=progress) == []
    debian.find("5.55", opened(cache))
    specs = {offer.spec: offer for offer in debian.offers(cache=cache, progress=progress)}
    assert list(specs)[:2] == ["debian:6.66", "debian:7.77"]
    assert specs["debian:6.66"].origin == "linux-source-6.66 6.66.10-1, bookworm-security"
    assert specs["debian:6.66.4"].fetch == len(b"an older source")
    assert "debian:5.55.5" in specs
    shipped = stock.offers(cache=cache, progress=progress)
    assert [(offer.spec, offer.headline) for offer in shipped] == [
        ("stock:7.76", True),
        ("stock:7.77", True),
        ("stock:newest", True),
        ("stock:linux-image-7.76.3+deb13-cloud-amd64", False),
        ("stock:linux-image-7.77.1+deb13-cloud-amd64", False),
    ]
    for offer in shipped:
        meant = stock.find(offer.spec.removeprefix("stock:"), opened(cache))
        assert offer.origin == f"{meant.name} {meant.version}, {meant.suite}"


def test_names_are_known_without_apt_once_the_archive_was_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.names(cache=cache) == ["stock:newest"]
    debian.find("5.55", opened(cache))
    monkeypatch.setattr(archive, "bases", lambda: pytest.fail("asked apt"))
    assert kernel.names(cache=cache) == [
        *("debian:6.66", "debian:7.77"),
        *("debian:5.55.5", "debian:6.66.4", "debian:6.66.9", "debian:6.66.10", "debian:6.66.11", "debian:7.77.1"),
        *("stock:newest", "stock:7.76", "stock:7.77"),
        "stock:linux-image-7.76.3+deb13-cloud-amd64",
        *("stock:linux-image-7.77.1+deb13-amd64", "stock:linux-image-7.77.1+deb13-cloud-amd64"),
    ]


def test_a_machine_whose_apt_knows_no_archive(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> archive.Bases:
        raise MissingError("apt has no index of a Debian archive")

    monkeypatch.setattr(archive, "bases", nothing)
    assert debian.offers(cache=cache, progress=Progress(io.StringIO())) == []
    with pytest.raises(MissingError, match="no index"):
        debian.find("6.66", opened(cache))
