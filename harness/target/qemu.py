# SPDX-License-Identifier: GPL-2.0-only
"""One QEMU process: its command line, and the sockets that it inherits.

Console, QMP and the READY port are socket pairs made before the start: nothing has a name in the file system,
so nothing can be left behind, and nobody else can connect.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import GuestError
from harness.target.accel import KVM_CPU, find_qemu
from harness.target.artifacts import Image, Kernel, Payload
from harness.target.children import end, exempt, spawn
from harness.target.qmp import Qmp

READY_PORT = "hmm-harness.ready"
_MARK = "RUN\n"  # harness/guest/agent.py
_LISTENING = re.compile(r"tcp:127\.0\.0\.1:(\d+)")
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)")


@dataclass(frozen=True)
class Machine:
    """What to boot, and on what. `append` is added to the kernel's command line.

    Behind its memory there are `reserved_mib` of physical memory that the kernel leaves alone, so that devices can
    have coherent memory: what harness/guest/kernel.py gives to our module and test_hmm, and 4 MiB at the end, where
    the firmware has put its tables. Nothing of it takes memory of this computer before somebody touches it.
    """

    kernel: Kernel
    image: Image
    payload: Payload
    memory_mib: int = 512
    reserved_mib: int = 548
    cpus: int = 2
    append: str = ""
    crowded: bool = False  # other VMs want this computer's CPUs at the same time


@dataclass(frozen=True)
class Sockets:
    """Numbers of the file descriptors that QEMU inherits."""

    console: int
    qmp: int
    ready: int


@dataclass(frozen=True)
class Terminal:
    """The ends of a VM that a person starts: the console is the terminal, `ssh_port` leads to the guest's port 22."""

    ssh_port: int


@dataclass(frozen=True)
class Memory:
    """A file that is the guest's memory: `shared` to write it, else a private copy of what it holds."""

    path: Path
    shared: bool


def command_line(machine: Machine) -> str:
    """The kernel's command line."""
    # fmt: off
    words = [
        "console=ttyS0",
        "loglevel=5",           # the console shows warnings and worse; each line costs time on an emulated UART
        "root=/dev/vda", "rootfstype=erofs", "ro", "init=/sbin/init",
        "panic=-1",             # a panic reboots at once, which -no-reboot turns into the end of QEMU
        # No oops=panic: an oops that leaves the rest alive tells more (its trace, the log, the answer). The watchdog
        # sees it on the console and gives the VM up.
        "nokaslr",              # addresses in logs can be compared between runs
        "mitigations=off",      # nothing to protect here, and each kernel entry is cheaper
        "tsc=reliable",         # all vCPUs share one clock; the check fails under TCG and HPET reads are slow
        "no_timer_check",       # the check takes a busy host for a broken timer, and panics. KVM guests do without it
        "random.trust_cpu=on",  # KVM: no waiting for entropy. TCG has virtio-rng instead
        "transparent_hugepage=madvise",  # programs ask for huge pages, others must not get them by chance
        # Emulated CPUs on a busy host are starved for seconds: more patience than the defaults, so that what
        # is reported as stuck is stuck.
        "watchdog_thresh=30",   # soft lockup after 60 s
        "rcupdate.rcu_cpu_stall_timeout=60",
        "sysctl.kernel.hung_task_timeout_secs=30",
        "8250.nr_uarts=1",      # probing the three that are not there costs 0.1 s
    ]
    # fmt: on
    if machine.reserved_mib:
        words.append(f"memmap={machine.reserved_mib}M${machine.memory_mib << 20:#x}")
    return " ".join([*words, *machine.kernel.append.split(), *machine.append.split()])


