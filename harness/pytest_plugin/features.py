# SPDX-License-Identifier: GPL-2.0-only
"""What the marker hmm_requires can ask of a kernel: what the module and the executor found by trying."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from harness.errors import UsageError
from harness.model.rules import FEATURES
from harness.target.places import CHECKOUT

_ALSO = {"DEVICE_PRIVATE": "DEVMEM"}  # as the kernel calls it: as we do


def lacking(required: Sequence[str], features: Callable[[], Collection[str]]) -> list[str]:
    """Those of `required` that are not among `features()`, which is called only if anything is required.

    Case does not matter, nor whether it is `-` or `_`. Raises `UsageError` for what no kernel could have.
    """
    if not required:
        return []
    known = {*FEATURES, *_ALSO, *(probe.stem for probe in (CHECKOUT / "kmod/probes").glob("*.c"))}
    for name in required:
        if _canonical(name) not in known:
            there = ", ".join(sorted(each.lower().replace("_", "-") for each in known))
            raise UsageError(f"hmm_requires: no kernel has {name!r}", hint=f"one of: {there}")
    found = features()
    return [name for name in required if _ALSO.get(_canonical(name), _canonical(name)) not in found]


def _canonical(name: str) -> str:
    return name.upper().replace("-", "_")
