# SPDX-License-Identifier: GPL-2.0-only
"""The module is clean on every kernel that it is for, and the lint that says so looks: `.ci/lint module`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.kernel import provide_kernel
from harness.target.places import CHECKOUT
from tests.needs import need, seed_tree

SEED = "v4.20.1"
KERNELS = (SEED, "debian:5.10", "debian:6.1", "debian:6.12", "debian:7.2", "debian:7.3")


@pytest.mark.matrix
@pytest.mark.parametrize("flavour", ["plain", "debug"])
@pytest.mark.parametrize("spec", KERNELS)
def test_the_module_builds_without_a_word(spec: str, flavour: str, cache: Cache, progress: Progress) -> None:
    """W=1, sparse and kernel-doc; that each of them looked is shown by a file that all must complain of."""
    need("sparse")
    kernel = provide_kernel(f"tree:{seed_tree()}" if spec == SEED else spec, flavour, cache=cache, progress=progress)
    lint = subprocess.run(
        [CHECKOUT / ".ci/lint", "module", kernel.build], capture_output=True, text=True, timeout=600, check=False
    )
    lines = lint.stdout.splitlines()  # on the other stream is said what takes long
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert lines[0] == f"-- sparse, W=1, kernel-doc: {kernel.release}-{flavour}"
    assert lines[1:] in ([], ["clean, and not changed since"])


HEADLINE = "-- sparse, W=1, kernel-doc: 7.7.7-plain"
CLEAN = "clean, and not changed since"
NO_SPARSE = "SKIP: sparse: this kernel needs one that knows what its scripts/checker-valid.sh tries"
NO_KERNEL_DOC = "SKIP: kernel-doc: needs the source of this kernel, linux-source-*.tar.xz in the cache or in /usr/src"
# What a kernel's build says of the file that is wrong on purpose; sparse is called as the build calls it.
MAKEFILE = """\
modules:
	@echo "$(M)/canary.c:12:6: warning: variable 'set_and_not_used' set but not used"
	@[ -z "$(C)" ] || $(CHECK) $(M)/canary.c
"""
SPARSE = """\
#!/bin/sh
[ "$1" = --version ] || echo "$1:15:16: warning: incorrect type in return expression (different address spaces)"
"""
KERNEL_DOC = """\
#!/bin/sh
for file; do
	case $file in
	*/canary.c) echo "Warning: $file:10 Excess function parameter 'nothing' description in 'hh_canary'" ;;
	*/documented.h) echo "Warning: $file:3 function parameter 'forgotten' not described in 'hh_f'" ;;
	esac
