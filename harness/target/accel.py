# SPDX-License-Identifier: GPL-2.0-only
"""Which accelerator QEMU can use here: told by running code, since a /dev/kvm that opens may not run any.

Seen in the wild: a KVM that creates a VM and then stops with `internal-error`, spins for ever, or needs seconds
for what TCG does in a tenth.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingError
from harness.target.cache import Cache, digest_of
from harness.target.children import end, spawn

QEMU = "qemu-system-x86_64"
KVM_CPU = "host,migratable=on"  # migratable: a saved VM is to be restored
_KVM = Path("/dev/kvm")
_SECONDS = 1.0  # TCG needs a fifth of this on a busy machine; a KVM that takes longer is of no use

# A boot sector: mov $0x2a,%al; out %al,$0xf4; then halt for ever. isa-debug-exit ends QEMU with 2 * value + 1.
_SECTOR = bytes.fromhex("b02a e6f4 f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"
_SUCCESS = 2 * 0x2A + 1


@dataclass(frozen=True)
class Accelerator:
    """`name` is "kvm" or "tcg"; `reason` says why it is not KVM, and is empty if it is."""

    name: str
    reason: str = ""


def find_qemu() -> Path:
    """The QEMU that is used. Raises `MissingError` if there is none."""
    found = shutil.which(QEMU)
    if found is None:
        raise MissingError(f"{QEMU} is not installed", hint="apt-get install qemu-system-x86")
    return Path(found).resolve()


def qemu_stamp(qemu: Path) -> str:
    """Tells one QEMU from another without starting it."""
    status = qemu.stat()
    return f"{qemu} {status.st_size} {status.st_mtime_ns}"


def qemu_version(qemu: Path) -> str:
    """As QEMU says it: "7.2.22". Raises `MissingError` if it says nothing of that kind."""
    said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False).stdout
    words = said.partition("\n")[0].removeprefix("QEMU emulator version ").split()
    if not words:
        raise MissingError(f"{qemu} does not say its version", hint="apt-get install qemu-system-x86")
    return words[0]


def accelerator(cache: Cache) -> Accelerator:
    """What QEMU can use on this machine. A probe's answer is remembered until the next boot or another QEMU."""
    known = remembered(cache)
    if known is not None:
        return known
    qemu = find_qemu()
    reason = probe(qemu)
    found = Accelerator("tcg", reason) if reason else Accelerator("kvm")
    with suppress(OSError):  # a cache that cannot be written costs a second each time, and others complain of it
        _write(_memory(cache), json.dumps({"key": _key(qemu), "name": found.name, "reason": found.reason}))
    return found


def remembered(cache: Cache) -> Accelerator | None:
    """What `accelerator` would answer, if it can be told without starting anything."""
    if not _KVM.exists():
        return Accelerator("tcg", f"there is no {_KVM}")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"no permission to use {_KVM} (join the group kvm)")
    with suppress(MissingError, OSError, ValueError, KeyError, TypeError):
        known = json.loads(_memory(cache).read_text())
        if known["key"] == _key(find_qemu()) and known["name"] in ("kvm", "tcg"):
            return Accelerator(known["name"], str(known["reason"]))
    return None


def _memory(cache: Cache) -> Path:
    return cache.root / "accelerator.json"


def _key(qemu: Path) -> str:
    """What a probe's answer depends on."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return digest_of(qemu_stamp(qemu), boot, KVM_CPU)


def probe(qemu: Path, *, accel: str = "kvm", cpu: str = KVM_CPU, seconds: float = _SECONDS) -> str:
    """Runs a boot sector under `accel`. Returns why that did not work in time; nothing if it did."""
    fd = os.memfd_create("boot-sector")
    try:
        os.write(fd, _SECTOR)
        # fmt: off
        process = spawn(
            [
                qemu, "-nodefaults", "-no-user-config", "-display", "none",
                "-machine", "pc", "-accel", accel, "-cpu", cpu, "-m", "8",
                "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
                "-drive", f"file=/proc/self/fd/{fd},format=raw,if=floppy,readonly=on",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[fd],
        )
        # fmt: on
    finally:
        os.close(fd)
    try:
        _, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"{accel} did not run a boot sector in {seconds:g} s"
    finally:
        end(process)
        if process.stderr is not None:
            process.stderr.close()
    if process.returncode == _SUCCESS:
        return ""
    if process.returncode < 0:
        return f"{accel} crashed QEMU ({signal.Signals(-process.returncode).name})"
    said = stderr.decode(errors="replace").strip().splitlines()
    return f"{accel} does not run: {said[-1] if said else f'QEMU ended with status {process.returncode}'}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
