# SPDX-License-Identifier: GPL-2.0-only
"""How much a report may hold of what can be of any length, so that its readers take all of it."""

from __future__ import annotations


class Budget:
    """So many bytes, of the file as it is written, escapes and all."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether there is room for `size` more bytes, which are taken then."""
        if size > self.left:
            return False
        self.left -= size
        return True
