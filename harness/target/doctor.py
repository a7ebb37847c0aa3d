# SPDX-License-Identifier: GPL-2.0-only
"""Says what this machine lacks, and the command that changes that. Runs without .venv/, too."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec

from harness.errors import ExitCode, HarnessError
from harness.progress import Progress
from harness.target import hostmemory, hostpackages, kernel
from harness.target.accel import accelerator, find_qemu
from harness.target.cache import Cache
from harness.target.kernels import chroot
from harness.target.places import CHECKOUT

_PYTHON = (3, 11)
_MIB = 1 << 20
_MEMORY = 1536 * _MIB  # one VM, and the compiler at work on a kernel
_SET_UP = "vm-images/setup.sh"


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"  # works, could be better
    MISSING = "missing"  # something will fail


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` is a shell command, or nothing where no command helps."""

    level: Level
    text: str
    remedy: str = ""


def check(cache: Cache | None = None, progress: Progress | None = None, *, thorough: bool = False) -> list[Finding]:
    """Looks at everything that the harness needs. Changes nothing but the cache's note of the accelerator.

    `thorough`: all that is cached is read.
    """
    cache = Cache() if cache is None else cache
    progress = Progress(quiet=True) if progress is None else progress
    return [
        *_machine(),
        *_python(),
        *_packages(),
        *_qemu(cache),
        *_kernels(),
        *_name_spaces(),
        *_space(cache, progress, thorough),
        *_memory(),
    ]


def report(findings: list[Finding]) -> str:
    """The findings, a line each, and the one command that remedies all that can be remedied."""
    lines = [f"{finding.level.value:8} {finding.text}" for finding in findings]
    remedies = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    if remedies:
        lines += ["", "To change that:", f"    cd {CHECKOUT} && {' && '.join(remedies)}"]
    return "\n".join(lines)


def main(progress: Progress | None = None, *, thorough: bool = False) -> int:
    """Prints the report; the exit code says whether something is missing."""
    findings = check(progress=progress or Progress(), thorough=thorough)
    print(report(findings))
    return ExitCode.INFRASTRUCTURE if any(each.level is Level.MISSING for each in findings) else ExitCode.PASS


def _machine() -> Iterator[Finding]:
    machine = platform.machine()
    if machine == "x86_64" and sys.platform == "linux":
        yield Finding(Level.OK, f"machine: Linux on {machine}")
    else:
        yield Finding(
            Level.MISSING,
            f"machine: {platform.system()} on {machine}; kernels and images are built on Linux on x86_64",
            "vagrant up",
        )


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < _PYTHON:
        needed = ".".join(map(str, _PYTHON))
        yield Finding(Level.MISSING, f"Python {version} is older than {needed}", _SET_UP)
    else:
        yield Finding(Level.OK, f"Python {version}")
    if (CHECKOUT / ".venv/bin/hmm-harness").exists():
        return
    if find_spec("paramiko") is not None and find_spec("cffi") is not None:  # installed elsewhere, and this is it
        yield Finding(Level.NOTE, f".venv/ has no hmm-harness, {sys.prefix} has what it needs")
    else:
        yield Finding(Level.MISSING, ".venv/ has no hmm-harness", _SET_UP)


def _packages() -> Iterator[Finding]:
    absent = [package for package in hostpackages.read() if not package.present()]
    for package in absent:
        if package.level == "run":
            yield Finding(Level.MISSING, f"package {package.name}: {package.reason}", _SET_UP)
        else:
            yield Finding(Level.NOTE, f"package {package.name} is not installed: {package.reason}", f"{_SET_UP} dev")
    if not absent:
        yield Finding(Level.OK, "packages: all of vm-images/host-packages")


def _qemu(cache: Cache) -> Iterator[Finding]:
    try:
        qemu = find_qemu()
        said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"version (\S+)", said)
        yield Finding(Level.OK, f"QEMU {version[1] if version else said.strip()}: {qemu}")
        found = accelerator(cache)
    except (HarnessError, OSError, subprocess.CalledProcessError) as error:
        yield Finding(Level.MISSING, f"QEMU does not run: {error}", _SET_UP)
        return
    if found.reason:
        yield Finding(Level.NOTE, f"acceleration: {found.name}, KVM is not used: {found.reason}")
    else:
        yield Finding(Level.OK, f"acceleration: {found.name}")


def _kernels() -> Iterator[Finding]:
    specs = kernel.installed()
    if specs:
        yield Finding(
            Level.OK, f"kernels that can be built: {', '.join(specs)}; flavours: {', '.join(kernel.flavours())}"
        )


def _name_spaces() -> Iterator[Finding]:
    found = chroot.refusal()
    if found is None:
        yield Finding(Level.OK, "user name spaces, in which modules for stock: kernels are built")
    else:
        said = f"stock: kernels cannot be had, user name spaces are refused: {found.reason}"
        yield Finding(Level.NOTE, said if found.command else f"{said}; {found.advice}", found.command)


def _space(cache: Cache, progress: Progress, thorough: bool) -> Iterator[Finding]:
    free = cache.free()
    held = ", ".join(f"{each.entries} {each.kind} ({each.size // _MIB} MiB)" for each in cache.usage()) or "nothing"
    line = f"cache: {cache.root}, {free // _MIB} MiB free, holds {held}"
    if free >= kernel.NEEDS:
        yield Finding(Level.OK, line)
    else:
        yield Finding(
            Level.MISSING, f"{line}; a kernel build needs {kernel.NEEDS // _MIB} MiB", ".venv/bin/hmm-harness clean"
        )
    with progress.step("reading all that is cached" if thorough else "looking through the cache"):
        found = cache.verify(thorough=thorough)
    for damaged in found:
        yield Finding(Level.NOTE, f"damaged, will be built again: {damaged}")


def _memory() -> Iterator[Finding]:
    available = hostmemory.available()
    if available is None:
        yield Finding(Level.NOTE, "memory: this system does not say how much is available")
        return
    line = f"memory: {available // _MIB} MiB available"
    if available >= _MEMORY:
        yield Finding(Level.OK, line)
    else:
        yield Finding(Level.MISSING, f"{line}; a VM beside a build needs {_MEMORY // _MIB} MiB: end other programs")


if __name__ == "__main__":
    sys.exit(main())
