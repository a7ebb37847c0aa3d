# SPDX-License-Identifier: GPL-2.0-only
"""A program of ours that does its worst to the module in a VM, and then the kernel's word on it."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from harness.errors import ExitCode, GuestError
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare
from harness.target.places import CHECKOUT
from harness.target.process import run_tool
from harness.target.vm import VM, Machine
from harness.target.watchdog import complaints

Hear = Callable[[str], None]
"""It is told each line that the program prints, as it comes."""


class Assault(Protocol):
    """Status and output of the program, and what in the kernel's log is never fine."""

    def __call__(self, vm: VM, *, hear: Hear) -> tuple[int, str, list[str]]: ...


_GUEST = CHECKOUT / "harness/guest"
_HEADERS = CHECKOUT / "kmod/include/uapi"
_SWITCH = "kmemleak=on"
_SCAN_SECONDS = 180.0  # for three looks at all memory of a debug kernel, emulated
_AGE_SECONDS = 6  # mm/kmemleak.c MSECS_MIN_AGE, and one: what is younger is not reported


def main(
    spec: str, flavour: str, assault: Assault, *, doing: str, again: str, cache: Cache, progress: Progress
) -> ExitCode:
    """Runs `assault` in a fresh VM and prints what it said. `again`: the options of `fuzz` that do the same."""
    machine = searching_leaks(prepare(spec, flavour, cache=cache, progress=progress))
    with Lab(machine, cache=cache, progress=progress) as lab:
        vm = lab.vm()
        progress.say(vm.banner)
        progress.say(f"again: hmm-harness fuzz --kernel {spec} --flavour {flavour} {again}")
        with progress.step(doing):
            status, _, said = assault(vm, hear=lambda line: progress.say(line, to=sys.stdout))
    for line in said:
        progress.say(f"the kernel complained: {line}")
    if said:
        return ExitCode.CRASH
    return ExitCode.FAIL if status else ExitCode.PASS


def searching_leaks(machine: Machine) -> Machine:
    """`machine` with kmemleak switched on, if its kernel has it: a flavour may have done so."""
    if "CONFIG_DEBUG_KMEMLEAK=y" not in machine.kernel.config.read_text().splitlines():
        return machine
    if _SWITCH in machine.kernel.append.split():
        return machine
    return replace(machine, append=f"{machine.append} {_SWITCH}".strip())


def run_in_guest(
    vm: VM,
    source: str,
    arguments: Sequence[str],
    *,
    seconds: float,
    files: dict[str, bytes] | None = None,
    hear: Hear = lambda _: None,
) -> tuple[int, str, list[str]]:
    """Runs the program of harness/guest/`source` for at most `seconds`; `files` are put where their names say.

    Its status, its output with what kmemleak found, and what in the kernel's log is never fine.
    """
    program = f"/tmp/{Path(source).stem}"
    vm.put(program, _compile(source))
    for name, content in (files or {}).items():
        vm.put(name, content)
    _must(vm, "dmesg -c > /dev/null")
    before = _taint(vm)
    looks = bool(vm.agent["info"].get("kmemleak"))
    if looks:
        _lost(vm)  # what was before is not its doing
    status, output = vm.exec(f"{shlex.join([program, *arguments])} 2>&1", timeout=seconds, hear=hear)
    if looks:
        _must(vm, f"sleep {_AGE_SECONDS}")
        found = _lost(vm)
        for line in found:
            hear(line)
        output = "\n".join([output.rstrip("\n"), *found])
        status = status or bool(found)
    # The log's buffer may have wrapped; the console has not.
    log = [*_must(vm, "dmesg").splitlines(), *vm.console.splitlines()]
    return status, output, list(dict.fromkeys(complaints(log, before ^ _taint(vm), vm.pardoned)))


def _lost(vm: VM) -> list[str]:
    """What kmemleak says of memory that nothing points to any more, and did not say before."""
    answer, _ = vm.call({"do": "leaks"}, timeout=_SCAN_SECONDS)
    if "error" in answer:
        raise GuestError(answer["error"], hint=answer.get("hint"))
    return [line for leak in answer["leaks"] for line in leak["lines"]]


def _must(vm: VM, command: str, *, timeout: float = 30.0) -> str:
    status, output = vm.exec(command, timeout=timeout)
    if status:
        raise GuestError(f"`{command}` failed in the guest: {output.strip()!r}")
    return output


def _taint(vm: VM) -> int:
    return int(_must(vm, "cat /proc/sys/kernel/tainted"))


def _compile(source: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hmm-harness-") as scratch:
        program = Path(scratch) / "program"
        argv = ["gcc", "-static", "-O2", "-Wall", "-Werror", f"-I{_HEADERS}", str(_GUEST / source), "-pthread"]
        run_tool([*argv, "-o", str(program)], log=Path(scratch) / "log")
        return program.read_bytes()
