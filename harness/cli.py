# SPDX-License-Identifier: GPL-2.0-only
"""The program `hmm-harness`: reads the command line and calls the room that does the work.

Everything that is slow to import is imported where it is used: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness.errors import ExitCode, HarnessError, UsageError
from harness.progress import Progress

if TYPE_CHECKING:
    from types import FrameType

    from harness.target.cache import Cache

BINDINGS = ("interval", "test_hmm")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the result is the exit code (`harness.errors.ExitCode`)."""
    # A caller may have closed them; what is printed then goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  for good
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    progress = Progress()
    debug = False
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGHUP, _interrupt)
        options = _parser().parse_args(arguments)
        debug = options.debug
        return int(options.command(options, progress))
    except HarnessError as error:
        if debug:
            raise
        progress.say(f"hmm-harness: {error.message}")
        if error.hint:
            progress.say(f"hint: {error.hint}")
        return error.exit_code
    except KeyboardInterrupt:
        progress.say("hmm-harness: interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INTERRUPTED
    except OSError as error:
        if debug:
            raise
        progress.say(f"hmm-harness: {error}")
        progress.say("hint: is there space and permission there? `hmm-harness --debug ...` shows where it happened")
        return ExitCode.INFRASTRUCTURE
    except Exception:  # noqa: BLE001  status 1 would say that a kernel diverged
        progress.say(traceback.format_exc().rstrip())
        progress.say("hmm-harness: this is a bug of hmm-harness, not of a kernel; no verdict")
        return ExitCode.INFRASTRUCTURE


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code.value:3}  {code.meaning}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        prog="hmm-harness",
        description="Checks a Linux kernel's Heterogeneous Memory Management against a reference model, in QEMU.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback for expected errors, too")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="run programs on a kernel and in the model, and compare")
    command.set_defaults(command=_run)
    command.add_argument("program", nargs="*", help="a file, a name, or a pattern of names (default: all)")
    _add_kernel(command)
    command.add_argument(
        "--binding", action="append", choices=BINDINGS, help="the driver to run on; may be repeated (default: all)"
    )
    command.add_argument(
        "--wrong", default="", metavar="NAME,...", help="switch on deliberate mistakes of the driver (interval only)"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object per result to FILE")
    command.add_argument("--timeout", type=_seconds, default=30.0, help="seconds for one program (default: 30)")
    command.add_argument("--no-restore", action="store_true", help="boot each VM instead of restoring a saved one")

    command = commands.add_parser("list", help="list the programs that come with the product")
    command.set_defaults(command=_list)
    command.add_argument("program", nargs="*", help="names or patterns (default: all)")

    command = commands.add_parser("fuzz", help="throw random ioctls at the module and read the kernel log")
    command.set_defaults(command=_fuzz)
    _add_kernel(command)
    command.add_argument("--seconds", type=_seconds, default=60.0, help="how long (default: 60)")
    command.add_argument("--seed", type=int, help="repeat the run with this seed (default: a new one)")
    command.add_argument("--wrong", action="store_true", help="switch deliberate mistakes on and off meanwhile")

    command = commands.add_parser("bench", help="measure boot, restore, round trip and operations per second")
    command.set_defaults(command=_bench)
    _add_kernel(command)

    command = commands.add_parser("doctor", help="say what is missing on this machine, and the command that fixes it")
    command.set_defaults(command=_doctor)

    command = commands.add_parser("clean", help="remove built kernels, images and saved VMs from the cache")
    command.set_defaults(command=_clean)
    return parser


def _add_kernel(command: argparse.ArgumentParser) -> None:
    command.add_argument("--kernel", default="debian:6.1", help="the kernel under test (default: %(default)s)")
    command.add_argument("--flavour", default="plain", help="its configuration (default: %(default)s)")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 86400")
    return value


def _cache() -> Cache:
    from harness.target.cache import Cache

    return Cache()


def _fuzz(options: argparse.Namespace, progress: Progress) -> int:
    from harness.explore import ioctl_fuzz

    return ioctl_fuzz.main(
        options.kernel,
        options.flavour,
        seconds=options.seconds,
        seed=options.seed,
        wrong=options.wrong,
        cache=_cache(),
        progress=progress,
    )


def _run(options: argparse.Namespace, progress: Progress) -> int:
    from harness.conformance import catalogue
    from harness.report.results import Store, exit_code
    from harness.report.terminal import Table

    programs = catalogue.select(options.program)
    from harness.run import Plan, run
    from harness.target.lab import Lab, prepare

    wrong = [name for name in options.wrong.split(",") if name]
    if wrong and "test_hmm" in (options.binding or ()):
        raise UsageError(
            "test_hmm is the kernel's own and makes no deliberate mistakes",
            hint="--wrong goes with --binding interval",
        )
    bindings = list(dict.fromkeys(options.binding or (["interval"] if wrong else BINDINGS)))
    started = time.monotonic()
    cache = _cache()
    plan = Plan(programs, bindings, wrong, options.timeout, _own_command())
    with Store(options.json) as store:
        machine = prepare(options.kernel, options.flavour, cache=cache, progress=progress)
        with Lab(machine, cache=cache, progress=progress, restore=not options.no_restore) as lab:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            table = Table([program.name for program in programs], bindings, progress, out=sys.stdout, colour=colour)
            table.head(lab.vm().banner)
            statuses = set()
            try:
                for result in run(plan, lab):
                    store.add(result)
                    table.add(result)
                    statuses.add(result.status)
            finally:  # also what was found until then is shown
                kernel = f"{machine.kernel.name} ({machine.kernel.flavour})"
                what = f"{len(programs)} programs x {len(bindings)} bindings on {kernel}"
                table.foot(what, len(programs) * len(bindings), time.monotonic() - started)
    return exit_code(statuses)


def _own_command() -> tuple[str, ...]:
    """How a person would start this program from here."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return (Path(sys.executable).name, "-m", "harness")
    if "/" not in sys.argv[0]:
        return (sys.argv[0],)
    here = Path.cwd()
    return (str(path.relative_to(here) if path.is_relative_to(here) else path),)


def _list(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.conformance import catalogue

    for program in catalogue.select(options.program):
        print(f"{program.name:36}  {program.title}")
    return ExitCode.PASS


def _bench(options: argparse.Namespace, progress: Progress) -> int:
    from harness import bench

    bench.main(options.kernel, options.flavour, cache=_cache(), progress=progress)
    return ExitCode.PASS


def _doctor(_options: argparse.Namespace, _progress: Progress) -> int:
    from harness.target import doctor

    return doctor.main()


def _clean(_options: argparse.Namespace, progress: Progress) -> int:
    freed = _cache().clean(progress=progress)
    print(f"removed {freed / 2**20:.0f} MiB from the cache")
    return ExitCode.PASS


if __name__ == "__main__":
    sys.exit(main())
