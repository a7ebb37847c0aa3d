# SPDX-License-Identifier: GPL-2.0-only
"""The agent on this machine: its frames, its clients, its executor. What it does with modules needs a VM."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.abi import ffi
from harness.guest import kernel
from harness.guest.agent import MARK, Agent, Server
from harness.guest.files import EXECUTOR_HEADERS, EXECUTOR_SOURCES, GUEST_FILES
from harness.guest.kernel import AgentError, KernelLog
from harness.guest.leaks import Kmemleak
from harness.guest.runner import OUTCOME
from harness.target.qemu import _MARK
from tests.guest_executor import ROOT, Seen, compile_executor, mapped, operation, request, split

HEAD = struct.Struct("!II")
MALFORMED = b"\0" * 16


class Log:
    """A kernel log in the tests' hands: what is written to `printer` are records of /dev/kmsg."""

    def __init__(self) -> None:
        self.printer, self._reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader.setblocking(False)
        self.reader = KernelLog(self._reader.fileno())


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("payload")
    (directory / "bin").mkdir()
    (directory / "modules").mkdir()
    compile_executor(directory / "bin" / "executor")
    return directory


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def agent(payload: Path, log: Log) -> Agent:
    return Agent(str(payload), log.reader)


@pytest.fixture
def port(agent: Agent) -> Iterator[int]:
    """Where a server waits; it serves until the tests end, as in the guest."""
    server = Server(agent, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def frame(content: object, body: bytes = b"") -> bytes:
    data = json.dumps(content).encode()
    return HEAD.pack(len(data), len(body)) + data + body


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    file = connection.makefile("rb")
    json_length, body_length = HEAD.unpack(file.read(HEAD.size))
    return json.loads(file.read(json_length)), file.read(body_length)


def call(connection: socket.socket, content: object, body: bytes = b"") -> tuple[dict[str, Any], bytes]:
    connection.sendall(frame(content, body))
    return receive(connection)


def a_program(token: int) -> bytes:
    return request([mapped(1), operation("WRITE", npages=1, value=token), operation("READ", npages=1)])


def test_hello_names_the_kernel(port: int) -> None:
    with connect(port) as connection:
        answer, body = call(connection, {"do": "hello"})
    assert answer["release"] == os.uname().release
    assert isinstance(answer["taint"], int)
    assert set(answer["bindings"]) <= {"interval", "mirror", "test_hmm"}
    assert body == b""


def test_programs_of_one_request_are_answered_in_order(port: int) -> None:
    programs = [a_program(7), a_program(8)]
    with connect(port) as connection:
        answer, body = call(connection, {"do": "run", "programs": [len(one) for one in programs]}, b"".join(programs))
    first, second = split(body)
    assert (first[2], second[2]) == (Seen("DONE", 0, (7,)), Seen("DONE", 0, (8,)))
    assert sum(result["length"] for result in answer["results"]) == len(body)
    for result in answer["results"]:
        assert result["seconds"] > 0
        assert (result["log"], result["taint"]) == ([], 0)


def test_what_is_packed_is_answered_packed(agent: Agent) -> None:
    program = a_program(7)
    plain, body = agent.answer({"do": "run", "programs": [len(program)]}, program)
    answer, packed = agent.answer({"do": "run", "programs": [len(program)], "packed": True}, zlib.compress(program))
    assert zlib.decompress(packed) == body
    assert [result["length"] for result in answer["results"]] == [result["length"] for result in plain["results"]]


def test_kernel_log_lines_are_told_apart_by_program(agent: Agent, log: Log) -> None:
    log.printer.send(b"6,41,5140900,-;early\n")
    program = a_program(1)
    answer, _ = agent.answer({"do": "run", "programs": [len(program)]}, program)
    assert answer["results"][0]["log"] == [
        "[    5.140900] early",
        "[hmm-harness: printed before this program started, up to here]",
    ]
    answer, _ = agent.answer({"do": "run", "programs": [len(program)]}, program)
    assert answer["results"][0]["log"] == []


def test_nothing_runs_behind_what_the_kernel_complained_of(agent: Agent, log: Log) -> None:
    program = a_program(1)
    asked = {"do": "run", "programs": [len(program)] * 3, "asides": {}}
    log.printer.send(b"4,41,5140900,-;early\n")
    answer, body = agent.answer(asked, program * 3)
    assert len(answer["results"]) == 1
    assert len(body) == answer["results"][0]["length"]
    answer, _ = agent.answer(asked, program * 3)
    assert len(answer["results"]) == 3


def test_what_the_kernel_says_for_information_is_no_reason_to_end(agent: Agent, log: Log) -> None:
    """That swap space is in use now, for one; a facility in front of the level says nothing else."""
    program = a_program(1)
    asked = {"do": "run", "programs": [len(program)] * 2}
    log.printer.send(b"6,41,5140900,-;Adding 65532k swap\n")
    answer, _ = agent.answer(asked, program * 2)
    assert [len(result["log"]) for result in answer["results"]] == [2, 0]
    log.printer.send(b"14,42,5140900,-;of user space\n")
    answer, _ = agent.answer(asked, program * 2)
    assert len(answer["results"]) == 2
    log.printer.send(b"12,43,5140900,-;a warning\n")
    answer, _ = agent.answer(asked, program * 2)
    assert len(answer["results"]) == 1


def test_a_program_that_cannot_be_run_hides_none_before_it(agent: Agent) -> None:
    program = a_program(1)
    asked = {"do": "run", "programs": [len(program), len(MALFORMED), len(program)]}
    answer, body = agent.answer(asked, program + MALFORMED + program)
    assert len(answer["results"]) == 1
    assert len(body) == answer["results"][0]["length"]
    assert "malformed" in answer["hint"]


def test_the_host_is_told_of_each_program_that_begins(payload: Path, log: Log) -> None:
    """If nothing more is heard, it was that one."""
    marks: list[int] = []
    agent = Agent(str(payload), log.reader, mark=lambda: marks.append(1))
    program = a_program(1)
    agent.answer(
        {"do": "run", "programs": [len(program), len(MALFORMED), len(program)]}, program + MALFORMED + program
    )
    assert len(marks) == 2
    assert MARK.decode() == _MARK


def test_a_command_aside_is_part_of_the_program(agent: Agent, log: Log, tmp_path: Path) -> None:
    log.printer.send(b"6,41,5140900,-;early\n")
    program = a_program(1)
    asked = {"do": "run", "programs": [len(program)], "asides": {"0": f"sleep 0.2; echo done > {tmp_path}/mark"}}
    answer, _ = agent.answer(asked, program)
    assert (tmp_path / "mark").read_text() == "done\n"
    assert answer["results"][0]["log"][-1] == "[hmm-harness: printed before this program started, up to here]"


class Detector(Kmemleak):
    """A kmemleak whose scans find what `scans` says, one after the other; `jiffies` is the time."""

    def __init__(self, place: Path, *scans: str) -> None:
        super().__init__(str(place / "kmemleak"), str(place / "timer_list"), age=0.0)
        self._file = place / "kmemleak"
        self._file.write_text("")
        self._timers = place / "timer_list"
        self.scans = [*scans]
        self.told: list[str] = []

    def at(self, jiffies: int | None) -> None:
        self._timers.write_text("" if jiffies is None else f"  .last_jiffies   : 1\njiffies: {jiffies}\n\ncpu: 1\n")

    def _write(self, words: str) -> None:
        self.told.append(words)
        if words == "scan":
            self._file.write_text(self.scans.pop(0))


def lost(jiffies: int, age: str = "") -> str:
    """As 6.12 says it; 5.10 has an `age` there."""
    return (
        f'unreferenced object 0xffff888004a1c000 (size 64):\n  comm "executor", pid 7, jiffies {jiffies}{age}\n'
        "  hex dump (first 32 bytes):\n    00 01\n  backtrace (crc 0):\n    kmalloc+0x1/0x2\n"
    )


def ask_for_leaks(agent: Agent) -> list[dict[str, Any]]:
    answer, _ = agent.answer({"do": "leaks"}, b"")
    assert "error" not in answer
    leaks: list[dict[str, Any]] = answer["leaks"]
    return leaks


def test_what_was_lost_is_told_with_the_program_in_whose_time_it_was_taken(
    payload: Path, log: Log, tmp_path: Path
) -> None:
    times = {90: [], 100: [0], 150: [0], 200: [0, 1], 201: [1], 999: [1]}
    found = "".join(
        lost(when, " (age 7.100s)" if when == 150 else "").replace("kmalloc", f"from_{when}") for when in times
    )
    detector = Detector(tmp_path, "", found, found)
    agent = Agent(str(payload), log.reader, detector)
    detector.start()
    assert agent.hello()["info"]["kmemleak"] is True
    program = a_program(1)
    numbers = []
    for jiffies in (100, 200):
        detector.at(jiffies)
        answer, _ = agent.answer({"do": "run", "programs": [len(program)]}, program)
        numbers.append(answer["results"][0]["number"])
    assert numbers == [0, 1]
    leaks = ask_for_leaks(agent)
    assert [leak["programs"] for leak in leaks] == list(times.values())
    assert leaks[1]["lines"] == lost(100).replace("kmalloc", "from_100").splitlines()
    assert detector.told == ["scan=off", "scan", "scan", "scan", "clear"]


def test_without_a_clock_every_program_may_have_lost_it(payload: Path, log: Log, tmp_path: Path) -> None:
    detector = Detector(tmp_path, "", lost(150), lost(150))
    agent = Agent(str(payload), log.reader, detector)
    detector.start()
    detector.at(None)
    program = a_program(1)
    for _ in range(3):
        agent.answer({"do": "run", "programs": [len(program)]}, program)
    assert [leak["programs"] for leak in ask_for_leaks(agent)] == [[0, 1, 2]]


@pytest.mark.parametrize(("scans", "count"), [(("", ""), 2), (("", lost(1), ""), 3)])
def test_what_a_later_scan_finds_was_not_lost(
    payload: Path, log: Log, tmp_path: Path, scans: tuple[str, ...], count: int
) -> None:
    detector = Detector(tmp_path, *scans)
    agent = Agent(str(payload), log.reader, detector)
    detector.start()
    log.printer.send(b"6,41,5140900,-;kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)\n")
    log.printer.send(b"4,42,5140900,-;something else\n")
    assert ask_for_leaks(agent) == []
    assert detector.told.count("scan") == count
    program = a_program(1)
    answer, _ = agent.answer({"do": "run", "programs": [len(program)]}, program)
    assert answer["results"][0]["log"] == ["[    5.140900] something else", kernel.EARLIER_LINES]


def test_a_kernel_that_does_not_look_for_leaks_says_so(agent: Agent, payload: Path, log: Log, tmp_path: Path) -> None:
    assert agent.hello()["info"]["kmemleak"] is False
    answer, _ = agent.answer({"do": "leaks"}, b"")
    assert "kmemleak is not there, or off" in answer["error"]

    class Broken(Detector):
        def _write(self, words: str) -> None:
            if words == "scan":
                raise PermissionError(1, "Operation not permitted")

    broken = Broken(tmp_path)
    broken.start()
    answer, _ = Agent(str(payload), log.reader, broken).answer({"do": "leaks"}, b"")
    assert answer["error"] == "kmemleak does not look any more: Operation not permitted"


def test_what_was_lost_in_the_same_place_is_told_once_and_counted(tmp_path: Path) -> None:
    elsewhere = lost(1).replace("kmalloc+0x1", "vmalloc+0x1")
    many = lost(1) * 1000 + elsewhere + lost(2) * 5
    detector = Detector(tmp_path, "", many, many)
    detector.start()
    same, other = detector.find()
    assert same.lines == [*lost(1).splitlines(), "[hmm-harness: and 1004 objects more of this kind]"]
    assert other.lines == elsewhere.splitlines()


def test_kernel_log_records_are_read_as_dmesg_shows_them(log: Log) -> None:
    log.printer.send(b"4,1,61000042,-;WARNING: CPU: 0\n SUBSYSTEM=misc\n DEVICE=+x\n")
    log.printer.send(b"6,2,7,-;semi;colon\n")
    log.printer.send(b"6,3,8,-,caller=T52;of a kernel that tells who printed\n")
    assert log.reader.lines() == [
        "[   61.000042] WARNING: CPU: 0",
        "[    0.000007] semi;colon",
        "[    0.000008][    T52] of a kernel that tells who printed",
    ]
    assert log.reader.lines() == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "this is no frame"),
        (HEAD.pack(3, 0) + b"{x}", "what should be JSON is not"),
        (HEAD.pack(2, 0) + b"[]", "another value"),
        (HEAD.pack(2, 0) + b"\xff\xfe", "what should be JSON is not"),
        (HEAD.pack(10, 1 << 31), "this is no frame"),
    ],
)
def test_garbage_is_answered_and_the_connection_closed(port: int, data: bytes, error: str) -> None:
    with connect(port) as connection:
        connection.sendall(data)
        answer, _ = receive(connection)
        assert error in answer["error"]
        with suppress(ConnectionResetError):  # what was left unread may make it that kind of end
            assert connection.recv(1) == b""
    with connect(port) as connection:
        assert "release" in call(connection, {"do": "hello"})[0]


