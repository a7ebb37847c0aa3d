# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness fuzz --reload N`: who uses the module is killed at any moment, and the module goes and comes back."""

from __future__ import annotations

from harness.explore.assault import Hear, run_in_guest
from harness.program.program import Program
from harness.program.text import parse
from harness.target.vm import VM
from harness.target.wire import encode

_SECONDS = 120.0  # to begin and to end
_SECONDS_PER_ROUND = 15.0  # half a second, unless the kernel is a debug kernel, emulated, on a busy machine
_MODULE = "/payload/modules/hmm_harness.ko"
_EXECUTOR = "/payload/bin/executor"
_REQUEST = "/tmp/reload.request"

# What the kernel itself warns of when an allocation fails on purpose while it loads a module: arch/x86/mm/init_64.c
# add_pages(), for device memory, and kernel/trace/trace_events.c event_define_fields(), before our code runs.
_PARDONED = frozenset({"WARNING in add_pages", "WARNING in event_define_fields"})

_ROUND = """\
a: write buf 1
d0: to-device buf
d1: read buf[64:128]
a: read buf[0:64]
d0: write buf 5
a: advise buf dontneed
"""
_PROGRAM = f"""\
a: map buf anon 128 rw
d0: bind a
d1: bind a
a: write buf 1
d0: to-device buf
a: fork b
{_ROUND * 100}"""


def program() -> Program:
    """What an executor is at when it is killed: it takes all of its devices' operations, for longer than it lives."""
    return parse(_PROGRAM, file="reload", name="reload")


def reload(
    vm: VM, *, rounds: int, seed: int, binding: str = "interval", hear: Hear = lambda _: None
) -> tuple[int, str, list[str]]:
    """Kills and unloads `rounds` times; `binding` is the executor's, its subjects besides use all.

    The status and output of the program that does it, and what in the kernel's log is never fine.
    """
    vm.pardoned = _PARDONED
    request = encode(program(), binding, 60.0)
    arguments = ["-m", _MODULE, "-n", f"{rounds}", "-s", f"{seed}", "-x", _EXECUTOR, "-q", _REQUEST]
    seconds = _SECONDS + rounds * _SECONDS_PER_ROUND
    return run_in_guest(vm, "reload.c", arguments, seconds=seconds, files={_REQUEST: request}, hear=hear)
