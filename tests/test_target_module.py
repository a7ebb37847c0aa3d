# SPDX-License-Identifier: GPL-2.0-only
"""The module's build against a build tree that is a Makefile only, and the running of build tools."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest

from harness.errors import BuildError, MissingError
from harness.progress import Progress
from harness.target import module
from harness.target.artifacts import Kernel, Module
from harness.target.cache import Cache, digest_of
from harness.target.process import run_tool


@pytest.fixture
def kmod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of a module, with what a build by hand left there."""
    place = tmp_path / "kmod"
    (place / "probes").mkdir(parents=True)
    (place / "main.c").write_text("int main;\n")
    (place / "probes/thing.c").write_text("int probe;\n")
    (place / "main.o").write_text("old\n")
    (place / ".main.o.cmd").write_text("old\n")
    monkeypatch.setattr(module, "KMOD", place)
    return place


def build(tmp_path: Path, script: str) -> Module:
    """Builds the module for a kernel whose `make modules` is `script`, run in $(M)."""
    tree = tmp_path / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "Makefile").write_text(f"modules:\n\t@cd $(M) && {{ {script}; }}\n")
    kernel = Kernel(
        name="debian:6.66",
        flavour="plain",
        release="6.66.6",
        key=digest_of(script),
        image=tree / "bzImage",
        build=tree,
        source=None,
        modules={},
        config=tree / ".config",
    )
    return module.build_module(kernel, cache=Cache(tmp_path / "cache"), progress=Progress(io.StringIO()))


def test_the_build_sees_the_source_alone_and_leaves_the_module_alone(kmod: Path, tmp_path: Path) -> None:
    built = build(
        tmp_path, "find . -type f ! -name hmm_harness.ko | sort > hmm_harness.ko; echo W=$(W) >> hmm_harness.ko"
    )
    assert built.path.read_text().splitlines() == ["./main.c", "./probes/thing.c", "W=1"]
    assert sorted(path.name for path in built.path.parent.iterdir()) == [".manifest.json", "hmm_harness.ko"]
    assert sorted(path.name for path in kmod.iterdir()) == [".main.o.cmd", "main.c", "main.o", "probes"]


def test_the_key_follows_the_source_and_the_kernel_but_not_what_a_build_leaves(kmod: Path, tmp_path: Path) -> None:
    first = build(tmp_path, "touch hmm_harness.ko")
    (kmod / "main.o").write_text("new\n")
    assert build(tmp_path, "touch hmm_harness.ko") == first
    (kmod / "probes/thing.c").write_text("int other;\n")
    second = build(tmp_path, "touch hmm_harness.ko")
    third = build(tmp_path, "touch hmm_harness.ko; : another kernel")
    assert len({first.key, second.key, third.key}) == 3


@pytest.mark.parametrize(
    "warning", ["main.c:1:5: warning: unused variable", "WARNING: modpost: missing MODULE_LICENSE()"]
)
@pytest.mark.usefixtures("kmod")
def test_a_warning_is_an_error(tmp_path: Path, warning: str) -> None:
    with pytest.raises(BuildError) as caught:
        build(tmp_path, f"echo '{warning}'; touch hmm_harness.ko")
    assert caught.value.message == f"hmm_harness.ko builds with warnings:\n    {warning}"


@pytest.mark.usefixtures("kmod")
def test_a_build_that_fails_shows_why(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"main\.c:1:1: error: unknown type") as caught:
        build(tmp_path, "echo '  CC [M]  main.o'; echo 'main.c:1:1: error: unknown type'; exit 1")
    assert "CC [M]" not in caught.value.message
    log = Path(str(caught.value.hint).split(" is in ")[1])
    assert "CC [M]" in log.read_text()


def test_a_tool_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no-such-tool is not installed"):
        run_tool(["no-such-tool"], log=tmp_path / "log")


def test_a_tool_that_fails_without_a_telling_line_shows_its_last_ones(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        run_tool(["sh", "-c", "seq 100; exit 7"], log=tmp_path / "log")
    lines = caught.value.message.splitlines()
    assert lines[0] == "this failed with status 7: sh -c 'seq 100; exit 7'"
    assert [line.strip() for line in lines[1:]] == [str(number) for number in range(89, 101)]


def test_a_tool_that_says_what_is_not_utf8_is_heard(tmp_path: Path) -> None:
    heard: list[str] = []
    run_tool(["printf", r"one\n\377two\nthree"], log=tmp_path / "log", each_line=heard.append)
    assert heard == ["one", "\N{REPLACEMENT CHARACTER}two", "three"]


def test_what_a_killed_tool_leaves_in_its_temporary_directory_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(line: str) -> None:
        assert Path(line).parent.parent == tmp_path
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tool(["sh", "-c", "mktemp; sleep 100"], log=tmp_path / "log", each_line=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
