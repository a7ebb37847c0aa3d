# SPDX-License-Identifier: GPL-2.0-only
"""A developer's tree that is built: made again where it is, by its own make, as its owner would.

Only make knows whether a tree is built as it is now: no comparison of ours is to be believed instead, and a verdict
on code that was not built would be worse than none. A tree that is up to date costs make some seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.errors import BuildError, HarnessError
from harness.progress import Step
from harness.target.process import environment, run_tool
from harness.target.room import cpus

_FIRST = Path("init/.main.o.cmd")  # how the first file of every kernel was compiled
_COMMAND = re.compile(r"^(?:saved)?cmd_\S+ := (?P<compiler>[^-\s]\S*(?: [^-\s]\S*)*) -", re.MULTILINE)
_CLANG = re.compile(r"(?P<prefix>(?:.*/)?)clang(?P<suffix>(?:-\d+)?)")
_CROSS = re.compile(r"(?P<prefix>\S+-)gcc")
_COMPILED = re.compile(r"  (?:CC|AS|LD|AR)\b.* (?P<file>\S+)$")
# Since 5.8 an option, before that a comment: what the compiler called itself
_CALLED = re.compile(r'^(?:CONFIG_CC_VERSION_TEXT="(?P<option>.*)"|# Compiler: (?P<comment>.*))$', re.MULTILINE)
# Of a make around us, or for another tree, or told by the tree itself. What else the user has set is meant.
_FOREIGN = re.compile(r"MAKE.*|MFLAGS|GNUMAKEFLAGS|KBUILD_OUTPUT|KBUILD_EXTMOD|ARCH|SUBARCH|CROSS_COMPILE|LLVM.*")


def compiler_words(tree: Path) -> list[str]:
    """What make has to be told to take the compiler that `tree` was built with, for modules, too.

    Raises HarnessError if that cannot be known, or is another one by now: all would be built anew then.
    """
    as_it_is = f"or take it as it is: image:{tree}/arch/x86/boot/bzImage,kdir={tree}"
    try:
        found = _COMMAND.search((tree / _FIRST).read_text())
    except OSError:
        found = None
    if found is None:
        raise HarnessError(
            f"{tree} has an image, and cannot be made again: {_FIRST} does not tell how it was compiled",
            hint=f"build it: make -C {tree} -j{cpus()} bzImage modules; {as_it_is}",
        )
    words = found["compiler"].split()
    config = (tree / ".config").read_text()
    said = _version(words, tree)
    called = _CALLED.search(config)
    before = (called["option"] if called["option"] is not None else called["comment"]) if called else said
    if said.replace("#", "") != before.replace("#", ""):  # make leaves them out
        raise HarnessError(
            f"{tree} was built with another compiler: {before}; {words[-1]} is now: {said or 'not there'}",
            hint=f"build it as it should be: make -C {tree} -j{cpus()} bzImage modules; {as_it_is}",
        )
    return _variables(words, config)


def make_again(tree: Path, words: list[str], *, log: Path, step: Step) -> None:
    """Runs the make of a built tree, or build directory: kernel and modules. Raises BuildError if it fails."""
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        match = _COMPILED.match(line)
        if match is not None:
            compiled += 1
            step.update(f"{compiled} files, {match['file']}")

    log.write_text("")
    argv = ["make", f"--directory={tree}", f"--jobs={cpus()}", *words, "bzImage", "modules"]
    try:
        run_tool(argv, log=log, env=_own(os.environ), each_line=count)
    except BuildError as error:
        raise BuildError(f"{tree} does not build as it is now; {error.message}", hint=error.hint) from error


def _own(env: Mapping[str, str]) -> dict[str, str]:
    """The user's environment: KCFLAGS, for instance, is for this tree. The C locale, since its words are read."""
    return {name: value for name, value in env.items() if not _FOREIGN.fullmatch(name)} | {"LC_ALL": "C"}


def _version(words: list[str], tree: Path) -> str:
    """What a compiler calls itself, as make asks it; "" if it is not there."""
    try:
        argv = [*words, "--version"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tree, env=environment())
    except OSError:
        return ""
    return done.stdout.partition("\n")[0]


def _variables(words: list[str], config: str) -> list[str]:
    """The variables of make that mean the compiler `words`: Documentation/kbuild/llvm.rst and kbuild.rst."""
    name = words[-1]
    variables = []
    clang, cross = _CLANG.fullmatch(name), _CROSS.fullmatch(name)
    options = set(config.splitlines())
    if clang is not None and "CONFIG_LD_IS_LLD=y" in options:
        variables.append(f"LLVM={clang['prefix'] or clang['suffix'] or 1}")
        for option, integrated in (("CONFIG_AS_IS_LLVM=y", 1), ("CONFIG_AS_IS_GNU=y", 0)):
            variables += [f"LLVM_IAS={integrated}"] * (option in options)
    elif cross is not None:
        variables.append(f"CROSS_COMPILE={cross['prefix']}")
    if len(words) > 1 or not (variables or name == "gcc"):
        variables.append(f"CC={' '.join(words)}")
    return variables
