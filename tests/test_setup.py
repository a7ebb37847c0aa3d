# SPDX-License-Identifier: GPL-2.0-only
"""vm-images/setup.sh on machines of all kinds, played by stubs; the list of packages; the doctor."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import ExitCode, UsageError
from harness.target import doctor, hostpackages
from harness.target.cache import Cache
from harness.target.places import CHECKOUT, VM_IMAGES
from tests.needs import need

TOOLS = (
    "sh",
    "cat",
    "chmod",
    "cksum",
    "cp",
    "cut",
    "dirname",
    "env",
    "flock",
    "grep",
    "id",
    "ln",
    "mkdir",
    "rm",
    "touch",
    "tr",
)


class Host:
    """A machine: a checkout, and a PATH with nothing but what is put there."""

    def __init__(self, place: Path) -> None:
        self.checkout = place / "checkout"
        self.bin = place / "bin"
        self.calls = place / "calls"
        self.bin.mkdir()
        (self.checkout / "vm-images").mkdir(parents=True)
        shutil.copy(VM_IMAGES / "setup.sh", self.checkout / "vm-images/setup.sh")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        self.packages("present sh run the shell\n")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.stub("id", "echo 0")
        # python -m venv makes a python that answers `-m pip install` with a program hmm-harness
        self.stub(
            "python",
            f"""case "$*" in
            *venv*) mkdir -p {self.checkout}/.venv/bin && cp $0 {self.checkout}/.venv/bin/python ;;
            *pip*) touch {self.checkout}/.venv/bin/hmm-harness && chmod +x {self.checkout}/.venv/bin/hmm-harness ;;
            esac""",
        )

    def packages(self, lines: str) -> None:
        (self.checkout / "vm-images/host-packages").write_text(f"# comment\n\n{lines}")

    def stub(self, name: str, script: str) -> None:
        """Puts a command on the PATH that notes its arguments."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{script}\n')
        path.chmod(0o755)

    def apt(self) -> None:
        """An apt-get that installs: the command `absent` is there afterwards."""
        self.stub("apt-get", f'case "$*" in *install*) ln -s /bin/true {self.bin}/absent ;; esac')

    def said(self, prefix: str) -> list[str]:
        """The calls of the command `prefix` so far."""
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [call for call in calls if call.startswith(prefix)]

    def set_up(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "vm-images/setup.sh", *arguments],
            env={"PATH": str(self.bin), "CI": "true", "PYTHON": str(self.bin / "python"), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_it_is_posix_sh() -> None:
    subprocess.run(["sh", "-n", VM_IMAGES / "setup.sh"], check=True)


def test_a_machine_that_has_all_gets_a_venv_once(host: Host) -> None:
    first = host.set_up()
    assert first.returncode == 0, first.stderr
    assert first.stderr == "Installing Python packages into .venv/\n"
    calls = host.said("")
    second = host.set_up()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert host.said("") == calls


def test_an_extra_is_added_and_kept(host: Host) -> None:
    host.set_up()
    host.set_up("dev")
    assert [call.endswith("[dev]") for call in host.said("python -m pip")] == [False, True]
    calls = host.said("")
    assert len(host.said("python -m venv")) == 1
    host.set_up()
    host.set_up("dev")
    assert host.said("") == calls


@pytest.mark.parametrize("file", ["pyproject.toml", "vm-images/host-packages", "vm-images/setup.sh"])
def test_another_content_makes_the_venv_again(host: Host, file: str) -> None:
    host.set_up()
    with (host.checkout / file).open("a") as changed:
        changed.write("# more\n")
    host.set_up()
    assert len(host.said("python -m venv")) == 2


def test_a_failed_pip_is_no_success_and_is_done_again(host: Host) -> None:
    host.stub(
        "python",
        f"""case "$*" in
        *venv*) mkdir -p {host.checkout}/.venv/bin && cp $0 {host.checkout}/.venv/bin/python ;;
        *pip*) exit 1 ;;
        esac""",
    )
    assert host.set_up().returncode == 1
    assert host.set_up().returncode == 1
    assert len(host.said("python -m pip")) == 2


def test_what_is_missing_is_said_and_installed(host: Host) -> None:
    host.packages("absent absent run nobody\npresent sh run the shell\nother /nonexistent/* dev lint\n")
    host.apt()
    done = host.set_up()
    assert done.returncode == 0, done.stderr
    assert "    absent             nobody\n" in done.stderr
    assert "other" not in done.stderr
    update, install = host.said("apt-get")
    assert "update" in update
    assert install.endswith("install absent")
    assert "--no-install-recommends" in install


def test_dev_installs_what_only_developers_need(host: Host) -> None:
    host.packages("absent absent dev lint\n")
    host.apt()
    assert host.set_up().returncode == 0
    assert host.said("apt-get") == []
    assert host.set_up("dev").returncode == 0
    assert host.said("apt-get")[-1].endswith("install absent")


def test_without_apt_the_list_is_printed_and_the_code_is_3(host: Host) -> None:
    host.packages("first absent-1 run nobody\nsecond absent-2 run nobody else\n")
    done = host.set_up()
    assert done.returncode == ExitCode.INFRASTRUCTURE
    assert "    first              nobody\n    second             nobody else\n" in done.stderr
    assert "vagrant up" in done.stderr


def test_without_root_and_sudo_the_command_is_said(host: Host) -> None:
    host.packages("absent absent run nobody\n")
    host.apt()
    host.stub("id", "echo 1000")
    done = host.set_up()
    assert done.returncode == ExitCode.INFRASTRUCTURE
    assert "As root: apt-get install --no-install-recommends absent\n" in done.stderr
    assert host.said("apt-get") == []


def test_somebody_else_than_root_uses_sudo(host: Host) -> None:
    host.packages("absent absent run nobody\n")
    host.apt()
    host.stub("id", "echo 1000")
    host.stub("sudo", '"$@"')
    assert host.set_up().returncode == 0
    assert len(host.said("sudo")) == 2


@pytest.mark.parametrize(("answer", "code", "installed"), [("y\n", 0, True), ("\n", 0, True), ("n\n", 3, False)])
def test_at_a_terminal_it_asks(host: Host, answer: str, code: int, installed: bool) -> None:
    host.packages("absent absent run nobody\n")
    host.apt()
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal to be had here: {error}")
    os.write(ours, answer.encode())
    done = subprocess.run(
        [host.checkout / "vm-images/setup.sh"],
        env={"PATH": str(host.bin), "PYTHON": str(host.bin / "python")},
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert "Install them with apt-get? [Y/n]" in done.stderr
    assert done.returncode == code
    assert bool(host.said("apt-get")) == installed


def test_a_package_that_brings_nothing_is_no_success(host: Host) -> None:
    host.packages("absent absent run nobody\n")
    host.stub("apt-get", "")
    done = host.set_up()
    assert done.returncode == 1
    assert "still not to be found" in done.stderr


def test_a_wrong_argument(host: Host) -> None:
    assert host.set_up("everything").returncode == ExitCode.USAGE


def test_the_list_of_packages_can_be_read_and_has_each_once() -> None:
    packages = hostpackages.read()
    names = [package.name for package in packages]
    assert sorted(set(names)) == sorted(names)
    assert {"linux-source-6.1", "qemu-system-x86", "gcc"} <= set(names)


def test_no_test_is_skipped_in_ci_for_want_of_what_the_list_has() -> None:
    """A test that looks for a program itself would be: `need` is for that."""
    proofs = {package.proof for package in hostpackages.read()}
    assert {"vagrant", "zsh", "gpg"} <= proofs
    for path in (CHECKOUT / "tests").glob("test_*.py"):
        asked = set(re.findall(r"which\(\"([^\"]+)\"\)", path.read_text(encoding="utf-8")))
        assert not asked & proofs, path


def test_what_a_test_needs_is_there_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    need("sh")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        need("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError, match="CI is to have it"):
        need("no-such-program")


@pytest.mark.parametrize("line", ["gcc", "gcc gcc always needed", "gcc gcc run"])
def test_a_line_of_the_list_that_is_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text(f"{line}\n")
    with pytest.raises(UsageError, match="list:1: not a package"):
        hostpackages.read(tmp_path / "list")


def test_a_proof_is_a_command_or_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "python3.99").touch()
    for proof, present in (
        ("sh", True),
        ("no-such-command", False),
        (f"{tmp_path}/python3*", True),
        ("/no/*", False),
    ):
        assert hostpackages.Package("name", proof, "run", "test").present() == present


def test_the_doctor_names_one_command_for_all_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = [hostpackages.Package(name, f"absent-{name}", "run", f"needs {name}") for name in ("one", "two")]
    monkeypatch.setattr(hostpackages, "read", lambda: absent)
    findings = doctor.check(Cache(tmp_path))
    report = doctor.report(findings)
    assert "missing  package one: needs one\n" in report
    assert "missing  package two: needs two\n" in report
    assert report.splitlines()[-1].strip().startswith(f"cd {CHECKOUT} && vm-images/setup.sh")
    assert report.count("vm-images/setup.sh") == 1


def test_the_doctor_fails_if_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = doctor.Finding(doctor.Level.OK, "all is well")
    note = doctor.Finding(doctor.Level.NOTE, "could be better")
    monkeypatch.setattr(doctor, "check", lambda **_: [fine, note])
    assert doctor.main() == ExitCode.PASS
    assert capsys.readouterr().out == "ok       all is well\nnote     could be better\n"
    monkeypatch.setattr(
        doctor, "check", lambda **_: [fine, doctor.Finding(doctor.Level.MISSING, "no QEMU", "get it")]
    )
    assert doctor.main() == ExitCode.INFRASTRUCTURE
    assert capsys.readouterr().out.endswith("&& get it\n")


def test_the_doctor_says_when_the_disk_is_too_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "free", lambda _: 1 << 20)
    (finding,) = [each for each in doctor.check(Cache(tmp_path)) if each.text.startswith("cache:")]
    assert finding.level is doctor.Level.MISSING
    assert "1 MiB free" in finding.text
    assert finding.remedy.endswith("hmm-harness clean")


@pytest.mark.parametrize(("absent", "level"), [("", doctor.Level.NOTE), ("cffi", doctor.Level.MISSING)])
def test_the_doctor_minds_a_venv_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, level: doctor.Level
) -> None:
    monkeypatch.setattr(doctor, "CHECKOUT", tmp_path)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == absent else object())
    (finding,) = [each for each in doctor.check(Cache(tmp_path)) if ".venv/" in each.text]
    assert finding.level is level
