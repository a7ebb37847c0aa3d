# SPDX-License-Identifier: GPL-2.0-only
"""A machine that goes like clockwork: what it shows is a function of a `Setup`, bit for bit, with the same QEMU.

QEMU counts instructions (`-icount`), and they are the only clock: an instruction takes 2^shift ns, timers fire
between two that are known, and CPUs take turns in one thread. There is no disk, no network and no random number of
this computer's, and nobody says a word to the guest once it runs. The guest's first process
(harness/guest/machine_init.c) has what it is to run in its initramfs, and what it has to say goes to a file, by a
serial port.

Another shift, or another moment at which an actor begins, gives another interleaving of the same kernel and driver.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from harness.errors import GuestError
from harness.guest.files import EXECUTOR_HEADERS, EXECUTOR_SOURCES, MACHINE_HEADERS, MACHINE_INIT, executor_compiler
from harness.guest.kernel import LOST_LINES, as_dmesg
from harness.progress import Progress
from harness.target.accel import find_qemu, qemu_stamp
from harness.target.artifacts import Kernel, Module
from harness.target.cache import Cache, digest_of
from harness.target.children import end, run, spawn
from harness.target.guestclock import GuestClock
from harness.target.kernels.initrd import cpio
from harness.target.places import CHECKOUT

_FORMAT = "1"  # to be raised when this file makes something else of the same sources
_MEMORY_MIB = 512
_SILENCE_SECONDS = 40.0  # until the guest's first word, which takes 3
_POLL_SECONDS = 0.02
_PROBE_SHIFT = 3
_FRAME = struct.Struct("<4sI")  # harness/guest/machine_init.c
_LENGTH = struct.Struct("<I")

# fmt: off
_APPEND = (
    "console=ttyS0", "loglevel=5",
    "8250.nr_uarts=2",      # the second one is for what the guest has to say
    "rdinit=/init",
    "panic=-1",             # a panic reboots at once, which -no-reboot turns into the end of QEMU
    "nokaslr",              # addresses in logs, and for a debugger, are those of the build
    "mitigations=off",
    "tsc=reliable", "no_timer_check",  # there is one clock: no other is to be compared with it
    "transparent_hugepage=madvise",
    "printk.devkmsg=on",    # each round is marked in the log
    "sysctl.kernel.hung_task_timeout_secs=30",
)
# fmt: on


@dataclass(frozen=True)
class Setup:
    """All that a run depends on, besides QEMU. `shift`: an instruction takes 2^shift ns."""

    kernel: Path  # bzImage
    initrd: Path
    append: str  # the kernel's command line
    shift: int
    seed: int  # of the random numbers that QEMU gives to the kernel at its start
    cpus: int = 2


def arguments(setup: Setup, qemu: str, *, console: str, answer: str, gdb: int | None = None) -> list[str]:
    """QEMU's command line. The guest's console and what it has to say go to files; `gdb` is a loopback port.

    With a debugger, the machine waits for it before its first instruction.
    """
    # fmt: off
    argv = [
        qemu,
        "-nodefaults", "-no-user-config", "-display", "none",
        "-no-reboot",                   # a guest that reboots has panicked: end
        "-machine", "q35,hpet=off,vmport=off,smm=off,sata=off,smbus=off,usb=off",
        "-m", f"{_MEMORY_MIB}M",
        "-smp", str(setup.cpus),
        "-accel", "tcg", "-cpu", "qemu64",  # no RDRAND in it
        # sleep=off: idle time is skipped
        "-icount", f"shift={setup.shift},sleep=off",
        "-rtc", "base=2020-01-01T00:00:00,clock=vm",
        "-seed", str(setup.seed),
        "-kernel", os.fspath(setup.kernel),
        "-initrd", os.fspath(setup.initrd),
        "-append", setup.append,
        # Files: a pipe can be full, and then it would matter to the guest when somebody reads.
        "-chardev", f"file,id=console,path={console}", "-serial", "chardev:console",
        "-chardev", f"file,id=answer,path={answer}", "-serial", "chardev:answer",
    ]
    # fmt: on
    if gdb is not None:
        argv += ["-gdb", f"tcp:127.0.0.1:{gdb}", "-S"]
    return argv


def command_line(kernel: Kernel) -> str:
    """The kernel's command line."""
    return " ".join([*_APPEND, *kernel.append.split()])


