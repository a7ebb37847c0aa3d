# SPDX-License-Identifier: GPL-2.0-only
"""What holds where nothing else is said, on the command line, in settings and in code.

Imports nothing, for --help needs it.
"""

from __future__ import annotations

DEFAULT_KERNEL = "debian:6.1"
DEFAULT_FLAVOUR = "plain"
DEFAULT_TIMEOUT = 30.0  # seconds for a program in the guest
DEFAULT_ROUNDS = 100  # of a seed of the deterministic machine
DRIVERS = ("interval", "mirror")  # the bindings of our own module, which explorations and races run on
PEER = "hmm-tests"  # the kernel's own tests: the binding of their cases, and their room among the programs
