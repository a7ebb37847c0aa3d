# SPDX-License-Identifier: GPL-2.0-only
"""VMs that are restored, booted, broken and killed: what is said of them, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from harness.errors import ExitCode, GuestError
from harness.progress import Progress
from harness.target.accel import accelerator
from harness.target.cache import Cache
from harness.target.qemu import Qemu
from harness.target.saved import load
from harness.target.vm import VM, Machine, start
from harness.target.watchdog import Trouble, VMFailure, complaints
from tests.provoking import TRIGGER, build_crash, load_crash

pytestmark = pytest.mark.vm

SECONDS = 60.0


@pytest.fixture
def vm(machine: Machine, cache: Cache, progress: Progress) -> Iterator[VM]:
    """A VM that the test may break."""
    with start(machine, cache=cache, progress=progress) as vm:
        assert vm.restored
        yield vm


@pytest.fixture(scope="module")
def crash(machine: Machine) -> bytes:
    """The module that breaks the kernel it is loaded into."""
    return build_crash(machine.kernel)


def broken(vm: VM, crash: bytes, how: str, *, timeout: float = SECONDS) -> VMFailure:
    """The failure that follows from what the module does as `how`, with less patience than usual in the guest."""
    load_crash(vm, crash)
    vm.exec("cd /proc/sys/kernel; echo 2 > watchdog_thresh; echo 2 > hung_task_timeout_secs", timeout=SECONDS)
    with pytest.raises(VMFailure) as caught:
        vm.exec(f"echo {how} > {TRIGGER}", timeout=timeout)
    assert not vm.alive()
    return caught.value


def test_what_one_vm_writes_is_not_in_the_next(machine: Machine, cache: Cache, progress: Progress) -> None:
    for _ in range(2):
        with start(machine, cache=cache, progress=progress) as vm:
            assert vm.exec("cat /tmp/mark", timeout=SECONDS)[0] == 1
            assert vm.exec("echo here > /tmp/mark && cat /tmp/mark", timeout=SECONDS) == (0, "here\n")


def test_the_root_file_system_takes_no_writes(vm: VM) -> None:
    status, output = vm.exec("touch /etc/mark", timeout=SECONDS)
    assert status == 1
    assert "Read-only" in output


def test_exit_status_and_output_of_commands(vm: VM) -> None:
    assert vm.exec("echo out; echo err >&2; exit 3", timeout=SECONDS) == (3, "out\nerr\n")
    assert vm.exec("sh -c 'kill -TERM $$'", timeout=SECONDS)[0] == 128 + signal.SIGTERM
    assert vm.exec("head -c 300000 /dev/zero | tr '\\0' x", timeout=SECONDS) == (0, "x" * 300_000)


def test_two_vms_of_one_saved_state_do_not_see_each_other(machine: Machine, cache: Cache, progress: Progress) -> None:
    with (
        start(machine, cache=cache, progress=progress) as one,
        start(machine, cache=cache, progress=progress) as other,
    ):
        assert one.exec("echo 1 > /tmp/mark", timeout=SECONDS)[0] == 0
        assert other.exec("cat /tmp/mark", timeout=SECONDS)[0] == 1
        assert one.exec("cat /tmp/mark", timeout=SECONDS) == (0, "1\n")


def test_the_guest_reaches_nothing(vm: VM) -> None:
    status, _ = vm.exec("timeout 3 nc 10.0.2.2 22 < /dev/null", timeout=SECONDS)
    assert status != 0


def test_a_boot_without_a_saved_state(machine: Machine, cache: Cache, progress: Progress) -> None:
    with start(machine, cache=cache, progress=progress, restore=False) as vm:
        assert not vm.restored
        assert "booted" in vm.banner
        assert vm.agent["release"] == machine.kernel.release
        assert complaints(vm.console.splitlines(), 0) == []


def test_the_banner_says_how_it_runs(vm: VM) -> None:
    assert "restored" in vm.banner
    assert re.search(r"QEMU \d+\.\d+\.\d+, (KVM|TCG \(.+\)), 2 CPUs, 512 MiB", vm.banner)


def test_a_panic(vm: VM, crash: bytes) -> None:
    failure = broken(vm, crash, "panic")
    assert failure.kind is Trouble.PANIC
    assert "wanted by a test" in failure.message
    assert "crash_panic" in failure.console


def test_a_kernel_that_survives_an_oops_still_answers_and_its_console_tells(vm: VM, crash: bytes) -> None:
    load_crash(vm, crash)
    assert vm.exec(f"sh -c 'echo oops > {TRIGGER}'; exit $?", timeout=SECONDS)[0] == 128 + signal.SIGKILL
    assert complaints(vm.console.splitlines(), 0)[0].startswith("BUG: kernel NULL pointer dereference")


def test_an_oops_that_leaves_no_answer(vm: VM, crash: bytes) -> None:
    load_crash(vm, crash)
    with pytest.raises(VMFailure) as caught:
        vm.exec(f"sh -c 'echo bug > {TRIGGER}'; sleep 1000", timeout=SECONDS)
    assert caught.value.kind is Trouble.OOPS
    assert "kernel BUG at" in caught.value.message


@pytest.mark.parametrize(("how", "word"), [("spin", "soft lockup"), ("hang", "blocked for more than")])
def test_a_kernel_that_finds_itself_stuck(vm: VM, crash: bytes, how: str, word: str) -> None:
    failure = broken(vm, crash, how)
    assert failure.kind is Trouble.HANG
    assert word in failure.message
    assert f"crash_{how}+" in failure.console


def test_a_guest_that_does_nothing_any_more(vm: VM, crash: bytes) -> None:
    failure = broken(vm, crash, "dead", timeout=5.0)
    assert failure.kind is Trouble.HANG
    assert "does not answer" in failure.message
    assert "CPU 1: running in a module or unknown code" in failure.console
    assert "interrupts off" in failure.console


def test_an_answer_that_is_late_from_a_guest_that_is_well(vm: VM) -> None:
    with pytest.raises(VMFailure) as caught:
        vm.exec("sleep 1000", timeout=2.0)
    assert caught.value.kind is Trouble.TIMEOUT
    assert "Show Blocked State" in caught.value.console


def test_qemu_that_is_killed(vm: VM) -> None:
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(VMFailure) as caught:
        vm.call({"do": "hello"}, timeout=SECONDS)
    assert caught.value.kind is Trouble.QEMU_DIED
    assert "SIGKILL" in caught.value.message
    with pytest.raises(VMFailure, match="SIGKILL"):
        vm.exec("true", timeout=SECONDS)


def test_qemu_that_is_stopped(vm: VM) -> None:
    os.kill(vm.pid, signal.SIGSTOP)
    with pytest.raises(VMFailure) as caught:
        vm.call({"do": "hello"}, timeout=2.0)
    assert caught.value.kind is Trouble.QEMU_STOPPED
    assert caught.value.exit_code is ExitCode.INFRASTRUCTURE
    assert "QEMU itself" in caught.value.message


def test_an_agent_that_dies(vm: VM) -> None:
    vm.exec("kill -9 $(pidof python3)", timeout=SECONDS)
    with pytest.raises(VMFailure) as caught:
        vm.call({"do": "hello"}, timeout=SECONDS)
    assert caught.value.kind is Trouble.LOST_CONNECTION
    assert "agent was killed by signal 9" in caught.value.message


def test_a_connection_that_is_cut(vm: VM) -> None:
    with pytest.raises(VMFailure) as caught:
        vm.exec("kill -9 $PPID; sleep 1000", timeout=SECONDS)
    assert caught.value.kind is Trouble.LOST_CONNECTION


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"append": "root=/dev/nothing"}, Trouble.PANIC, "Unable to mount root"),
        ({"append": "init=/nothing"}, Trouble.PANIC, "Requested init /nothing failed"),
        ({"memory_mib": 0, "reserved_mib": 0}, Trouble.QEMU_DIED, "ended with status 1"),
        ({"cpus": 100_000}, Trouble.QEMU_DIED, "ended with status 1"),
    ],
)
def test_a_machine_that_does_not_come_up(
    machine: Machine,
    tmp_path: Path,
    change: dict[str, object],
    kind: Trouble,
    text: str,
) -> None:
    for restore in (True, False):
        with (
            pytest.raises(VMFailure, match=text) as caught,
            start(replace(machine, **change), cache=Cache(tmp_path), progress=Progress(StringIO()), restore=restore),  # type: ignore[arg-type]
        ):
            pytest.fail("it came up")
        assert caught.value.kind is kind
    assert files(tmp_path) == []


def test_a_kernel_that_is_none(machine: Machine, tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(b"no kernel" * 1000)
    other = replace(machine, kernel=replace(machine.kernel, image=image, key="0bad"))
    with (
        pytest.raises(VMFailure, match="kernel") as caught,
        start(other, cache=Cache(tmp_path / "cache"), progress=Progress(StringIO())),
    ):
        pytest.fail("it came up")
    assert caught.value.kind is Trouble.QEMU_DIED


def files(root: Path) -> list[Path]:
    """All that is kept or left over below a cache's root; locks and the accelerator's memory are no leftovers."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent.name != "locks" and path.suffix != ".json"
    ]