def provide_initrd(kernel: Kernel, module: Module, *, cache: Cache, progress: Progress) -> Path:
    """The part of the initramfs that is the same for all runs, from the cache or built in about 3 s.

    Raises `BuildError` if the executor or the init program does not compile.
    """
    files = sorted({MACHINE_INIT, *MACHINE_HEADERS, *EXECUTOR_SOURCES, *EXECUTOR_HEADERS})
    sources = (part for name in files for part in (name, (CHECKOUT / name).read_bytes()))
    key = digest_of(_FORMAT, kernel.key, module.key, *sources)

    def build(directory: Path) -> None:
        with progress.step("building the initramfs of the deterministic machine"):
            init, executor = directory / "init", directory / "executor"
            hint = "apt-get install gcc libc6-dev"
            run(_init_compiler(init), what="compiling the machine's init", hint=hint)
            run(executor_compiler(CHECKOUT, executor, test_hmm_header=None), what="compiling the executor", hint=hint)
            parts = {"init": init, "executor": executor, "hmm_harness.ko": module.path}
            (directory / "initrd").write_bytes(cpio({name: path.read_bytes() for name, path in parts.items()}))
            init.unlink()
            executor.unlink()

    return cache.entry("clockwork", key, build, progress=progress) / "initrd"


def _init_compiler(output: Path) -> list[str]:
    # fmt: off
    return [
        "gcc", "-static", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
        f"-I{CHECKOUT / 'harness/guest'}", f"-I{CHECKOUT / 'kmod/include/uapi'}",
        str(CHECKOUT / MACHINE_INIT), "-o", str(output),
    ]
    # fmt: on


def job(requests: Sequence[bytes], wrong: Sequence[str]) -> bytes:
    """The part of the initramfs that says what to run, to be put behind the other one."""
    rounds = b"".join(_LENGTH.pack(len(request)) + request for request in requests)
    return cpio({"rounds": rounds, "wrong": ",".join(wrong).encode()})


@dataclass(frozen=True)
class Round:
    """What came of one request. `remarks`: what the executor printed. `taint`: bits that it added."""

    response: bytes
    events: bytes
    log: tuple[str, ...]
    remarks: tuple[str, ...]
    taint: int


@dataclass(frozen=True)
class Answer:
    """What a guest said. `boot`: the kernel's log before the first round, `rest` behind the last one.

    `cpus`: how many it has, 0 if it did not say. `failure`: why it gave up. `done`: it came to its end.
    """

    cpus: int
    features: tuple[str, ...]
    sections: str
    boot: tuple[str, ...]
    rounds: tuple[Round, ...]
    rest: tuple[str, ...]
    failure: str | None
    done: bool


def read_answer(data: bytes) -> Answer:
    """What the frames in `data` say; the last one may be cut off. Raises `GuestError` if they are none."""
    cpus = 0
    features: tuple[str, ...] = ()
    sections, failure, done = "", None, False
    boot: tuple[str, ...] = ()
    rounds: list[Round] = []
    log: list[str] = []
    here: dict[str, bytes] = {}
    taint: int | None = None
    for what, content in _frames(data):
        match what:
            case "CPUS":
                cpus = int(content)
            case "HAVE":
                features = tuple(content.decode().replace(",", " ").split())
            case "SECT":
                sections = content.decode()
            case "LOGS":
                log += _records(content)
            case "LOST":
                log.append(LOST_LINES)
            case "RESP" | "EVNT" | "SAID":
                here[what] = content
            case "TNTD" if taint is None:
                boot, log, taint = tuple(log), [], int(content)
            case "TNTD":
                before, taint = taint or 0, int(content)
                remarks = tuple(here.get("SAID", b"").decode(errors="replace").splitlines())
                rounds.append(
                    Round(here.get("RESP", b""), here.get("EVNT", b""), tuple(log), remarks, before ^ taint)
                )
                log, here = [], {}
            case "FAIL":
                failure = content.decode(errors="replace")
            case "DONE":
                done = True
            case _:
                raise GuestError(f"what the guest said makes no sense: {what!r}")
    return Answer(cpus, features, sections, boot, tuple(rounds), tuple(log), failure, done)


