# SPDX-License-Identifier: GPL-2.0-only
"""Coherent memory in a guest: what is kept from the kernel for it, who gets it, and that none of it is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.model.rules import RULES
from harness.program.text import parse
from harness.progress import Progress
from harness.run import Plan, run
from harness.target.cache import Cache
from harness.target.lab import Lab
from harness.target.vm import Machine, start
from harness.target.watchdog import complaints
from tests.guest_executor import mapped, operation, request

pytestmark = pytest.mark.vm

_PARAMETERS = "/sys/module/hmm_harness/parameters"
_MODULE = "/payload/modules/hmm_harness.ko"
SECONDS = 60.0


@pytest.fixture
def coherent(lab: Lab) -> Iterator[Lab]:
    """A VM that has coherent memory; a clean one afterwards."""
    if "INTERVAL_COHERENT" not in lab.features():
        pytest.skip("needs MEMORY_DEVICE_COHERENT, as it is since v6.1")
    yield lab
    lab.discard()


def exec(lab: Lab, command: str) -> str:
    status, output = lab.vm().exec(command, timeout=SECONDS)
    assert status == 0, output
    return output


def said(lab: Lab) -> list[str]:
    """What the kernel complained about."""
    return complaints([*exec(lab, "dmesg").splitlines(), *lab.vm().console.splitlines()], 0)


def test_it_is_in_memory_that_the_kernel_does_not_use(coherent: Lab) -> None:
    addresses = [int(each) for each in exec(coherent, f"cat {_PARAMETERS}/coherent_addr").split(",")]
    memory = exec(coherent, "cat /proc/iomem").splitlines()
    for number, address in enumerate(addresses):
        (line,) = (line for line in memory if line.endswith(f" : hmm_harness{2 + number}"))
        assert line.strip().startswith(f"{address:08x}-")
    ram = [line.split()[0].split("-") for line in memory if line.endswith("System RAM")]
    assert all(int(last, 16) < min(addresses) for _, last in ram)
    pages = RULES["interval"].coherent_pages
    shown = exec(coherent, "cat /sys/kernel/debug/hmm_harness/hmm_harness2")
    assert f"coherent memory at {addresses[0]:#018x}" in shown
    assert f"pages: {pages}, of these free {pages}" in shown


def test_what_is_reserved_costs_nothing_where_a_vm_is_kept(machine: Machine, cache: Cache) -> None:
    with start(machine, cache=cache, progress=Progress(StringIO())) as vm:
        if not vm.restored:
            pytest.skip("VMs cannot be saved here")
    size = machine.memory_mib + machine.reserved_mib << 20
    memories = [path for path in cache.root.glob("vm/*/ram") if path.stat().st_size == size]
    assert memories
    for memory in memories:
        # The firmware works at the end of memory, in pieces of it.
        assert _kept(memory, machine.memory_mib << 20) <= 8 << 20


def _kept(path: Path, start: int) -> int:
    """Bytes of `path` from `start` on that its file system keeps."""
    total = 0
    with path.open("rb") as file:
        while True:
            try:
                data = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:  # ENXIO: there are no more
                return total
            start = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            total += start - data


def test_the_accounts_of_coherent_memory_are_looked_at_where_it_is_used(coherent: Lab) -> None:
    """Also if pages were lost."""
    steps = [mapped(2), operation("BIND", 2), operation("WRITE", npages=2, value=1)]
    program = request([*steps, operation("TO_DEVICE", 2, npages=2)])
    for wrong, pages in (([], 0), (["leak-device-page"], 2)):
        answer, _ = coherent.vm().call({"do": "run", "wrong": wrong, "programs": [len(program)]}, program, timeout=60)
        assert answer["results"][0]["residue"] == {"d0": 0, "d1": 0, "c0": pages}


def test_a_leak_of_coherent_memory_fails(coherent: Lab) -> None:
    (program,) = catalogue.select(["coherent/unmap"])
    (result,) = run(Plan([program], ["interval"], wrong=["leak-device-page"]), coherent)
    assert result.status is Verdict.FAIL


def test_the_module_goes_and_comes_with_pages_in_coherent_memory(coherent: Lab) -> None:
    """Processes that have some keep their contents."""
    text = "a: map buf anon 4 rw\na: write buf 7\nc0: bind a\nc0: to-device buf\nc0: snapshot buf\n"
    program = parse(text, file="x.hmm")
    vm = coherent.vm()
    for _ in range(20):
        for verb in ("unload", "load"):
            answer, _body = vm.call({"do": verb, "module": "hmm_harness"}, timeout=60)
            assert "error" not in answer, answer
        (result,) = run(Plan([program], ["interval"]), coherent)
        assert result.status is Verdict.PASS, "\n".join(result.explanation)
        assert coherent.vm() is vm
    assert said(coherent) == []


# Migrates a page to hmm_harness2, closes the device, and looks what is there when it is told to.
_HOLDER = """
import ctypes, fcntl, mmap, os, struct
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
page[:4] = b"kept"
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
device = os.open("/dev/hmm_harness2", os.O_RDWR)
fcntl.ioctl(device, 0xD801, struct.pack("=II", 8, 0))
seen = (ctypes.c_uint64 * 1)()
fcntl.ioctl(device, 0xD807, struct.pack("=IIQQQQQQ", 56, 1, address, 1, ctypes.addressof(seen), 0, 0, 0))
assert seen[0] == 0x90, seen[0]
os.close(device)
open("/tmp/moved", "w").close()
while not os.path.exists("/tmp/gone"):
    pass
