# SPDX-License-Identifier: GPL-2.0-only
"""What is needed next is made meanwhile; whoever leaves waits for nobody."""

from __future__ import annotations

import io
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.ahead import Ahead
from harness.errors import BuildError, HarnessError
from harness.progress import Progress
from harness.target import children
from harness.target.cache import Cache, digest_of

_PATIENCE = 60.0


def _ends(action: Callable[[], object]) -> bool:
    """Whether it does, before a child or a lock would by itself."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return not thread.is_alive()


def test_it_is_made_while_something_else_is_done(tmp_path: Path) -> None:
    """Once, by another thread: `get` waits for that one."""
    wanted = threading.Event()
    made: list[threading.Thread] = []

    def make(what: str, _cache: Cache) -> str:
        made.append(threading.current_thread())
        if what == "next":
            assert wanted.wait(_PATIENCE)
        return what.upper()

    with Ahead(make, Cache(tmp_path)) as ahead:
        assert ahead.get("first") == "FIRST"
        ahead.begin("next")
        wanted.set()  # which a `begin` that waits would not come to
        assert ahead.get("next") == "NEXT"
    assert [thread is threading.current_thread() for thread in made] == [True, False]


def test_what_goes_wrong_is_told_who_asks_for_it(tmp_path: Path) -> None:
    def make(what: str, _cache: Cache) -> str:
        raise BuildError(f"{what} does not build")

    with Ahead(make, Cache(tmp_path)) as ahead:
        ahead.begin("it")
        with pytest.raises(BuildError, match="it does not build"):
            ahead.get("it")
        ahead.begin("another")  # nobody asks


def test_a_build_is_ended_with_whoever_wanted_it(tmp_path: Path) -> None:
    """And leaves nothing behind in the cache."""
    cache, key = Cache(tmp_path), digest_of("a kernel")
    building = threading.Event()

    def make(_what: str, mine: Cache) -> Path:
        def build(_out: Path) -> None:
            building.set()
            children.run(["sleep", "1000"], what="compiling")

        return mine.entry("kernel", key, build, progress=Progress(io.StringIO()))

    def run() -> None:
        with Ahead(make, cache) as ahead:
            ahead.begin("it")
            assert building.wait(_PATIENCE)

    assert _ends(run)
    assert not cache.has("kernel", key)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_who_leaves_does_not_wait_for_another_process(tmp_path: Path) -> None:
    cache, key = Cache(tmp_path), digest_of("a kernel")
    said = io.StringIO()
    outcome: list[BaseException] = []

    def make(_what: str, mine: Cache) -> Path:
        try:
            return mine.entry("kernel", key, lambda _out: None, progress=Progress(said))
        except HarnessError as error:
            outcome.append(error)
            raise

    def run() -> None:
        with Ahead(make, cache) as ahead:
            ahead.begin("it")
            while "another process is making kernel" not in said.getvalue():
                time.sleep(0.01)

    (tmp_path / "locks").mkdir()
    with (tmp_path / f"locks/kernel.{key}").open("w") as lock:
        holder = subprocess.Popen(["flock", "--exclusive", str(lock.fileno())], pass_fds=[lock.fileno()])
        assert holder.wait() == 0  # `lock` is held now, as if by another process
        assert _ends(run)
    assert ["is not wanted any more" in str(error) for error in outcome] == [True]