@pytest.mark.parametrize("sent", [b"", b"\0\0", HEAD.pack(100, 100) + b"{", frame({"do": "hello"})])
def test_clients_that_vanish_do_no_harm(port: int, sent: bytes) -> None:
    vanishing = connect(port)
    vanishing.sendall(sent)
    # A reset rather than an orderly end
    vanishing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    vanishing.close()
    with connect(port) as connection:
        assert "release" in call(connection, {"do": "hello"})[0]


def test_an_idle_connection_blocks_nobody(port: int) -> None:
    """As after a restore: the client of a saved connection never speaks again."""
    with connect(port) as idle, connect(port) as connection:
        assert "release" in call(connection, {"do": "hello"})[0]
        assert "release" in call(idle, {"do": "hello"})[0]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({}, "cannot do None"),
        ({"do": "dance"}, "cannot do 'dance'"),
        ({"do": "run"}, "needs `programs`"),
        ({"do": "run", "programs": ["1"]}, "needs `programs`"),
        ({"do": "run", "programs": [True]}, "needs `programs`"),
        ({"do": "run", "programs": [], "wrong": "all"}, "needs `programs`"),
        ({"do": "run", "programs": [5]}, "the body 0 bytes"),
        ({"do": "run", "programs": [-1, 1]}, "the body 0 bytes"),
        ({"do": "load", "module": "nosuch"}, "cannot open"),
        ({"do": "load", "module": "../../etc/passwd"}, "is no name of a module"),
        ({"do": "unload", "module": 3}, "is no name of a module"),
    ],
)
def test_bad_requests_are_errors_and_the_connection_goes_on(port: int, content: object, error: str) -> None:
    with connect(port) as connection:
        answer, _ = call(connection, content)
        assert error in answer["error"]
        assert "release" in call(connection, {"do": "hello"})[0]


