# SPDX-License-Identifier: GPL-2.0-only
"""A store of what was built, by the hash of what it was built from. Below its root:

    KIND/KEY/            a finished entry: files of the builder and .manifest.json; shared (flock) by whoever uses it
    locks/KIND.KEY       held (flock) by whoever builds that entry
    tmp/KIND.KEY.RANDOM  an entry in the making; dead if nobody holds its lock
    work/KIND.KEY/       where something is built again and again, each time only what changed
    logs/                what compilers said, kept when a build fails
    digests.json         hashes of large input files, by their size and time

An entry appears by a rename, so it is there as a whole or not at all, whatever ended the builder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.basedir import base_directory
from harness.errors import HarnessError
from harness.progress import Progress

_MANIFEST = ".manifest.json"
_RESERVED = frozenset({"locks", "tmp", "logs", "work"})
_KIND = re.compile(r"[a-z][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{8,128}")
# Seconds after which an entry makes room when another of its kind is built. A VM is saved anew, in seconds, for each
# change of our module or of what runs in the guest.
_UNUSED_FOR = 14 * 24 * 3600.0
_UNUSED_FOR_BY_KIND = {"vm": 2 * 24 * 3600.0}
_POLL_SECONDS = 0.1  # while another builder is waited for
_MIB = 1 << 20
_BLOCK = 512  # of st_blocks: stat(2)
Ignore = Callable[[str, list[str]], set[str]]  # what shutil.ignore_patterns returns


_OURS: set[Path] = set()  # the locks that this process holds


class _DamageError(Exception):
    """An entry is not what was put into the cache; says in what."""


@dataclass(frozen=True)
class Usage:
    """What the entries of one kind take up."""

    kind: str
    entries: int
    size: int  # bytes


def default_root() -> Path:
    """XDG_CACHE_HOME/hmm-harness, with the standard's default. Raises UsageError for a relative path."""
    return base_directory("XDG_CACHE_HOME", ".cache") / "hmm-harness"


