# SPDX-License-Identifier: GPL-2.0-only
"""What changes from one kernel to the next, as one small file system: modules, the executor, the agent."""

from __future__ import annotations

import py_compile
import shutil
from pathlib import Path

from harness.errors import MissingError
from harness.guest.files import EXECUTOR_HEADERS, EXECUTOR_SOURCES, GUEST_FILES, executor_compiler
from harness.progress import Progress
from harness.target.artifacts import Kernel, Module, Payload
from harness.target.cache import Cache, digest_of
from harness.target.children import run
from harness.target.image import pack
from harness.target.places import CHECKOUT

_FORMAT = "2"  # to be raised when this file puts other things into the payload
_BINDINGS = frozenset({"test_hmm"})  # modules of the kernel itself that programs run on
_LOADED = "modules"  # the agent loads all that is here
_ON_DEMAND = "modules-on-demand"  # zram and others: loaded by who needs them


def provide_payload(kernel: Kernel, module: Module, *, cache: Cache, progress: Progress) -> Payload:
    """The payload for `kernel`, from the cache or built in about 2 s.

    Raises `MissingError` for a program that is not installed, `BuildError` if the executor does not compile.
    """
    header = _test_hmm_header(kernel)
    files = sorted({*GUEST_FILES, *EXECUTOR_SOURCES, *EXECUTOR_HEADERS})
    key = digest_of(
        _FORMAT,
        kernel.key,
        module.key,
        *(part for name in files for part in (name, (CHECKOUT / name).read_bytes())),
    )

    def build(directory: Path) -> None:
        with progress.step("building the payload") as step:
            for program, package in (("gcc", "gcc libc6-dev"), ("mkfs.erofs", "erofs-utils")):
                if shutil.which(program) is None:
                    raise MissingError(f"building the payload needs {program}", hint=f"apt-get install {package}")
            tree = directory / "tree"
            for place in (_LOADED, _ON_DEMAND):
                (tree / place).mkdir(parents=True)
            shutil.copyfile(module.path, tree / _LOADED / "hmm_harness.ko")
            for name, path in kernel.modules.items():
                place = _LOADED if name in _BINDINGS else _ON_DEMAND
                shutil.copyfile(path, tree / place / f"{name}.ko")
            for name in GUEST_FILES:
                _place(tree, name)
            step.update("executor")
            executor = tree / "bin" / "executor"
            executor.parent.mkdir()
            run(executor_compiler(CHECKOUT, executor, test_hmm_header=header), what="compiling the executor")
            step.update("packing")
            pack(tree, directory / "payload.erofs")
            shutil.rmtree(tree)

    entry = cache.entry("payload", key, build, progress=progress)
    return Payload(key=key, path=entry / "payload.erofs")


def _test_hmm_header(kernel: Kernel) -> Path | None:
    if kernel.source is None:
        return None
    header = kernel.source / "lib" / "test_hmm_uapi.h"
    return header if header.is_file() else None


def _place(tree: Path, name: str) -> None:
    """Copies a file of the checkout, Python with its byte code.

    The guest's Python is of the same suite as the host's as a rule; another one ignores the byte code, and is slower.
    """
    target = tree / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CHECKOUT / name, target)
    if target.suffix == ".py":
        # unchecked: packing sets all times to 0
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(target), dfile=f"/payload/{name}", doraise=True, invalidation_mode=mode)