def test_the_executors_death_is_an_error_and_another_is_started(agent: Agent) -> None:
    for _ in range(2):
        answer, body = agent.answer({"do": "run", "programs": [16]}, MALFORMED)
        assert "ended with code 65" in answer["error"]
        assert "executor: request refused: magic 0" in answer["error"]
        assert "wire.h" in answer["hint"]
        assert body == b""
    program = a_program(3)
    answer, body = agent.answer({"do": "run", "programs": [len(program)]}, program)
    assert split(body)[0][2].elements == (3,)


def test_a_missing_executor_is_an_error(tmp_path: Path, log: Log) -> None:
    answer, _ = Agent(str(tmp_path), log.reader).answer({"do": "run", "programs": [16]}, MALFORMED)
    assert "cannot start" in answer["error"]


@pytest.mark.parametrize(
    ("command_line", "place"),
    [
        ("quiet memmap=548M$0x20000000 nosmp", (512 << 20, 548 << 20)),
        ("memmap=1G$3G", (3 << 30, 1 << 30)),
        ("memmap=64K$0x10000 memmap=32M$0x20000000", (0x10000, 64 << 10)),
        ("memmap=512M memmap=4M@16M memmap=4M#16M", (0, 0)),
        ("quiet", (0, 0)),
    ],
)
def test_memory_that_the_kernel_leaves_alone_is_found(command_line: str, place: tuple[int, int]) -> None:
    assert kernel.reserved_memory(command_line) == place


