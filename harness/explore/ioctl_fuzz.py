# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness fuzz`: good, bad and random ioctls at the module, and then the kernel's word on it."""

from __future__ import annotations

import math
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.errors import ExitCode, GuestError
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare
from harness.target.places import CHECKOUT
from harness.target.process import run_tool
from harness.target.vm import VM
from harness.target.watchdog import complaints

_SOURCE = CHECKOUT / "harness/guest/ioctl_fuzz.c"
_HEADERS = CHECKOUT / "kmod/include/uapi"
_IN_GUEST = "/tmp/ioctl_fuzz"
_KMEMLEAK = "/sys/kernel/debug/kmemleak"
_GRACE = 180.0  # seconds for the fuzzer to wind down, and to find out who is stuck


def main(
    spec: str, flavour: str, *, seconds: float, seed: int | None, wrong: bool, cache: Cache, progress: Progress
) -> ExitCode:
    """Fuzzes for `seconds` in a fresh VM and prints what was called. `wrong`: with deliberate mistakes on and off."""
    seed = secrets.randbits(32) if seed is None else seed
    machine = prepare(spec, flavour, cache=cache, progress=progress)
    if "CONFIG_DEBUG_KMEMLEAK=y" in machine.kernel.config.read_text().splitlines():
        machine = replace(machine, append=f"{machine.append} kmemleak=on".strip())
    with Lab(machine, cache=cache, progress=progress) as lab:
        vm = lab.vm()
        progress.say(vm.banner)
        again = f"fuzz --kernel {spec} --flavour {flavour} --seconds {seconds:g} --seed {seed}"
        progress.say(f"seed {seed}: `hmm-harness {again}{' --wrong' if wrong else ''}` does the same")
        with progress.step("fuzzing"):
            status, output, said = fuzz(vm, seconds=seconds, seed=seed, wrong=wrong)
    print(output.rstrip())
    for line in said:
        progress.say(f"the kernel complained: {line}")
    if said:
        return ExitCode.CRASH
    return ExitCode.FAIL if status else ExitCode.PASS


def fuzz(vm: VM, *, seconds: float, seed: int, wrong: bool = False) -> tuple[int, str, list[str]]:
    """The fuzzer's exit status and output, and what in the kernel's log is never fine."""
    vm.put(_IN_GUEST, _compile())
    _must(vm, "dmesg -c > /dev/null")
    before = _taint(vm)
    leaks = not vm.exec(f"echo scan > {_KMEMLEAK}", timeout=_GRACE)[0]  # it is there, and on
    if leaks:
        _must(vm, f"echo clear > {_KMEMLEAK}")
    command = f"{_IN_GUEST} -t {math.ceil(seconds)} -s {seed}{' -w' if wrong else ''} 2>&1"
    status, output = vm.exec(command, timeout=seconds + _GRACE)
    if leaks:
        said = _leaks(vm)
        output += said
        status = status or bool(said)
    # The log's buffer may have wrapped; the console has not.
    log = [*_must(vm, "dmesg").splitlines(), *vm.console.splitlines()]
    return status, output, list(dict.fromkeys(complaints(log, before ^ _taint(vm))))


def _leaks(vm: VM) -> str:
    """What kmemleak says of memory that nothing points to any more. It may be mistaken once, not twice."""
    for _ in range(2):
        _must(vm, f"sleep 6; echo scan > {_KMEMLEAK}", timeout=_GRACE)  # it leaves alone what is 5 s old
    return _must(vm, f"cat {_KMEMLEAK}")


def _must(vm: VM, command: str, *, timeout: float = 30.0) -> str:
    status, output = vm.exec(command, timeout=timeout)
    if status:
        raise GuestError(f"`{command}` failed in the guest: {output.strip()!r}")
    return output


def _taint(vm: VM) -> int:
    return int(_must(vm, "cat /proc/sys/kernel/tainted"))


def _compile() -> bytes:
    with tempfile.TemporaryDirectory(prefix="hmm-harness-") as scratch:
        program = Path(scratch) / "ioctl_fuzz"
        argv = ["gcc", "-static", "-O2", "-Wall", "-Werror", f"-I{_HEADERS}", str(_SOURCE), "-pthread"]
        run_tool([*argv, "-o", str(program)], log=Path(scratch) / "log")
        return program.read_bytes()
