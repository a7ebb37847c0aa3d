# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's arguments, the accelerator's memory, and children that do not outlive us. No guest is booted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import BuildError, MissingError
from harness.target import accel
from harness.target.accel import Accelerator, accelerator, find_qemu, probe
from harness.target.artifacts import Image, Kernel, Payload
from harness.target.cache import Cache
from harness.target.children import end, run, spawn
from harness.target.qemu import Machine, Memory, Sockets, arguments, command_line

SOCKETS = Sockets(console=10, qmp=11, ready=12)
QEMU = Path("/usr/bin/qemu-system-x86_64")


@pytest.fixture
def machine() -> Machine:
    kernel = Kernel(
        "debian:6.1", "plain", "6.1.0", "00", Path("/k/bzImage"), Path("/k"), None, {}, Path("/k/.config")
    )
    image = Image("00", Path("/i/root.erofs"), Path("/i/key"), "ssh-ed25519 AAAA")
    return Machine(
        kernel,
        image,
        Payload("00", Path("/p/a,b.erofs")),
        memory_mib=300,
        reserved_mib=100,
        cpus=3,
        append="quiet nosmp",
    )


def values(argv: list[str], option: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == option]


def test_nothing_of_the_host_is_reachable(machine: Machine) -> None:
    argv = arguments(machine, QEMU, "tcg", SOCKETS, memory=None, incoming=False)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    (netdev,) = values(argv, "-netdev")
    assert "restrict=on" in netdev
    assert "hostfwd=tcp:127.0.0.1:0-:22" in netdev, "loopback only, and a port that is free"
    assert all("readonly=on" in drive for drive in values(argv, "-drive"))
    assert all("fd=" in chardev and "path=" not in chardev for chardev in values(argv, "-chardev"))


def test_a_comma_in_a_path_is_doubled(machine: Machine) -> None:
    argv = arguments(machine, QEMU, "tcg", SOCKETS, memory=Memory(Path("/m,1"), shared=True), incoming=False)
    assert any(drive.startswith("file=/p/a,,b.erofs,id=payload,") for drive in values(argv, "-drive"))
    assert values(argv, "-object") == ["memory-backend-file,id=ram,size=400M,mem-path=/m,,1,share=on"]


def test_a_machine_that_is_restored_differs_in_memory_and_incoming_only(machine: Machine) -> None:
    booted = arguments(machine, QEMU, "tcg", SOCKETS, memory=None, incoming=False)
    restored = arguments(machine, QEMU, "tcg", SOCKETS, memory=Memory(Path("/m"), shared=False), incoming=True)
    assert restored[-2:] == ["-incoming", "defer"]
    different = [(old, new) for old, new in zip(booted, restored, strict=False) if old != new]
    assert different == [
        ("memory-backend-ram,id=ram,size=400M", "memory-backend-file,id=ram,size=400M,mem-path=/m,share=off")
    ]


def test_cpus_and_memory_are_the_machines(machine: Machine) -> None:
    argv = arguments(machine, QEMU, "kvm", SOCKETS, memory=None, incoming=False)
    assert values(argv, "-smp") == ["3"]
    assert values(argv, "-m") == ["400M"]
    assert values(argv, "-accel") == ["kvm"]


def test_the_kernels_command_line_ends_with_the_users_words(machine: Machine) -> None:
    words = command_line(machine).split()
    assert words[-2:] == ["quiet", "nosmp"]
    assert {"console=ttyS0", "panic=-1", "nokaslr"} <= set(words)


def test_no_qemu_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError) as caught:
        find_qemu()
    assert caught.value.hint == "apt-get install qemu-system-x86"


@pytest.fixture
def kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A /dev/kvm that can be opened, and a QEMU, whatever this machine has."""
    device = tmp_path / "kvm"
    device.touch()
    qemu = tmp_path / "qemu"
    qemu.touch()
    monkeypatch.setattr(accel, "_KVM", device)
    monkeypatch.setattr(accel, "find_qemu", lambda: qemu)
    return qemu


def probes(monkeypatch: pytest.MonkeyPatch, answer: str) -> list[Path]:
    """Replaces the probe by one that says `answer`; returns the list of its calls."""
    calls: list[Path] = []

    def fake(qemu: Path) -> str:
        calls.append(qemu)
        return answer

    monkeypatch.setattr(accel, "probe", fake)
    return calls


def test_without_kvm_nothing_is_probed(kvm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del kvm
    calls = probes(monkeypatch, "")
    monkeypatch.setattr(accel, "_KVM", tmp_path / "absent")
    assert accelerator(Cache(tmp_path)).name == "tcg"
    assert calls == []


@pytest.mark.parametrize(("answer", "name"), [("", "kvm"), ("kvm does not run: why", "tcg")])
def test_the_probes_answer_is_remembered(
    kvm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, name: str
) -> None:
    del kvm
    calls = probes(monkeypatch, answer)
    cache = Cache(tmp_path / "cache")
    assert accelerator(cache) == accelerator(cache) == Accelerator(name, answer)
    assert len(calls) == 1


def test_another_qemu_is_probed_again(kvm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = probes(monkeypatch, "")
    accelerator(Cache(tmp_path / "cache"))
    kvm.write_text("upgraded")
    accelerator(Cache(tmp_path / "cache"))
    assert len(calls) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"key": 1})])
def test_a_spoilt_memory_is_no_answer(
    kvm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    del kvm
    calls = probes(monkeypatch, "no")
    (tmp_path / "accelerator.json").write_text(content)
    assert accelerator(Cache(tmp_path)).name == "tcg"
    assert len(calls) == 1


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_probe_that_hangs_is_ended(tmp_path: Path) -> None:
    qemu = script(tmp_path / "qemu", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    assert "did not run a boot sector" in probe(qemu, seconds=0.5)
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 85", ""),
        ("exit 0", "ended with status 0"),
        ("echo no permission >&2; exit 1", "no permission"),
        ("kill -ABRT $$", "SIGABRT"),
    ],
)
def test_only_the_boot_sectors_own_status_counts(tmp_path: Path, text: str, reason: str) -> None:
    said = probe(script(tmp_path / "qemu", text), seconds=10.0)
    assert said == "" if not reason else reason in said


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within a time that only a broken machine needs."""
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import threading, time\n"
        "from harness.target.children import spawn\n"
        # forked on behalf of a thread that ends: the child must live on, and die with the process
        "thread = threading.Thread(target=lambda: print(spawn(['sleep', '1000']).pid, flush=True))\n"
        "thread.start(); thread.join()\n"
        "print('joined', flush=True)\n"
        "time.sleep(1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "joined\n"
        assert eventually(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()
    assert eventually(lambda: not alive(child))


def test_ending_a_child_ends_its_children_too(tmp_path: Path) -> None:
    process = spawn(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"])
    assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    assert end(process) == -signal.SIGKILL
    assert eventually(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_what_a_failed_tool_said_is_in_the_error() -> None:
    with pytest.raises(BuildError, match=r"(?s)packing it failed with status 3.*no room"):
        run(["sh", "-c", "echo no room; exit 3"], what="packing it")


def test_a_tool_gets_its_input_and_returns_its_output() -> None:
    assert run(["cat"], what="copying", stdin=b"x" * 200_000) == "x" * 200_000


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="status 127"):
        run([tmp_path / "absent"], what="nothing")


def test_children_are_in_a_session_of_their_own() -> None:
    process = spawn(["sleep", "1000"])
    try:
        assert os.getsid(process.pid) == process.pid, "Ctrl-C reaches us alone"
    finally:
        end(process)
