# SPDX-License-Identifier: GPL-2.0-only
"""Memory of the kernel that nothing points to any more, as kmemleak finds it: Documentation/dev-tools/kmemleak.rst.

It is looked for when somebody asks, not every ten minutes: a scan stops nothing, and takes seconds. What is found is
told apart by the time when it was taken, in jiffies: mm/kmemleak.c notes it, /proc/timer_list says what it is now.
"""

# pathlib is too slow to import: see agent.py.
# ruff: noqa: PTH123

from __future__ import annotations

import os
import time

from harness.guest.kernel import AgentError

PATH = "/sys/kernel/debug/kmemleak"
_CLOCK = "/proc/timer_list"
_AGE_SECONDS = 5.5  # mm/kmemleak.c MSECS_MIN_AGE: what is younger is not reported
_HEAD = "unreferenced object"
_STAMP = "jiffies "
_TRACE = "backtrace"


class Leak:
    """An object: the `lines` about it, and the numbers of the `programs` in whose time it was taken.

    Two where that was the very moment from the one to the next, none if it was before the first, all if the time is
    not known.
    """

    def __init__(self, programs: list[int], lines: list[str]) -> None:
        self.programs = programs
        self.lines = lines


class Kmemleak:
    """The kernel's detector, if it has one that is on: `on` is told by `start`."""

    def __init__(self, path: str = PATH, clock: str = _CLOCK, age: float = _AGE_SECONDS) -> None:
        self.on = False
        self._path = path
        self._clock = clock
        self._age = age
        self._begun: list[int | None] = []  # jiffies, by program
        self._ended = 0.0  # of the last program, time.monotonic()

    def start(self) -> None:
        """From now on it looks only when it is asked to, if it is there and on."""
        try:
            self._write("scan=off")
            self.on = True
        except OSError:  # it is not there, or off: EPERM
            self.on = False

    def begin(self) -> int:
        """A program begins; its number."""
        self._begun.append(self._now() if self.on else None)
        return len(self._begun) - 1

    def end(self) -> None:
        """It has ended, and all its processes are gone."""
        self._ended = time.monotonic()

    def find(self) -> list[Leak]:
        """What was lost since the last call. Takes some seconds. Raises `AgentError` if the kernel does not look.

        The first scan after an object was taken only notes its content, the second reports it if that is still the
        same. A pointer on its way, in a register of the other CPU, may have escaped both: what a third does not find
        either is lost.
        """
        if not self.on:
            raise AgentError("this kernel does not look for leaks: kmemleak is not there, or off")
        try:
            self._write("scan")
            time.sleep(max(0.0, self._ended + self._age - time.monotonic()))
            self._write("scan")
            if not self._read():
                return []
            self._write("scan")
            found = self._read()
            self._write("clear")  # told once
        except OSError as error:
            raise AgentError(
                f"kmemleak does not look any more: {error.strerror}", "the kernel log says why"
            ) from error
        return self._grouped(found)

    def _grouped(self, objects: list[list[str]]) -> list[Leak]:
        """One of those that were taken by the same programs in the same place, which says how many they are."""
        groups: dict[tuple[object, ...], list[list[str]]] = {}
        for lines in objects:
            trace = next((at for at, line in enumerate(lines) if line.lstrip().startswith(_TRACE)), 0)
            key = (*self._takers(lines), *lines[trace + 1 :])
            groups.setdefault(key, []).append(lines)
        leaks = []
        for lines, *others in groups.values():
            more = [f"[hmm-harness: and {len(others)} objects more of this kind]"] if others else []
            leaks.append(Leak(self._takers(lines), lines + more))
        return leaks

    def _takers(self, lines: list[str]) -> list[int]:
        when = next((line.partition(_STAMP)[2] for line in lines if _STAMP in line), "")
        digits = when.split()[0].rstrip(",") if when else ""
        if not digits.isdigit() or None in self._begun:
            return list(range(len(self._begun)))
        taken = int(digits)
        begun = [each for each in self._begun if each is not None]
        ends = [*begun[1:], float("inf")]
        return [number for number, (start, end) in enumerate(zip(begun, ends, strict=False)) if start <= taken <= end]

    def _now(self) -> int | None:
        try:
            with open(self._clock) as file:
                lines = file.read().splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            name, _, value = line.partition(":")
            if name == "jiffies" and value.strip().isdigit():
                return int(value)
        return None

    def _read(self) -> list[list[str]]:
        """The lines about each object."""
        with open(self._path, errors="replace") as file:
            lines = file.read().splitlines()
        objects: list[list[str]] = []
        for line in lines:
            if line.startswith(_HEAD):
                objects.append([])
            if objects:
                objects[-1].append(line)
        return objects

    def _write(self, words: str) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, words.encode())
        finally:
            os.close(fd)
