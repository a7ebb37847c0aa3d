# SPDX-License-Identifier: GPL-2.0-only
"""A sparse for kernels that this machine's own is too old for.

Headers of 7.2 use __typeof_unqual__(), which sparse 0.6.4 of Debian 12 does not know. What a kernel's build demands
of sparse is in its scripts/checker-valid.sh; where that says no, the build warns and looks at nothing.

    python -m harness.target.sparse SCRIPT    prints the path of a sparse that SCRIPT says yes to
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from harness.errors import BuildError, HarnessError
from harness.progress import Progress
from harness.target.cache import Cache, digest_of
from harness.target.children import run
from harness.target.kernels.archive import Archive
from harness.target.kernels.build import toolchain
from harness.target.process import environment, run_tool

SUITE = "sid"  # the newest; only the source is taken, since binaries are for a newer libc
_RECIPE = "1"  # another number whenever something else is made of the same input
# Libraries that sparse itself does without, and that its makefile otherwise uses if they are there.
_WITHOUT = ("HAVE_SQLITE=no", "HAVE_LIBXML=no", "HAVE_GTK=no", "HAVE_LLVM=no")


def accepts(demand: Path, sparse: str | Path) -> bool:
    """Whether a kernel's scripts/checker-valid.sh says yes to a sparse. Raises BuildError if it fails."""
    return run(["sh", demand, sparse], what=f"asking {demand}", env=environment()).strip() == "1"


def provide(demand: Path, *, cache: Cache, progress: Progress) -> Path:
    """A sparse that the script `demand` says yes to, built of the source in `SUITE`; a minute, and then it is kept.

    A script that asks for more than those before has the archive asked anew. Raises HarnessError if the source
    cannot be had, does not build, or is too old, too.
    """
    archive = Archive(cache, progress)
    key = digest_of(_RECIPE, archive.where.of(SUITE), SUITE, demand.read_bytes(), toolchain())

    def build(out: Path) -> None:
        with progress.step("building a newer sparse") as step:
            step.update(f"the source that {SUITE} has")
            work = out / "work"
            work.mkdir()
            archive.source("sparse", SUITE, work)
            (packed,) = work.glob("sparse_*.orig.tar.*")
            log = cache.log(f"sparse-{key[:12]}")
            log.write_text("")
            tree = work / "tree"
            tree.mkdir()
            run_tool(["tar", "--extract", f"--file={packed}", f"--directory={tree}", "--strip-components=1"], log=log)
            step.update(packed.name)
            run_tool(["make", f"--directory={tree}", *_WITHOUT, "sparse"], log=log)
            if not accepts(demand, tree / "sparse"):
                raise BuildError(f"{packed.name} of {SUITE} is too old for this kernel, too: {demand} says no")
            (tree / "sparse").rename(out / "sparse")
            shutil.rmtree(work)

    return cache.entry("sparse", key, build, progress=progress) / "sparse"


def main() -> int:
    """The front door: one argument, one line."""
    try:
        print(provide(Path(sys.argv[1]), cache=Cache(), progress=Progress()))
    except HarnessError as error:
        print(error.message, *([f"hint: {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