def test_each_module_gets_its_part_of_the_reserved_memory(tmp_path: Path) -> None:
    ours, theirs, old = (tmp_path / name for name in ("hmm_harness.ko", "test_hmm.ko", "old.ko"))
    ours.write_bytes(b"\x7fELF\0parmtype=coherent_addr:array of ulong\0")
    theirs.write_bytes(b"\x7fELF\0parmtype=spm_addr_dev0:long\0parmtype=spm_addr_dev1:long\0")
    old.write_bytes(b"\x7fELF\0")

    def given(module: str, path: Path, mebibytes: int) -> str:
        return kernel.memory_parameters(module, str(path), (512 << 20, mebibytes << 20))

    assert given("hmm_harness", ours, 548) == f"coherent_addr={0x20000000},{0x21000000}"
    assert given("test_hmm", theirs, 548) == f"spm_addr_dev0={0x22000000} spm_addr_dev1={0x32000000}"
    assert given("hmm_harness", ours, 32) == f"coherent_addr={0x20000000},{0x21000000}"
    # No room for it, no such parameter, nobody who takes memory
    assert given("test_hmm", theirs, 543) == ""
    assert given("hmm_harness", ours, 31) == ""
    assert given("test_hmm", old, 548) == ""
    assert given("zram", ours, 548) == ""


