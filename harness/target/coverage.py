# SPDX-License-Identifier: GPL-2.0-only
"""Which lines and branches of the kernel's HMM ran: its gcov counters, read in the guest.

Needs a kernel of the flavour `coverage`, whose files of interest were compiled with counters
(vm-images/kernel/coverage.make). The guest has the numbers (/sys/kernel/debug/gcov/**/*.gcda,
Documentation/dev-tools/gcov.rst), the kernel's build what they stand for (*.gcno); gcov puts both together.
"""

from __future__ import annotations

import base64
import binascii
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.errors import BuildError, GuestError, MissingError
from harness.target.artifacts import Kernel
from harness.target.process import environment
from harness.target.vm import VM

_COUNTERS = "/sys/kernel/debug/gcov"
_SECONDS = 60.0

Branch = tuple[int, int, int]  # line, which occurrence of the line, which branch of it


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    covered: int
    total: int

    @property
    def percent(self) -> float:
        """From 0 to 100; of nothing, all is covered."""
        return 100.0 * self.covered / self.total if self.total else 100.0


@dataclass
class FileCoverage:
    """One source file: how often each line that has code was executed, and each branch taken."""

    lines: Counter[int] = field(default_factory=Counter)
    branches: Counter[Branch] = field(default_factory=Counter)

    def add(self, other: FileCoverage) -> None:
        """Adds what another run executed."""
        self.lines.update(other.lines)  # keeps what is 0
        self.branches.update(other.branches)

    @property
    def line_share(self) -> Share:
        """Lines that ran."""
        return _share(self.lines)

    @property
    def branch_share(self) -> Share:
        """Branches that were taken."""
        return _share(self.branches)

    @property
    def missed(self) -> list[int]:
        """The lines that never ran, in order."""
        return sorted(line for line, count in self.lines.items() if not count)

    @property
    def untaken(self) -> list[Branch]:
        """The branches that were never taken, in order."""
        return sorted(branch for branch, count in self.branches.items() if not count)


Coverage = dict[str, FileCoverage]  # by path in the kernel's source: "mm/hmm.c"


def _share(counts: Mapping[int, int] | Mapping[Branch, int]) -> Share:
    return Share(sum(count > 0 for count in counts.values()), len(counts))


def merge(coverages: Iterable[Coverage]) -> Coverage:
    """What all of them executed together."""
    merged: Coverage = {}
    for coverage in coverages:
        for path, each in coverage.items():
            merged.setdefault(path, FileCoverage()).add(each)
    return merged


def reset(vm: VM) -> None:
    """Sets all counters to 0. Raises `MissingError` if the kernel has none."""
    status, _ = vm.exec(f"echo 1 > {_COUNTERS}/reset", timeout=_SECONDS)
    if status:
        raise MissingError(
            f"{vm.machine.kernel.name} ({vm.machine.kernel.flavour}) counts nothing: there is no {_COUNTERS}",
            hint="only kernels of the flavour `coverage` do",
        )


def collect(vm: VM) -> Coverage:
    """What ran since `reset`.

    Raises `GuestError` if the guest does not tell, `BuildError` if gcov cannot read it.
    """
    each = 'echo "$file"; base64 -w0 "$file"; echo'
    listing = f"find . -name '*.gcda' | while read -r file; do {each}; done"
    status, output = vm.exec(f"cd {_COUNTERS} && {listing}", timeout=_SECONDS)
    lines = output.splitlines()
    if status or not lines or len(lines) % 2:
        raise GuestError(f"the guest does not show its counters: {output[-400:]!r}")
    coverage: Coverage = {}
    for name, data in zip(lines[::2], lines[1::2], strict=True):
        try:
            counters = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise GuestError(f"the guest's counters of {name} are damaged: {error}") from error
        coverage |= read_counters(vm.machine.kernel, PurePosixPath(name).stem, counters)
    return coverage


def read_counters(kernel: Kernel, stem: str, counters: bytes) -> Coverage:
    """The coverage of the source file `stem`.c, of a .gcda file's content; empty if the build has no notes of it."""
    notes = next(kernel.build.glob(f"*/{stem}.gcno"), None)
    if notes is None:
        return {}
    path = f"{notes.parent.name}/{stem}.c"
    with tempfile.TemporaryDirectory(prefix="hmm-harness-") as scratch:
        (Path(scratch) / f"{stem}.gcno").symlink_to(notes)
        data = Path(scratch) / f"{stem}.gcda"
        data.write_bytes(counters)
        argv = ["gcov", "--json-format", "--stdout", "--branch-probabilities", data.name]
        try:
            done = subprocess.run(argv, cwd=scratch, capture_output=True, text=True, check=False, env=environment())
        except FileNotFoundError as error:
            raise MissingError("gcov is not installed", hint="make setup") from error
    if done.returncode or not done.stdout:
        raise BuildError(
            f"gcov does not read the counters of {path}: {done.stderr.strip()}",
            hint="it must be of the compiler that built the kernel",
        )
    return {path: parse(done.stdout, path)}


def parse(text: str, path: str) -> FileCoverage:
    """What gcov's JSON says of the file `path`; what it says of headers belongs to many files, and is left out."""
    found = FileCoverage()
    seen: Counter[int] = Counter()
    for file in json.loads(text)["files"]:
        if not f"/{file['file']}".endswith(f"/{path}"):
            continue
        for line in file["lines"]:  # a line can occur more than once: in several functions
            number = line["line_number"]
            found.lines[number] += line["count"]
            for index, branch in enumerate(line["branches"]):
                found.branches[number, seen[number], index] += branch["count"]
            seen[number] += 1
    return found
