# SPDX-License-Identifier: GPL-2.0-only
"""What the guest needs of this checkout, and how the executor is compiled: the payload is made from this.

Paths are relative to the root of the checkout, and the same below `/payload` in the guest.
"""

from __future__ import annotations

from pathlib import Path

WIRE_HEADER = "harness/guest/wire.h"
UAPI_HEADER = "kmod/include/uapi/hmm_harness.h"

# Copied as they are.
GUEST_FILES = (
    "harness/__init__.py",
    "harness/abi.py",
    "harness/guest/__init__.py",
    "harness/guest/agent.py",
    "harness/guest/cases.py",
    "harness/guest/events.py",
    "harness/guest/kernel.py",
    "harness/guest/leaks.py",
    "harness/guest/runner.py",
    "harness/guest/warm.py",
    "harness/guest/files.py",
    WIRE_HEADER,
    UAPI_HEADER,
)

EXECUTOR_SOURCES = (
    "harness/guest/executor/executor.c",
    "harness/guest/executor/request.c",
    "harness/guest/executor/worker.c",
    "harness/guest/executor/race.c",
    "harness/guest/executor/actor.c",
    "harness/guest/executor/subject.c",
    "harness/guest/executor/channel.c",
    "harness/guest/executor/interval.c",
    "harness/guest/executor/reaper.c",
    "harness/guest/executor/features.c",
    "harness/guest/executor/pool.c",
    "harness/guest/executor/pin.c",
    "harness/guest/executor/swap.c",
    "harness/guest/executor/pagemap.c",
    "harness/guest/executor/counters.c",
    "harness/guest/executor/kernelpages.c",
    "harness/guest/executor/ksm.c",
    "harness/guest/executor/truncate.c",
    "harness/guest/executor/userfault.c",
    "harness/guest/executor/test_hmm.c",
)
EXECUTOR_HEADERS = (
    "harness/guest/executor/executor.h",
    "harness/guest/executor/futex.h",
    "harness/guest/executor/token.h",
    WIRE_HEADER,
    UAPI_HEADER,
)

# The first process of the deterministic machine, which has no agent: harness/target/clockwork.py
MACHINE_INIT = "harness/guest/machine_init.c"
MACHINE_HEADERS = ("harness/guest/family.h", "kmod/include/uapi/hmm_harness_netlink.h", WIRE_HEADER)


def executor_compiler(root: Path, output: Path, *, test_hmm_header: Path | None, compiler: str = "gcc") -> list[str]:
    """The command that compiles the executor of the checkout `root` to `output`.

    `test_hmm_header` is the `lib/test_hmm_uapi.h` of the kernel under test; without it the executor has no
    `test_hmm` binding. Its numbers differ between kernels, so an executor is good for one kernel only.
    """
    return [
        compiler,
        "-static",  # the guest has no libc6-dev, and need not have this machine's libc
        "-O2",
        "-std=gnu11",
        *("-Wall", "-Wextra", "-Werror"),
        f"-I{root / 'harness/guest'}",  # wire.h
        f"-I{root / 'kmod/include/uapi'}",  # hmm_harness.h
        *([f"-I{test_hmm_header.parent}"] if test_hmm_header else []),
        *(str(root / source) for source in EXECUTOR_SOURCES),
        *("-o", str(output)),
    ]
