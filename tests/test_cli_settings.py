# SPDX-License-Identifier: GPL-2.0-only
"""Settings: where they are looked for, what outranks what, and what is said of mistakes."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import settings
from harness.cli.options import words
from harness.cli.settings import effective
from harness.errors import UsageError


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": str(tmp_path / "home"), **variables}


def test_defaults(tmp_path: Path) -> None:
    found = effective(tmp_path, _environment(tmp_path))
    assert found["kernel"] == settings.Source(["debian:6.1"], "default")
    assert {source.origin for source in found.values()} == {"default"}


def test_what_outranks_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = _write(tmp_path / "xdg/hmm-harness/config.toml", 'kernel = "debian:1.1"\nvms = 1\ntimeout = 1\n')
    project = _write(tmp_path / "hmm-harness.toml", "vms = 2\ntimeout = 2.5\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    environment = _environment(tmp_path, HMM_HARNESS_TIMEOUT="3", HMM_HARNESS_VMS="")
    found = effective(below, environment)
    assert found["kernel"] == settings.Source(["debian:1.1"], f"{user}:1")
    assert found["vms"] == settings.Source(2, f"{project}:1")
    assert found["timeout"] == settings.Source(3.0, "HMM_HARNESS_TIMEOUT")
    monkeypatch.chdir(below)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = Namespace(kernel=None, vms=7, timeout=None)
    settings.fill(options, "kernel", "vms", "timeout", one_kernel=True)
    assert (options.kernel, options.vms, options.timeout) == ("debian:1.1", 7, 3.0)


def test_kdir_completes_the_kernels_that_are_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = Namespace(kernel=["debian:6.1", "image:a", "image:b,kdir=c"], kdir=Path("d"))
    settings.fill(options, "kernel")
    assert options.kernel == ["debian:6.1", "image:a,kdir=d", "image:b,kdir=c"]
    options = Namespace(kernel="image:a", kdir=Path("d"))
    settings.fill(options, "kernel", one_kernel=True)
    assert options.kernel == "image:a,kdir=d"
    with pytest.raises(UsageError, match="not with debian:6"):
        settings.fill(Namespace(kernel="debian:6.1", kdir=Path("d")), "kernel", one_kernel=True)
    assert words("debian:6.1,image:a,kdir=b,c") == ["debian:6.1", "image:a,kdir=b", "c"]


def test_the_nearest_file_is_the_projects_and_its_own_comes_first(tmp_path: Path) -> None:
    _write(tmp_path / "pyproject.toml", "[tool.hmm-harness]\nvms = 1\n")
    nearer = tmp_path / "near"
    _write(nearer / "pyproject.toml", '[project]\nname = "hmm-harness"\n')  # no table of ours
    assert effective(nearer, _environment(tmp_path))["vms"].value == 1
    _write(tmp_path / "hmm-harness.toml", "vms = 2\n")
    assert effective(nearer, _environment(tmp_path))["vms"].value == 2


def test_lists_and_paths(tmp_path: Path) -> None:
    text = 'kernel = ["debian:6.1", "tree:/a,b"]\nflavour = "debug"\nbinding = ["interval"]\nreports = "out"\n'
    _write(tmp_path / "hmm-harness.toml", text + "no-restore = true\n")
    found = effective(tmp_path / ".", _environment(tmp_path))
    assert found["kernel"].value == ["debian:6.1", "tree:/a,b"]
    assert found["flavour"].value == ["debug"]
    assert found["reports"].value == tmp_path / "out"
    assert found["no-restore"].value is True
    found = effective(Path("/"), _environment(tmp_path, HMM_HARNESS_KERNEL="a,b", HMM_HARNESS_NO_RESTORE="1"))
    assert found["kernel"].value == ["a", "b"]
    assert found["no-restore"].value is True


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('kernel = "x"\nkernal = "y"\n', 2, ("unknown key 'kernal'", "did you mean 'kernel'?")),
        ("frobnicate = 1\n", 1, ("unknown key 'frobnicate'", "there are kernel, flavour")),
        ("# vms = 0\n\nvms = 0\n", 3, ("vms", "1 to 1000")),
        ("vms = 1.5\n", 1, ("vms", "1 to 1000")),
        ("vms = true\n", 1, ("vms", "takes a number")),
        ('timeout = "soon"\n', 1, ("timeout", "takes a number")),
        ("kernel = []\n", 1, ("kernel", "a text or a list of texts")),
        ('binding = ["interval", "x"]\n', 1, ("binding has no 'x'", "test_hmm")),
        ('no-restore = "yes"\n', 1, ("no-restore", "true or false")),
        ('vms = 1\n[tool.hmm-harness]\nkernel = "x"\n', 2, ("unknown key 'tool'",)),
        ("vms = 1\nvms == 2\n", 2, ("no TOML",)),
        ("vms = 1\nvms = 2\n", 2, ("no TOML",)),
        ('kernel = ["a",\n', 1, ("no TOML",)),
    ],
)
def test_mistakes_have_a_place(tmp_path: Path, text: str, line: int, words: tuple[str, ...]) -> None:
    path = _write(tmp_path / "hmm-harness.toml", text)
    with pytest.raises(UsageError) as caught:
        effective(tmp_path, _environment(tmp_path))
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert said.startswith(f"{path}:{line}: ")
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "text",
    [
        "[tool.ruff]\nvms = 7\n\n[tool.hmm-harness]\n'vms' = 0\n",
        "[tool]\nother = 1\n\n\nhmm-harness.vms = 0\n",
        "[a]\nvms = 7\n\n[ tool . hmm-harness ]\nvms = 0 # [x]\n",
    ],
)
def test_the_place_in_a_pyproject(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path / "pyproject.toml", text)
    with pytest.raises(UsageError) as caught:
        effective(tmp_path, _environment(tmp_path))
    assert caught.value.message.startswith(f"{path}:5: vms ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("HMM_HARNESS_VMS", "many"), ("HMM_HARNESS_BINDING", "x"), ("HMM_HARNESS_NO_RESTORE", "perhaps")],
)
def test_mistakes_in_the_environment(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        effective(tmp_path, _environment(tmp_path, **{name: value}))


def _command(tmp_path: Path, *words: str, **variables: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=tmp_path,
        env=_environment(tmp_path, PATH="", PYTHONPATH=str(Path(__file__).parents[1]), **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def test_config_shows_values_and_origins(tmp_path: Path) -> None:
    path = _write(tmp_path / "hmm-harness.toml", 'kernel = ["debian:6.1", "debian:7.3"]\n')
    ended = _command(tmp_path, "config", HMM_HARNESS_VMS="3")
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["kernel", "debian:6.1,", "debian:7.3", f"{path}:1"] in lines
    assert ["vms", "3", "HMM_HARNESS_VMS"] in lines
    assert ["timeout", "30", "default"] in lines
    assert ended.returncode == 0


@pytest.mark.parametrize("words", [["config"], ["run"], ["run", "--kernel", "debian:6.1"], ["vm", "shell"], ["fuzz"]])
def test_a_mistake_ends_every_command_that_reads_settings(tmp_path: Path, words: list[str]) -> None:
    path = _write(tmp_path / "hmm-harness.toml", "kernal = 1\n")
    ended = _command(tmp_path, *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"hmm-harness: {path}:1: unknown key 'kernal'\nhint: did you mean 'kernel'?")


def test_a_command_that_needs_no_settings_reads_none(tmp_path: Path) -> None:
    _write(tmp_path / "hmm-harness.toml", "kernal = 1\n")
    assert _command(tmp_path, "list").returncode == 0


def test_a_misspelt_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown variable HMM_HARNESS_KERNELS") as caught:
        effective(tmp_path, _environment(tmp_path, HMM_HARNESS_KERNELS="debian:7.3"))
    assert caught.value.hint == "did you mean 'HMM_HARNESS_KERNEL'?"
    effective(tmp_path, _environment(tmp_path, HMM_HARNESS_SEED="1", HMM_HARNESS_TREES="/usr/src"))


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HMM_HARNESS_FLAVOUR: flavour has characters that cannot be shown"):
        effective(tmp_path, _environment(tmp_path, HMM_HARNESS_FLAVOUR="pl\nain"))
    for line in ('reports = "a\\u0000b"', 'kernel = ["a\\u001b"]'):
        _write(tmp_path / "hmm-harness.toml", f"{line}\n")
        with pytest.raises(UsageError, match="has characters that cannot be shown"):
            effective(tmp_path, _environment(tmp_path))


def test_a_relative_base_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="XDG_CONFIG_HOME is a relative path: 'here'"):
        effective(tmp_path, {"XDG_CONFIG_HOME": "here"})
    assert settings.user_file({"HOME": ""}).is_absolute()
