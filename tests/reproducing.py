# SPDX-License-Identifier: GPL-2.0-only
"""C reproducers, compiled as whoever gets one by mail would, and run in a VM."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.target.places import CHECKOUT
from harness.target.vm import VM

WRONG = "/sys/module/hmm_harness/parameters/wrong"


def run_c(vm: VM, text: str, directory: Path, wrong: str = "") -> tuple[int, str]:
    """Status and output of a C program in the guest, with the driver wrong in that way. A warning is a failure."""
    source, program = directory / "reproducer.c", directory / "reproducer"
    source.write_text(text)
    argv = ["gcc", "-static", "-Wall", "-Wextra", "-Werror", f"-I{CHECKOUT}/kmod/include/uapi", "-o"]
    subprocess.run([*argv, program, source], check=True)
    vm.put("/tmp/reproducer", program.read_bytes())
    status, output = vm.exec(
        f"echo '{wrong}' > {WRONG} || exit 3; timeout 60 /tmp/reproducer; status=$?; echo > {WRONG}; exit $status",
        timeout=90.0,
    )
    return status, output
