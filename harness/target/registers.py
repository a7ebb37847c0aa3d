# SPDX-License-Identifier: GPL-2.0-only
"""Where the CPUs of a guest are that says nothing any more, from QEMU's view of their registers."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from pathlib import Path

_CPU = re.compile(r"^CPU#(\d+).*?\bRIP=([0-9a-f]{16}) RFL=([0-9a-f]{8}).*?\bCPL=(\d).*?\bHLT=(\d)", re.M | re.S)
_INTERRUPTS = 0x200  # RFLAGS.IF
_FARTHEST = 1 << 20  # bytes from a symbol to what is still its code; modules are farther away

Symbols = Sequence[tuple[int, str]]  # ascending addresses


def read_symbols(system_map: Path) -> Symbols:
    """The text symbols of a kernel's System.map; none if it cannot be read. Right for `nokaslr` only."""
    try:
        lines = system_map.read_text().splitlines()
    except OSError:
        return []
    split = (line.split() for line in lines)
    return sorted((int(words[0], 16), words[2]) for words in split if len(words) == 3 and words[1] in "tT")


def cpu_positions(registers: str, symbols: Symbols) -> list[str]:
    """A line per CPU of `info registers -a`: where it is, and whether it waits for an interrupt or takes none."""
    positions = []
    for number, rip, flags, level, halted in _CPU.findall(registers):
        address = int(rip, 16)
        where = f"user space at {address:#x}" if level == "3" else _symbol(address, symbols)
        state = "halted" if halted == "1" else "running"
        blocked = "" if int(flags, 16) & _INTERRUPTS else ", interrupts off"
        positions.append(f"CPU {number}: {state} in {where}{blocked}")
    return positions


def _symbol(address: int, symbols: Symbols) -> str:
    index = bisect.bisect_right(symbols, address, key=lambda symbol: symbol[0]) - 1
    if index < 0 or address - symbols[index][0] > _FARTHEST:
        return f"a module or unknown code at {address:#x}"
    start, name = symbols[index]
    return f"{name}+{address - start:#x}"
