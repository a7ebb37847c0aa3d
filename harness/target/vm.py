# SPDX-License-Identifier: GPL-2.0-only
"""A clean VM: restored from a saved one, or booted.

A machine is booted once, saved when its agent has announced itself and everything has been used once, and brought
back from that for each use, so that each use begins with the same clean guest.
"""

from __future__ import annotations

import errno
import importlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import GuestError
from harness.labels import label, short
from harness.progress import Progress
from harness.target.accel import Accelerator, accelerator, find_qemu, qemu_stamp
from harness.target.cache import Cache, digest_of
from harness.target.guestclock import GuestClock
from harness.target.qemu import Machine, Qemu, Sockets, arguments
from harness.target.registers import cpu_positions, read_symbols
from harness.target.saved import SavedStateError, load, memory_for_restoring, memory_for_saving, save
from harness.target.transport import LateError, Transport, TransportError
from harness.target.watchdog import Trouble, VMFailure, complaints, excerpt, trouble_of_qemu, trouble_on_console

if TYPE_CHECKING:
    import paramiko

__all__ = ["VM", "Debugging", "Machine", "forget", "start"]

_FORMAT = "1"  # of what is saved, besides what QEMU's arguments tell
_BOOT_SECONDS = 180.0  # a debug kernel on a loaded machine without KVM; a plain one needs 5
_GRACE_SECONDS = 5.0  # from a report on the console to giving up: the rest of it, or the answer all the same
_LOOK_SECONDS = 5.0  # between questions to QEMU while an answer is awaited
_PING_SECONDS = 10.0
_CONNECT_SECONDS = 30.0
_PUT_SECONDS = 120.0
_END_SECONDS = 1.0  # from QEMU's last word to its end

_KILLERS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})  # sent by somebody
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # what a process may have too little of

_FOREVER = 30 * 86400.0  # while a debugger may hold the guest

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Debugging:
    """A VM that takes a debugger on the loopback `port`, 0 for a free one.

    `listening` is told which, as soon as it does; `up` is called when the guest is ready.
    """

    port: int
    listening: Callable[[int], None]
    up: Callable[[VM], None]


