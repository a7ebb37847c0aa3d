# SPDX-License-Identifier: GPL-2.0-only
"""The Vagrantfile, as far as it can be checked without a hypervisor.

Vagrant's own `validate` accepts it: the names of all settings but those of the providers, the box, the synced folders
and the provisioner. Ruby evaluates all of it, the providers' blocks too. What the box runs is there, and Debian 12's
packages for it can be installed on a system that has none. Not shown: that the box downloads and boots, and that a
provider takes its settings.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.target import hostpackages
from harness.target.places import CHECKOUT
from tests.needs import need

VAGRANTFILE = CHECKOUT / "Vagrantfile"
# Stands for Vagrant: notes every call of the file, and runs every block.
RECORDER = """
require "json"
CALLS = []
class Recorder < BasicObject
  def initialize(path) = @path = path
  def method_missing(name, *arguments, **options, &block)
    here = [@path, name].join(".").delete_prefix(".")
    ::CALLS << {name: here, arguments: arguments, options: options} unless arguments.empty? && options.empty?
    child = ::Recorder.new(block ? "#{here}(#{arguments.first})" : here)
    block&.call(child)
    child
  end
end
module Vagrant
  def self.configure(version)
    CALLS << {name: "configure", arguments: [version], options: {}}
    yield Recorder.new("")
  end
end
load ARGV.first
puts JSON.generate(CALLS)
"""


def validate(directory: Path) -> subprocess.CompletedProcess[str]:
    own = {
        "VAGRANT_HOME": str(directory / "home"),
        "VAGRANT_DOTFILE_PATH": str(directory / "dot"),
    }
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=directory,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )


def test_vagrant_accepts_it(tmp_path: Path) -> None:
    need("vagrant")
    shutil.copy(VAGRANTFILE, tmp_path)
    ended = validate(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    good = VAGRANTFILE.read_text()
    for right, wrong in (("vm.box =", "vm.boxx ="), ('type: "shell"', 'type: "shall"'), ("inline:", "inlined:")):
        assert right in good
        (tmp_path / "Vagrantfile").write_text(good.replace(right, wrong))
        assert validate(tmp_path).returncode == 1, wrong


@pytest.fixture(scope="module")
def calls() -> dict[str, list[tuple[list[Any], dict[str, Any]]]]:
    """What the file says: arguments and options of each call, by its name."""
    need("ruby")
    ended = subprocess.run(["ruby", "-w", "-e", RECORDER, VAGRANTFILE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[tuple[list[Any], dict[str, Any]]]] = {}
    for call in json.loads(ended.stdout):
        found.setdefault(call["name"], []).append((call["arguments"], call["options"]))
    return found


def test_each_provider_gives_the_box_room_to_build(calls: dict[str, list[tuple[list[Any], dict[str, Any]]]]) -> None:
    providers = [arguments[0] for arguments, _ in calls["vm.provider"]]
    assert providers == ["virtualbox", "libvirt"]
    for provider in providers:
        ((cpus,), _), ((memory,), _) = (calls[f"vm.provider({provider}).{name}="][0] for name in ("cpus", "memory"))
        assert cpus >= 2
        assert memory >= 4096
    assert set(calls) == {"configure", "vm.box=", "vm.synced_folder", "vm.provider", "vm.provision"} | {
        f"vm.provider({provider}).{name}"
        for provider, names in (
            ("virtualbox", ("cpus=", "memory=", "customize")),
            ("libvirt", ("cpus=", "memory=", "nested=", "cpu_mode=")),
        )
        for name in names
    }


def test_what_the_box_runs_is_there(calls: dict[str, list[tuple[list[Any], dict[str, Any]]]]) -> None:
    """The provisioner goes to where the checkout is synced to, and runs a script that takes these arguments."""
    places = [arguments[1] for arguments, options in calls["vm.synced_folder"] if not options.get("disabled")]
    assert places == ["/home/vagrant/hmm-harness"]
    ((_, options),) = calls["vm.provision"]
    change, directory, then, script, level = shlex.split(options["inline"])
    assert (change, directory, then) == ("cd", Path(places[0]).name, "&&")
    assert os.access(CHECKOUT / script, os.X_OK)
    assert level in {package.level for package in hostpackages.read()}
    assert options["env"] == {"CI": "true"}  # nobody is there to be asked


def test_the_packages_can_be_installed_on_a_bare_debian_12() -> None:
    """apt, told that nothing is installed, finds a way to install all that the box is to have."""
    release = Path("/etc/os-release").read_text()
    if "VERSION_CODENAME=bookworm" not in release:
        pytest.skip("this is no Debian 12: its packages are not known here")
    names = [package.name for package in hostpackages.read() if package.level in ("run", "dev")]
    command = ["apt-get", "--simulate", "--option=Dir::State::status=/dev/null", "--no-install-recommends"]
    ended = subprocess.run([*command, "install", *names], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    installed = set(re.findall(r"^Inst (\S+)", ended.stdout, re.MULTILINE))
    assert set(names) <= installed
    assert "dpkg" in installed, "apt was to believe that nothing is there"
