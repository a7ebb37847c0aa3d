# SPDX-License-Identifier: GPL-2.0-only
"""Kernels with a bug put in: a whole build tree in which patches come and go, so that each takes seconds to build."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harness.errors import BuildError, UsageError
from harness.progress import Progress
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.kernels import build, debian
from harness.target.kernels.archive import Archive
from harness.target.process import run_tool

_IMAGE = "arch/x86/boot/bzImage"
_TOUCHED = re.compile(r"^(?:---|\+\+\+) [^/\s]+/(\S+)", re.MULTILINE)
_SUBJECT = re.compile(r"^Subject: (?:\[[^\]]*\] *)?(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Patch:
    """A patch that puts a bug into a kernel: `text` as `git format-patch` or `diff -u` write it, for -p1."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """Its subject line, or else its name."""
        match = _SUBJECT.search(self.text)
        return match[1].strip() if match else self.name

    @property
    def files(self) -> list[str]:
        """What it changes, relative to the top of the source."""
        return sorted(set(_TOUCHED.findall(self.text)))

    def header(self, word: str) -> str:
        """What a line `Word: ...` before the patch itself says, "" if there is none."""
        head = re.split(r"^--- ", self.text, maxsplit=1, flags=re.MULTILINE)[0]
        match = re.search(rf"^{word}: *(.+)$", head, re.MULTILINE | re.IGNORECASE)
        return match[1].strip() if match else ""

    @property
    def breaks(self) -> list[str]:
        """The ids of the clauses that it breaks, as its header `Breaks:` says."""
        return self.header("breaks").split()

    @property
    def function(self) -> str:
        """What it changes: its header `Function:`."""
        return self.header("function")

    @property
    def equivalent(self) -> bool:
        """Whether nobody can tell it from the kernel without it; its header `Equivalent:` says why."""
        return bool(self.header("equivalent"))


def read_patches(paths: Sequence[Path]) -> list[Patch]:
    """The patches in files, and in directories: their *.patch, by name. Raises what `read_patch` does."""
    found: list[Patch] = []
    for path in paths:
        inside = sorted(path.glob("*.patch")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} has no patches", hint="their names end with .patch")
        found += map(read_patch, inside)
    return found


def read_patch(path: Path) -> Patch:
    """The patch in a file. Raises `UsageError` if there is none, or one that needs more than an image built anew."""
    try:
        patch = Patch(path.stem, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="name a patch") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no patch: it is no text", hint="as `git diff` or `diff -u` write it") from None
    if not patch.files:
        raise UsageError(f"{path} is no patch: it names no file", hint="as `git diff` or `diff -u` write it, for -p1")
    for name in patch.files:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise UsageError(f"{path} changes {name}, which is not in the kernel's source")
        if place.suffix != ".c":
            raise UsageError(
                f"{path} changes {name}: only .c files can be mutated, modules are not built again",
                hint="a patched tree of your own is a kernel, too: --kernel tree:PATH",
            )
    return patch


def key_of(kernel: Kernel, patch: Patch) -> str:
    """The key of the kernel with `patch`; what its header says is no part of that."""
    return digest_of(kernel.key, patch.text[patch.text.find("\n--- ") + 1 :])


class Workshop:
    """A kernel's source in `place`/source, built in `place`/source/build, one patch at a time applied to it."""

    def __init__(self, kernel: Kernel, place: Path, words: list[str], *, cache: Cache, progress: Progress) -> None:
        self._kernel = kernel
        self._source = place / "source"
        self._objects = self._source / "build"
        self._pristine = place / "pristine"  # files as they were before the patch that is applied
        self._words = words
        self._cache = cache
        self._progress = progress
        self._restore()  # whoever was here before may have been killed

    def key(self, patch: Patch) -> str:
        """See `key_of`."""
        return key_of(self._kernel, patch)

    @contextmanager
    def mutated(self, patch: Patch) -> Iterator[Kernel]:
        """The kernel with `patch`; it is gone on leaving. Raises `UsageError` if it does not apply, `BuildError`."""
        key = self.key(patch)
        log = self._cache.log(f"mutant-{key[:12]}")
        log.write_text("")
        try:
            with self._progress.step(f"building {self._kernel.name} with {patch.name}") as step:
                self._apply(patch, log)
                build.compile_image(self._source, self._objects, self._words, log=log, step=step)
            yield replace(
                self._kernel, key=key, image=self._objects / _IMAGE, origin=f"{self._kernel.origin}, {patch.name}"
            )
        finally:
            self._restore()

    def _apply(self, patch: Patch, log: Path) -> None:
        for name in patch.files:
            if not (self._source / name).is_file():
                raise UsageError(f"{patch.name} changes {name}, which {self._kernel.name} does not have")
            kept = self._pristine / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._source / name, kept.with_suffix(".part"))
            kept.with_suffix(".part").replace(kept)  # whole, whenever we are killed
        text = log.with_suffix(".patch")
        text.write_text(patch.text, encoding="utf-8")
        try:
            run_tool(
                ["patch", "-p1", "--forward", "--batch", "--fuzz=0", "--no-backup-if-mismatch", "--reject-file=-",
                 f"--directory={self._source}", f"--input={text}"],
                log=log,
            )  # fmt: skip
        except BuildError as error:
            raise UsageError(f"{patch.name} does not apply to {self._kernel.name}: {error.message}") from error
        finally:
            text.unlink()

    def _restore(self) -> None:
        """Takes back what is applied. A file gets a new time, since make has to see that it changed."""
        if not self._pristine.is_dir():
            return
        for path in sorted(self._pristine.rglob("*.c")):
            target = self._source / path.relative_to(self._pristine)
            shutil.copyfile(path, target)
            os.utime(target)
        shutil.rmtree(self._pristine)


