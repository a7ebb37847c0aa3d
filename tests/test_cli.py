# SPDX-License-Identifier: GPL-2.0-only
"""The command line: what it refuses, how it says so, and what it leaves behind. No VM is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import ExitCode
from tests.processes import marked_processes

COMMAND = [sys.executable, "-m", "harness"]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


def _refused(ended: subprocess.CompletedProcess[str], code: ExitCode, *words: str) -> None:
    said = ended.stdout + ended.stderr
    assert ended.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_help_names_every_command_and_exit_code() -> None:
    ended = _run("--help")
    assert ended.returncode == 0
    for word in (
        "run",
        "list",
        "clauses",
        "deviations",
        "fuzz",
        "bench",
        "doctor",
        "clean",
        *(str(code.value) for code in ExitCode),
    ):
        assert word in ended.stdout


def test_deviations_are_listed_with_the_programs_that_show_them() -> None:
    ended = _run("deviations")
    assert ended.returncode == 0
    assert "\nown-readonly-write\n" in f"\n{ended.stdout}"
    assert "devmem/own-readonly-write" in ended.stdout


def test_help_imports_nothing_slow() -> None:
    code = "import sys, harness.cli; print(sorted({'cffi', 'paramiko', 'hypothesis', 'pytest'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_the_readme_has_the_exit_codes() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {code.value} | {code.meaning} |" in readme


def test_mistakes_are_of_our_own_driver() -> None:
    ended = _run("run", "--binding", "test_hmm", "--wrong", "skip-invalidate", "snapshot/hole")
    _refused(ended, ExitCode.USAGE, "makes no deliberate mistakes", "hint: ")


def test_a_mistake_that_the_driver_does_not_know_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    ended = _run("run", "--wrong", "skip-invalidate,nosuch", "snapshot/hole", XDG_CACHE_HOME=str(tmp_path))
    _refused(ended, ExitCode.USAGE, "no mistake 'nosuch'", "hint: one of: ", "skip-invalidate")
    assert not list(tmp_path.iterdir())


def test_what_is_no_text_is_neither_a_configuration_nor_results(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\x7fELF\xd0\n")
    _refused(_run("kernel", "check-config", str(path)), ExitCode.USAGE, "no text", "hint: ")
    _refused(_run("report", str(path), "--html", "-"), ExitCode.USAGE, "no text", "hint: ")


def test_a_text_without_options_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0:root:/root:/bin/bash\n")
    _refused(_run("kernel", "check-config", str(path)), ExitCode.USAGE, "no .config: it has no CONFIG_ line")
    _refused(_run("kernel", "check-config", f"{path}.not"), ExitCode.USAGE, "there is no configuration")
    path.write_text("# Linux/x86 6.12.8 Kernel Configuration\n# CONFIG_64BIT is not set\n")
    ended = _run("kernel", "check-config", str(path))
    assert ended.returncode == ExitCode.FAIL
    assert "CONFIG_64BIT=y, is n" in ended.stdout
    said = " ".join(_run("kernel", "check-config", "--help").stdout.split())
    assert "with 1 if options are missing without which nothing works, and with 2" in said


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_outputs_are_no_divergence(closed: str) -> None:
    ended = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "list"], capture_output=True, check=False)
    assert ended.returncode == ExitCode.PASS, ended.stderr


def test_list_shows_promises() -> None:
    ended = _run("list", "migrate")
    assert ended.returncode == 0
    assert "migrate/evict " in ended.stdout
    assert "contents stay" in ended.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: map buf anon 4 rw\na: frobnicate buf\n", (":2: unknown operation 'frobnicate'", "hint: ")),
        ("a: map buf anon 4 rw\na: read buf[2:9]\n", (":2: buf[2:9] reaches past the end", "hint: ")),
        (f"a: map buf anon {2**60} rw\n", (f":1: {2**60} pages in one region", "1 to 65536")),
        ("\0\1\2 garbage", (":1: ",)),
        ("", (":1: there is no operation",)),
    ],
)
def test_a_program_that_makes_no_sense(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "bad.hmm"
    path.write_text(text)
    _refused(_run("run", str(path)), ExitCode.USAGE, f"{path}:", *words)


def test_a_program_of_a_pipe(tmp_path: Path) -> None:
    script = """
        "$@" list <(echo '# of a pipe.'; echo 'a: map b anon 1 rw')
        mkfifo fifo
        cp one.hmm fifo & "$@" list ./fifo
        "$@" list /dev/stdin < one.hmm"""
    (tmp_path / "one.hmm").write_text("\ufeff# of a file.\na: map b anon 1 rw\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ended.stderr == ""
    promises = [line.split(maxsplit=1)[1].rstrip(".") for line in ended.stdout.splitlines()]
    assert promises == ["of a pipe", "of a file", "of a file"]


def test_a_directory_or_an_endless_device_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "d.hmm").mkdir()
    wanted = (f"'{tmp_path}/d.hmm/' is a directory", f"hint: its programs: {tmp_path}/d.hmm/*.hmm")
    _refused(_run("list", f"{tmp_path}/d.hmm/"), ExitCode.USAGE, *wanted)
    _refused(_run("list", "/dev/zero"), ExitCode.USAGE, "/dev/zero: more than 1 MiB")


def test_a_program_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.hmm"
    path.write_bytes(b"\xff\xfe\x00")
    _refused(_run("run", str(path)), ExitCode.USAGE, "UTF-8")


def test_a_program_that_is_not_there() -> None:
    _refused(_run("run", "nosuch/program"), ExitCode.USAGE, "no program 'nosuch/program'", "hmm-harness list")


@pytest.mark.parametrize("kernel", ["debian:6", "nosuch", "debian:", "debian:6.1/../..", "../../etc"])
def test_a_kernel_that_does_not_exist(tmp_path: Path, kernel: str) -> None:
    ended = _run("run", "--kernel", kernel, XDG_CACHE_HOME=str(tmp_path))
    _refused(ended, ExitCode.USAGE, "no such kernel", kernel, "hint: ")


def test_a_flavour_that_does_not_exist(tmp_path: Path) -> None:
    ended = _run("run", "--flavour", "vanilla", XDG_CACHE_HOME=str(tmp_path))
    _refused(ended, ExitCode.USAGE, "vanilla", "plain", "debug")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--binding", "nosuch"],
        ["run", "--timeout", "-1"],
        ["run", "--timeout", "1e-9"],
        ["run", "--timeout", "soon"],
        ["run", "--flavour", ""],
        ["run", "--wrong", ","],
        ["nosuch"],
        [],
    ],
)
def test_a_command_line_that_makes_no_sense(arguments: list[str]) -> None:
    _refused(_run(*arguments), ExitCode.USAGE, "usage: hmm-harness")


def test_no_qemu(tmp_path: Path) -> None:
    ended = _run("run", "snapshot/hole", PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    _refused(ended, ExitCode.INFRASTRUCTURE, "qemu-system-x86_64", "hint: ", "qemu-system-x86")


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    ended = _run("run", "snapshot/hole", "--json", str(tmp_path / "no" / "file"))
    _refused(ended, ExitCode.INFRASTRUCTURE, "cannot write results")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = tmp_path / "small"
    mounted.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"this root cannot mount: {made.stderr.decode().strip()}")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_no_disk_space(small_disk: Path) -> None:
    ended = _run("run", "snapshot/hole", XDG_CACHE_HOME=str(small_disk))
    _refused(ended, ExitCode.INFRASTRUCTURE, "hint: ", "MiB")
    left = [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size > 4096]
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """A build that is ended in the middle: no process, no entry, no temporary file."""
    cache = tmp_path / "cache"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    marker = str(os.getpid())
    child = subprocess.Popen(
        [*COMMAND, "run", "snapshot/hole"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(temporary), "MARKED_BY_TEST": marker},
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if "not in the cache" in line:
                break
            if "source of kernel" in line and "is not installed" in line:
                pytest.skip("the kernel's source package is not installed")
        time.sleep(1)  # into the unpacking
        child.send_signal(number)
        rest = child.stdout.read()
        assert child.wait(timeout=30) == ExitCode.INTERRUPTED, rest
    finally:
        child.kill()
        child.wait()
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert marked_processes(marker) == {}
    assert list(temporary.iterdir()) == []
    assert [
        path
        for path in cache.rglob("*")
        if path.is_file() and path.stat().st_size > 4096 and "logs" not in path.parts
    ] == []
