# SPDX-License-Identifier: GPL-2.0-only
"""One case of a suite, run as the agent in the guest runs it: nothing of it is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.guest.agent import Agent
from harness.guest.cases import run_case
from harness.guest.kernel import EARLIER_LINES, AgentError
from tests.test_guest_agent import Log, agent, log, payload  # noqa: F401  fixtures


def _suite(place: Path, script: str) -> str:
    path = place / "suite"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_output_status_and_choice(tmp_path: Path) -> None:
    ended = run_case(_suite(tmp_path, 'echo "case $HMM_HARNESS_CASE"; echo worse >&2; echo end; exit 3'), 17, 30.0)
    assert (ended.output, ended.status, ended.late, ended.left) == (b"case 17\nworse\nend\n", 3, False, [])
    assert run_case(_suite(tmp_path, "kill -SEGV $$"), 1, 30.0).status == -11


def _alive(name: str) -> bool:
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and name in (each / "cmdline").read_text():
                return True
        except OSError:
            continue
    return False


def test_what_it_leaves_behind_is_killed_and_told(tmp_path: Path) -> None:
    duration = f"{3000 + os.getpid()}"
    started = "while ! grep -q sleep /proc/$!/comm; do :; done"
    ended = run_case(_suite(tmp_path, f"setsid true; sleep {duration} & {started}; echo done"), 1, 30.0)
    assert (ended.output, ended.status, ended.left) == (b"done\n", 0, ["sleep"])
    assert not _alive(f"sleep\0{duration}")


def test_what_does_not_end_is_ended(tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = run_case(_suite(tmp_path, "echo begun; sleep 3000; echo ended"), 1, 0.3)
    assert (ended.output, ended.status, ended.late, ended.left) == (b"begun\n", -9, True, [])
    assert time.monotonic() - begun < 20


def test_of_very_much_output_begin_and_end_are_kept(tmp_path: Path) -> None:
    ended = run_case(_suite(tmp_path, "echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last"), 1, 60.0)
    assert len(ended.output) < 2_000_000
    assert ended.output.startswith(b"first\n")
    assert ended.output.endswith(b"\nlast\n")
    assert b"bytes are left out]" in ended.output


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot start"):
        run_case(str(tmp_path / "none"), 1, 1.0)


def test_the_agent_tells_the_kernels_words_of_that_time(agent: Agent, log: Log, tmp_path: Path) -> None:  # noqa: F811
    log.printer.send(b"4,1,1000000,-;late words")
    request = {"do": "case", "path": _suite(tmp_path, "echo hello"), "case": 2, "seconds": 30.0}
    answer, output = agent.answer(request, b"")
    assert output == b"hello\n"
    assert answer["log"] == ["[    1.000000] late words", EARLIER_LINES]
    assert (answer["status"], answer["late"], answer["left"], answer["number"]) == (0, False, [], 0)
    answer, _ = agent.answer(request, b"")
    assert (answer["log"], answer["number"]) == ([], 1)
    answer, _ = agent.answer({**request, "path": str(tmp_path / "none")}, b"")
    assert "cannot start" in answer["error"]
