# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel may be called, and which flavours there are. Imports nothing that is slow: --help shows it."""

from __future__ import annotations

from pathlib import Path

from harness.target.places import VM_IMAGES

CONFIGS = VM_IMAGES / "kernel"
BASE = "base"  # what all flavours begin with

# By the spec's first word, which chooses the provider: each form, with what it means
FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "debian": (
        ("debian:SERIES", "the newest source package of a series: debian:6.1, debian:7.3"),
        ("debian:VERSION", "one version that the archive still has: debian:6.12.8, debian:6.1.190-1"),
    ),
    "stock": (
        ("stock:SERIES", "the newest packaged kernel of a series, for clouds: stock:7.3; stock:newest"),
        ("stock:PACKAGE", "one package: stock:linux-image-7.3.4+deb13-cloud-amd64"),
    ),
    "tree": (
        ("tree:PATH", "a source tree or a build directory: its own make if it is built, else built outside of it"),
    ),
    "image": (
        ("image:PATH,kdir=DIR", "a bzImage, and its build directory or the headers' package (also: --kdir DIR)"),
    ),
    "host": (("host", "the kernel that this machine runs: /boot/vmlinuz-RELEASE and its headers"),),
}


def forms() -> list[tuple[str, str]]:
    """Each form of a spec, with what it means."""
    return [form for forms in FORMS.values() for form in forms]


def flavours(configs: Path = CONFIGS) -> list[str]:
    """The names of all flavours that the directory `configs` has fragments for."""
    return sorted(path.stem for path in configs.glob("*.config") if path.stem != BASE)
