# SPDX-License-Identifier: GPL-2.0-only
"""The cache, with real processes: an entry is there as a whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import BuildError, HarnessError, UsageError
from harness.progress import Progress
from harness.target.cache import Cache, default_root, digest_of, digest_of_tree

KEY = digest_of("an entry")
OTHER = digest_of("another entry")


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(said: io.StringIO) -> Progress:
    return Progress(said)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fill(path: Path) -> None:
    (path / "directory").mkdir()
    (path / "directory/file").write_text("content")
    (path / "link").symlink_to("directory/file")


def must_not_build(path: Path) -> None:
    raise AssertionError(f"built again: {path}")


def leftovers(cache: Cache) -> list[Path]:
    return list((cache.root / "tmp").iterdir())


def test_an_entry_is_built_once(cache: Cache, progress: Progress) -> None:
    path = cache.entry("thing", KEY, fill, progress=progress)
    assert (path / "link").read_text() == "content"
    assert cache.entry("thing", KEY, must_not_build, progress=progress) == path
    assert leftovers(cache) == []


def test_kinds_and_keys_that_are_none(cache: Cache, progress: Progress) -> None:
    for kind, key in (("tmp", KEY), ("../x", KEY), ("thing", "../../etc"), ("thing", "short")):
        with pytest.raises(ValueError, match="not a"):
            cache.entry(kind, key, fill, progress=progress)


@pytest.mark.parametrize("error", [BuildError("no"), KeyboardInterrupt(), ValueError("a bug")])
def test_a_build_that_fails_leaves_nothing(cache: Cache, progress: Progress, error: BaseException) -> None:
    def build(path: Path) -> None:
        fill(path)
        raise error

    with pytest.raises(type(error)):
        cache.entry("thing", KEY, build, progress=progress)
    assert not (cache.root / "thing" / KEY).exists()
    assert leftovers(cache) == []
    cache.entry("thing", KEY, fill, progress=progress)


def shorten(path: Path) -> None:
    (path / "directory/file").write_text("con")


def remove(path: Path) -> None:
    (path / "directory/file").unlink()


def falsify(path: Path) -> None:
    (path / "directory/file").write_text("CONTENT")


def redirect(path: Path) -> None:
    (path / "link").unlink()
    (path / "link").symlink_to("directory/elsewhere")


def forget(path: Path) -> None:
    (path / ".manifest.json").unlink()


def garble(path: Path) -> None:
    (path / ".manifest.json").write_text('{"files": [')


@pytest.mark.parametrize("damage", [shorten, remove, falsify, redirect, forget, garble])
def test_a_damaged_entry_is_noticed_said_and_built_again(
    cache: Cache, progress: Progress, said: io.StringIO, damage: Callable[[Path], None]
) -> None:
    path = cache.entry("thing", KEY, fill, progress=progress)
    damage(path)
    assert cache.entry("thing", KEY, fill, progress=progress) == path
    assert (path / "link").read_text() == "content"
    assert f"thing {KEY[:12]} in the cache is damaged" in said.getvalue()
    assert leftovers(cache) == []


def test_only_a_thorough_look_reads_content_whose_time_is_unchanged(cache: Cache, progress: Progress) -> None:
    path = cache.entry("thing", KEY, fill, progress=progress)
    file = path / "directory/file"
    before = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, (1, 1))
    assert cache.verify(thorough=False) == []
    assert cache.verify(thorough=True) == [f"{path}: the content of directory/file changed"]
    assert path.stat().st_mtime == 1, "looking is no use, which would keep it in the cache"


def test_an_entry_whose_times_changed_is_hashed_and_kept(cache: Cache, progress: Progress) -> None:
    path = cache.entry("thing", KEY, fill, progress=progress)
    os.utime(path / "directory/file", (1, 1))
    assert cache.entry("thing", KEY, must_not_build, progress=progress) == path
    manifest = json.loads((path / ".manifest.json").read_text())
    assert manifest["files"]["directory/file"][1] == 1_000_000_000


def test_a_full_disk_says_how_full_and_what_to_do(cache: Cache, progress: Progress) -> None:
    def build(path: Path) -> None:
        fill(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(HarnessError, match=r"No space left on device; \d+ MiB are free") as caught:
        cache.entry("thing", KEY, build, progress=progress)
    assert "hmm-harness clean" in str(caught.value.hint)
    assert leftovers(cache) == []


def test_a_build_that_cannot_fit_is_not_begun(cache: Cache, progress: Progress) -> None:
    with pytest.raises(HarnessError, match="1073741824 MiB are needed"):
        cache.entry("thing", KEY, must_not_build, progress=progress, needs=1 << 50)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_really_full_disk(small_disk: Path, progress: Progress) -> None:
    cache = Cache(small_disk / "cache")

    def build(path: Path) -> None:
        (path / "large").write_bytes(bytes(2 << 20))

    with pytest.raises(HarnessError, match="no space for thing"):
        cache.entry("thing", KEY, build, progress=progress)
    assert leftovers(cache) == []
    cache.entry("thing", KEY, fill, progress=progress)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process with `cache`, `progress`, `KEY` and what `script` makes of them."""
    preamble = """
        import sys, time
        from pathlib import Path
        from harness.progress import Progress
        from harness.target.cache import Cache, digest_of
        cache, progress, KEY = Cache(Path(sys.argv[1])), Progress(), digest_of("an entry")
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_build_an_entry_once_and_the_second_says_that_it_waits(cache: Cache, tmp_path: Path) -> None:
    script = """
        def build(path):
            with open(sys.argv[2], "a") as tally:
                print("built", file=tally)
            print("building", flush=True)
            while not Path(sys.argv[3]).exists():
                time.sleep(0.01)
            (path / "file").write_text("content")
        print((cache.entry("thing", KEY, build, progress=progress) / "file").read_text())
    """
    tally, release = tmp_path / "tally", tmp_path / "release"
    first = start(script, cache.root, tally, release)
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = start(script, cache.root, tally, release)
    assert second.stderr is not None
    assert second.stderr.readline() == f"another process is making thing {KEY[:12]}: waiting for it\n"
    release.touch()
    assert first.communicate()[0] == "content\n"
    assert second.communicate()[0] == "content\n"
    assert tally.read_text() == "built\n"


def test_two_threads_build_an_entry_once(cache: Cache, progress: Progress) -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        fill(path)

    threads = [
        threading.Thread(target=cache.entry, args=("thing", KEY, build), kwargs={"progress": progress})
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


BUILDER = """
    def build(path):
        (path / "half").write_text("hal")
        print("building", flush=True)
        time.sleep(600)
    cache.entry("thing", KEY, build, progress=progress)
