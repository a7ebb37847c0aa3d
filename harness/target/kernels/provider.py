# SPDX-License-Identifier: GPL-2.0-only
"""What each source of kernels offers to `harness.target.kernel`, which chooses by the spec's first word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.progress import Progress
from harness.target.artifacts import Kernel
from harness.target.cache import Cache


@dataclass(frozen=True)
class Offer:
    """A kernel that can be had. `built` names the flavours that are in the cache, each with its size in bytes."""

    spec: str  # "debian:6.1"
    origin: str  # "linux-source-6.1 6.1.192-1, installed"
    fetch: int  # bytes that have to be downloaded first
    built: tuple[tuple[str, int], ...] = ()
    entries: tuple[tuple[str, str], ...] = ()  # what it has in the cache: kind and key
    headline: bool = True  # whether a short list shows it: the newest of its series


class Provider(Protocol):
    """A module of this package. WHAT is the spec after its first colon."""

    def check(self, what: str, flavour: str) -> None:
        """Raises UsageError for what makes no sense, as far as that can be told without a look at the archive."""

    def provide(self, what: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
        """The kernel, from the cache or made now.

        Raises UsageError for what does not exist, MissingError for what has to be installed, BuildError if it
        does not build, HarnessError if there is no space or no archive.
        """

    def offers(self, *, cache: Cache, progress: Progress) -> list[Offer]:
        """The kernels that can be had by name, newest last; empty where the user names a place."""
