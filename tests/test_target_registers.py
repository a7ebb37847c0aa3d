# SPDX-License-Identifier: GPL-2.0-only
"""Where CPUs are, from QEMU's registers."""

from __future__ import annotations

from pathlib import Path

from harness.target.registers import cpu_positions, read_symbols

# `info registers -a` of QEMU 7.2, shortened.
REGISTERS = """
CPU#0
RAX=0000000000000000 RBX=0000000000000000 RCX=4000000000000000 RDX=0000000000000000
RIP=ffffffff8101c17e RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 00000000 00000000

CPU#1
RAX=0000000000000000 RBX=0000000000000000 RCX=4000000000000000 RDX=0000000000000000
RIP=ffffffffa0015004 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0

CPU#2
RIP=000000000047fbe9 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0
"""
MAP = """\
ffffffff81c00000 D some_data
ffffffff8101c170 t default_idle
ffffffff8101c100 T earlier
ffffffff8101c200 T later
"""


def test_positions_by_symbol(tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text(MAP)
    assert cpu_positions(REGISTERS, read_symbols(tmp_path / "System.map")) == [
        "CPU 0: halted in default_idle+0xe",
        "CPU 1: running in a module or unknown code at 0xffffffffa0015004, interrupts off",
        "CPU 2: running in user space at 0x47fbe9",
    ]


def test_positions_without_symbols(tmp_path: Path) -> None:
    assert cpu_positions(REGISTERS, read_symbols(tmp_path / "absent"))[0] == (
        "CPU 0: halted in a module or unknown code at 0xffffffff8101c17e"
    )


def test_a_machine_that_tells_nothing() -> None:
    assert cpu_positions("", []) == []