done
"""


class Checkout:
    """A module, the lint, and a kernel whose build tells of the canary, in directories of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.source = root / "source"
        self.cache = root / "cache"
        self.programs = root / "bin"
        lint = self._file(self.root / ".ci/lint", (CHECKOUT / ".ci/lint").read_text(), program=True)
        self._file(self.root / "kmod/Kbuild", "obj-m := x.o\n")
        self._file(self.root / "kmod/x.c", "")
        self._file(self.root / ".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n', program=True)
        (self.root / "harness").symlink_to(CHECKOUT / "harness")
        self._file(self.source / "build/include/config/kernel.release", "7.7.7\n")
        self._file(self.source / "build/.config", "CONFIG_X86_64=y\n")
        self._file(self.source / "build/Module.symvers", "")
        self.makefile(MAKEFILE)
        self.kernel_doc(KERNEL_DOC)
        self._file(self.programs / "sparse", SPARSE, program=True)
        # No archive: what would be fetched cannot be had.
        self._file(self.programs / "apt-get", "#!/bin/sh\nexit 100\n", program=True)
        self._lint = lint
        for argv in (["init", "--quiet"], ["add", "kmod", ".ci"]):
            subprocess.run(["git", *argv], cwd=self.root, check=True)

    def makefile(self, text: str) -> None:
        """How the kernel builds a module."""
        self._file(self.source / "build/Makefile", text)

    def kernel_doc(self, text: str) -> None:
        """The kernel's kernel-doc."""
        self._file(self.source / "scripts/kernel-doc", text, program=True)

    def no_kernel_doc(self) -> None:
        """As in the cache's 7.2: a link to what is not kept."""
        path = self.source / "scripts/kernel-doc"
        path.unlink()
        path.symlink_to("../tools/docs/kernel-doc")

    def demand(self, text: str) -> None:
        """What the kernel asks of sparse."""
        self._file(self.source / "scripts/checker-valid.sh", text)

    def sparses(self, ours: str, newer: str) -> None:
        """The machine's sparse, and the one that is fetched."""
        self._file(self.programs / "sparse", ours, program=True)
        path = self._file(self.programs / "newer", newer, program=True)
        self._file(self.root / ".venv/bin/python", f"#!/bin/sh\necho {path}\n", program=True)

    def add(self, name: str, text: str = "") -> None:
        """Adds a file of the module."""
        self._file(self.root / "kmod" / name, text)
        subprocess.run(["git", "add", "kmod"], cwd=self.root, check=True)

    def packed_kernel_doc(self) -> None:
        """The kernel's source as the cache has it."""
        target = self.cache / "hmm-harness/source/0123456789abcdef/linux-source-7.7.tar.xz"
        target.parent.mkdir(parents=True)
        script = self._file(self.root.parent / "kernel-doc", KERNEL_DOC, program=True)
        with tarfile.open(target, "w:xz") as tar:
            tar.add(script, "linux-source-7.7/tools/docs/kernel-doc")
            tar.add(script, "linux-source-7.7/tools/lib/python/kdoc/__init__.py")

    def lint(self) -> tuple[int, list[str]]:
        """The exit status, and the lines."""
        env = os.environ | {"XDG_CACHE_HOME": str(self.cache), "PATH": f"{self.programs}:{os.environ['PATH']}"}
        done = subprocess.run(
            [self._lint, "module", self.source / "build"],
            capture_output=True, text=True, timeout=100, check=False, env=env,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines()

    def _file(self, path: Path, text: str, *, program: bool = False) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if program:
            path.chmod(0o755)
        return path


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    need("git")
    return Checkout(tmp_path)


@pytest.mark.parametrize("demand", [None, "echo 1\n"])
def test_what_is_clean_is_said_once(checkout: Checkout, demand: str | None) -> None:
    if demand is not None:
        checkout.demand(demand)
    assert checkout.lint() == (0, [HEADLINE])
    assert checkout.lint() == (0, [HEADLINE, CLEAN])


@pytest.mark.parametrize(
    ("silent", "missing"),
    [("W=1", "set but not used"), ("sparse", r"address spaces?"), ("kernel-doc", "nothing")],
)
def test_who_does_not_look_is_found_out(checkout: Checkout, silent: str, missing: str) -> None:
    if silent == "W=1":
        checkout.makefile(MAKEFILE.replace("set but not used", "of no use"))
    elif silent == "sparse":
        checkout.makefile(MAKEFILE.replace("$(CHECK)", "true"))
    else:
        checkout.kernel_doc("#!/bin/sh\n")
    assert checkout.lint() == (1, [HEADLINE, f"nobody complained of the canary: {missing}"])


def test_without_a_sparse_that_is_new_enough_the_rest_is_judged(checkout: Checkout) -> None:
    """And asked for again, since it may be there next time."""
    checkout.demand("echo 0\n")
    for _ in range(2):
        assert checkout.lint() == (0, [HEADLINE, NO_SPARSE])
    checkout.kernel_doc("#!/bin/sh\n")
    assert checkout.lint() == (1, [HEADLINE, NO_SPARSE, "nobody complained of the canary: nothing"])


@pytest.mark.parametrize("demand", ["1", "0"])
def test_a_newer_sparse_is_asked_where_the_kernel_does_not_take_ours(checkout: Checkout, demand: str) -> None:
    silent = "#!/bin/sh\n"
    checkout.demand(f"echo {demand}\n")
    checkout.sparses(*((SPARSE, silent) if demand == "1" else (silent, SPARSE)))
    assert checkout.lint() == (0, [HEADLINE])


def test_kernel_doc_of_the_packed_source(checkout: Checkout) -> None:
    checkout.no_kernel_doc()
    assert checkout.lint() == (0, [HEADLINE, NO_KERNEL_DOC])
    checkout.packed_kernel_doc()
    assert checkout.lint() == (0, [HEADLINE])
    assert checkout.lint() == (0, [HEADLINE, CLEAN])


def test_headers_are_documented_too(checkout: Checkout) -> None:
    checkout.add("documented.h")
    status, (first, complaint) = checkout.lint()
    assert (status, first) == (1, HEADLINE)
    assert complaint.endswith("documented.h:3 function parameter 'forgotten' not described in 'hh_f'")