def test_a_saved_state_that_is_corrupt_is_noticed_and_replaced(machine: Machine, tmp_path: Path) -> None:
    machine = replace(machine, memory_mib=256, reserved_mib=0)  # less to hash, three times
    words = StringIO()
    cache = Cache(tmp_path)

    def come_up() -> tuple[bool, str]:
        """Whether the VM was restored, and what was said; it answers in any case."""
        words.seek(0)
        words.truncate()
        with start(machine, cache=cache, progress=Progress(words)) as vm:
            assert vm.call({"do": "hello"}, timeout=SECONDS)[0]["release"] == machine.kernel.release
            return vm.restored, words.getvalue()

    assert come_up()[0]
    (state,) = tmp_path.glob("vm/*/state")
    times = (state.stat().st_atime_ns, state.stat().st_mtime_ns)
    content = state.read_bytes()

    # Broken in a way that only QEMU notices: booted instead, and said; the next one is whole.
    state.write_bytes(content[:4096] + bytes(len(content) - 4096))
    os.utime(state, ns=times)
    restored, said = come_up()
    assert not restored
    assert "cannot be restored" in said
    restored, said = come_up()
    assert restored
    assert "damaged" in said

    # Broken in a way that the cache notices: made again before it is used.
    memory = state.parent / "ram"
    with memory.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"garbage" * 100_000)
    restored, said = come_up()
    assert restored
    assert "damaged" in said
    assert come_up() == (True, "")


