# SPDX-License-Identifier: GPL-2.0-only
"""Child processes that never outlive us, not even when we are killed with SIGKILL.

The kernel sends a child its parent-death signal when the *thread* that forked it ends, so all children are
forked by one thread that lives as long as the process.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness.errors import BuildError, MissingError

_JOIN_SECONDS = 0.1
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

_STARTED: weakref.WeakKeyDictionary[subprocess.Popen[bytes], threading.Thread] = weakref.WeakKeyDictionary()

# $PPID is read by the shell when the signal is already armed: a parent that died before that is noticed here.
_ONLY_WITH_PARENT = '[ "$PPID" = "$1" ] || exit 125; shift; exec "$@"'


def spawn(
    command: Sequence[str | Path],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Collection[int] = (),
    env: Mapping[str, str] | None = None,
    death: str = "KILL",
) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own, so that Ctrl-C reaches us alone and we decide.

    `death` is the signal that it gets when we are gone: TERM for a program that ends children of its own.
    Raises `MissingError` if setpriv, which arms the parent-death signal, is not there. A `command` that cannot
    be executed ends with status 126 or 127 and says why on its standard error.
    """
    arguments = ["setpriv", "--pdeathsig", death, "sh", "-c", _ONLY_WITH_PARENT, "sh", str(os.getpid())]
    arguments += [os.fspath(word) for word in command]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            env=env,
            start_new_session=True,
        )
        _STARTED[process] = asking
        return process

    asking = threading.current_thread()
    started: Future[subprocess.Popen[bytes]] = _SPAWNER.submit(start)
    try:
        return started.result()
    except FileNotFoundError as error:
        raise MissingError(f"cannot start {error.filename}", hint="apt-get install util-linux") from error
    except BaseException:  # Ctrl-C while the other thread is at it: nobody else would know of the child
        started.add_done_callback(_end_unseen)
        raise


def _end_unseen(started: Future[subprocess.Popen[bytes]]) -> None:
    if started.exception() is None:
        end(started.result())


def end(process: subprocess.Popen[bytes]) -> int:
    """Kills `process` and its process group, collects it, and returns its exit status."""
    if process.returncode is None:  # else its id may be somebody else's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def exempt(process: subprocess.Popen[bytes]) -> None:
    """From now on `call_off` leaves `process` alone."""
    _STARTED.pop(process, None)


def call_off(threads: Collection[threading.Thread]) -> None:
    """Returns when all `threads`, which were told to stop, are gone: the children that they wait for are killed."""
    while alive := [thread for thread in threads if thread.is_alive()]:
        for process, thread in list(_STARTED.items()):
            if thread in alive and process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        alive[0].join(_JOIN_SECONDS)


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> str:
    """Runs a short `command` to its end and returns what it printed, standard error included.

    Raises `BuildError` that says `what` failed, the command and the end of its output; whatever interrupts
    us, the command and its children are gone afterwards.
    """
    process = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    try:
        output, _ = process.communicate(stdin)
    except BaseException:
        end(process)
        raise
    text = output.decode(errors="replace")
    if process.returncode:
        shown = "\n".join(text.strip().splitlines()[-15:])
        line = shlex.join(os.fspath(word) for word in command)
        raise BuildError(f"{what} failed with status {process.returncode}: {line}\n{shown}", hint=hint)
    return text