def digest_of(*parts: str | bytes) -> str:
    """The hex digest of `parts`, told apart: ("ab", "c") and ("a", "bc") differ."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


def digest_of_tree(root: Path, *, ignore: Ignore | None = None) -> str:
    """The hex digest of all files below `root`: their names, permission to execute, and content.

    `ignore` is what shutil.copytree takes: what a copy leaves out is left out here.
    """
    parts: list[str | bytes] = []
    for name in sorted(_names(root, ignore)):
        path = root / name
        if path.is_symlink():
            parts += [name, "link", str(path.readlink())]
        else:
            parts += [name, "x" if os.access(path, os.X_OK) else "-", path.read_bytes()]
    return digest_of(*parts)


class Cache:
    """The store below `root`. Any number of processes use it at once.

    What `entry` has handed out stays as long as this object and its process live: others do not remove it. When
    `given_up` is set, no other builder is waited for any more.
    """

    def __init__(self, root: Path | None = None, *, given_up: threading.Event | None = None) -> None:
        self.root = default_root() if root is None else root
        self._given_up = given_up
        self._uses: dict[Path, int] = {}  # entries that were handed out: descriptors with a lock on each
        self._using = threading.Lock()
        weakref.finalize(self, _close, self._uses)

    def entry(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        *,
        progress: Progress,
        needs: int = 0,
        given_up: threading.Event | None = None,
    ) -> Path:
        """The directory of entry `key`; if there is none, `build` fills an empty directory with it first.

        `needs` is the free space in bytes below which there is no point in beginning. What `build` raises is
        passed on, with nothing left behind. Raises HarnessError if the disk is full or not writable, or if another
        builder was waited for when `given_up` was set.
        """
        _check_name(kind, key)
        path = self.root / kind / key
        try:
            if self._use(path):
                with suppress(_DamageError):
                    _check(path)
                    return path
            with self._lock(kind, key, progress, given_up):
                return self._locked_entry(path, build, progress=progress, needs=needs)
        except OSError as error:
            raise self._storage_error(error, f"{kind} {key[:12]}") from error

    @contextmanager
    def workplace(self, kind: str, key: str, *, progress: Progress) -> Iterator[Path]:
        """A directory that stays as it is left, for builds of what changed; one process has it at a time."""
        _check_name(kind, key)
        try:
            with self._lock(kind, key, progress):
                path = self.root / "work" / f"{kind}.{key}"
                path.mkdir(parents=True, exist_ok=True)
                yield path
        except OSError as error:
            raise self._storage_error(error, f"{kind} {key[:12]}") from error

    def has(self, kind: str, key: str) -> bool:
        """Whether `entry` would build nothing."""
        _check_name(kind, key)
        path = self.root / kind / key
        with suppress(_DamageError):
            if path.is_dir():
                _check(path)
                return True
        return False

    def size(self, kind: str, key: str) -> int:
        """The size of an entry in bytes; 0 if there is none."""
        path = self.root / kind / key
        return _size(path) if path.is_dir() else 0

    def keys(self, kind: str) -> list[str]:
        """The keys of all finished entries of a kind."""
        return [path.name for path in self._children(kind) if _KEY.fullmatch(path.name)]

    def remove(self, kind: str, key: str) -> int:
        """Removes one entry, unless somebody else uses or makes it at this moment. Returns the bytes freed."""
        _check_name(kind, key)
        path = self.root / kind / key
        if not path.is_dir():
            return 0
        self._let_go(path)
        with self._try_lock(kind, key) as locked:
            return self._remove_unused(path) or 0 if locked else 0

    def remove_workplaces(self) -> int:
        """Removes the directories of `workplace` that nobody has at this moment. Returns the bytes freed."""
        freed = 0
        for place in self._children("work"):
            kind, _, key = place.name.partition(".")
            with self._try_lock(kind, key) as locked:
                if locked:
                    freed += _size(place)
                    shutil.rmtree(place)
        return freed

    def verify(self, *, thorough: bool) -> list[str]:
        """Looks at every file of every entry, and reads it if `thorough`. Returns a line for each damaged entry."""
        damaged = []
        for path in self._entries():
            try:
                _check(path, thorough=thorough, used=False)
            except _DamageError as damage:
                damaged.append(f"{path}: {damage}")
        return damaged

    def usage(self) -> list[Usage]:
        """What is in the cache, by kind."""
        sizes: dict[str, list[int]] = {}
        for path in self._entries():
            sizes.setdefault(path.parent.name, []).append(_size(path))
        return [Usage(kind, len(each), sum(each)) for kind, each in sorted(sizes.items())]

    def free(self) -> int:
        """Free space in bytes where the cache is or will be."""
        place = self.root
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def clean(self, *, progress: Progress) -> int:
        """Removes everything but what others use or build at this moment. Returns the bytes freed."""
        freed = 0
        with progress.step("removing what is cached"):
            self._sweep()
            for path in self._entries():
                name = f"{path.parent.name} {path.name[:12]}"
                self._let_go(path)
                with self._try_lock(path.parent.name, path.name) as locked:
                    if not locked:
                        progress.say(f"{name} is being built: left alone")
                        continue
                    removed = self._remove_unused(path)
                if removed is None:
                    progress.say(f"{name} is in use by another process: left alone")
                else:
                    freed += removed
            freed += self.remove_workplaces()
            for log in self._children("logs"):
                freed += log.stat().st_size
                log.unlink(missing_ok=True)
            for lock in self._children("locks"):
                kind, _, key = lock.name.partition(".")
                with self._try_lock(kind, key) as locked:
                    if locked:
                        lock.unlink(missing_ok=True)
            (self.root / "digests.json").unlink(missing_ok=True)
        return freed

    def log(self, name: str) -> Path:
        """Where a build writes what its tools say. The file outlives the build."""
        directory = self.root / "logs"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{name}.log"

    def file_digest(self, path: Path) -> str:
        """The hex digest of a large file's content; remembered as long as its size and time stay the same."""
        status = path.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        memory = self.root / "digests.json"
        try:
            known: dict[str, dict[str, str]] = json.loads(memory.read_text())
            remembered = known.get(str(path), {})
            if remembered.get("stamp") == stamp and _KEY.fullmatch(remembered["digest"]):
                return remembered["digest"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            known = {}  # no memory, or one that cannot be read: hash again
        digest = _file_digest(path)
        known[str(path)] = {"stamp": stamp, "digest": digest}
        with suppress(OSError):  # it costs a second each time then; whoever builds next says what is wrong
            self.root.mkdir(parents=True, exist_ok=True)
            _write_whole(memory, json.dumps(known, indent=1))
        return digest

    def _locked_entry(self, path: Path, build: Callable[[Path], None], *, progress: Progress, needs: int) -> Path:
        if path.exists():
            try:
                _check(path)
                self._use(path)
                return path
            except _DamageError as damage:
                progress.say(f"{path.parent.name} {path.name[:12]} in the cache is damaged ({damage}): built again")
                self._remove(path)
        self._sweep(held=f"{path.parent.name}.{path.name}")
        self._drop_unused(path.parent.name)
        free = self.free()
        if free < needs:
            raise OSError(errno.ENOSPC, f"{needs // _MIB} MiB are needed")
        path.parent.mkdir(parents=True, exist_ok=True)
        making = self._temporary(path.parent.name, path.name)
        try:
            build(making)
            _seal(making)
            making.rename(path)
        except BaseException:
            with progress.step("removing what is half built"):  # a kernel's tree takes minutes on some disks
                shutil.rmtree(making, ignore_errors=True)
            raise
        self._use(path)
        _sync(path.parent)
        return path

    def _use(self, path: Path) -> bool:
        """Keeps an entry from being removed by others; False if there is none, or it is going at this moment."""
        with self._using:
            known = self._uses.get(path)
            if known is not None and _is(known, path):
                return True
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            if known is not None:  # of an entry that was damaged
                os.close(known)
            self._uses[path] = descriptor
            return _is(descriptor, path)

    def _let_go(self, path: Path) -> None:
        with self._using:
            descriptor = self._uses.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _remove_unused(self, path: Path) -> int | None:
        """Removes an entry whose lock the caller has; the bytes freed, or None if somebody uses it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            freed = _size(path)
            self._remove(path)
        except BlockingIOError:
            return None
        finally:
            os.close(descriptor)
        return freed

    def _storage_error(self, error: OSError, what: str) -> HarnessError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            used = sum(each.size for each in self.usage())
            return HarnessError(
                f"no space for {what} in {self.root}: {error.strerror}; {self.free() // _MIB} MiB are free, "
                f"the cache holds {used // _MIB} MiB",
                hint="free some with `hmm-harness clean`, or set XDG_CACHE_HOME to a directory on a larger disk",
            )
        if error.errno == errno.EMFILE:
            return HarnessError(f"cannot make {what}: {error}", hint="`ulimit -n 1024`, or more, in the shell")
        return HarnessError(
            f"cannot make {what} in {self.root}: {error}",
            hint="`hmm-harness doctor` says what is missing; XDG_CACHE_HOME puts the cache elsewhere",
        )

    @contextmanager
    def _lock(
        self, kind: str, key: str, progress: Progress, given_up: threading.Event | None = None
    ) -> Iterator[None]:
        """Waits for the lock. Never in flock() itself: from that no other thread could call a thread away."""
        what = f"{kind} {key[:12]}"
        given_up = given_up or self._given_up
        with ExitStack() as waiting:
            said = False
            for attempt in itertools.count():
                with self._try_lock(kind, key) as locked:
                    if locked:
                        waiting.close()
                        yield
                        return
                # Another thread of ours shows itself what it does, and is noted a moment after it has the lock.
                if attempt and not said and self._lock_file(kind, key) not in _OURS:
                    said = True
                    progress.say(f"another process is making {what}: waiting for it")
                    waiting.enter_context(progress.step(f"waiting for {what}"))
                if given_up is None:
                    time.sleep(_POLL_SECONDS)
                elif given_up.wait(_POLL_SECONDS):
                    raise HarnessError(f"{what} was waited for, and is not wanted any more")

    def _lock_file(self, kind: str, key: str) -> Path:
        return self.root / "locks" / f"{kind}.{key}"

    @contextmanager
    def _try_lock(self, kind: str, key: str) -> Iterator[bool]:
        """Yields whether the lock was had. The kernel gives it back when its holder dies."""
        path = self._lock_file(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
                if not _is(descriptor, path):
                    continue  # clean() removed the file meanwhile: its lock excludes nobody
                _OURS.add(path)
                try:
                    yield True
                finally:
                    _OURS.discard(path)
                return
            finally:
                os.close(descriptor)

    def _temporary(self, kind: str, key: str) -> Path:
        directory = self.root / "tmp"
        directory.mkdir(exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{kind}.{key}.", dir=directory))
        making.chmod(0o755)
        return making

    def _sweep(self, *, held: str = "") -> None:
        """Removes what builders left that were killed; `held` is the KIND.KEY whose lock the caller has."""
        for leftover in self._children("tmp"):
            owner, _ = leftover.name.rsplit(".", 1)
            if owner == held:
                shutil.rmtree(leftover, ignore_errors=True)
                continue
            kind, key = owner.split(".", 1)
            with self._try_lock(kind, key) as locked:
                if locked:
                    shutil.rmtree(leftover, ignore_errors=True)

    def _drop_unused(self, kind: str) -> None:
        horizon = time.time() - _UNUSED_FOR_BY_KIND.get(kind, _UNUSED_FOR)
        for path in self._children(kind):
            if path.stat().st_mtime < horizon:
                with self._try_lock(kind, path.name) as locked:
                    if locked:
                        self._remove_unused(path)

    def _remove(self, path: Path) -> None:
        """Takes an entry away at once, then removes it: an interruption leaves no half of it."""
        grave = self._temporary(path.parent.name, path.name)
        path.rename(grave / "entry")
        shutil.rmtree(grave)

    def _entries(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        kinds = [each.name for each in self.root.iterdir() if each.is_dir() and each.name not in _RESERVED]
        return [path for kind in sorted(kinds) for path in self._children(kind) if _KEY.fullmatch(path.name)]

    def _children(self, name: str) -> list[Path]:
        directory = self.root / name
        return sorted(directory.iterdir()) if directory.is_dir() else []


def _check_name(kind: str, key: str) -> None:
    if not _KIND.fullmatch(kind) or kind in _RESERVED:
        raise ValueError(f"not a kind of cache entry: {kind!r}")
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a hex key: {key!r}")


def _names(root: Path, ignore: Ignore | None = None) -> Iterator[str]:
    """Every file and symbolic link below `root`, relative to it."""
    for directory, subdirectories, files in os.walk(root):
        if ignore is not None:
            for ignored in ignore(directory, subdirectories + files):
                (subdirectories if ignored in subdirectories else files).remove(ignored)
        links = [name for name in subdirectories if (Path(directory) / name).is_symlink()]
        for name in files + links:
            yield os.path.relpath(os.path.join(directory, name), root)  # noqa: PTH118 - thousands of them


def _seal(making: Path) -> None:
    """Writes the manifest of a finished entry and gets all of it onto the disk."""
    files = {name: _record(making / name) for name in sorted(_names(making))}
    (making / _MANIFEST).write_text(json.dumps({"files": files}))
    _sync(making)


def _record(path: Path) -> list[int | str]:
    status = path.lstat()
    content = f"-> {path.readlink()}" if path.is_symlink() else _file_digest(path)
    return [status.st_size, status.st_mtime_ns, content]


def _check(path: Path, *, thorough: bool = False, used: bool = True) -> None:
    """Raises _DamageError unless every file is there in its size.

    Content is hashed where the time differs (a cache may be copied as a whole), or everywhere if `thorough`.
    """
    manifest = path / _MANIFEST
    try:
        files: dict[str, list[int | str]] = json.loads(manifest.read_text())["files"]
        moved = {}
        root = f"{path}/"  # a kernel has 7,600 files: a Path for each would take a tenth of a second
        for name, (size, time_ns, content) in files.items():
            status = os.lstat(root + name)
            if status.st_size != size:
                raise _DamageError(f"{name} has {status.st_size} bytes instead of {size}")
            if (status.st_mtime_ns != time_ns or thorough) and _record(path / name)[2] != content:
                raise _DamageError(f"the content of {name} changed")
            if status.st_mtime_ns != time_ns:
                moved[name] = [size, status.st_mtime_ns, content]
        if moved:
            _write_whole(manifest, json.dumps({"files": files | moved}))
        if used:
            os.utime(path)  # for _drop_unused
    except FileNotFoundError as error:
        raise _DamageError(f"{Path(error.filename).relative_to(path)} is missing") from error
    except PermissionError:
        return  # somebody else's entry: readable, the note that it was used is not for us to make
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise _DamageError(f"its manifest cannot be read: {error}") from error


def _write_whole(path: Path, text: str) -> None:
    """Replaces a file in one step; readers see the old or the new content."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)  # noqa: PTH105 - the name is a str
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    """Bytes that an entry takes, by its manifest, for a kernel has 7,600 files; but large ones have holes."""
    try:
        files = json.loads((path / _MANIFEST).read_text())["files"]
        sizes = {name: int(size) for name, (size, _, _) in files.items()}
        return sum(size if size < _MIB else _taken(path / name) for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return sum(_taken(path / name) for name in _names(path))


def _taken(path: Path) -> int:
    return os.lstat(path).st_blocks * _BLOCK


def _close(uses: dict[Path, int]) -> None:
    while uses:
        _, descriptor = uses.popitem()
        os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _sync(path: Path) -> None:
    """Writes the file system of `path` back: one call instead of an fsync for each of thousands of files."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
