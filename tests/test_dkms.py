# SPDX-License-Identifier: GPL-2.0-only
"""kmod/dkms.conf: what it says, and that dkms builds the module with it."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from harness.target.places import CHECKOUT, KMOD
from harness.target.vm import Machine
from tests.needs import need


def directives() -> dict[str, str]:
    lines = [line for line in (KMOD / "dkms.conf").read_text().splitlines() if line and not line.startswith("#")]
    return dict(shlex.split(line)[0].split("=", 1) for line in lines)


def test_it_is_of_this_version_and_this_module() -> None:
    said = directives()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert (said["PACKAGE_NAME"], said["PACKAGE_VERSION"]) == (project["name"], project["version"])
    (module,) = re.findall(r"^obj-m := (\w+)\.o$", (KMOD / "Kbuild").read_text(), re.MULTILINE)
    assert said["BUILT_MODULE_NAME[0]"] == module
    assert said["AUTOINSTALL"] == "yes"
    assert f"{project['name']}/{project['version']}" in (KMOD / "README.md").read_text(), "how to remove it"


class Dkms:
    """dkms with a tree of its own: nothing of it is the system's."""

    def __init__(self, place: Path, machine: Machine) -> None:
        self.tree = place / "dkms"
        self.sources = place / "src"
        for each in (self.tree, self.sources):
            each.mkdir()
        kernel = machine.kernel
        places = [f"--dkmstree={self.tree}", f"--sourcetree={self.sources}", f"--kernelsourcedir={kernel.build}"]
        self._kernel = ["-k", f"{kernel.release}/x86_64"]
        self._places = [word for each in places for word in each.split("=", 1)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["dkms", *words, *self._kernel, *self._places]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=self.tree)


@pytest.mark.vm
def test_dkms_builds_it(machine: Machine, tmp_path: Path) -> None:
    need("dkms")
    dkms = Dkms(tmp_path, machine)
    added = dkms.run("add", str(KMOD))
    assert added.returncode == 0, added.stdout + added.stderr
    built = dkms.run("build", "hmm-harness/0.1.0")
    log = "".join(path.read_text() for path in dkms.tree.rglob("make.log"))
    assert built.returncode == 0, built.stdout + built.stderr + log
    assert "warning" not in log.lower(), log
    (module,) = dkms.tree.rglob("hmm_harness.ko*")
    assert module.parent == dkms.tree / "hmm-harness/0.1.0" / machine.kernel.release / "x86_64/module"
    status = dkms.run("status", "hmm-harness/0.1.0")
    assert status.stdout.strip().endswith("built"), status.stdout + status.stderr


@pytest.mark.vm
def test_a_kernel_without_hmm_is_passed_over(machine: Machine, tmp_path: Path) -> None:
    """AUTOINSTALL goes over all kernels of a machine: one that cannot have it is no failure."""
    need("dkms")
    build = tmp_path / "build"
    build.mkdir()
    (build / ".config").write_text(machine.kernel.config.read_text().replace("CONFIG_HMM_MIRROR=y", ""))
    (build / "Makefile").write_text("")
    dkms = Dkms(tmp_path, machine)
    dkms._places[-1] = str(build)
    assert dkms.run("add", str(KMOD)).returncode == 0
    refused = dkms.run("build", "hmm-harness/0.1.0")
    assert refused.returncode == 77, refused.stdout + refused.stderr
    assert "BUILD_EXCLUSIVE" in refused.stdout + refused.stderr
