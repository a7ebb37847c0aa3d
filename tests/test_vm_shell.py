# SPDX-License-Identifier: GPL-2.0-only
"""A VM to work in by hand: at a terminal, between pipes, kept, with a debugger, and pasted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from harness.errors import ExitCode
from harness.progress import Progress
from harness.target import vm as vm_module
from harness.target.cache import Cache
from harness.target.vm import Debugging, Machine, start
from tests.needs import need
from tests.processes import marked_processes

pytestmark = pytest.mark.vm

COMMAND = [sys.executable, "-m", "harness"]
PROMPT = "hmm-guest:/tmp# "
SECONDS = 120.0  # nothing takes that long unless something is wrong


@pytest.fixture
def surroundings(machine: Machine, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose processes can be told; none may be left."""
    assert machine.kernel.image.exists()
    yield os.environ | {"MARKED_BY_TEST": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
    deadline = time.monotonic() + 20
    while (left := marked_processes(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}


def _run(surroundings: dict[str, str], *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=surroundings,
        input=given or "",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def _process(surroundings: dict[str, str], program: str) -> int:
    """The id of the one process whose name begins with `program`."""
    processes = marked_processes(surroundings["MARKED_BY_TEST"])
    (pid,) = [pid for pid, name in processes.items() if name.startswith(program)]
    return pid


def _ssh(command: str, words: str) -> str:
    """What `words` print in a guest that OpenSSH reaches by `command`, as a person pastes it."""
    pasted = ["sh", "-c", f"{command.strip()} {words}"]
    return subprocess.run(pasted, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


class Debugger:
    """What gdb says to a guest's port, as far as needed."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._said = ""

    def ask(self, command: str) -> str:
        """The answer to a packet; that the guest has stopped is none.

        A `+` too many would stop a guest that runs: the one for a stop is the packet itself.
        """
        self._socket.sendall(f"${command}#{sum(command.encode()) % 256:02x}".encode())
        while (answer := self._packet()).startswith("T"):
            pass
        self._socket.sendall(b"+")
        return answer

    def _packet(self) -> str:
        while not (packet := re.search(r"\$([^#]*)#..", self._said)):
            data = self._socket.recv(4096)
            assert data, f"QEMU closed the connection after {self._said!r}"
            self._said += data.decode()
        self._said = self._said[packet.end() :]
        return packet[1]

    def rip(self) -> int:
        """The first CPU's instruction pointer: the 17th of the registers of 64 bits."""
        return int.from_bytes(bytes.fromhex(self.ask("g")[16 * 16 : 17 * 16]), "little")

    def leave(self) -> None:
        """Lets the guest run, without a debugger."""
        assert self.ask("D") == "OK"
        self._socket.close()


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.screen = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execvpe(words[0], words, environment)
        self.before = termios.tcgetattr(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
            self.status()
        os.close(self._fd)

    def type(self, text: str) -> None:
        """Types `text`."""
        os.write(self._fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Makes the terminal's window another size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str) -> str:
        """Waits until `text` is on the screen; returns what was shown until then."""
        deadline = time.monotonic() + SECONDS
        while text not in self.screen:
            assert self._read(deadline), f"it ended, and {text!r} was not shown:\n{self.screen}"
        shown, _, self.screen = self.screen.partition(text)
        return shown

    def status(self) -> int:
        """Waits for the end: the exit status. `screen` is what was not expected."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def modes(self) -> object:
        """How the terminal is set."""
        return termios.tcgetattr(self._fd)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more is shown:\n{self.screen}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)


def test_a_shell_at_a_terminal(surroundings: dict[str, str]) -> None:
    with Terminal([*COMMAND, "vm", "shell"], surroundings) as terminal:
        before = terminal.before
        assert "/dev/hmm_" in terminal.expect(PROMPT)
        terminal.type("ls /dev/hmm_harness0; tty\r")
        assert "/dev/pts/" in terminal.expect(PROMPT)
        assert terminal.modes() != before
        terminal.resize(33, 99)
        terminal.type("sleep 1; stty size\r")
        terminal.expect("33 99")
        terminal.expect(PROMPT)
        terminal.type("sleep 1000\r")
        time.sleep(0.5)
        terminal.type("\x03")
        terminal.expect(PROMPT)
        terminal.type("exit 3\r")
        terminal.expect("exit 3")
        assert terminal.status() == 3
        assert terminal.modes() == before


def test_leaving_a_guest_that_does_not_listen(surroundings: dict[str, str]) -> None:
    with Terminal([*COMMAND, "vm", "shell"], surroundings) as terminal:
        terminal.expect(PROMPT)
        os.kill(_process(surroundings, "qemu"), signal.SIGSTOP)
        terminal.type("\x1d")
        assert terminal.status() == ExitCode.INTERRUPTED
        assert terminal.modes() == terminal.before


def test_qemu_is_killed_under_a_shell(surroundings: dict[str, str]) -> None:
    with Terminal([*COMMAND, "vm", "shell"], surroundings) as terminal:
        terminal.expect(PROMPT)
        os.kill(_process(surroundings, "qemu"), signal.SIGKILL)
        terminal.expect("QEMU was killed by SIGKILL")
        assert terminal.status() == ExitCode.INFRASTRUCTURE
        assert "Traceback" not in terminal.screen
        assert terminal.modes() == terminal.before


def test_our_end_gives_the_terminal_back(surroundings: dict[str, str]) -> None:
    with Terminal([*COMMAND, "vm", "shell"], surroundings) as terminal:
        terminal.expect(PROMPT)
        os.kill(_process(surroundings, "python"), signal.SIGTERM)
        assert terminal.status() == ExitCode.INTERRUPTED
        assert terminal.modes() == terminal.before


def test_a_panic_under_a_command(surroundings: dict[str, str]) -> None:
    ended = _run(surroundings, "vm", "exec", "echo c > /proc/sysrq-trigger; sleep 1000")
    said = ended.stdout + ended.stderr
    assert ended.returncode == ExitCode.CRASH, said
    assert len(re.findall(r"\] Kernel panic - not syncing", said)) == 1, said  # the console, once
    assert "Traceback" not in said


def test_commands_from_a_pipe(surroundings: dict[str, str]) -> None:
    ended = _run(surroundings, "vm", "shell", given="cat /proc/1/comm\necho oops >&2\nexit 7\n")
    assert (ended.returncode, ended.stdout) == (7, "init\n"), ended.stderr
    assert ended.stderr.splitlines()[-1] == "oops"


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        (["echo", "a  b", "$HOME"], 0, "a  b $HOME\n"),
        (["echo $HOME; exit 42"], 42, "/root\n"),
        (["--", "sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL, ""),
        (["no-such-program"], 127, ""),
    ],
)
def test_a_command_and_its_status(surroundings: dict[str, str], words: list[str], status: int, output: str) -> None:
    ended = _run(surroundings, "vm", "exec", *words)
    assert (ended.returncode, ended.stdout) == (status, output), ended.stderr


def test_more_than_fits_into_any_buffer_in_both_directions(surroundings: dict[str, str]) -> None:
    given = "".join(f"{number:15}\n" for number in range(300_000))  # 4.8 MB; SSH's window is 2
    ended = _run(surroundings, "vm", "exec", "cat", given=given)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == given


def test_a_vm_is_kept_entered_and_stopped(surroundings: dict[str, str]) -> None:
    need("ssh")
    ended = _run(surroundings, "vm", "exec", "--keep", "echo here > /tmp/mark; exit 4")
    assert ended.returncode == 4, ended.stderr
    assert "-m harness vm shell vm1\n" in ended.stderr
    assert _run(surroundings, "vm", "exec", "--vm", "vm1", "cat", "/tmp/mark").stdout == "here\n"
    with Terminal([*COMMAND, "vm", "shell", "vm1"], surroundings) as terminal:
        terminal.expect(PROMPT)
        terminal.type("cat mark; exit 5\r")
        terminal.expect("here")
        assert terminal.status() == 5
    listed = _run(surroundings, "vm", "list").stdout
    assert listed.startswith("vm1  debian:6.1 plain")
    assert _ssh(listed.splitlines()[1], "cat /tmp/mark") == "here\n"
    assert _run(surroundings, "vm", "stop", "vm1").returncode == 0
    assert _run(surroundings, "vm", "list").stdout == ""
    refused = _run(surroundings, "vm", "shell", "vm1")
    assert refused.returncode == ExitCode.USAGE
    assert "there is no VM 'vm1'" in refused.stderr


def test_nothing_is_left_of_a_kept_vm_whose_keeper_or_qemu_is_killed(surroundings: dict[str, str]) -> None:
    for victim in ("qemu", "python"):
        assert _run(surroundings, "vm", "exec", "--keep", "true").returncode == 0
        os.kill(_process(surroundings, victim), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while marked_processes(surroundings["MARKED_BY_TEST"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _run(surroundings, "vm", "list").stdout == ""
        assert list(Path(surroundings["XDG_STATE_HOME"]).rglob("vm[0-9]*")) == []


def test_a_run_keeps_the_vm_in_which_a_program_failed(surroundings: dict[str, str]) -> None:
    words = ["--keep", "--binding", "interval", "--wrong", "migrate-no-copy", "migrate/to-device", "snapshot/hole"]
    ended = _run(surroundings, "run", *words)
    assert ended.returncode == ExitCode.FAIL, ended.stderr
    assert "migrate/to-device on interval" in _run(surroundings, "vm", "list").stdout
    log = _run(surroundings, "vm", "exec", "--vm", "vm1", "dmesg").stdout
    assert "wrong on purpose: migrate-no-copy" in log
    assert _run(surroundings, "vm", "stop", "--all").stdout == "vm1 has ended\n"


def test_a_command_that_was_printed_boots(surroundings: dict[str, str]) -> None:
    need("ssh")
    ended = _run(surroundings, "vm", "shell", "--dry-run", "--append", "hmm_word=1")
    assert ended.returncode == 0, ended.stderr
    boot, _, reach = ended.stdout.partition("# from another terminal:\n")
    with Terminal(["sh", "-c", boot], surroundings) as terminal:
        terminal.expect("READY {")
        assert "hmm_word=1" in _ssh(reach, "cat /proc/cmdline")
        terminal.type("\x01x")
        assert terminal.status() == 0


def test_a_debugger_has_the_guest_from_its_first_instruction(surroundings: dict[str, str]) -> None:
    child = subprocess.Popen(
        [*COMMAND, "vm", "exec", "--gdb", "--no-restore", "uname", "-r"],
        env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    assert child.stdout is not None
    try:
        assert "waits for its `continue`" in child.stderr.readline()
        command = child.stderr.readline()
        port = re.search(r"target remote 127\.0\.0\.1:(\d+)", command)
        assert port is not None
        assert Path(shlex.split(command)[-1]).is_file()  # vmlinux
        debugger = Debugger(int(port[1]))
        assert debugger.rip() == 0xFFF0  # where a CPU begins
        debugger.leave()
        assert re.search(r"\d+\.\d+", child.stdout.read())
        rest = child.stderr.read()
        assert child.wait() == 0, rest
        assert re.search(r"add-symbol-file \S+hmm_harness\.ko 0xffffffff[0-9a-f]+ -s \.data", rest)
    finally:
        child.terminate()
        child.wait()


@pytest.mark.parametrize("restore", [True, False])
def test_nothing_is_late_while_a_debugger_holds_the_guest(
    machine: Machine, cache: Cache, progress: Progress, monkeypatch: pytest.MonkeyPatch, *, restore: bool
) -> None:
    for name in ("_BOOT_SECONDS", "_LOOK_SECONDS", "_PING_SECONDS", "_CONNECT_SECONDS"):
        monkeypatch.setattr(vm_module, name, 0.5)
    ports: list[int] = []
    holders: list[Future[None]] = []
    pool = ThreadPoolExecutor()

    def hold() -> None:
        debugger = Debugger(ports[-1])  # stops the guest
        time.sleep(3)
        debugger.leave()

    def listening(port: int) -> None:
        ports.append(port)
        if not restore:
            holders.append(pool.submit(hold))

    with start(
        machine, cache=cache, progress=progress, restore=restore, debugging=Debugging(0, listening, lambda _: None)
    ) as vm:
        holders.append(pool.submit(hold))
        time.sleep(0.5)
        assert vm.exec("echo there", timeout=0.1) == (0, "there\n")
        assert vm.alive()
        for holder in holders:
            holder.result()


def test_a_port_for_the_debugger_that_is_taken(surroundings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = _run(surroundings, "vm", "exec", "--gdb-port", str(taken.getsockname()[1]), "true")
    assert ended.returncode == ExitCode.INFRASTRUCTURE
    assert "in use" in ended.stderr
    assert "booting" not in ended.stderr  # what was saved is not to blame
