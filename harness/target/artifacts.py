# SPDX-License-Identifier: GPL-2.0-only
"""What the builders hand to each other: files in the cache, each named by the hash of all that went into it.

Pure data. Every path is absolute, lies in the cache and must not be written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """A kernel that was built, with what it takes to boot it and to build modules for it."""

    name: str  # as asked for: "debian:6.1"
    flavour: str  # a file of vm-images/kernel: "plain", "debug"
    release: str  # as `uname -r` says: "6.1.192"
    key: str  # hex; the same key means the same source, configuration, patches and compiler
    image: Path  # bzImage
    build: Path  # for `make -C BUILD M=...`
    source: Path | None  # the kernel's source tree, where there is one
    modules: Mapping[str, Path]  # modules of the kernel itself: "test_hmm" -> test_hmm.ko
    config: Path  # .config
    origin: str = ""  # where the source is from: "linux-source-6.1 6.1.192-2", "a tree at commit ..."
    initrd: Path | None = None  # of a kernel that has to load its drivers before it finds its disks
    chroot: Path | None = None  # where its compiler and headers are; None: this machine's compiler
    make_variables: tuple[str, ...] = ()  # for each make that builds a module for it
    append: str = ""  # for its command line


@dataclass(frozen=True)
class Module:
    """hmm_harness.ko for one kernel."""

    key: str  # hex; covers the kernel's key
    path: Path


@dataclass(frozen=True)
class Image:
    """The guest's root file system, read-only, and the two SSH keys that belong to it."""

    key: str  # hex
    root: Path  # erofs
    client_key: Path  # private key that root in the guest accepts
    host_key: str  # "ssh-ed25519 AAAA...", the only one to accept from the guest


@dataclass(frozen=True)
class Payload:
    """A file system with what is tested and what drives it: modules, executor, agent and its Python."""

    key: str  # hex; covers the keys of the kernel and of the module
    path: Path  # erofs
