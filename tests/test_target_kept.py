# SPDX-License-Identifier: GPL-2.0-only
"""Notes of kept VMs, the process that stays behind, and the commands that are printed. No VM is started."""

from __future__ import annotations

import json
import os
import shlex
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.errors import GuestError, UsageError
from harness.target import kept as kept_module
from harness.target.artifacts import Image, Kernel, Payload
from harness.target.byhand import by_hand
from harness.target.cache import Cache
from harness.target.catch import Catch
from harness.target.gdb import add_symbol_file, command, without_symbols
from harness.target.keeper import insist
from harness.target.kept import Kept, find, is_there, kept_vms, new_note, stop
from harness.target.vm import Machine


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where notes are in this test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "hmm-harness" / "vms"


@contextmanager
def _noted(keeper: int = 0) -> Iterator[Kept]:
    with new_note() as (name, file):
        kept = Kept(name, keeper or os.getpid(), 1, 22, "debian:6.1", "plain", "6.1", "r", "k", "h", "2026", "a test")
        file.write(json.dumps(asdict(kept)).encode())
        file.flush()
        yield kept


def test_names_are_the_first_that_are_free(state: Path) -> None:
    with _noted() as one, _noted() as two:
        assert [one.name, two.name] == ["vm1", "vm2"]
        assert kept_vms() == [one, two]
        assert find("vm2") == two
    with _noted() as again:
        assert again.name == "vm1"
    assert list(state.iterdir()) == []


def test_a_note_that_nobody_holds_is_removed(state: Path) -> None:
    with _noted() as kept:
        text = (state / "vm1").read_text()
    (state / "vm7").write_text(text)
    assert not is_there(kept)
    assert kept_vms() == []
    assert list(state.iterdir()) == []


def test_a_vm_that_is_not_there() -> None:
    with _noted() as kept, pytest.raises(UsageError, match="no VM 'vm9'") as caught:
        find("vm9")
    assert caught.value.hint is not None
    assert "vm1" in caught.value.hint
    with pytest.raises(GuestError, match="vm1 has ended"):
        insist(kept)