def test_a_module_says_what_it_needs(tmp_path: Path) -> None:
    module = tmp_path / "zram.ko"
    module.write_bytes(b"\x7fELF\0license=GPL\0depends=zsmalloc,lzo-rle\0name=zram\0")
    assert kernel.needed_modules(str(module)) == ["zsmalloc", "lzo_rle"]
    module.write_bytes(b"\x7fELF\0softdepends=x\0depends=\0name=zram\0")
    assert kernel.needed_modules(str(module)) == []


def test_modules_are_loaded_behind_those_that_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"zram": "zsmalloc,lzo_compress", "zsmalloc": "", "lzo_compress": "", "lzo_rle": "crypto,lzo_compress"}
    for name, needed in needs.items():
        (tmp_path / f"{name}.ko").write_bytes(f"\0depends={needed}\0".encode())
    loaded: list[str] = []
    monkeypatch.setattr(kernel, "load_module", lambda path: loaded.append(Path(path).stem))
    monkeypatch.setattr(kernel, "_SWAP_DEVICE", "no such device")
    kernel.make_swap_space(str(tmp_path))
    assert list(dict.fromkeys(loaded)) == ["lzo_compress", "lzo_rle", "zsmalloc", "zram"]


@pytest.mark.parametrize("scans", ["0", "1"])
def test_huge_pages_are_there_when_khugepaged_has_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scans: str
) -> None:
    (tmp_path / "khugepaged").mkdir()
    (tmp_path / "khugepaged/full_scans").write_text(f"{scans}\n")
    monkeypatch.setattr(kernel, "_HUGE", str(tmp_path))
    monkeypatch.setattr(kernel, "_HUGE_SECONDS", 0.05)
    if scans == "0":
        with pytest.raises(AgentError, match="khugepaged did not look"):
            kernel.allow_huge_pages()
    else:
        kernel.allow_huge_pages()
    assert (tmp_path / "enabled").read_text() == "madvise"


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the module's parameters look like."""
    (tmp_path / "wrong").write_text("\n")
    (tmp_path / "wrong_names").write_text("skip-retry,short-invalidate\n")
    monkeypatch.setattr(kernel, "_PARAMETERS", str(tmp_path))
    return tmp_path