class VM:
    """A running guest with its agent. Made by `start`; not for more than one thread at once."""

    def __init__(self, machine: Machine, qemu: Qemu, *, restored: bool, accel: Accelerator) -> None:
        self.machine = machine
        self.restored = restored
        self.agent: dict[str, Any] = {}  # what the agent said in answer to "hello"
        self._qemu = qemu
        self._clock = GuestClock(qemu.pid)
        self._accelerator = accel
        self._transport: Transport | None = None
        self._failure: VMFailure | None = None
        self._reported: float | None = None  # when the console first showed trouble, time.monotonic()
        self._looked = time.monotonic()
        self._searched = 0  # characters of the console that were looked through
        self.pardoned: frozenset[str] = frozenset()  # titles of crashes that somebody provokes and knows

    @property
    def console(self) -> str:
        """All that the guest wrote to its console in this run; what a restored one wrote before is not in it."""
        return self._qemu.console

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._qemu.pid

    @property
    def command(self) -> list[str]:
        """QEMU's command line, as it was started."""
        return self._qemu.argv

    @property
    def accelerator(self) -> str:
        """What executes the guest, and why it is not a faster one."""
        accel = self._accelerator.name.upper()
        return f"{accel} ({self._accelerator.reason})" if self._accelerator.reason else accel

    @property
    def qemu_version(self) -> str:
        """As QEMU says it: "7.2.22"."""
        return self._qemu.qmp.version

    @property
    def banner(self) -> str:
        """One line: what runs, on what, and how it came to be."""
        kernel = self.machine.kernel
        how = "restored from a saved boot" if self.restored else "booted"
        return (
            f"{label(kernel.name, kernel.flavour)}, Linux {kernel.release}, {how}; QEMU {self.qemu_version}, "
            f"{self.accelerator}, {self.machine.cpus} CPUs, {self.machine.memory_mib} MiB"
        )

    @property
    def ssh_port(self) -> int:
        """The loopback port that leads to the guest's SSH server."""
        return self._qemu.ssh_port()

    def alive(self) -> bool:
        """Whether the guest runs, as far as can be told from outside."""
        if self._failure is None:
            self._failure = self._trouble()
        return self._failure is None

    @property
    def programs(self) -> int:
        """How many programs have begun in this VM since it was started or restored."""
        return self._qemu.marks

    @property
    def running(self) -> bool:
        """Whether QEMU is there, whatever the guest in it does."""
        return self._qemu.status is None

    def hold(self) -> None:
        """Lets it go on when all other VMs are killed."""
        self._qemu.hold()

    def await_end(self, seconds: float) -> None:
        """Returns when QEMU has ended, at the latest after `seconds`."""
        deadline = time.monotonic() + seconds
        while self._qemu.status is None and (left := deadline - time.monotonic()) > 0:
            self._qemu.wait_change(left)

    def heard(self) -> None:
        """What the console shows by now is known: only what comes later ends the waiting for an answer."""
        self._searched = len(_whole_lines(self.console))
        self._reported = None

    def call(self, request: dict[str, Any], body: bytes = b"", *, timeout: float) -> tuple[dict[str, Any], bytes]:
        """The agent's answer to `request`: a JSON object and a body.

        Raises `VMFailure` if none came within `timeout` seconds, or from one program of the request to the next, or
        the VM failed; the VM is of no use then.
        """
        patience = self._patience(timeout)
        return self._watched(
            lambda transport: transport.call(request, body, timeout=patience, sign=lambda: self.programs)
        )

    def exec(self, command: str, *, timeout: float, hear: Callable[[str], None] | None = None) -> tuple[int, str]:
        """Runs a shell command as root in the guest: exit status and output, of which `hear` is told as it comes.

        Raises `VMFailure` as `call` does.
        """
        patience = self._patience(timeout)
        status, output = self._watched(lambda transport: transport.execute(command, timeout=patience, hear=hear))
        return status, output.decode(errors="replace")

    def session(self, use: Callable[[paramiko.Channel, Callable[[], None]], int]) -> int:
        """Hands a new SSH session to `use`; the exit status of what it ran there.

        `use` also gets a function to call several times a second, which raises `VMFailure` once QEMU has ended. What
        the kernel says on its console ends no session: a person may want to look at what is left.
        """
        return self._watched(lambda transport: transport.session(lambda channel: use(channel, self._look_for_end)))

    def put(self, path: str, data: bytes) -> None:
        """Writes an executable file in the guest. Raises `VMFailure`, and `GuestError` if it cannot be written."""
        command = f"cat > {shlex.quote(path)} && chmod 755 {shlex.quote(path)}"
        status, output = self._watched(lambda transport: transport.execute(command, timeout=_PUT_SECONDS, stdin=data))
        if status:
            raise GuestError(f"cannot write {path} in the guest: {output.decode(errors='replace').strip()}")

    def begin(self, debugging: Debugging | None) -> None:
        """Returns when QEMU has started. Raises `VMFailure` if it does not."""
        try:
            self._qemu.qmp.negotiate()
            if debugging is not None:
                debugging.listening(self._qemu.gdb_port())
        except GuestError as error:
            raise self._fail(trouble_of_qemu(self._qemu)) from error

    def await_ready(self) -> None:
        """Returns when the agent has announced itself. Raises `VMFailure` if it does not."""
        deadline = self._clock() + self._patience(_BOOT_SECONDS)
        while self._qemu.ready is None:
            self._look(while_booting=True)
            if self._clock() > deadline:
                message = f"the guest did not announce itself within {_BOOT_SECONDS:g} s"
                raise self._fail(VMFailure(Trouble.HANG, message, console=self._console_and_cpus()))
            self._qemu.wait_change(_LOOK_SECONDS)

    def connect(self) -> None:
        """Connects to the agent and takes its word of what there is (`agent`)."""
        port = self._qemu.ssh_port()
        try:
            patience = self._patience(_CONNECT_SECONDS)
            self._transport = Transport(
                port, self.machine.image, check=self._look, patience=patience, clock=self._clock
            )
        except TransportError as error:
            raise self._fail(self._broken(error)) from error
        self.agent, _ = self.call({"do": "hello"}, timeout=_PING_SECONDS)

    def disconnect(self) -> None:
        """Ends the connection; `connect` makes another."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _watched(self, action: Callable[[Transport], _Answer]) -> _Answer:
        if self._failure is not None:
            raise self._failure
        if self._transport is None:
            raise GuestError("there is no connection to the guest")
        self._looked = time.monotonic()
        try:
            return action(self._transport)
        except LateError as error:
            raise self._fail(self._late(error)) from error
        except TransportError as error:
            raise self._fail(self._broken(error)) from error

    def _fail(self, failure: VMFailure | None) -> VMFailure:
        """Remembers the failure, which is final, and hands it back to be raised."""
        if failure is None:
            failure = VMFailure(Trouble.LOST_CONNECTION, "QEMU runs but does not talk", console=self._console_end())
        self._failure = failure
        return failure

    def _look(self, *, while_booting: bool = False) -> None:
        """Raises `VMFailure` if waiting on is of no use. Called several times a second: cheap."""
        self._look_for_end()
        if self._qemu.debugged:  # whoever debugs it decides when there is no point in going on
            return
        now = time.monotonic()
        if self._reported is None:
            self._reported = self._search(while_booting)
        elif now - self._reported > _GRACE_SECONDS:
            raise self._fail(self._told(self.console))
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            failure = trouble_of_qemu(self._qemu)
            if failure is not None:
                raise self._fail(failure)

    def _told(self, console: str) -> VMFailure | None:
        return trouble_on_console(console, self.pardoned)

    def _look_for_end(self) -> None:
        if self._qemu.status is not None:
            raise self._fail(trouble_of_qemu(self._qemu))

    def _trouble(self) -> VMFailure | None:
        """What became of QEMU; to be stopped is no trouble where a debugger may have done it."""
        if self._qemu.debugged and self._qemu.status is None:
            return None
        return trouble_of_qemu(self._qemu)

    def _patience(self, seconds: float) -> float:
        return _FOREVER if self._qemu.debugged else seconds

    def _search(self, while_booting: bool) -> float | None:
        """Looks through the console's new lines: the time now if there is trouble in them."""
        console = _whole_lines(self.console)
        found = self._told(console[self._searched :])
        self._searched = len(console)
        # What is said while booting and does not stop it is judged by whoever started the VM.
        if found is None or (while_booting and found.kind is Trouble.OOPS):
            return None
        return time.monotonic()

    def _late(self, error: LateError) -> VMFailure:
        """Why no answer came: it tells a guest that hangs from one that takes its time."""
        failure = self._trouble() or self._told(self.console)
        if failure is not None:
            return failure
        assert self._transport is not None
        try:
            # The guest is asked for the tasks that are blocked, on the console; that it answers is the ping.
            self._transport.execute("echo w > /proc/sysrq-trigger", timeout=_PING_SECONDS)
        except (LateError, TransportError):
            message = f"{error.message}, and the guest does not answer otherwise either"
            on_console = self._told(self.console)
            return on_console or VMFailure(Trouble.HANG, message, console=self._console_and_cpus())
        return VMFailure(Trouble.TIMEOUT, error.message, console=self._console_end())

    def _broken(self, error: TransportError) -> VMFailure:
        """Why the connection broke; evidence may come a little later than the break."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            failure = self._trouble() or self._told(_whole_lines(self.console))
            if failure is not None:
                return failure
            self._qemu.wait_change(0.2)
        return VMFailure(Trouble.LOST_CONNECTION, error.message, console=self._console_end())

    def _console_end(self) -> str:
        return excerpt(self.console.splitlines())

    def _console_and_cpus(self) -> str:
        """The console's end and where the CPUs are: all that can be known of a guest that is silent."""
        try:
            registers = self._qemu.qmp.monitor("info registers -a")
        except GuestError as error:
            return f"{self._console_end()}\n[hmm-harness: where the CPUs are is unknown: {error.message}]"
        positions = cpu_positions(registers, read_symbols(self.machine.kernel.build / "System.map"))
        return "\n".join([self._console_end(), *(f"[hmm-harness: {position}]" for position in positions)])