assert page[:4] == b"kept"
print("kept")
"""


# ... and has it to itself before
_EXCLUSIVE = """
fcntl.ioctl(device, 0xD813, struct.pack("=IIQQQQQQ", 56, 0, address, 1, ctypes.addressof(seen), 0, 0, 0))
assert seen[0] == 0x8013, seen[0]
"""


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_process_keeps_what_it_had_there_when_the_module_goes(coherent: Lab, exclusive: bool) -> None:
    """Also what the device had to itself, and gave back to the process when it was closed."""
    if exclusive and not {"MAKE_DEVICE_EXCLUSIVE", "MAKE_DEVICE_EXCLUSIVE_RANGE"} & set(coherent.features()):
        pytest.skip("needs make_device_exclusive()")
    holder = _HOLDER.replace("os.close(", _EXCLUSIVE + "os.close(") if exclusive else _HOLDER
    exec(coherent, f"cat > /tmp/holder.py <<'END'\n{holder}\nEND")
    wait = "while [ ! -e /tmp/moved ]; do kill -0 $! || exit 1; done"
    output = exec(
        coherent,
        f"python3 /tmp/holder.py > /tmp/said 2>&1 & {wait}; rmmod hmm_harness || exit 1; touch /tmp/gone; wait; "
        "cat /tmp/said",
    )
    assert output.strip() == "kept"
    assert said(coherent) == []


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ("0x20000000", "has 1 addresses, not 2"),
        ("0x20000000,0x21001000", "no multiple of 2 MiB"),
        ("0,0x21000000", "no multiple of 2 MiB"),
        ("0x1000000,0x21000000", "not free for coherent memory"),  # System RAM
        ("0x20000000,0x20800000", "not free for coherent memory"),  # they overlap
    ],
)
def test_memory_that_will_not_do_is_refused(coherent: Lab, addresses: str, reason: str) -> None:
    command = f"rmmod hmm_harness; dmesg -c > /dev/null; insmod {_MODULE} coherent_addr={addresses}; echo status $?"
    assert "status 0" not in exec(coherent, command)
    assert reason in exec(coherent, "dmesg")
    assert said(coherent) == []
    exec(coherent, f"insmod {_MODULE} && test ! -e /dev/hmm_harness2 && test -e /dev/hmm_harness1")


def test_a_module_without_memory_of_its_own_has_no_coherent_devices(coherent: Lab) -> None:
    exec(coherent, f"rmmod hmm_harness; insmod {_MODULE} devmem_mb=0 coherent_addr=0x20000000,0x21000000")
    exec(coherent, "test ! -e /dev/hmm_harness2 && test -e /dev/hmm_harness1")
