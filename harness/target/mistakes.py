# SPDX-License-Identifier: GPL-2.0-only
"""The deliberate mistakes of our driver, as its source lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.target.places import KMOD

_LISTED = re.compile(r'= \{ "([a-z-]+)",\s*"([^"]+)"')


@dataclass(frozen=True)
class Mistake:
    """`name` is what --wrong takes; `breaks`: what is wrong then, and how it shows."""

    name: str
    breaks: str


def mistakes() -> list[Mistake]:
    """All of them. The module in a VM has the last word."""
    return [Mistake(*each) for each in _LISTED.findall((KMOD / "wrong.c").read_text(encoding="utf-8"))]
