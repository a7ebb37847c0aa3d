# SPDX-License-Identifier: GPL-2.0-only
"""What VM tests share: a kernel that is built once, and a VM that is replaced when a test may have hurt it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab
from harness.target.vm import Machine

# The same examples each time: a suite that fails must fail for whoever looks. To look for others is up to
# --hypothesis-profile=default, and to `hmm-harness explore`.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that tests start are not among the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(scope="session")
def progress(hmm_progress: Progress) -> Progress:
    """Shows what takes long, a kernel's build above all, past pytest's capture."""
    return hmm_progress


@pytest.fixture(scope="session")
def cache(hmm_cache: Cache) -> Cache:
    """The user's cache: kernels and images are built once and kept."""
    return hmm_cache


@pytest.fixture(scope="session")
def machine(hmm_machine: Machine) -> Machine:
    """The kernel that --hmm-kernel or $HMM_HARNESS_KERNEL names, with all that it takes to boot it."""
    return hmm_machine


@pytest.fixture(scope="session")
def lab(machine: Machine, cache: Cache, progress: Progress) -> Iterator[Lab]:
    """A VM at hand."""
    with Lab(machine, cache=cache, progress=progress) as lab:
        yield lab