def _whole_lines(console: str) -> str:
    """Without the line that is not at its end yet."""
    return console[: console.rfind("\n") + 1]


@contextmanager
def start(
    machine: Machine,
    *,
    cache: Cache,
    progress: Progress,
    restore: bool = True,
    debugging: Debugging | None = None,
    given_up: threading.Event | None = None,
) -> Iterator[VM]:
    """A clean VM of `machine`, connected to its agent; leaving ends it.

    With `restore`, from a saved boot, which is made if there is none. Without, or if restoring fails (it says so),
    by booting. Raises `VMFailure` if the guest does not come up, `MissingError` without QEMU, `HarnessError` if it
    waited for another process's boot when `given_up` was set.

    With `debugging`, a VM that is booted waits for the debugger before its first instruction, a restored one runs;
    nothing is late in either, since the debugger may hold the guest.
    """
    find_qemu()
    accel = accelerator(cache)
    # Takes a tenth of a second, as does QEMU's start: both at once.
    threading.Thread(target=importlib.import_module, args=("paramiko",), daemon=True).start()
    with ExitStack() as stack:
        vm = None
        if restore:
            vm = _restored(
                machine, accel, stack, cache=cache, progress=progress, debugging=debugging, given_up=given_up
            )
        if vm is None:
            with progress.step(f"booting {label(machine.kernel.name, machine.kernel.flavour)}"):
                gdb = debugging.port if debugging else None
                qemu = stack.enter_context(closing(Qemu(machine, accel.name, gdb=gdb)))
                vm = VM(machine, qemu, restored=False, accel=accel)
                _boot(vm, debugging)
        stack.callback(vm.disconnect)
        if debugging is not None:
            debugging.up(vm)
        yield vm


