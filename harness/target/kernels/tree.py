# SPDX-License-Identifier: GPL-2.0-only
"""`tree:`: a developer's source tree. One that is built is made again in place; another is built outside of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import BuildError, HarnessError, MissingError, UsageError
from harness.progress import Progress, Step
from harness.target import kconfig
from harness.target.artifacts import Kernel
from harness.target.cache import Cache, digest_of
from harness.target.kernels import build, given, inplace
from harness.target.kernels.provider import Offer
from harness.target.process import environment, run_tool
from harness.target.room import cpus

_BUILT = "arch/x86/boot/bzImage"
_ALWAYS = "tree/asked-for"
_OLD_OBJTOOL = "tree/old-objtool"
# Whatever objtool is needed for is met by these: it is built, and run on what the compiler makes of them.
_TRIAL = ("prepare", "lib/ctype.o", "mm/mmu_notifier.o")
_SKIPPED = (".git",)
_SOURCES = frozenset({".c", ".h", ".S"})
_NO_GIT = "not in git"


def check(what: str, flavour: str) -> None:  # noqa: ARG001  as every provider
    """See `Provider`."""
    _tree(what)


def provide(what: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """See `Provider`. Raises MissingError for a tree that is configured but not built."""
    tree = _tree(what)
    spec = f"tree:{what}"
    if (tree / _BUILT).is_file():
        return _made_again(spec, tree, flavour, cache, progress)
    if (tree / ".config").exists():
        raise MissingError(
            f"{tree} is configured but not built",
            hint=f"build it: make -C {tree} -j{cpus()} bzImage modules; or `make -C {tree} mrproper`, then it is "
            "built outside of the tree, with the configuration that is known to do",
        )
    return _built_elsewhere(spec, tree, flavour, cache, progress)


def offers(*, cache: Cache, progress: Progress) -> list[Offer]:  # noqa: ARG001  as every provider
    """See `Provider`: the user names the place."""
    return []


def _tree(what: str) -> Path:
    if not what:
        raise UsageError("tree: without a path", hint="tree:PATH, where PATH/Makefile is the kernel's")
    tree = Path(what).expanduser().resolve()
    if not tree.is_dir():
        raise UsageError(f"there is no directory {tree}")
    if not (tree / "Makefile").is_file() or not ((tree / "Kconfig").is_file() or (tree / "source").is_dir()):
        raise UsageError(
            f"{tree} is neither a kernel's source tree nor a build directory of one",
            hint="its top directory, with Makefile and Kconfig, is meant; or what was given to make as O=",
        )
    return tree


def _made_again(spec: str, tree: Path, flavour: str, cache: Cache, progress: Progress) -> Kernel:
    """What is in a built tree now, whatever its image was built of."""
    build.options(flavour)  # a wrong word is complained of first
    source = (tree / "source").resolve() if (tree / "source").is_dir() else tree
    compiler = inplace.compiler_words(tree)
    place = digest_of(str(tree))
    with cache.workplace("tree", place, progress=progress):  # one make at a time
        before, _ = _content(source, of_sources=True)
        with progress.step(f"making what has changed in {tree}") as step:
            inplace.make_again(tree, compiler, log=cache.log(f"tree-{place[:12]}"), step=step)
        content, words = _content(source, of_sources=True)
        if before != content and (words != _NO_GIT or source != tree):  # else make's own products are among it
            raise _changed(tree)
        return given.kernel(
            spec,
            flavour,
            image=tree / _BUILT,
            build=tree,
            source=source,
            origin=f"tree, built in place, {words}",
            content=content,
            make_variables=compiler,
            cache=cache,
            progress=progress,
        )


def _changed(tree: Path) -> HarnessError:
    return HarnessError(f"{tree} changed while it was built", hint="start again when it is at rest")


def _built_elsewhere(spec: str, tree: Path, flavour: str, cache: Cache, progress: Progress) -> Kernel:
    asked = build.options(flavour, _ALWAYS)
    content, words = _content(tree)
    old = (build.CONFIGS / f"{_OLD_OBJTOOL}.config").read_bytes()
    key = digest_of(
        build.RECIPE, "tree", content, kconfig.render(asked), old, build.toolchain(), *build.variables(flavour)
    )
    name = f"kernel {spec} ({flavour})"

    def make(out: Path) -> None:
        progress.say(f"{name} is not in the cache as it is now: building it outside of the tree, what has changed")
        place = digest_of(str(tree), flavour)
        with cache.workplace("tree", place, progress=progress) as objects, progress.step(f"building {name}") as step:
            log = cache.log(f"kernel-{key[:12]}")
            log.write_text("")
            words = _configure(tree, objects, asked, flavour, name=name, log=log, step=step, progress=progress)
            build.compile_all(tree, objects, [*build.variables(flavour), *words], log=log, step=step)
            if _content(tree)[0] != content:
                raise _changed(tree)
            step.update("keeping what is needed")
            build.keep(tree, objects, out, _copy)
            _make_movable(out / "source/build/Makefile", tree)

    entry = cache.entry("kernel", key, make, progress=progress, needs=build.NEEDS)
    return build.kernel_of(entry, key, spec, flavour, origin=f"tree, {words}")


def _configure(
    tree: Path,
    objects: Path,
    asked: Sequence[kconfig.Option],
    flavour: str,
    *,
    name: str,
    log: Path,
    step: Step,
    progress: Progress,
) -> list[str]:
    """Configures the build in `objects`. Returns what make has to be told to get through with this compiler."""
    build.configure(tree, objects, asked, name=name, log=log, step=step)
    step.update("trying compiler and objtool")
    make = ["make", f"--directory={tree}", f"O={objects}", f"--jobs={cpus()}"]
    try:
        run_tool([*make, *_TRIAL], log=log, env=build.make_environment())
        return []
    except BuildError as error:
        progress.say(f"{name}: {error.message.splitlines()[0]}")
        progress.say(f"{name}: trying without objtool, and with warnings off ({_OLD_OBJTOOL}.config)")
    asked = build.options(flavour, _ALWAYS, _OLD_OBJTOOL)
    build.configure(tree, objects, asked, name=name, log=log, step=step)
    flags = ["-w", "-Wno-error"]
    if "fcf-protection" not in (tree / "arch/x86/Makefile").read_text():
        flags.append("-fcf-protection=none")  # a compiler that has it on would put it where it must not be
    return [f"KCFLAGS={' '.join(flags)}"]


def _content(tree: Path, *, of_sources: bool = False) -> tuple[str, str]:
    """A digest that changes with the tree's content, had cheaply, and what to call this content.

    `of_sources`: of what compilers read alone, in a tree where objects lie beside their sources.
    """

    def counts(path: Path) -> bool:
        return not of_sources or path.suffix in _SOURCES

    try:
        top = _git(tree, "rev-parse", "--show-toplevel").strip()
        if Path(top.decode()) == tree:
            head = _git(tree, "rev-parse", "HEAD").decode().strip()
            diff = _git(tree, "diff", "HEAD", "--binary", "--no-ext-diff")
            names = _git(tree, "ls-files", "--others", "--exclude-standard", "-z").decode().split("\0")
            others = "".join(_stamp(path) for path in map(tree.joinpath, sorted(filter(None, names))) if counts(path))
            return digest_of(head, diff, others), f"commit {head[:12]}{' with changes' if diff or others else ''}"
    except (OSError, subprocess.CalledProcessError):
        pass  # not a repository, or git is not here
    return digest_of(*(_stamp(path) for path in _files(tree) if counts(path))), _NO_GIT


def _git(tree: Path, *words: str) -> bytes:
    argv = ["git", "-C", os.fspath(tree), *words]
    return subprocess.run(argv, capture_output=True, check=True, env=environment()).stdout


def _files(tree: Path) -> Iterator[Path]:
    for directory, subdirectories, files in os.walk(tree):
        subdirectories[:] = sorted(name for name in subdirectories if name not in _SKIPPED)
        for name in sorted(files):
            yield Path(directory) / name


def _stamp(path: Path) -> str:
    status = path.lstat()
    return f"{path} {status.st_size} {status.st_mtime_ns}\n"


def _copy(origin: Path, target: Path) -> None:
    if origin.is_dir():
        shutil.copytree(origin, target, symlinks=True, ignore=shutil.ignore_patterns("*.o", "*.a", "*.cmd"))
    else:
        shutil.copy2(origin, target)


def _make_movable(makefile: Path, tree: Path) -> None:
    """The Makefile of a build directory names its source; in the cache that is the directory above."""
    text = makefile.read_text()
    if os.fspath(tree) not in text:
        raise BuildError(f"the Makefile of the build directory does not name {tree}: no module could be built")
    makefile.write_text(text.replace(os.fspath(tree), ".."))
