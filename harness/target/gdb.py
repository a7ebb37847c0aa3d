# SPDX-License-Identifier: GPL-2.0-only
"""What gdb has to be told of a guest's kernel and of our module in it."""

from __future__ import annotations

import re
import shlex
import struct
from pathlib import Path

from harness.errors import GuestError
from harness.progress import Progress
from harness.target.artifacts import Kernel, Module
from harness.target.cache import Cache
from harness.target.module import build_module
from harness.target.vm import VM, Debugging, Machine

_SECTIONS = "/sys/module/hmm_harness/sections"
_SECONDS = 30.0
_VMLINUX = "vmlinux"
_ELF = b"\x7fELF\x02\x01"  # 64 bits, little endian
_ELF_HEADER = 64  # bytes


def debugging(machine: Machine, port: int, *, restore: bool, cache: Cache, progress: Progress) -> Debugging:
    """A debugger's way into each VM of `machine`; says how to take it."""

    def listening(chosen: int) -> None:
        waits = "" if restore else "; the guest waits for its `continue` (hbreak, until the kernel has mapped itself)"
        progress.say(f"gdb may connect{waits}:\n  {shlex.join(command(machine.kernel, chosen))}")
        if lacks := without_symbols(machine.kernel):
            progress.say(lacks)

    def up(vm: VM) -> None:
        module = build_module(machine.kernel, cache=cache, progress=progress)
        progress.say(f"the module's symbols, for gdb:\n  {symbols(vm, module)}")

    return Debugging(port, listening, up)


def command(kernel: Kernel, port: int) -> list[str]:
    """The words of a command that debugs the kernel. It knows names; lines too, where the kernel has debug info.

    A kernel as shipped comes without symbols: gdb then knows addresses only.
    """
    symbols = [] if without_symbols(kernel) else [str(kernel.build / _VMLINUX)]
    return ["gdb", "-ex", f"target remote 127.0.0.1:{port}", *symbols]


def without_symbols(kernel: Kernel) -> str:
    """What to say of a kernel of which gdb knows addresses only, and what has its symbols; "" if they are there."""
    vmlinux = kernel.build / _VMLINUX
    # The vmlinux of Debian's headers has BTF for pahole, and a symbol table, but none of the kernel itself.
    sections = _sections(vmlinux)
    if ".text" in sections and (".symtab" in sections or ".debug_info" in sections):
        return ""
    lines = ["gdb will know addresses only: the kernel comes without symbols."]
    if kernel.name.startswith(("stock:", "host")):
        place = f"usr/lib/debug/boot/vmlinux-{kernel.release}"
        lines.append(f"Debian's linux-image-{kernel.release}-dbg has them, in {place}")
        if series := re.match(r"\d+\.\d+", kernel.release):
            lines.append(f"debian:{series[0]} is built with them")
    else:
        lines.append(f"{vmlinux}, of the build, would have them")
    return "\n  ".join(lines)


def _sections(path: Path) -> frozenset[str]:
    """The names of the sections of a 64-bit little-endian ELF file; none if it is not there, or is none."""
    try:
        with path.open("rb") as file:
            header = file.read(_ELF_HEADER)
            if len(header) < _ELF_HEADER or not header.startswith(_ELF):
                return frozenset()
            (where,) = struct.unpack_from("<Q", header, 0x28)  # e_shoff
            size, count, index = struct.unpack_from("<3H", header, 0x3A)  # e_shentsize, e_shnum, e_shstrndx
            file.seek(where)
            table = [struct.unpack_from("<I20xQQ", file.read(size)) for _ in range(count)]  # sh_name, _offset, _size
            _, offset, length = table[index]
            file.seek(offset)
            names = file.read(length)
    except (OSError, struct.error, IndexError):  # cut off
        return frozenset()
    return frozenset(names[start:].partition(b"\0")[0].decode(errors="replace") for start, _, _ in table)


def symbols(vm: VM, module: Module) -> str:
    """The line for gdb that adds the module's symbols, where it was loaded in this VM. Raises `VMFailure`."""
    status, output = vm.exec(f"cd {_SECTIONS} && head -n 1 .text .data .bss", timeout=_SECONDS)
    if status:
        raise GuestError(f"the guest does not tell where hmm_harness is loaded: {output.strip()}")
    return add_symbol_file(str(module.path), output)


def add_symbol_file(path: str, sections: str) -> str:
    """gdb's command for a module, of what `head -n 1 SECTION...` printed of its addresses."""
    found = {}
    name = ""
    for line in sections.split("\n"):
        if line.startswith("==> "):
            name = line.removeprefix("==> ").removesuffix(" <==")
        elif line.strip():
            found[name] = line.strip()
    rest = [f"-s {name} {address}" for name, address in found.items() if name != ".text"]
    return " ".join(["add-symbol-file", shlex.quote(path), found[".text"], *rest])