def forget(machine: Machine, *, cache: Cache) -> None:
    """Removes the saved boot of `machine`, which is not going to be used again."""
    cache.remove("vm", _key(machine, accelerator(cache)))


def _boot(vm: VM, debugging: Debugging | None = None) -> None:
    vm.begin(debugging)
    vm.await_ready()
    _insist_on_silence(vm, vm.console.splitlines(), 0)
    vm.connect()


def _insist_on_silence(vm: VM, log: Sequence[str], taint: int) -> None:
    """A kernel that complained before anything was asked of it can prove nothing: raises `VMFailure`."""
    said = complaints(log, taint)
    if said:
        message = f"{short(vm.machine.kernel.name)} complained before any program ran: {said[0]}"
        raise VMFailure(Trouble.OOPS, message, console=excerpt(log))


def _restored(
    machine: Machine,
    accel: Accelerator,
    stack: ExitStack,
    *,
    cache: Cache,
    progress: Progress,
    debugging: Debugging | None,
    given_up: threading.Event | None,
) -> VM | None:
    """A VM from the saved state of `machine`; None, and said why, if that cannot be had."""

    def build(directory: Path) -> None:
        with progress.step(f"booting {label(machine.kernel.name, machine.kernel.flavour)}, to be saved") as step:
            _boot_and_save(machine, accel, directory, progress)
            step.update("writing")

    try:
        needs = machine.memory_mib << 20
        entry = cache.entry("vm", _key(machine, accel), build, progress=progress, needs=needs, given_up=given_up)
    except SavedStateError as error:
        progress.say(f"the VM cannot be saved ({error.message}): booting each time")
        return None
    gdb = debugging.port if debugging else None
    qemu = Qemu(machine, accel.name, memory=memory_for_restoring(entry), incoming=True, gdb=gdb)
    reading = False
    try:
        vm = VM(machine, qemu, restored=True, accel=accel)
        qemu.qmp.negotiate()
        reading = True
        load(qemu, entry)
        vm.connect()
        if debugging is not None:
            debugging.listening(qemu.gdb_port())
    except GuestError as error:
        blameless = not reading or _from_outside(error, qemu)
        qemu.close()  # and all that it said is read
        if given_up is not None and given_up.is_set():  # it was we who ended it
            raise
        reason = qemu.stderr.splitlines()[-1:] or [error.message]
        if debugging is not None and debugging.port:  # which may be taken; that says nothing of what was saved
            raise GuestError(
                f"QEMU does not start with a debugger's port {debugging.port}: {reason[0]}",
                hint="another port, or --gdb for a free one",
            ) from error
        progress.say(f"the saved VM cannot be restored ({reason[0]}): booting instead")
        if not blameless:
            # An entry with a file missing counts as damaged, and is made again the next time.
            (entry / "state").unlink(missing_ok=True)
        return None
    except BaseException:
        qemu.close()
        raise
    stack.callback(qemu.close)
    return vm