def test_mistakes_are_made_during_a_run_only(agent: Agent, parameters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = a_program(1)
    written: list[str] = []
    run_one = agent._run_one

    def spy(data: bytes, aside: str, listener: None) -> tuple[dict[str, Any], bytes]:
        written.append((parameters / "wrong").read_text())
        return run_one(data, aside, listener)

    monkeypatch.setattr(agent, "_run_one", spy)
    answer, _ = agent.answer({"do": "run", "wrong": ["skip-retry"], "programs": [len(program)]}, program)
    assert "error" not in answer
    assert written == ["skip-retry\n"]
    assert (parameters / "wrong").read_text() == "\n"
    answer, _ = agent.answer({"do": "run", "wrong": ["skip-retry"], "programs": [16]}, MALFORMED)
    assert "error" in answer
    assert (parameters / "wrong").read_text() == "\n"


def test_mistakes_need_the_module(agent: Agent, parameters: Path) -> None:
    shutil.rmtree(parameters)
    parameters.mkdir()
    answer, _ = agent.answer({"do": "run", "wrong": ["skip-retry"], "programs": []}, b"")
    assert "hmm_harness, which is not loaded" in answer["error"]


def test_mistakes_that_the_module_does_not_take_are_an_error(parameters: Path) -> None:
    (parameters / "wrong").unlink()
    (parameters / "wrong").symlink_to("/dev/full")  # a write fails, as for a name that the module does not know
    with pytest.raises(AgentError, match="refuses the mistakes nonsense") as caught:
        kernel.make_mistakes(["nonsense"])
    assert caught.value.hint == "it knows: skip-retry, short-invalidate"


def test_the_head_of_a_response_is_as_the_header_says() -> None:
    assert OUTCOME.size == ffi.sizeof("struct wire_outcome")
    numbers = (0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666, 0x7777)
    outcome: Any = ffi.from_buffer("struct wire_outcome *", OUTCOME.pack(*numbers))
    assert (outcome.magic, outcome.observations, outcome.length, *outcome.in_use) == numbers


def test_the_guest_needs_no_file_that_is_not_listed(tmp_path: Path) -> None:
    for name in GUEST_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-P", "-c", "import harness.guest.agent, harness.guest.warm as warm; warm.requests()"]
    subprocess.run(command, check=True, cwd="/", env={**os.environ, "PYTHONPATH": str(tmp_path)})


def test_the_agent_starts_without_what_takes_long_to_import() -> None:
    slow = {
        "cffi",
        "ctypes.util",
        "dataclasses",
        "inspect",
        "logging",
        "pathlib",
        "subprocess",
        "traceback",
        "typing",
    }
    # -S: this machine's site-packages may import anything
    command = [sys.executable, "-S", "-P", "-c", "import harness.guest.agent, sys; print(*sys.modules)"]
    output = subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True).stdout
    assert not slow & set(output.decode().split())


def test_all_sources_of_the_executor_are_listed() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "harness/guest/executor").iterdir()}
    assert files == {name for name in (*EXECUTOR_SOURCES, *EXECUTOR_HEADERS) if "/executor/" in name}
