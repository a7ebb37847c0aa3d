# SPDX-License-Identifier: GPL-2.0-only
"""The main job as a user runs it, and what happens when it is disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.errors import ExitCode, HarnessError
from harness.model.rules import RULES
from harness.progress import Progress
from harness.run import Plan, run
from harness.target.artifacts import Module
from harness.target.cache import Cache
from harness.target.lab import Lab
from harness.target.payload import provide_payload
from harness.target.vm import Machine
from tests.processes import marked_processes
from tests.stores import await_result, await_stored

pytestmark = pytest.mark.vm

COMMAND = [sys.executable, "-m", "harness", "run"]


@pytest.fixture
def surroundings(machine: Machine, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose processes can be told, with a place of its own for temporary files."""
    assert machine.kernel.image.exists()  # built before anything is timed or disturbed
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    yield os.environ | {"TMPDIR": str(temporary), "MARKED_BY_TEST": str(tmp_path)}
    assert list(temporary.iterdir()) == []
    _no_process_is_left(tmp_path)


def _no_process_is_left(tmp_path: Path) -> None:
    deadline = time.monotonic() + 20
    while (left := marked_processes(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}


def _qemu(tmp_path: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid, program in marked_processes(str(tmp_path)).items():
            if program.startswith("qemu-system"):
                return pid
        time.sleep(0.05)
    raise AssertionError("no QEMU was started")


def _results(path: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["type"] for record in records[:2]] == ["run", "target"]
    assert records[-1]["type"] == "end"
    return [record for record in records if record["type"] == "result"]


def test_the_main_job(surroundings: dict[str, str], tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    ended = subprocess.run(
        [*COMMAND, "migrate", "--json", str(results)],
        env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    assert ended.returncode == ExitCode.PASS, said
    assert "QEMU" in ended.stdout.splitlines()[0]
    assert " passed" in ended.stdout.splitlines()[-1]
    lines = _results(results)
    names = [name for name in catalogue.names() if name.startswith("migrate/")]
    assert {(line["program"], line["binding"]) for line in lines} == {
        (name, binding) for name in names for binding in ("interval", "mirror", "test_hmm")
    }
    for line in lines:
        assert line["kernel"] == "debian:6.1"
        assert line["flavour"] == "plain"
        assert line["status"] in {"PASS", "SKIP"}
        assert line["reason"] or line["status"] == "PASS"
        assert " run --kernel debian:6.1 " in line["replay"]
        assert line["seconds"] > 0 or line["status"] == "SKIP"  # which may have been known without running it


def test_a_divergence_is_explained_and_its_replay_command_replays_it(surroundings: dict[str, str]) -> None:
    command = [
        *COMMAND,
        "--binding",
        "interval",
        "--wrong",
        "migrate-no-copy",
        "--timeout",
        "25",
        "migrate/to-device",
    ]
    # as a person pastes it, where the interpreter that runs this is the first on the path
    surroundings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for _ in range(2):
        ended = subprocess.run(
            command,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode == ExitCode.FAIL, said
        assert "saw 0, allowed is 100" in said
        (line,) = [line for line in said.splitlines() if "replay:" in line]
        replay = line.partition("replay: ")[2]
        assert "--timeout 25" in replay
        command = ["sh", "-c", replay]


def test_qemu_is_killed_in_the_middle(surroundings: dict[str, str], tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    child = subprocess.Popen(
        [*COMMAND, "--json", str(results)],
        env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    await_result(results, "access/read-only", child)
    os.kill(_qemu(tmp_path), signal.SIGKILL)
    said = child.stdout.read()
    assert child.wait(timeout=300) == ExitCode.INFRASTRUCTURE, said
    assert "Traceback" not in said
    lines = _results(results)
    errors = [line for line in lines if line["status"] == "ERROR"]
    assert len(errors) == 1, said
    assert "QEMU" in errors[0]["reason"]
    assert len(lines) == len(RULES) * len(catalogue.names())
    assert not {line["status"] for line in lines} & {"FAIL", "CRASHED", "TIMEOUT", "INCONCLUSIVE"}


@pytest.mark.parametrize("moment", ["", "target", "access/hole", "devmem/exit", "snapshot/hole"])
def test_ctrl_c_at_any_moment(surroundings: dict[str, str], tmp_path: Path, moment: str) -> None:
    """Interrupted when the kernel was ready, or a program done; without a `moment`, as soon as there is a QEMU."""
    results = tmp_path / "results.jsonl"
    child = subprocess.Popen(
        [*COMMAND, "--json", str(results)],
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    if moment == "target":
        await_stored(results, '"type": "target"', child)
    elif moment:
        await_result(results, moment, child)
    else:
        _qemu(Path(surroundings["MARKED_BY_TEST"]))
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == ExitCode.INTERRUPTED, said
    assert "Traceback" not in said


def test_the_harness_is_killed(surroundings: dict[str, str], tmp_path: Path) -> None:
    child = subprocess.Popen(COMMAND, env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _qemu(tmp_path)
    child.kill()
    child.wait()
    _no_process_is_left(tmp_path)


def test_two_at_once(surroundings: dict[str, str]) -> None:
    """QEMU chooses the port of each VM: two runs do not meet."""
    children = [
        subprocess.Popen(
            [*COMMAND, "access"],
            env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for child in children:
        said, _ = child.communicate(timeout=300)
        assert child.returncode == ExitCode.PASS, said


def test_a_cache_entry_that_is_damaged_is_made_again(machine: Machine, cache: Cache, tmp_path: Path) -> None:
    root = tmp_path / "hmm-harness"
    root.mkdir()
    for kind in ("kernel", "image", "module"):
        (root / kind).symlink_to(cache.root / kind)
    arguments = [*COMMAND, "snapshot/hole", "--no-restore", "--binding", "interval"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for damage in (False, True, False):
        if damage:
            (payload,) = (root / "payload").glob("*/payload.erofs")
            os.truncate(payload, 8192)
        ended = subprocess.run(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == ExitCode.PASS, ended.stdout + ended.stderr
        assert ("damaged" in ended.stderr) is damage
    assert machine.payload.path.exists()


def test_a_module_that_does_not_load(machine: Machine, cache: Cache, progress: Progress, tmp_path: Path) -> None:
    garbage = tmp_path / "hmm_harness.ko"
    garbage.write_bytes(b"this is no module")
    payload = provide_payload(machine.kernel, Module("garbage", garbage), cache=Cache(tmp_path), progress=progress)
    broken = replace(machine, payload=payload)
    programs = catalogue.select(["snapshot/hole"])
    with Lab(broken, cache=cache, progress=progress, restore=False) as lab:
        with pytest.raises(HarnessError, match="hmm_harness did not load") as caught:
            list(run(Plan(programs, ["interval"]), lab))
        assert caught.value.exit_code is ExitCode.INFRASTRUCTURE
        assert caught.value.hint
        (other,) = run(Plan(programs, ["test_hmm"]), lab)
        assert other.status is Verdict.PASS