def _from_outside(error: BaseException, qemu: Qemu) -> bool:
    """Whether QEMU was killed or this process lacks something: that says nothing of what was saved."""
    deadline = time.monotonic() + _END_SECONDS
    while qemu.status is None and (left := deadline - time.monotonic()) > 0:
        qemu.wait_change(left)  # its sockets are closed before it is collected
    if qemu.status is not None and -qemu.status in _KILLERS:
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _SCARCE:
            return True
        cause = cause.__cause__
    return False


def _boot_and_save(machine: Machine, accel: Accelerator, directory: Path, progress: Progress) -> None:
    with closing(Qemu(machine, accel.name, memory=memory_for_saving(directory))) as qemu:
        vm = VM(machine, qemu, restored=False, accel=accel)
        _boot(vm)
        # What is used once is in memory, and is fast in every VM that is restored.
        answer, _ = vm.call({"do": "warm"}, timeout=_BOOT_SECONDS)
        if "error" in answer:
            progress.say(f"the guest could not warm up: {answer['error']}")
        for result in answer.get("results", ()):
            _insist_on_silence(vm, result["log"], result["taint"])
        if vm.agent["info"].get("kmemleak"):
            answer, _ = vm.call({"do": "leaks"}, timeout=_BOOT_SECONDS)
            for leak in answer.get("leaks", ()):
                _insist_on_silence(vm, leak["lines"], 0)
        vm.exec("true", timeout=_BOOT_SECONDS)
        vm.disconnect()
        try:
            save(qemu, directory)
        except GuestError as error:
            raise SavedStateError(error.message) from error


def _key(machine: Machine, accel: Accelerator) -> str:
    """All that a saved state depends on: what is booted, and the machine as QEMU's arguments describe it."""
    sockets = Sockets(console=0, qmp=0, ready=0)
    machine = replace(machine, crowded=False)  # the state is the same however many threads carry it
    argv = arguments(machine, find_qemu(), accel.name, sockets, memory=None, incoming=False)
    # KVM passes the host's CPU through
    cpu = Path("/proc/cpuinfo").read_text().partition("\n\n")[0] if accel.name == "kvm" else ""
    keys = (machine.kernel.key, machine.image.key, machine.payload.key)
    return digest_of(_FORMAT, *keys, qemu_stamp(find_qemu()), cpu, *argv)
