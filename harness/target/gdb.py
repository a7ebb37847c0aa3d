# SPDX-License-Identifier: GPL-2.0-only
"""What gdb has to be told of a guest's kernel and of our module in it."""

from __future__ import annotations

import shlex

from harness.errors import GuestError
from harness.progress import Progress
from harness.target.artifacts import Kernel, Module
from harness.target.cache import Cache
from harness.target.module import build_module
from harness.target.vm import VM, Debugging, Machine

_SECTIONS = "/sys/module/hmm_harness/sections"
_SECONDS = 30.0


def debugging(machine: Machine, port: int, *, restore: bool, cache: Cache, progress: Progress) -> Debugging:
    """A debugger's way into each VM of `machine`; says how to take it."""

    def listening(chosen: int) -> None:
        waits = "" if restore else "; the guest waits for its `continue` (hbreak, until the kernel has mapped itself)"
        progress.say(f"gdb may connect{waits}:\n  {shlex.join(command(machine.kernel, chosen))}")

    def up(vm: VM) -> None:
        module = build_module(machine.kernel, cache=cache, progress=progress)
        progress.say(f"the module's symbols, for gdb:\n  {symbols(vm, module)}")

    return Debugging(port, listening, up)


def command(kernel: Kernel, port: int) -> list[str]:
    """The words of a command that debugs the kernel. It knows names; lines too, where the kernel has debug info.

    A kernel as shipped comes without vmlinux: gdb then knows addresses only.
    """
    vmlinux = kernel.build / "vmlinux"
    return ["gdb", "-ex", f"target remote 127.0.0.1:{port}", *([str(vmlinux)] if vmlinux.is_file() else [])]


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
