# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness vm`: a VM to work in by hand."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING

from harness.cli import candidates
from harness.cli.options import CONFIGURED, Command, add_gdb, add_kernel, completed, manual, open_cache, own_command
from harness.errors import ExitCode, UsageError
from harness.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import paramiko

    from harness.cli.options import Commands
    from harness.target.keeper import Keeper
    from harness.target.vm import VM, Machine

    Use = Callable[[paramiko.Channel, Callable[[], None]], int]

_SHELL = r"cd /tmp; export PS1='\h:\w\$ '; exec sh -i"  # of busybox
_PIPED = "cd /tmp; exec sh"
_STATUS = """\
            The exit status is the command's own, 128 and the signal's number if one ended it. What hmm-harness has
            to say itself begins with "hmm-harness:" on standard error, and then the status is one of its own: 3 if
            QEMU died, 5 if the guest's kernel panicked, 130 after Ctrl-C outside of the guest."""
_FILES = (
    ("$XDG_CACHE_HOME/hmm-harness", "kernels, images and saved VMs (default: ~/.cache/...)"),
    ("$XDG_STATE_HOME/hmm-harness/vms", "a note of each VM that is kept (default: ~/.local/state/...)"),
)


def add(commands: Commands) -> None:
    """Adds the commands to the parser."""
    group = manual(
        commands,
        "vm",
        help="work in a VM by hand: shell, exec, list, stop",
        description="A VM of a kernel with the modules loaded, to work in by hand.",
        examples=(
            ("vm shell", "a shell in a VM of the default kernel"),
            ("vm exec --kernel debian:6.12 uname -r", "one command"),
        ),
    )
    vms = group.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Command)
    _add_shell(vms)
    _add_exec(vms)
    command = manual(
        vms,
        "list",
        help="list the VMs that are kept",
        description="Lists the VMs that --keep left running, with the command that reaches each with OpenSSH.",
        examples=(("vm list", "name, kernel, since when, and why"),),
        files=_FILES[1:],
    )
    command.set_defaults(run_command=_list)
    command = manual(
        vms,
        "stop",
        help="end VMs that are kept",
        description="Ends VMs that --keep left running. Nothing of them is left.",
        examples=(("vm stop vm1", "ends vm1"), ("vm stop --all", "ends every one of this user")),
        files=_FILES[1:],
    )
    command.set_defaults(run_command=_stop)
    completed(command.add_argument("name", nargs="*", help="as `vm list` shows it"), candidates.kept)
    command.add_argument("--all", action="store_true", help="every VM that is kept")


def _add_shell(vms: Commands) -> None:
    command = manual(
        vms,
        "shell",
        help="an interactive shell in a VM",
        description=f"""\
            Starts a clean VM, with the modules loaded, and a shell in it as root. Every key goes to the guest,
            Ctrl-C too, except one: Ctrl-] leaves at once, whatever the guest does. The VM ends with the shell,
            and nothing in it is kept. Where standard input is no terminal, the shell reads commands from it.

{_STATUS}""",
        examples=(
            ("vm shell", "look around"),
            ("vm shell --kernel debian:6.12 --flavour debug", "with lockdep, KASAN and the like"),
            ("vm shell < commands.sh", "commands from a file"),
            ("vm shell --keep", "the VM goes on after the shell; `vm list`, `vm shell vm1`, `vm stop vm1`"),
            ("vm shell --gdb", "with a port for a debugger; it prints the command for gdb"),
            ("vm shell --gdb --no-restore", "a boot that gdb has from its first instruction"),
            ("vm shell --dry-run", "print QEMU's command line, to change and to start by hand"),
        ),
        files=_FILES,
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_shell)
    name = command.add_argument("name", nargs="?", help="a VM that is kept (default: a new one)")
    completed(name, candidates.kept)
    _add_options(command)


def _add_exec(vms: Commands) -> None:
    command = manual(
        vms,
        "exec",
        help="run one command in a VM",
        description=f"""\
            Runs a command as root in a clean VM. Its output is passed on as it comes, standard input is handed to
            it. One word is a command line for the guest's shell; several are a program and its arguments, which
            arrive as they are.

{_STATUS}""",
        examples=(
            ("vm exec uname -r", "a program and its arguments"),
            ("vm exec 'dmesg | tail -n 5'", "a command line"),
            ("vm exec --vm vm1 cat /proc/meminfo", "in a VM that is kept"),
            ("vm exec sh -c 'cat > /tmp/x; wc -c /tmp/x' < file", "with standard input"),
        ),
        files=_FILES,
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_exec)
    kept = command.add_argument("--vm", dest="name", metavar="NAME", help="a VM that is kept (default: a new one)")
    completed(kept, candidates.kept)
    _add_options(command)
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments")


def _add_options(command: argparse.ArgumentParser) -> None:
    add_kernel(command, "no-restore")
    command.add_argument("--append", default="", metavar="WORDS", help="add to the kernel's command line")
    command.add_argument("--no-restore", action="store_true", default=None, help="boot, restore no saved VM")
    command.add_argument("--keep", action="store_true", help="leave the VM running afterwards")
    add_gdb(command)
    command.add_argument("--dry-run", action="store_true", help="print the command that boots such a VM, and end")