def arguments(
    machine: Machine,
    qemu: Path,
    accelerator: str,
    ends: Sockets | Terminal,
    *,
    memory: Memory | None,
    incoming: bool,
    gdb: int | None = None,
) -> list[str]:
    """QEMU's command line: `memory` None is anonymous memory; `incoming` waits for a saved state.

    `gdb` is a loopback port for a debugger, 0 for a free one. A machine that boots then waits for it before its
    first instruction.
    """
    size = machine.memory_mib + machine.reserved_mib
    if memory is None:
        backend = f"memory-backend-ram,id=ram,size={size}M"
    else:
        share = "on" if memory.shared else "off"
        path = _escape(memory.path)
        backend = f"memory-backend-file,id=ram,size={size}M,mem-path={path},share={share}"
    # fmt: off
    argv = [
        os.fspath(qemu),
        "-name", "hmm-harness",
        "-nodefaults", "-no-user-config",  # only what is listed here
        "-display", "none",
        "-no-reboot",                      # a guest that reboots has panicked: end
        # q35: its PCI interrupts need no ACPI link devices, whose byte code costs 0.6 s under TCG
        "-machine", "q35,memory-backend=ram,vmport=off,smm=off,sata=off,smbus=off,usb=off",
        "-object", backend,
        "-m", f"{size}M",
        "-smp", str(machine.cpus),
    ]
    if accelerator == "kvm":
        argv += ["-accel", "kvm", "-cpu", KVM_CPU]
    else:
        argv += [
            # Races need CPUs that run at the same time. Where they cannot, each waits for others that do not run, and
            # busily so; in one thread they hand over to each other instead.
            "-accel", "tcg,thread=single" if machine.crowded else "tcg,thread=multi",
            "-cpu", "qemu64",              # few features: less for the kernel to patch and to save at each switch
        ]
    argv += [
        "-kernel", os.fspath(machine.kernel.image),
        "-append", command_line(machine),
        *(("-initrd", os.fspath(machine.kernel.initrd)) if machine.kernel.initrd else ()),
        # The two file systems. raw: the file is the disk. readonly: many VMs use one file, none changes it.
        *_disk("root", machine.image.root),
        *_disk("payload", machine.payload.path),
        # restrict: the guest reaches nothing. Port 0: QEMU takes a free one, `info usernet` tells which.
        "-netdev", f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{_ssh_port(ends)}-:22",
        "-device", "virtio-net-pci,netdev=net,romfile=",  # romfile: no PXE ROM to load
        "-device", "virtio-rng-pci",       # urandom is seeded at once
        *_wires(ends),
    ]
    # fmt: on
    if gdb is not None:
        argv += ["-chardev", f"socket,id=gdb,host=127.0.0.1,port={gdb},server=on,wait=off", "-gdb", "chardev:gdb"]
        if not incoming:
            argv.append("-S")
    if incoming:
        argv += ["-incoming", "defer"]  # the capability that goes with a private copy of memory has to be set first
    return argv


def _ssh_port(ends: Sockets | Terminal) -> int:
    return ends.ssh_port if isinstance(ends, Terminal) else 0


def _wires(ends: Sockets | Terminal) -> Sequence[str]:
    """Console, READY port and control of the machine."""
    # fmt: off
    if isinstance(ends, Terminal):
        return (
            # mux: Ctrl-A X ends QEMU, Ctrl-A C is its monitor, and the READY line is seen among the console's
            "-chardev", "stdio,id=console,mux=on,signal=off",
            "-serial", "chardev:console",
            "-mon", "chardev=console,mode=readline",
            "-device", "virtio-serial-pci",
            "-device", f"virtserialport,chardev=console,name={READY_PORT}",
        )
    return (
        "-chardev", f"socket,id=console,fd={ends.console}",
        "-serial", "chardev:console",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=ready,fd={ends.ready}",
        "-device", f"virtserialport,chardev=ready,name={READY_PORT}",
        "-chardev", f"socket,id=qmp,fd={ends.qmp}",
        "-mon", "chardev=qmp,mode=control",
    )
    # fmt: on


def _disk(name: str, path: Path) -> Sequence[str]:
    drive = f"file={_escape(path)},id={name},if=none,format=raw,readonly=on"
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive={name}")


