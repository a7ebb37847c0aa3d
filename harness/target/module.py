# SPDX-License-Identifier: GPL-2.0-only
"""Builds hmm_harness.ko from kmod/ for a kernel; a warning is an error."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.errors import BuildError
from harness.labels import heading, short
from harness.progress import Progress
from harness.target.artifacts import Kernel, Module
from harness.target.cache import Cache, digest_of, digest_of_tree
from harness.target.kernels.build import make_environment
from harness.target.kernels.chroot import make_module
from harness.target.places import KMOD
from harness.target.process import run_tool
from harness.target.room import cpus

_RECIPE = "1"  # another number whenever this file makes something else of the same input
_NAME = "hmm_harness.ko"
_WARNING = re.compile(r"\bwarning:|\bWARNING:")
_SHOWN = 12  # warnings in an error message; the log has all
# What a build by hand leaves in kmod/, and what none reads.
_PRODUCTS = shutil.ignore_patterns(
    "*.o", "*.ko", "*.a", "*.mod", "*.mod.c", ".*", "Module.symvers", "modules.order", "probed.h", "*.md", "dkms.conf"
)


def build_module(kernel: Kernel, *, cache: Cache, progress: Progress) -> Module:
    """Our module for `kernel`, from the cache or built now.

    Raises BuildError if it does not build, or not without a warning at W=1.
    """
    key = digest_of(_RECIPE, kernel.key, digest_of_tree(KMOD, ignore=_PRODUCTS))

    def build(out: Path) -> None:
        with progress.step(f"building hmm_harness.ko for {heading(kernel.name, kernel.flavour)}"):
            _build(kernel, out, cache.log(f"module-{key[:12]}"))

    entry = cache.entry("module", key, build, progress=progress)
    return Module(key=key, path=entry / _NAME)


def _build(kernel: Kernel, out: Path, log: Path) -> None:
    work = out / "work"  # a copy: kmod/ stays clean, and two kernels build at once
    shutil.copytree(KMOD, work, ignore=_PRODUCTS)
    log.write_text("")
    warnings: list[str] = []

    def watch(line: str) -> None:
        if _WARNING.search(line):
            warnings.append(line)

    jobs = cpus()
    # W=1 checks kernel-doc, too, with programs that a suite's compiler does not come with.
    extra = ["W=1"] if kernel.chroot is None else []
    try:
        run_tool(
            make_module(kernel, work, *extra, f"--jobs={jobs}", "modules"),
            log=log,
            env=make_environment(),
            each_line=watch,
        )
    except BuildError as error:
        what = f"hmm_harness.ko does not build for {short(kernel.name)} (Linux {kernel.release})"
        raise BuildError(f"{what}: {error.message}", hint=error.hint) from error
    if warnings:
        raise BuildError(
            "\n".join(
                [
                    "hmm_harness.ko builds with warnings:",
                    *(f"    {each}" for each in warnings[:_SHOWN]),
                ]
            ),
            hint=f"all that make said is in {log}",
        )
    shutil.move(work / _NAME, out / _NAME)
    shutil.rmtree(work)
