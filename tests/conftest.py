# SPDX-License-Identifier: GPL-2.0-only
"""What VM tests share: a kernel that is built once, and a VM that is replaced when a test may have hurt it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare
from harness.target.vm import Machine


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that tests start are not among the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Iterator[Progress]:
    """Shows what takes long, a kernel's build above all, past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        real = os.dup(2)  # pytest puts its own file in place of 2 while a test or a fixture runs
    with os.fdopen(real, "w", encoding="utf-8", buffering=1) as stream:
        yield Progress(stream)


@pytest.fixture(scope="session")
def cache() -> Cache:
    """The user's cache: kernels and images are built once and kept."""
    return Cache()


@pytest.fixture(scope="session")
def machine(cache: Cache, progress: Progress) -> Machine:
    """The kernel that $HMM_HARNESS_KERNEL names, debian:6.1 if it is not set, with all that it takes to boot it."""
    return prepare(os.environ.get("HMM_HARNESS_KERNEL", "debian:6.1"), "plain", cache=cache, progress=progress)


@pytest.fixture(scope="session")
def lab(machine: Machine, cache: Cache, progress: Progress) -> Iterator[Lab]:
    """A VM at hand."""
    with Lab(machine, cache=cache, progress=progress) as lab:
        yield lab
