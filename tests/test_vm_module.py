# SPDX-License-Identifier: GPL-2.0-only
"""The module comes and goes without a word from the kernel."""

from __future__ import annotations

import pytest

from harness.conformance import catalogue
from harness.model.rules import RULES
from harness.run import Plan, run
from harness.target.lab import Lab
from harness.target.watchdog import complaints

pytestmark = pytest.mark.vm


def test_the_module_unloads_and_loads_again(lab: Lab) -> None:
    """Also with pages in device memory whose process lives on after its device was closed."""
    vm = lab.vm()
    for _ in range(5):
        for verb in ("unload", "load"):
            answer, _body = vm.call({"do": verb, "module": "hmm_harness"}, timeout=60)
            assert "error" not in answer, answer
        list(run(Plan(catalogue.select(["devmem/unbind"]), ["interval"]), lab))
        assert lab.vm() is vm
    status, log = vm.exec("dmesg", timeout=30)
    assert status == 0
    assert complaints([*log.splitlines(), *vm.console.splitlines()], 0) == []


def test_a_device_has_the_memory_that_the_model_thinks(lab: Lab) -> None:
    _, output = lab.vm().exec("cat /sys/module/hmm_harness/parameters/devmem_mb", timeout=30)
    assert RULES["interval"].device_pages == int(output) * 256


def test_a_module_in_use_does_not_go(lab: Lab) -> None:
    command = "sleep 5 < /dev/hmm_harness0 & sleep 1; rmmod hmm_harness; echo status $?"
    _, output = lab.vm().exec(command, timeout=60)
    assert "status 0" not in output
    assert "in use" in output or "busy" in output.lower() or "unavailable" in output.lower(), output


# Of a page in device memory: how often it is mapped, and references; alone, with a child, and alone again
_COUNTS = """
import ctypes, fcntl, mmap, os, struct
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
page[:4] = b"kept"
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
device = os.open("/dev/hmm_harness0", os.O_RDWR)
fcntl.ioctl(device, 0xD801, struct.pack("=II", 8, 0))
fcntl.ioctl(device, 0xD807, struct.pack("=IIQQQQQQ", 56, 1, address, 1, 0, 0, 0, 0))
def count():
    seen = (ctypes.c_uint64 * 1)()
    form = "=IIQQIIII11Q"
    rest = [0, 0, 0, ctypes.addressof(seen), *[0] * 7]
    args = struct.pack(form, struct.calcsize(form), 0, address, 1, 0, 0, 0, 0, *rest)
    fcntl.ioctl(device, 0xD810, args)
    print(seen[0] >> 32, seen[0] & 0xffffffff, flush=True)
count()
if os.fork() == 0:
    count()
    os._exit(0)
os.wait()
count()
page[:4] = b"home"
count()
"""


def test_references_to_device_memory_can_be_seen(lab: Lab) -> None:
    if "DEVMEM" not in lab.features():
        pytest.skip("needs device-private memory")
    status, output = lab.vm().exec(f"python3 - <<'END'\n{_COUNTS}\nEND", timeout=60)
    assert status == 0, output
    assert output.splitlines() == ["1 1", "2 2", "1 1", "0 0"]