# A harness of its own, to be interrupted: starts a VM, says so, and waits.
HARNESS = """
import pickle, sys, time
from pathlib import Path
from harness.errors import ExitCode
from harness.progress import Progress
from harness.target.accel import accelerator
from harness.target.cache import Cache
from harness.target.vm import start
machine = pickle.loads(Path(sys.argv[1]).read_bytes())
print("starting", flush=True)
with start(machine, cache=Cache(Path(sys.argv[2])), progress=Progress(quiet=True), restore=sys.argv[3] == "restore"):
    print("started", flush=True)
    time.sleep(1000)
"""


class Harness:
    """A process that runs `HARNESS`, with a cache of its own in `directory`."""

    def __init__(self, machine: Machine, directory: Path, how: str) -> None:
        plain = replace(machine, kernel=replace(machine.kernel, modules={}))  # a mapping that need not pickle
        (directory / "machine").write_bytes(pickle.dumps(plain))
        self.cache = directory / "cache"
        accelerator(Cache(self.cache))  # else the first QEMU that is seen is the one that probes KVM
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS, directory / "machine", self.cache, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"

    def wait_for_qemu(self) -> int:
        """QEMU's process id, as soon as there is one."""
        found: list[int] = []

        def look() -> bool:
            found.extend(self._qemus())
            return bool(found)

        assert eventually(look)
        return found[0]

    def _qemus(self) -> Iterator[int]:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                head, _, rest = stat.read_text().rpartition(")")
                if int(rest.split()[1]) == self.process.pid and "qemu" in head:
                    yield int(stat.parent.name)

    def end(self, number: signal.Signals) -> str:
        """Sends the signal; returns what the process said on standard error, once it is gone."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=SECONDS)
        return said


@pytest.fixture
def harness(machine: Machine, tmp_path: Path) -> Iterator[Callable[[str], Harness]]:
    """Makes harness processes; none of them is left after the test."""
    made: list[Harness] = []

    def make(how: str) -> Harness:
        made.append(Harness(machine, tmp_path, how))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()


def running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within a time that only a broken machine needs."""
    for _ in range(1200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_kill_9_of_the_harness_leaves_no_qemu(harness: Callable[[str], Harness]) -> None:
    process = harness("boot")
    process.wait_for("starting")
    process.wait_for("started")
    qemu = process.wait_for_qemu()
    process.end(signal.SIGKILL)
    assert eventually(lambda: not running(qemu))
    assert files(process.cache) == []


@pytest.mark.parametrize("how", ["boot", "restore"])
def test_ctrl_c_while_booting_leaves_nothing(harness: Callable[[str], Harness], how: str) -> None:
    process = harness(how)
    process.wait_for("starting")
    qemu = process.wait_for_qemu()
    time.sleep(1.0)  # into the boot; wherever that is, the outcome is the same
    said = process.end(signal.SIGINT)
    assert "KeyboardInterrupt" in said
    assert not running(qemu)
    assert files(process.cache) == []


def test_the_guests_python_is_byte_compiled(vm: VM) -> None:
    status, output = vm.exec("PYTHONPATH=/payload python3 -v -c 'import cffi, harness.guest.agent'", timeout=SECONDS)
    assert status == 0
    for module in ("cffi/api", "json/decoder", "harness/guest/agent"):
        directory, name = module.split("/")[-2:]
        assert re.search(rf"code object from '\S*{directory}/__pycache__/{name}\.cpython-\d+\.pyc'", output), module


def _killed(qemu: Qemu, directory: Path) -> None:
    os.kill(qemu.pid, signal.SIGKILL)
    load(qemu, directory)


def _too_many_files(_qemu: Qemu, _directory: Path) -> None:
    raise GuestError("no way to the guest") from OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("broken", [_killed, _too_many_files])
def test_a_restore_that_fails_for_reasons_of_its_own_costs_nobody_the_saved_state(
    machine: Machine, cache: Cache, broken: Callable[[Qemu, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("harness.target.vm.load", broken)
        with start(machine, cache=cache, progress=Progress(words)) as vm:
            assert not vm.restored
    assert "cannot be restored" in words.getvalue()
    with start(machine, cache=cache, progress=Progress(words)) as vm:
        assert vm.restored
    assert "damaged" not in words.getvalue()
