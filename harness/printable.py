# SPDX-License-Identifier: GPL-2.0-only
"""Text of others (kernel logs, names of files) where it must not act: on a terminal, in a report with a grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def one_line(text: str) -> str:
    r"""`text` without what ends a line or is nothing to look at: a tab is a space, the others `\x1b`, `\u2028`."""
    return _UNPRINTABLE.sub(_escaped, text)


def plain(text: str) -> str:
    """`text` of any number of lines, of which each is as `one_line` makes it: nothing that a terminal obeys."""
    return "\n".join(map(one_line, text.split("\n")))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] == "\t":
        return " "
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def some(words: Sequence[str], most: int, between: str = ", ") -> str:
    """The first `most` of them, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"{between.join(words[:most])}{more}"


def shortened(text: str, most: int) -> str:
    """At most `most` characters of `text`, and how many more there were."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more characters)"
