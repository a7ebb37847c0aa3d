# SPDX-License-Identifier: GPL-2.0-only
"""The module is clean on every kernel that it is for: `.ci/lint module`."""

from __future__ import annotations

import subprocess

import pytest

from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.kernel import provide_kernel
from harness.target.places import CHECKOUT
from tests.needs import need, seed_tree

SEED = "v4.20.1"
KERNELS = (SEED, "debian:5.10", "debian:6.1", "debian:6.12", "debian:7.2", "debian:7.3")


@pytest.mark.matrix
@pytest.mark.parametrize("flavour", ["plain", "debug"])
@pytest.mark.parametrize("spec", KERNELS)
def test_the_module_builds_without_a_word(spec: str, flavour: str, cache: Cache, progress: Progress) -> None:
    """W=1, sparse and kernel-doc; that each of them looked is shown by a file that all must complain of."""
    need("sparse")
    kernel = provide_kernel(f"tree:{seed_tree()}" if spec == SEED else spec, flavour, cache=cache, progress=progress)
    lint = subprocess.run(
        [CHECKOUT / ".ci/lint", "module", kernel.build], capture_output=True, text=True, timeout=600, check=False
    )
    said = lint.stdout + lint.stderr
    assert lint.returncode == 0, said
    assert said.splitlines()[0] == f"-- sparse, W=1, kernel-doc: {kernel.release}-{flavour}"
    assert said.splitlines()[1:] in ([], ["clean, and not changed since"])
