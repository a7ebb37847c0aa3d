# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness list`, `fuzz`, `bench`, `doctor`, `clean`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli.options import add_kernel, open_cache, seconds
from harness.errors import ExitCode
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands


def add(commands: Commands) -> None:
    """Adds the commands to the parser."""
    command = commands.add_parser("list", help="list the programs that come with the product")
    command.set_defaults(run_command=_list)
    command.add_argument("program", nargs="*", help="names or patterns (default: all)")

    command = commands.add_parser("fuzz", help="throw random ioctls at the module and read the kernel log")
    command.set_defaults(run_command=_fuzz)
    add_kernel(command)
    command.add_argument("--seconds", type=seconds, default=60.0, help="how long (default: 60)")
    command.add_argument("--seed", type=int, help="repeat the run with this seed (default: a new one)")
    command.add_argument("--wrong", action="store_true", help="switch deliberate mistakes on and off meanwhile")

    command = commands.add_parser("bench", help="measure boot, restore, round trip and operations per second")
    command.set_defaults(run_command=_bench)
    add_kernel(command)

    command = commands.add_parser("doctor", help="say what is missing on this machine, and the command that fixes it")
    command.set_defaults(run_command=_doctor)

    command = commands.add_parser("clean", help="remove built kernels, images and saved VMs from the cache")
    command.set_defaults(run_command=_clean)


def _list(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.conformance import catalogue

    for program in catalogue.select(options.program):
        print(f"{program.name:36}  {program.title}")
    return ExitCode.PASS


def _fuzz(options: argparse.Namespace, progress: Progress) -> int:
    from harness.explore import ioctl_fuzz

    return ioctl_fuzz.main(
        options.kernel,
        options.flavour,
        seconds=options.seconds,
        seed=options.seed,
        wrong=options.wrong,
        cache=open_cache(),
        progress=progress,
    )


def _bench(options: argparse.Namespace, progress: Progress) -> int:
    from harness import bench

    bench.main(options.kernel, options.flavour, cache=open_cache(), progress=progress)
    return ExitCode.PASS


def _doctor(_options: argparse.Namespace, _progress: Progress) -> int:
    from harness.target import doctor

    return doctor.main()


def _clean(_options: argparse.Namespace, progress: Progress) -> int:
    freed = open_cache().clean(progress=progress)
    print(f"removed {freed / 2**20:.0f} MiB from the cache")
    return ExitCode.PASS
