# SPDX-License-Identifier: GPL-2.0-only
"""Programs that only some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> None:
    """Skips the test if `program` is not installed; in CI that is a failure."""
    if shutil.which(program) is None:
        assert "CI" not in os.environ, f"{program} is not installed, and CI is to have it: vm-images/host-packages"
        pytest.skip(f"{program} is not installed")
