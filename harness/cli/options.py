# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands share, and what their values may be."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.target.cache import Cache

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

BINDINGS = ("interval", "test_hmm")
DEFAULT_KERNEL = "debian:6.1"
DEFAULT_FLAVOUR = "plain"
DEFAULT_TIMEOUT = 30.0  # seconds for a program in the guest


def add_kernel(command: argparse.ArgumentParser) -> None:
    """--kernel and --flavour of a command that works on one kernel."""
    command.add_argument("--kernel", default=DEFAULT_KERNEL, help="the kernel under test (default: %(default)s)")
    command.add_argument("--flavour", default=DEFAULT_FLAVOUR, help="its configuration (default: %(default)s)")


def words(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word for word in text.split(",") if word]


def seconds(text: str) -> float:
    """A time of at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 86400")
    return value


def number(text: str) -> int:
    """A number from 1 to 1000."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return value


def open_cache() -> Cache:
    """The user's cache."""
    from harness.target.cache import Cache

    return Cache()
