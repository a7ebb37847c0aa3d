# SPDX-License-Identifier: GPL-2.0-only
"""`vm exec` and what it says of a VM that failed, without a VM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.cli import main, vm
from harness.errors import ExitCode
from harness.target.watchdog import Trouble, VMFailure


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`main` takes them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail_with(monkeypatch: pytest.MonkeyPatch, failure: VMFailure) -> None:
    """Each new VM fails that way under what is run in it."""

    class Dying:
        def session(self, _use: object) -> int:
            raise failure

    @contextmanager
    def started(*_: object) -> Iterator[Dying]:
        yield Dying()

    monkeypatch.setattr(vm, "_machine", lambda *_: None)
    monkeypatch.setattr(vm, "_started", started)


@pytest.mark.parametrize("command", [["exec", "true"], ["shell"]])
def test_the_console_of_a_vm_that_failed_is_shown_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    fail_with(monkeypatch, VMFailure(Trouble.PANIC, "the kernel panicked", console="[    1.0] one\n[    1.0] two"))
    assert main(["vm", *command]) == ExitCode.CRASH
    assert capsys.readouterr().err.splitlines()[:3] == [
        "    [    1.0] one",
        "    [    1.0] two",
        "hmm-harness: the kernel panicked",
    ]


def test_a_guest_has_no_way_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, VMFailure(Trouble.PANIC, "panicked: \x1b[2J", console="[    1.0] \x1b]0;owned\x07"))
    main(["vm", "exec", "true"])
    assert capsys.readouterr().err.splitlines()[:2] == [
        "    [    1.0] \\x1b]0;owned\\x07",
        "hmm-harness: panicked: \\x1b[2J",
    ]