"""


@pytest.fixture
def builder(cache: Cache) -> Iterator[subprocess.Popen[str]]:
    """Another process that is at the entry KEY for ever."""
    process = start(BUILDER, cache.root)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("builder")
def test_a_thread_that_waits_for_another_process_can_be_told_to_stop(cache: Cache, said: io.StringIO) -> None:
    given_up = threading.Event()
    ended: list[HarnessError] = []

    def wait() -> None:
        try:
            cache.entry("thing", KEY, fill, progress=Progress(said), given_up=given_up)
        except HarnessError as error:
            ended.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    while "another process is making thing" not in said.getvalue():
        assert waiter.is_alive()
    assert not ended
    given_up.set()
    waiter.join(60)
    assert [error.message for error in ended] == [f"thing {KEY[:12]} was waited for, and is not wanted any more"]


def test_another_thread_is_not_another_process(cache: Cache, progress: Progress, said: io.StringIO) -> None:
    """Its own steps are shown; what waits for it says nothing."""
    waits = threading.Event()
    looked: list[object] = []

    class Waiting(Progress):
        def say(self, text: str, **_: object) -> None:
            looked.append(text)

    def build(path: Path) -> None:
        other = threading.Thread(
            target=lambda: looked.append(cache.entry("thing", KEY, must_not_build, progress=Waiting(said))),
            daemon=True,
        )
        other.start()
        waits.wait(0.5)  # it has looked several times
        others.append(other)
        fill(path)

    others: list[threading.Thread] = []
    path = cache.entry("thing", KEY, build, progress=progress)
    others[0].join(60)
    assert looked == [path]


@pytest.mark.parametrize("key", [KEY, OTHER], ids=["the same entry", "another entry"])
def test_what_a_killed_builder_left_is_swept_by_the_next(cache: Cache, progress: Progress, key: str) -> None:
    killed = start(BUILDER, cache.root)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "building\n"
    (half,) = leftovers(cache)
    cache.entry("thing", digest_of("a third"), fill, progress=progress)
    assert half.exists(), "a builder that lives keeps what it is at"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (cache.root / "thing" / KEY).exists()
    cache.entry("thing", key, fill, progress=progress)
    assert leftovers(cache) == []


def test_clean_leaves_alone_what_is_being_built(cache: Cache, progress: Progress) -> None:
    cache.entry("thing", OTHER, fill, progress=progress)
    cache.log("some").write_text("said")

    def build(path: Path) -> None:
        fill(path)
        assert cache.clean(progress=progress) > 0
        assert (path / "directory/file").exists()

    path = cache.entry("thing", KEY, build, progress=progress)
    assert (path / "directory/file").exists()
    assert not (cache.root / "thing" / OTHER).exists()
    assert [(each.kind, each.entries) for each in cache.usage()] == [("thing", 1)]
    cache.clean(progress=progress)
    assert cache.usage() == []


@pytest.fixture
def user(cache: Cache, progress: Progress) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the entry KEY, and nobody else does."""
    Cache(cache.root).entry("thing", KEY, fill, progress=progress)
    process = start(
        """
        print(cache.entry("thing", KEY, None, progress=progress), flush=True)
        time.sleep(600)
        """,
        cache.root,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{cache.root / 'thing' / KEY}\n"
    yield process
    process.kill()
    process.communicate()


def test_what_another_process_uses_is_not_removed(
    cache: Cache, progress: Progress, said: io.StringIO, user: subprocess.Popen[str]
) -> None:
    path = cache.root / "thing" / KEY
    other = cache.entry("thing", OTHER, fill, progress=progress)
    cache.clean(progress=progress)
    assert f"thing {KEY[:12]} is in use by another process: left alone" in said.getvalue()
    assert cache.remove("thing", KEY) == 0
    os.utime(path, (0, 0))
    cache.entry("thing", digest_of("makes room"), fill, progress=progress)
    assert (path / "link").read_text() == "content"
    assert not other.exists(), "what nobody else uses goes"
    user.kill()
    user.wait()
    assert cache.remove("thing", KEY) > 0
    assert not path.exists()


def test_what_is_in_use_here_does_not_make_room(cache: Cache, progress: Progress) -> None:
    path = cache.entry("thing", KEY, fill, progress=progress)
    os.utime(path, (0, 0))
    cache.entry("thing", OTHER, fill, progress=progress)
    assert path.exists()


def test_an_entry_that_goes_at_this_moment_is_built_again(
    cache: Cache, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for it meanwhile does not get what is on its way out."""
    path = Cache(cache.root).entry("thing", KEY, fill, progress=progress)
    built: list[Path] = []

    def build(place: Path) -> None:
        built.append(place)
        fill(place)

    class Nobodys(set[Path]):
        """For this test the thread that asks is a process of its own."""

        def __contains__(self, _lock: object) -> bool:
            return False

    class Slow(Cache):
        def _remove(self, path: Path) -> None:
            asking.start()
            while "waiting" not in said.getvalue():
                assert asking.is_alive()
            super()._remove(path)

    said = io.StringIO()
    asking = threading.Thread(
        target=cache.entry, args=("thing", KEY, build), kwargs={"progress": Progress(said)}, daemon=True
    )
    monkeypatch.setattr("harness.target.cache._OURS", Nobodys())
    assert Slow(cache.root).remove("thing", KEY) > 0
    asking.join(60)
    assert len(built) == 1
    assert (path / "link").read_text() == "content"


def test_an_entry_that_nobody_used_for_long_makes_room(cache: Cache, progress: Progress) -> None:
    before = Cache(cache.root)
    old = before.entry("thing", KEY, fill, progress=progress)
    elsewhere = before.entry("other", KEY, fill, progress=progress)
    del before
    for path in (old, elsewhere):
        os.utime(path, (0, 0))
    cache.entry("thing", OTHER, fill, progress=progress)
    assert not old.exists()
    assert elsewhere.exists()


def test_a_remembered_digest_follows_the_file(cache: Cache, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_text("one")
    first = cache.file_digest(file)
    assert cache.file_digest(file) == first
    file.write_text("another")
    assert cache.file_digest(file) != first
    (cache.root / "digests.json").write_text("[]")
    file.write_text("one")
    assert cache.file_digest(file) == first


def test_digests_tell_parts_trees_and_modes_apart(tmp_path: Path) -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
    fill(tmp_path)
    whole = digest_of_tree(tmp_path)
    assert digest_of_tree(tmp_path, ignore=lambda _, names: {"link"} & set(names)) != whole
    (tmp_path / "directory/file").chmod(0o755)
    assert digest_of_tree(tmp_path) != whole


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "hmm-harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache/hmm-harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(UsageError, match="relative"):
        default_root()


def test_a_place_that_cannot_be_written(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(HarnessError, match="cannot make thing"):
        Cache(tmp_path / "cache").entry("thing", KEY, fill, progress=progress)


def test_holes_of_large_files_take_nothing(cache: Cache, progress: Progress) -> None:
    def sparse(out: Path) -> None:
        with (out / "ram").open("wb") as file:
            file.truncate(64 << 20)
        (out / "small").write_bytes(b"1234")

    cache.entry("thing", KEY, sparse, progress=progress)
    (usage,) = cache.usage()
    assert 4 <= usage.size < 1 << 20
