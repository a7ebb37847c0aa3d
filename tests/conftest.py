# SPDX-License-Identifier: GPL-2.0-only
"""What VM tests share: a kernel that is built once, and a VM that is replaced when a test may have hurt it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab
from harness.target.vm import Machine

if TYPE_CHECKING:
    from selenium import webdriver

_PATIENCE = 60.0  # seconds, for a page: for machines that do much else

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


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a screen."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        message = "no chromium and chromedriver: vm-images/setup.sh dev installs them"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver  # noqa: PLC0415  few tests need it
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    # Root may use no sandbox of Chromium's; /dev/shm is small in containers. All it opens is our own page.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    driver.set_page_load_timeout(_PATIENCE)
    yield driver
    driver.quit()
