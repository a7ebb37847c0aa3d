# SPDX-License-Identifier: GPL-2.0-only
"""Completion, asked for in the shells themselves."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import candidates
from harness.conformance import catalogue
from harness.progress import Progress
from harness.target.cache import Cache
from tests.needs import need

_BASH = r"""
source <(hmm-harness completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
read -ra COMP_WORDS <<< "$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete hmm-harness "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with what an archive once had."""
    files = [
        {"package": package, "version": version, "suite": "s", "path": "p", "size": 1, "sha256": "0"}
        for package, version in (
            ("linux-source-7.77", "7.77.1-1"),
            ("linux-image-7.77.1+deb13-cloud-amd64", "7.77.1-1"),
            ("linux-headers-7.77.1+deb13-cloud-amd64", "7.77.1-1"),
        )
    ]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(out: Path) -> None:
        (out / "index.json").write_text(json.dumps(files))

    Cache().entry("index", "0" * 64, write, progress=Progress(io.StringIO()))


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """An environment with an hmm-harness on the path."""
    program = tmp_path / "bin" / "hmm-harness"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
    program.chmod(0o755)
    checkout = str(Path(__file__).parents[1])
    return os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": checkout, "TERM": "dumb"}


def _bash(surroundings: dict[str, str], line: str) -> list[str]:
    ended = subprocess.run(
        ["bash", "-c", _BASH, "bash", line], env=surroundings, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    return [word.strip() for word in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("hmm-harness ", {"run", "vm", "config", "completion", "list"}),
        ("hmm-harness vm ", {"shell", "exec", "list", "stop"}),
        ("hmm-harness run --ker", {"--kernel"}),
        ("hmm-harness run --binding ", {"interval", "mirror", "test_hmm"}),
        ("hmm-harness run --flavour plain,d", {"plain,debug"}),
        ("hmm-harness run sn", {"snapshot/"}),
        ("hmm-harness run snapshot/ho", {"snapshot/hole"}),
        ("hmm-harness run --clause RANGE-2", {"RANGE-29"}),
        ("hmm-harness clauses --area PI", {"PIN"}),
        ("hmm-harness run --wrong skip-inv", {"skip-invalidate"}),
        ("hmm-harness vm shell --flavour p", {"plain"}),
        ("hmm-harness completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_bash(surroundings: dict[str, str], line: str, wanted: set[str]) -> None:
    assert wanted <= set(_bash(surroundings, line))


def test_bash_completes_after_a_colon(surroundings: dict[str, str]) -> None:
    """A colon ends a word for bash: the part before it must not come again."""
    kernels = [kernel for kernel in candidates.kernels("") if kernel.startswith("debian:")]
    wanted = {kernel.removeprefix("debian:") for kernel in kernels}
    assert set(_bash(surroundings, "hmm-harness run --kernel debian:")) | {""} == wanted


@pytest.mark.usefixtures("known")
def test_kernels_of_an_archive_that_was_read_are_known() -> None:
    everything = candidates.kernels("")
    assert {"debian:7.77", "stock:newest", "stock:7.77", "host", "tree:"} <= set(everything)
    assert "debian:7.77.1" not in everything, "the many come when the series is typed"
    assert "debian:7.77.1" in candidates.kernels("debian:7.77.")
    assert "stock:linux-image-7.77.1+deb13-cloud-amd64" in candidates.kernels("stock:l")


@pytest.mark.usefixtures("known")
def test_bash_completes_kernels_as_shipped(surroundings: dict[str, str]) -> None:
    assert set(_bash(surroundings, "hmm-harness run --kernel stock:")) == {"newest", "7.77"}
    package = "linux-image-7.77.1+deb13-cloud-amd64"
    assert _bash(surroundings, "hmm-harness kernel build stock:l") == [package]


def test_bash_offers_no_files_where_we_have_nothing(surroundings: dict[str, str]) -> None:
    script = "source <(hmm-harness completion bash); complete -p hmm-harness"
    ended = subprocess.run(["bash", "-c", script], env=surroundings, capture_output=True, text=True, check=True)
    assert "-F _python_argcomplete" in ended.stdout
    assert "-o default" not in ended.stdout


def test_bash_completes_files_of_a_home(surroundings: dict[str, str], tmp_path: Path) -> None:
    """Bash itself does not come to it any more."""
    (tmp_path / "results.jsonl").touch()
    surroundings |= {"HOME": str(tmp_path)}
    assert _bash(surroundings, "hmm-harness report ~/res") == ["~/results.jsonl"]


def test_bash_completes_files(surroundings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.hmm").touch()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "results.jsonl").touch()
    assert _bash(surroundings, f"hmm-harness run {tmp_path}/mi") == [f"{tmp_path}/mine.hmm"]
    assert _bash(surroundings, f"hmm-harness report {tmp_path}/res") == [f"{tmp_path}/results.jsonl"]


@pytest.mark.usefixtures("known")
def test_fish(surroundings: dict[str, str]) -> None:
    need("fish")
    for line, wanted in (
        ("run snapshot/ho", "snapshot/hole"),
        ("vm sh", "shell"),
        ("run --flavour d", "debug"),
        ("run --kernel stock:7", "stock:7.77"),
    ):
        script = f"hmm-harness completion fish | source; complete --do-complete 'hmm-harness {line}'"
        ended = subprocess.run(["fish", "-c", script], env=surroundings, capture_output=True, text=True, check=True)
        assert ended.stdout.split()[0] == wanted


@pytest.mark.usefixtures("known")
def test_zsh(surroundings: dict[str, str], tmp_path: Path) -> None:
    """Typed at a terminal: zsh completes nowhere else."""
    need("zsh")
    script = subprocess.run(
        ["hmm-harness", "completion", "zsh"], env=surroundings, capture_output=True, text=True, check=True
    )
    (tmp_path / "script").write_text(script.stdout)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], surroundings)
    try:
        _type(terminal, f"autoload -Uz compinit; compinit -u -D; source {tmp_path}/script; echo re''ady\n", "ready")
        _type(terminal, "hmm-harness run snapshot/ho\t", "snapshot/hole")
        _type(terminal, "\x15hmm-harness vm she\t", "shell")
        _type(terminal, "\x15hmm-harness run --kernel stock:7\t", "7.77")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _type(terminal: int, text: str, wanted: str) -> None:
    os.write(terminal, text.encode())
    shown = ""
    deadline = time.monotonic() + 60
    while wanted not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} was not shown:\n{shown}"
        shown += os.read(terminal, 4096).decode(errors="replace")


def test_programs_are_offered_a_step_at_a_time() -> None:
    steps = candidates.programs("")
    directories = {name.partition("/")[0] + "/" for name in catalogue.names() if "/" in name}
    assert directories <= set(steps)
    assert not any("/" in step.removesuffix("/") for step in steps if step.startswith("snapshot"))


def test_mistakes_are_those_of_the_driver() -> None:
    assert {"skip-invalidate", "migrate-no-copy", "leak-device-page"} <= set(candidates.mistakes(""))
    assert "skip-retry,skip-retry" not in candidates.mistakes("skip-retry,")
