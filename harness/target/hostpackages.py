# SPDX-License-Identifier: GPL-2.0-only
"""vm-images/host-packages: what the host needs, and whether it is there. setup.sh reads the same file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.target.places import VM_IMAGES

_LIST = VM_IMAGES / "host-packages"
_LEVELS = ("run", "dev", "bench")


@dataclass(frozen=True)
class Package:
    """A line of the list."""

    name: str  # Debian's
    proof: str  # a command, or a pattern of absolute paths
    level: str  # "run", "dev" or "bench"
    reason: str

    def present(self) -> bool:
        """Whether the proof is there, however it came."""
        if self.proof.startswith("/"):
            return any(Path("/").glob(self.proof[1:]))
        return shutil.which(self.proof) is not None


def read(path: Path = _LIST) -> list[Package]:
    """All packages of the list. Raises UsageError for a line that is none."""
    packages = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(maxsplit=3)
        if len(fields) != 4 or fields[2] not in _LEVELS:
            raise UsageError(f"{path}:{number}: not a package: {line}", hint="PACKAGE PROOF run|dev WHO NEEDS IT")
        packages.append(Package(*fields))
    return packages