@contextmanager
def workshop(kernel: Kernel, *, cache: Cache, progress: Progress) -> Iterator[Workshop]:
    """Where mutants of `kernel` are built. The first time all of it is compiled, as long as that takes.

    Raises `UsageError` for a kernel that is not built from a packaged source.
    """
    scheme, _, what = kernel.name.partition(":")
    if scheme != "debian":
        raise UsageError(
            f"{kernel.name} cannot be mutated: it is not built from a packaged source",
            hint="debian:SERIES can; or apply the patch to a tree of your own: --kernel tree:PATH",
        )
    source = debian.find(what, Archive(cache, progress))
    tarball = debian.fetched(source, cache=cache, progress=progress)
    words = build.variables(kernel.flavour)
    with cache.workplace("mutant", kernel.key, progress=progress) as place:
        if not (place / "complete").exists():
            _compile(kernel, place, tarball, words, cache=cache, progress=progress)
            (place / "complete").touch()
        yield Workshop(kernel, place, words, cache=cache, progress=progress)


def _compile(
    kernel: Kernel, place: Path, tarball: Path, words: list[str], *, cache: Cache, progress: Progress
) -> None:
    """Compiles all of the kernel in `place`, or what is left of it since somebody who did was interrupted."""
    progress.say(f"mutants of {kernel.name} ({kernel.flavour}) need all of it compiled, once")
    log = cache.log(f"mutant-{kernel.key[:12]}")
    log.write_text("")
    source = place / "source"
    configured = place / "configured"
    with progress.step(f"building {kernel.name} ({kernel.flavour}) for mutants") as step:
        if not configured.exists():
            shutil.rmtree(source, ignore_errors=True)
            (source / "build").mkdir(parents=True)
            step.update("unpacking the source")
            build.unpack(tarball, source, log=log)
            asked = build.options(kernel.flavour)
            build.configure(source, source / "build", asked, name=kernel.name, log=log, step=step)
            configured.touch()
        build.compile_all(source, source / "build", words, log=log, step=step)