def _escape(path: Path) -> str:
    """A comma in an option's value is doubled."""
    return os.fspath(path).replace(",", ",,")


class Qemu:
    """A running QEMU. A context manager: leaving it kills the process."""

    def __init__(
        self,
        machine: Machine,
        accelerator: str,
        *,
        memory: Memory | None = None,
        incoming: bool = False,
        gdb: int | None = None,
    ):
        """Starts QEMU; raises `MissingError` if there is none. Whether it lives is told by `status`."""
        qemu = find_qemu()
        self.debugged = gdb is not None  # a debugger may hold the machine for as long as it likes
        pairs = [socket.socketpair() for _ in range(3)]
        try:
            sockets = Sockets(*(theirs.fileno() for _, theirs in pairs))
            self.argv = arguments(machine, qemu, accelerator, sockets, memory=memory, incoming=incoming, gdb=gdb)
            self._process = spawn(
                self.argv,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno() for _, theirs in pairs],
            )
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        self._console, qmp, self._ready = (ours for ours, _ in pairs)
        self.qmp = Qmp(qmp)
        self._texts = {"console": bytearray(), "stderr": bytearray(), "ready": bytearray()}
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="qemu-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def console(self) -> str:
        """What the guest wrote to its serial console so far."""
        return self._text("console").replace("\r\n", "\n")

    @property
    def stderr(self) -> str:
        """What QEMU said."""
        return self._text("stderr").strip()

    @property
    def ready(self) -> str | None:
        """The line that the agent wrote to the READY port, once there is one."""
        line, newline, _ = self._text("ready").partition("\n")
        return line if newline else None

    @property
    def marks(self) -> int:
        """How many programs began so far, of which the agent left a mark each at the READY port."""
        return self._text("ready").count(_MARK)

    @property
    def status(self) -> int | None:
        """QEMU's exit status (negative: the signal), or None while it runs. All that it said is read by then."""
        with self._changed:
            return self._process.returncode if self._ended else None

    def wait_change(self, seconds: float) -> None:
        """Returns as soon as something arrives or QEMU ends, at the latest after `seconds`."""
        with self._changed:
            if not self._ended:
                self._changed.wait(seconds)

    def ssh_port(self) -> int:
        """The loopback port that leads to port 22 of the guest."""
        table = self.qmp.monitor("info usernet")
        match = _FORWARD.search(table)
        if match is None:
            raise GuestError(f"QEMU forwards no port to the guest:\n{table}")
        return int(match[1])

    def gdb_port(self) -> int:
        """The loopback port that takes a debugger. Raises `GuestError` if there is none."""
        for device in self.qmp.execute("query-chardev"):
            match = _LISTENING.search(device["filename"])
            if device["label"] == "gdb" and match is not None:
                return int(match[1])
        raise GuestError("QEMU listens to no debugger")

    def hold(self) -> None:
        """Lets it go on when all other children are killed; `close` ends it."""
        exempt(self._process)

    def close(self) -> None:
        """Kills QEMU and frees all that belongs to it."""
        end(self._process)
        self._reader.join()
        self.qmp.close()

    def _text(self, name: str) -> str:
        with self._changed:
            return self._texts[name].decode(errors="replace")

    def _read(self) -> None:
        """Takes what QEMU writes, until all three ends are closed; then notes that it ended."""
        stderr: IO[bytes] | None = self._process.stderr
        assert stderr is not None
        with selectors.DefaultSelector() as selector, self._console, self._ready, stderr:
            selector.register(self._console, selectors.EVENT_READ, "console")
            selector.register(self._ready, selectors.EVENT_READ, "ready")
            selector.register(stderr, selectors.EVENT_READ, "stderr")
            while selector.get_map():
                for key, _ in selector.select():
                    try:
                        data = os.read(key.fd, 65536)
                    except ConnectionResetError:
                        data = b""
                    if data:
                        with self._changed:
                            self._texts[key.data] += data
                            self._changed.notify_all()
                    else:
                        selector.unregister(key.fileobj)
        self._process.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
