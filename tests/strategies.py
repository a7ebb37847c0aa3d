# SPDX-License-Identifier: GPL-2.0-only
"""Hypothesis strategies: any program that makes sense, as `hmm-harness explore` draws them."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from harness.explore.generate import Generator
from harness.model.rules import FEATURES, rules_for
from harness.program.program import Program

_ALL = rules_for("interval", FEATURES)  # the largest vocabulary


def _program(random: Random) -> Program:
    return Generator(_ALL, random).fresh("generated")


def programs() -> st.SearchStrategy[Program]:
    """A valid program for a kernel that has everything."""
    return st.randoms(use_true_random=False).map(_program)