def _frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at + _FRAME.size <= len(data):
        what, length = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        if at + length > len(data):
            return
        yield what.decode(errors="replace"), data[at : at + length]
        at += length


def _records(content: bytes) -> Iterator[str]:
    """Lines as dmesg shows them. A record is a line, and behind it lines of key=value that begin with a space."""
    for line in content.decode(errors="replace").splitlines():
        if not line.startswith(" "):
            yield as_dmesg(line)


@dataclass(frozen=True)
class Run:
    """What came of a setup. `late`: it was killed, since it did not end in time. `stderr`: of QEMU."""

    console: bytes
    answer: bytes
    late: bool
    status: int
    stderr: str
    seconds: float

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that came out: `cat console answer | sha256sum`."""
        return hashlib.sha256(self.console + self.answer).hexdigest()


def play(setup: Setup, *, seconds: float) -> Run:
    """Runs the machine to its end, for at most `seconds`."""
    with TemporaryDirectory(prefix="hmm-harness.") as scratch, Player(setup, Path(scratch)) as player:
        return player.finish(seconds)


def cpus_of(kernel: Kernel, initrd: Path, *, cache: Cache, progress: Progress) -> int:
    """How many CPUs the machine has for `kernel`: as many as it starts, 2 at most. Remembered.

    v6.1 waits for its second CPU for ever: arch/x86/kernel/smpboot.c do_boot_cpu() does so in a way in which the
    second one never gets its turn. Raises `GuestError` if it does not come up with one either.
    """

    def build(directory: Path) -> None:
        with progress.step("booting the deterministic machine, to see how many CPUs the kernel starts on it"):
            (directory / "initrd").write_bytes(initrd.read_bytes() + job((), ()))
            for cpus in (2, 1):
                setup = Setup(kernel.image, directory / "initrd", command_line(kernel), _PROBE_SHIFT, 0, cpus)
                tried = play(setup, seconds=_SILENCE_SECONDS)
                if read_answer(tried.answer).cpus == cpus:
                    break
            else:
                console = tried.console.decode(errors="replace").splitlines()[-20:]
                raise GuestError("\n".join(["the kernel does not come up on the deterministic machine", *console]))
        (directory / "initrd").unlink()
        (directory / "cpus").write_text(str(cpus))

    key = digest_of(_FORMAT, kernel.key, command_line(kernel), qemu_stamp(find_qemu()))
    return int((cache.entry("clockwork-cpus", key, build, progress=progress) / "cpus").read_text())


class Player:
    """A machine that runs. A context manager: leaving it kills QEMU."""

    def __init__(self, setup: Setup, scratch: Path, *, gdb: int | None = None) -> None:
        self._console, self._answer = scratch / "console", scratch / "answer"
        argv = arguments(setup, os.fspath(find_qemu()), console=str(self._console), answer=str(self._answer), gdb=gdb)
        self._stderr = (scratch / "stderr").open("w+b")
        self._process = spawn(argv, stdout=subprocess.DEVNULL, stderr=self._stderr)
        self._clock = GuestClock(self._process.pid)
        self._begun = self._clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        self._stderr.close()

    @property
    def running(self) -> bool:
        """Whether QEMU is there."""
        return self._process.poll() is None

    def finish(self, seconds: float) -> Run:
        """Waits for the end, at most for `seconds`; a guest that never says a word is given up earlier.

        Time in which QEMU waits for a CPU of this computer does not count.
        """
        late = False
        while self.running and not late:
            time.sleep(_POLL_SECONDS)
            spent = self._clock() - self._begun
            late = spent > seconds or (spent > _SILENCE_SECONDS and not _read(self._answer))
        if late:
            end(self._process)
        self._stderr.seek(0)
        return Run(
            console=_read(self._console),
            answer=_read(self._answer),
            late=late,
            status=self._process.wait(),
            stderr=self._stderr.read().decode(errors="replace").strip(),
            seconds=self._clock() - self._begun,
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # QEMU did not come that far
        return b""
