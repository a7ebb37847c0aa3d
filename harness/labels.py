# SPDX-License-Identifier: GPL-2.0-only
"""What people are shown for a kernel. The spec says which one it is, in full; of an image that is a line of paths."""

from __future__ import annotations

from pathlib import PurePath

from harness.defaults import DEFAULT_FLAVOUR

_AS_IT_IS = frozenset({"stock", "image", "host"})  # not configured by us: they have no flavour but what they are
_BUILT = ("arch", "x86", "boot")  # where every tree has its bzImage


def short(spec: str) -> str:
    """The spec, of an image the end of its path: "debian:6.1", "image:linux/bzImage"."""
    scheme, _, path = spec.partition(":")
    if scheme != "image":
        return spec
    parts = PurePath(path.partition(",kdir=")[0]).parts
    if parts[-4:-1] == _BUILT:
        parts = (*parts[:-4], parts[-1])
    return f"image:{PurePath(*parts[-2:])}"


def label(spec: str, flavour: str) -> str:
    """A kernel in a line: "debian:6.1 plain", "image:linux/bzImage"."""
    return " ".join(filter(None, [short(spec), _shown(spec, flavour)]))


def heading(spec: str, flavour: str) -> str:
    """A kernel in a heading: "debian:6.1 (plain)", "image:linux/bzImage"."""
    shown = _shown(spec, flavour)
    return f"{short(spec)} ({shown})" if shown else short(spec)


def _shown(spec: str, flavour: str) -> str:
    return "" if flavour == DEFAULT_FLAVOUR and spec.partition(":")[0] in _AS_IT_IS else flavour
