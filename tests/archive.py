# SPDX-License-Identifier: GPL-2.0-only
"""A Debian archive in a directory, signed by a key of its own, for apt itself to read."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from harness.target.kernels.archive import Bases


@dataclass
class Suite:
    """The paragraphs of a suite's two indices."""

    packages: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


class FakeArchive:
    """Lies in `root`; `publish` writes and signs its indices. `keyring` is what verifies them."""

    def __init__(self, root: Path) -> None:
        self.root = root / "archive"
        self.keyring = root / "keyring.gpg"
        self._home = root / "gnupg"
        self._home.mkdir(mode=0o700)
        self._suites: dict[str, Suite] = {}
        self._gpg("--quick-generate-key", "--passphrase", "", "archive@example.org", "ed25519", "sign", "never")
        self.keyring.write_bytes(self._gpg("--export"))

    @property
    def bases(self) -> Bases:
        """Both archives are one here."""
        return Bases(f"file:{self.root}/", f"file:{self.root}/")

    def package(self, suite: str, name: str, version: str, files: dict[str, bytes]) -> Path:
        """Adds a binary package with `files`. Returns where it lies."""
        tree = self.root.parent / "package" / f"{name}_{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\nDescription: x\n"
        (tree / "DEBIAN/control").write_text(control)
        for path, data in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
        target = self._pool() / f"{name}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], check=True, capture_output=True)
        data = target.read_bytes()
        self._suite(suite).packages.append(
            f"{control}Filename: pool/{target.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
        return target

    def original(self, suite: str, version: str, data: bytes) -> None:
        """Adds a source package of linux, of which only the original tarball is there."""
        target = self._pool() / f"linux_{version.rpartition('-')[0]}.orig.tar.xz"
        target.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self._suite(suite).sources.append(
            f"Package: linux\nVersion: {version}\nDirectory: pool\n"
            f"Checksums-Sha256:\n {'0' * 64} 5 linux_{version}.dsc\n {digest} {len(data)} {target.name}\n"
        )

    def source(self, suite: str, name: str, version: str, original: bytes) -> None:
        """Adds a source package whose original tarball, packed by gzip, is `original`."""
        upstream = version.rpartition("-")[0]
        files = {f"{name}_{version}.dsc": b"of no account", f"{name}_{upstream}.orig.tar.gz": original}
        lines = ""
        for path, data in files.items():
            (self._pool() / path).write_bytes(data)
            lines += f" {hashlib.sha256(data).hexdigest()} {len(data)} {path}\n"
        self._suite(suite).sources.append(
            f"Package: {name}\nBinary: {name}\nVersion: {version}\nArchitecture: any\nFormat: 3.0 (quilt)\n"
            f"Directory: pool\nChecksums-Sha256:\n{lines}"
        )

    def publish(self) -> None:
        """Writes the indices and signs them."""
        for name, suite in self._suites.items():
            directory = self.root / "dists" / name
            lines = []
            for path, paragraphs in (
                ("main/binary-amd64/Packages.gz", suite.packages),
                ("main/source/Sources.gz", suite.sources),
            ):
                text = "\n".join(paragraphs).encode()
                for place, data in ((path, gzip.compress(text)), (path.removesuffix(".gz"), text)):
                    (directory / place).parent.mkdir(parents=True, exist_ok=True)
                    (directory / place).write_bytes(data)
                    lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {place}")
            release = (
                f"Origin: Debian\nSuite: {name}\nCodename: {name}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
                "Architectures: amd64 all\nComponents: main\nSHA256:\n" + "\n".join(lines) + "\n"
            )
            (directory / "InRelease").write_bytes(self._gpg("--clearsign", stdin=release.encode()))

    def _suite(self, name: str) -> Suite:
        return self._suites.setdefault(name, Suite())

    def _pool(self) -> Path:
        (self.root / "pool").mkdir(parents=True, exist_ok=True)
        return self.root / "pool"

    def _gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self._home), "--batch", "--yes", "--pinentry-mode", "loopback", *words]
        return subprocess.run(argv, input=stdin, check=True, capture_output=True).stdout
