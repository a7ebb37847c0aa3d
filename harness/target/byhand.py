# SPDX-License-Identifier: GPL-2.0-only
"""A VM as a command line that a person can paste: it needs nothing of us but the files in the cache."""

from __future__ import annotations

import shlex
import socket

from harness.labels import label
from harness.target.accel import accelerator, find_qemu
from harness.target.cache import Cache
from harness.target.kept import ssh_command
from harness.target.qemu import Machine, Terminal, arguments


def by_hand(machine: Machine, *, cache: Cache, gdb: int | None = None) -> str:
    """Shell commands that boot `machine` in the terminal that they are pasted into, and that reach it from another.

    Ports are free ones of this moment; `gdb` is one for a debugger, 0 to choose one.
    """
    port = _free_port()
    chosen = (gdb or _free_port()) if gdb is not None else None
    argv = arguments(
        machine, find_qemu(), accelerator(cache).name, Terminal(port), memory=None, incoming=False, gdb=chosen
    )
    kernel = machine.kernel
    lines = [
        f"# {label(kernel.name, kernel.flavour)}, Linux {kernel.release}. The terminal is the guest's console;",
        "# READY says that it is up. Ctrl-A X ends it.",
        _broken(argv),
        "# from another terminal:",
        shlex.join(ssh_command(port, machine.image.client_key, machine.image.host_key)),
    ]
    if chosen is not None:
        from harness.target.gdb import command, without_symbols  # noqa: PLC0415  it imports the VM

        lines += [f"# {line.strip()}" for line in without_symbols(kernel).splitlines()]
        lines += ["# it waits for the debugger's `continue`:", shlex.join(command(kernel, chosen))]
    return "\n".join(lines)


def _broken(argv: list[str]) -> str:
    """A command on several lines, each option with its value on one."""
    lines: list[list[str]] = []
    for word in argv:
        if not lines or word.startswith("-"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