def _shell(options: argparse.Namespace, progress: Progress) -> int:
    from harness.target.shell import LeftError

    terminal = os.isatty(0)
    command = _SHELL if terminal else _PIPED
    try:
        return _do(options, progress, command, terminal=terminal)
    except LeftError:
        progress.say("hmm-harness: left")
        return ExitCode.INTERRUPTED


def _exec(options: argparse.Namespace, progress: Progress) -> int:
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words and not options.dry_run:
        raise UsageError("there is no command to run", hint="`hmm-harness vm shell` opens a shell")
    # The guest's shell must not replace itself by the command: it reports a command that a signal ended.
    command = f"{words[0] if len(words) == 1 else shlex.join(words)}\nexit $?"
    return _do(options, progress, command, terminal=False)


def _do(options: argparse.Namespace, progress: Progress, command: str, *, terminal: bool) -> int:
    """Runs `command` in a VM that is kept, or in a new one."""
    from harness.target.shell import drive

    def use(channel: paramiko.Channel, check: Callable[[], None]) -> int:
        return drive(channel, command, check, terminal=terminal)

    if options.name is not None:
        return _in_kept(options, progress, use, terminal=terminal)
    if options.dry_run:
        return _dry_run(options, progress)
    keeper: Keeper | None = None
    if options.keep:
        from harness.target.keeper import stay_behind

        keeper = stay_behind()
    machine = _machine(options, progress)
    with _started(machine, options, progress) as vm:
        if terminal:
            progress.say(_banner(vm, keeper))
        status = vm.session(use)
        _remark(vm, progress)
        if keeper is not None:
            keeper.keep(vm, f"vm {shlex.join(sys.argv[2:])}", status, command=own_command(), say=progress.say)
        return status


def _machine(options: argparse.Namespace, progress: Progress) -> Machine:
    from dataclasses import replace

    from harness.target.lab import prepare

    machine = prepare(options.kernel, options.flavour, cache=open_cache(), progress=progress)
    return replace(machine, append=options.append)


def _started(machine: Machine, options: argparse.Namespace, progress: Progress) -> AbstractContextManager[VM]:
    from harness.target.vm import start

    cache = open_cache()
    restore = not options.no_restore
    debugger = None
    if options.gdb is not None:
        from harness.target.gdb import debugging

        debugger = debugging(machine, options.gdb, restore=restore, cache=cache, progress=progress)
    return start(machine, cache=cache, progress=progress, restore=restore, debugging=debugger)


def _in_kept(options: argparse.Namespace, progress: Progress, use: Use, *, terminal: bool) -> int:
    from harness.target.keeper import connection, insist
    from harness.target.kept import find

    if options.keep or options.gdb is not None or options.dry_run or options.append or options.no_restore:
        raise UsageError(
            "--keep, --gdb, --dry-run, --append and --no-restore are for new VMs", hint=f"{options.name} runs already"
        )
    kept = find(options.name)
    with connection(kept) as transport:
        if terminal:
            progress.say(f"{kept.name}: {kept.kernel} {kept.flavour}, Linux {kept.release}, kept since {kept.since}")
            progress.say(f"{_PLACES}\n  Ctrl-D           leaves; {kept.name} goes on. Ctrl-] leaves whatever happens")
        return transport.session(lambda channel: use(channel, lambda: insist(kept)))


_PLACES = """\
  /dev/hmm_*       devices: hmm_harness* are ours, hmm_dmirror* the kernel's own test driver's
  /sys/module/hmm_harness/parameters/wrong_names
                   deliberate mistakes of our driver, to be written there
  /sys/kernel/debug, /sys/kernel/tracing
                   debugfs, tracefs
  /payload/modules, /payload/modules-on-demand
                   modules that are loaded, and others for insmod
  /tmp             may be written; all else is read-only"""


def _banner(vm: VM, keeper: Keeper | None) -> str:
    modules = ", ".join(f"{name} {state}" for name, state in vm.agent["info"]["modules"].items())
    fate = "leaves; the VM goes on" if keeper else "ends the shell and the VM"
    return f"{vm.banner}\n{modules}\n{_PLACES}\n  Ctrl-D           {fate}. Ctrl-] leaves whatever happens"


def _remark(vm: VM, progress: Progress) -> None:
    """Says what the kernel complained of meanwhile; the command's status does not."""
    from harness.target.watchdog import complaints

    for line in complaints(vm.console.splitlines(), 0)[:3]:
        progress.say(f"hmm-harness: the kernel complained: {line}")


def _dry_run(options: argparse.Namespace, progress: Progress) -> int:
    from harness.target.byhand import by_hand

    print(by_hand(_machine(options, progress), gdb=options.gdb, cache=open_cache()))
    return ExitCode.PASS


def _list(_options: argparse.Namespace, progress: Progress) -> int:
    from harness.target.kept import kept_vms

    for kept in kept_vms():
        what = f"{kept.kernel} {kept.flavour}  Linux {kept.release}"
        progress.say(f"{kept.name}  {what}  since {kept.since}  {kept.reason}", to=sys.stdout)
        print(f"    {shlex.join(kept.ssh())}")
    return ExitCode.PASS


def _stop(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.target.kept import find, kept_vms, stop

    if bool(options.name) == options.all:
        raise UsageError("which VMs?", hint="name them, as `hmm-harness vm list` shows them, or --all")
    for kept in kept_vms() if options.all else [find(name) for name in dict.fromkeys(options.name)]:
        stop(kept)
        print(f"{kept.name} has ended")
    return ExitCode.PASS
