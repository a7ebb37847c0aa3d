# SPDX-License-Identifier: GPL-2.0-only
"""A minute of random ioctls on a kernel with DEBUG_VM: no splat, no leak, every ioctl reached."""

from __future__ import annotations

import secrets

import pytest

from harness.explore.ioctl_fuzz import fuzz
from harness.target.lab import Lab

pytestmark = pytest.mark.vm


def test_a_minute_of_random_ioctls(lab: Lab) -> None:
    assert "CONFIG_DEBUG_VM=y" in lab.kernel.config.read_text().splitlines()
    seed = secrets.randbits(32)
    status, output, said = fuzz(lab.vm(), seconds=60, seed=seed)
    lab.discard()
    assert said == [], f"seed {seed}"
    assert status == 0, f"seed {seed}: {output}"