_KEEPER = """
import sys, time
sys.path.insert(0, {checkout!r})
from tests.test_target_kept import _noted
with _noted():
    print("noted", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_stopping_ends_the_keeper(state: Path, monkeypatch: pytest.MonkeyPatch, *, stubborn: bool) -> None:
    monkeypatch.setattr(kept_module, "_STOP_SECONDS", 1.0)
    checkout = str(Path(__file__).parents[1])
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    keeper = subprocess.Popen(
        [sys.executable, "-c", ignore + _KEEPER.format(checkout=checkout)], stdout=subprocess.PIPE, text=True
    )
    assert keeper.stdout is not None
    try:
        assert keeper.stdout.readline() == "noted\n"
        stop(find("vm1"))
        assert keeper.wait() == -(signal.SIGKILL if stubborn else signal.SIGTERM)
        assert kept_vms() == []
        assert list(state.iterdir()) == []
    finally:
        keeper.kill()
        keeper.wait()


_STAY = """
import os, sys, time
from harness.target.keeper import stay_behind
keeper = stay_behind()
print(os.getpid(), flush=True)
"""


def _stay(then: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _STAY + then], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("then", "status"),
    [("sys.exit(5)", 5), ("os.kill(os.getpid(), 9)", 137), ("keeper._let_go(7); time.sleep(60)", 7)],
)
def test_the_parent_ends_as_the_child_says(then: str, status: int) -> None:
    with _stay(then) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.read() == ""  # nobody holds it open
        assert parent.wait() == status
    if "_let_go" in then:
        assert os.getsid(child) == child
        os.kill(child, signal.SIGKILL)


def test_a_child_ends_with_its_parent() -> None:
    with _stay("time.sleep(60)") as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        assert parent.stdout.read() == ""  # the child, which holds it too, has ended


def test_a_signal_to_the_parent_reaches_the_child() -> None:
    with _stay("time.sleep(60)") as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.terminate()
        assert parent.wait() in (128 + signal.SIGTERM, -signal.SIGTERM)
        assert parent.stdout.read() == ""


class FakeVM:
    """A VM that only tells whether it runs."""

    def __init__(self, *, running: bool) -> None:
        self.running = running
        self.held = False

    def hold(self) -> None:
        """Notes that it is to go on."""
        self.held = True


def test_the_first_vm_that_runs_is_caught_and_ended_at_last() -> None:
    ended: list[str] = []
    with Catch() as catch:
        for name, running in (("dead", False), ("first", True), ("second", True)):
            stack = ExitStack()
            stack.callback(ended.append, name)
            catch.take(FakeVM(running=running), stack, name)  # type: ignore[arg-type]
            stack.close()
        assert catch.reason == "first"
        assert ended == ["dead", "second"]
    assert ended == ["dead", "second", "first"]


def test_the_line_for_gdb() -> None:
    sections = "==> .text <==\n0xffffffffa0000000\n\n==> .data <==\n0xffffffffa0007024\n"
    assert add_symbol_file("/a b/x.ko", sections) == (
        "add-symbol-file '/a b/x.ko' 0xffffffffa0000000 -s .data 0xffffffffa0007024"
    )


def test_a_printed_command_needs_nothing_of_us(tmp_path: Path) -> None:
    kernel = Kernel(
        name="debian:6.1", flavour="plain", release="6.1", key="00", image=Path("/k,ern el"), build=tmp_path,
        source=None, modules={}, config=Path("/c"),
    )  # fmt: skip
    image = Image(key="00", root=Path("/root.erofs"), client_key=Path("/key"), host_key="ssh-ed25519 AAAA")
    machine = Machine(kernel, image, Payload(key="00", path=Path("/payload")), append="a=b")
    text = by_hand(machine, cache=Cache(tmp_path), gdb=0)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    qemu, ssh, gdb = (shlex.split(line) for line in lines)
    assert "fd=" not in text
    assert qemu[qemu.index("-kernel") + 1] == "/k,ern el"
    assert qemu[qemu.index("-append") + 1].endswith("a=b")
    assert "-S" in qemu
    port = ssh[ssh.index("-p") + 1]
    assert f"hostfwd=tcp:127.0.0.1:{port}-:22" in text
    assert "KnownHostsCommand=/bin/echo hmm-guest ssh-ed25519 AAAA" in ssh
    chosen = gdb[2].rpartition(":")[2]
    assert f"port={chosen}," in text
    assert len(gdb) == 3
    assert "# gdb will know addresses only" in text
    _write_elf(tmp_path / "vmlinux", "", ".text", ".symtab", ".strtab")
    text = by_hand(machine, cache=Cache(tmp_path), gdb=0)
    assert text.endswith(f" {tmp_path}/vmlinux")
    assert "addresses only" not in text


def _write_elf(path: Path, *sections: str) -> None:
    """An ELF file with nothing but the names of its sections: header, names, table."""
    names = b"".join(name.encode() + b"\0" for name in sections)
    header = bytearray(b"\x7fELF\x02\x01".ljust(64, b"\0"))
    struct.pack_into("<Q", header, 0x28, 64 + len(names))
    struct.pack_into("<3H", header, 0x3A, 64, len(sections), len(sections) - 1)
    entries = b""
    for name in sections:
        entries += struct.pack("<I20xQQ24x", names.index(name.encode() + b"\0"), 64, len(names))
    path.write_bytes(bytes(header) + names + entries)


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("stock:newest", "debian:7.3 is built with them"),
        (
            "host",
            "linux-image-7.3.4+deb13-amd64-dbg has them, in usr/lib/debug/boot/vmlinux-7.3.4+deb13-amd64",
        ),
        ("image:/a/bzImage,kdir=/b", "vmlinux, of the build, would have them"),
    ],
)
def test_gdb_is_given_no_vmlinux_without_the_kernel_in_it(tmp_path: Path, name: str, has: str) -> None:
    """As the one of Debian's headers, which has BTF and a symbol table of nothing else."""
    kernel = Kernel(
        name=name, flavour="plain", release="7.3.4+deb13-amd64", key="00", image=tmp_path, build=tmp_path,
        source=None, modules={}, config=tmp_path,
    )  # fmt: skip
    vmlinux = tmp_path / "vmlinux"
    for sections in (("", ".BTF", ".BTF_ids", ".symtab", ".strtab", ".shstrtab"), ("", ".text", ".shstrtab")):
        _write_elf(vmlinux, *sections)
        assert command(kernel, 1234) == ["gdb", "-ex", "target remote 127.0.0.1:1234"]
        assert has in without_symbols(kernel)
    _write_elf(vmlinux, "", ".text", ".symtab")
    assert without_symbols(kernel) == ""
    assert command(kernel, 1234)[3:] == [str(vmlinux)]
    whole = vmlinux.read_bytes()
    for cut in (b"", whole[:40], whole[:70], whole[:-64], b"#!/bin/sh\n" * 20):
        vmlinux.write_bytes(cut)
        assert without_symbols(kernel)
