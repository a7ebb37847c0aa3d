# SPDX-License-Identifier: GPL-2.0-only
"""What people are shown for a kernel, while replay commands have the whole spec."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.conformance import catalogue
from harness.labels import heading, label
from harness.progress import Progress, Step
from harness.run import Plan, replay_command
from harness.target import module
from harness.target.artifacts import Kernel
from harness.target.cache import Cache

IMAGE = "image:/home/somebody/a/long/way/down/kernel-7.3/bzImage,kdir=/home/somebody/a/long/way/down/kernel-7.3/build"


@pytest.mark.parametrize(
    ("spec", "flavour", "labelled", "headed"),
    [
        ("debian:6.1", "plain", "debian:6.1 plain", "debian:6.1 (plain)"),
        ("debian:6.1", "debug", "debian:6.1 debug", "debian:6.1 (debug)"),
        ("tree:/src/linux", "plain", "tree:/src/linux plain", "tree:/src/linux (plain)"),
        ("stock:newest", "plain", "stock:newest", "stock:newest"),
        ("host", "plain", "host", "host"),
        ("host", "debug", "host debug", "host (debug)"),
        (IMAGE, "plain", "image:kernel-7.3/bzImage", "image:kernel-7.3/bzImage"),
        (IMAGE, "debug", "image:kernel-7.3/bzImage debug", "image:kernel-7.3/bzImage (debug)"),
        ("image:~/linux/arch/x86/boot/bzImage", "plain", "image:linux/bzImage", None),
        ("image:arch/x86/boot/bzImage,kdir=.", "plain", "image:bzImage", None),
        ("image:bzImage,kdir=a,b", "plain", "image:bzImage", None),
    ],
)
def test_an_image_is_the_end_of_its_path_and_of_no_flavour_of_ours(
    spec: str, flavour: str, labelled: str, headed: str | None
) -> None:
    assert label(spec, flavour) == labelled
    assert heading(spec, flavour) == (headed or labelled)


def test_progress_has_the_short_name_and_replay_commands_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(
        name=IMAGE, flavour="plain", release="7.3.4", key="00", image=tmp_path, build=tmp_path, source=None,
        modules={}, config=tmp_path,
    )  # fmt: skip

    def instead(_kernel: Kernel, out: Path, _log: Path) -> None:
        (out / "hmm_harness.ko").touch()

    monkeypatch.setattr(module, "_build", instead)
    titles: list[str] = []
    step = Progress.step

    def noted(progress: Progress, title: str) -> AbstractContextManager[Step]:
        titles.append(title)
        return step(progress, title)

    monkeypatch.setattr(Progress, "step", noted)
    for each in (kernel, replace(kernel, key="01", name="debian:7.3")):
        module.build_module(each, cache=Cache(tmp_path / "cache"), progress=Progress(io.StringIO()))
    assert titles == [
        "building hmm_harness.ko for image:kernel-7.3/bzImage",
        "building hmm_harness.ko for debian:7.3 (plain)",
    ]
    (program,) = catalogue.select(["snapshot/hole"])
    assert IMAGE in replay_command(program, "interval", Plan([program], ("interval",)), (kernel.name, "plain"))
