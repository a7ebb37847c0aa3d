# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin in pytest runs of its own, on a kernel that is none."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.program.text import render
from harness.progress import Progress
from harness.pytest_plugin import play  # noqa: F401  what is here is not imported anew for each of pytester's runs
from harness.pytest_plugin.settings import read_settings
from harness.pytest_plugin.slots import Slot
from harness.pytest_plugin.writer import Writer
from harness.target.places import CHECKOUT
from tests.fake_lab import LOST, FakeLab

pytest_plugins = ["pytester"]

CONFTEST = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(CHECKOUT)!r})
import pytest
from tests.fake_lab import FakeLab, fake_machine

@pytest.fixture(scope="session")
def hmm_machine(request):
    return fake_machine(*getattr(request, "param", ("debian:6.1", "plain")))

@pytest.fixture(scope="session")
def hmm_lab(hmm_machine):
    return FakeLab(hmm_machine, Path({{journal!r}}))
"""
COW = '''
def test_cow_after_fork(lockstep):
    """The device must not keep the page that the child still reads."""
    a, d0 = lockstep.subject("a"), lockstep.device("d0")
    {name} = a.map("anon", pages=8, prot="rw", name="{name}")
    a.write({name}, 10)
    d0.bind(a)
    d0.read({name})
    b = a.fork()
    a.write({name}[0:4], 50)
    d0.table({name})
    d0.read({name}); b.read({name})
'''
# In this process, pytest finds the plugin imported; and it collects garbage five times at its end.
QUICK = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:unraisableexception")
SHORT = 'lockstep("a: map {} anon 2 rw\\na: write {} 1\\na: read {}")'


class Pytest:
    """Runs pytest in a directory of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self._journal = self.path / "journal"
        pytester.makeconftest(CONFTEST.format(journal=str(self._journal)))

    def __call__(self, code: str, *arguments: str, subprocess: bool = False) -> pytest.RunResult:
        self.pytester.makepyfile(test_it=f"import pytest\n{code}")
        self._journal.unlink(missing_ok=True)
        if subprocess:
            return self.pytester.runpytest_subprocess(*arguments)
        return self.pytester.runpytest_inprocess(*QUICK, *arguments)

    @property
    def ran(self) -> list[str]:
        """What the fake kernel was told to run: kernel, binding, timeout, number of steps."""
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        return [line for line in lines if line != "discard"]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Pytest:
    for name in ("KERNEL", "FLAVOUR", "BINDING", "TIMEOUT", "SEED", "VMS", "NO_RESTORE"):
        monkeypatch.delenv(f"HMM_HARNESS_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(pytester.path / "config"))
    return Pytest(pytester)


# What becomes of a test


def test_a_test_of_ten_lines(run: Pytest) -> None:
    result = run(COW.format(name="buf"), "-v")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*test_cow_after_fork?interval? PASSED*", "*test_cow_after_fork?test_hmm? SKIPPED*"])
    assert run.ran == ["debian:6.1 interval 30 9"]


def test_a_divergence_is_a_failure_that_says_what_a_run_says(run: Pytest) -> None:
    result = run(COW.format(name="stale"), "--hmm-binding=interval")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "step 7: stale?0?: saw rw STALE, allowed is -",
            "    test_it.py:12, FAIL on debian:6.1 (plain), interval",
            "      1  a: map stale anon 8 rw",
            "  >   7  d0: table stale",
            "           stale?0?: saw rw STALE, allowed is -",
            "    stale  CPU: model  CPU: kernel  d0: model  d0: driver",
            "    ?0:4?  rw          rw           -          rw STALE",
            "  replay: * run --kernel debian:6.1 --flavour plain --binding interval *.hmm",
            "FAILED test_it.py::test_cow_after_fork - Diverged: step 7*",
        ]
    )
    # The program that the command names is there, whole, and says what it is for.
    replay = next(line for line in result.outlines if line.startswith("  replay: "))
    program = Path(replay.split()[-1]).read_text()
    assert program.startswith("# The device must not keep the page that the child still reads.\na: map stale anon 8")
    assert program.endswith("b: read stale\n")


def test_no_line_of_the_plugin_is_shown(run: Pytest) -> None:
    result = run(
        f"""
def test_diverges(lockstep):
    lockstep("a: map stale anon 1 rw\\nd0: bind a\\nd0: table stale")

def test_makes_no_sense(lockstep):
    lockstep.subject("a").map("anom", pages=8)

def test_is_refused(lockstep):
    a = lockstep.subject()
    buf = a.map(pages=8)
    a.read(buf[4:12])

def test_breaks(lockstep):
    {SHORT.format("dead", "dead", "dead")}
""",
        "--hmm-binding=interval",
        "--tb=short",
    )
    result.assert_outcomes(failed=3, errors=1)
    assert "pytest_plugin" not in result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "E   ValueError: 'anom' is no backing",
            "E   hint: one of: anon, shared, file, private-file, pfnmap, mixedmap, hugetlb, vdso, vvar",
            "test_it.py:12: in test_is_refused",
            "E   ValueError: buf?4:12? reaches past the end of buf, which has 8 pages",
        ]
    )


def test_each_verdict_has_its_outcome_and_its_place_in_junit(run: Pytest) -> None:
    code = "\n".join(
        f"""
def test_{name}(lockstep):
    {SHORT.format(name, name, name)}
"""
        for name in ("passes", "panic", "oops", "stuck", "dead", "lost")
    )
    result = run(
        code
        + """
def test_nothing(lockstep):
    pass

def test_no_step(lockstep):
    lockstep.subject("a")
    lockstep.run()

@pytest.mark.xfail
def test_expected_to_diverge(lockstep):
    lockstep("a: map stale anon 1 rw\\nd0: bind a\\nd0: table stale")

@pytest.mark.xfail
def test_expected_to_diverge_but_breaks(lockstep):
    lockstep("a: map dead anon 1 rw")

def test_is_judged_by_the_test(lockstep):
    assert lockstep("a: map stale anon 1 rw\\nd0: bind a\\nd0: table stale", check=False).verdict == "FAIL"

def test_is_never_judged_without_a_verdict(lockstep):
    lockstep("a: map dead anon 1 rw", check=False)

def test_body_fails_first(lockstep):
    lockstep.subject().map(pages=1)
    raise RuntimeError
""",
        "--hmm-binding=interval",
        "--junitxml=junit.xml",
        "-v",
    )
    outcomes = dict(re.findall(r"::test_(\w+) (\w+) ", result.stdout.str()))
    assert outcomes == {
        "passes": "PASSED",
        "panic": "FAILED",
        "oops": "FAILED",
        "stuck": "FAILED",
        "dead": "ERROR",
        "lost": "ERROR",
        "nothing": "FAILED",
        "no_step": "FAILED",
        "expected_to_diverge": "XFAIL",
        "expected_to_diverge_but_breaks": "ERROR",
        "is_judged_by_the_test": "PASSED",
        "is_never_judged_without_a_verdict": "ERROR",
        "body_fails_first": "FAILED",
    }
    result.assert_outcomes(passed=2, failed=6, errors=4, xfailed=1)
    result.stdout.fnmatch_lines(["*kernel log*", "*WARNING: CPU: 0 at mm/hmm.c:1"])
    cases = {
        case.attrib["name"]: [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        for case in ElementTree.parse(run.path / "junit.xml").iter("testcase")
    }
    assert cases["test_passes"] == []
    assert cases["test_oops"] == cases["test_nothing"] == ["failure"]
    assert cases["test_dead"] == cases["test_lost"] == ["error"]
    text = (run.path / "junit.xml").read_text()
    assert '<property name="hmm_kernel" value="debian:6.1" />' in text
    assert '<property name="hmm_verdict" value="CRASHED" />' in text
    # A program that is not run because the test failed before is not run afterwards either.
    assert len(run.ran) == len(outcomes) - 3 + 2  # the second look at what diverged


def test_a_known_deviation_passes_with_a_warning_that_can_be_made_an_error(run: Pytest) -> None:
    code = """
import warnings
@pytest.fixture(autouse=True)
def deviating(monkeypatch):
    from dataclasses import replace
    from harness.compare import Verdict
    from harness.pytest_plugin import play
    real = play.run
    monkeypatch.setattr(play, "run", lambda *args, **how: [
        replace(result, status=Verdict.DEVIATION, reason="it is known") for result in real(*args, **how)])

def test_deviates(lockstep):
    lockstep("a: map buf anon 1 rw")
"""
    result = run(code, "--hmm-binding=interval")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*test_it.py:14: DeviationWarning: it is known"])
    strict = run(code, "--hmm-binding=interval", "-W", "error::harness.pytest_plugin.DeviationWarning")
    strict.assert_outcomes(failed=1)


def test_what_steps_showed_is_there_after_the_run(run: Pytest) -> None:
    result = run(
        """
from harness.program.observations import Signal

def test_elements(lockstep, hmm_subject, hmm_device):
    buf = hmm_subject.map("shared", pages=4, name="mem")
    hmm_subject.write(buf, 7)
    hmm_device.bind(hmm_subject)
    seen = hmm_device.read(buf[-2:])
    with pytest.raises(RuntimeError, match="not been run"):
        seen.elements
    played = lockstep.run()
    assert seen.elements == (9, 10)
    assert seen.error == 0
    assert played.verdict == "PASS"
    with pytest.raises(ValueError, match="has run already"):
        hmm_subject.read(buf)
    again = lockstep.subject().map(pages=2)
    seen = lockstep.subject("a").read(again[1])
    lockstep.run()
    assert seen.elements == (0,)
    assert len(lockstep.played) == 2
""",
        "--hmm-binding=interval",
    )
    result.assert_outcomes(passed=1)
    assert len(run.ran) == 2


def test_every_call_writes_its_step(run: Pytest) -> None:
    """Calls and text spell the same program, operation by operation."""
    result = run(
        """
from harness.program.text import render

TEXT = '''a: map buf private-file 8 rwx
a: write buf 1
a: protect buf[0:2] r
a: advise buf[3] dontneed
a: read buf
a: remap buf[6:8] buf2
a: fork b
b: read buf2
d0: bind a
d0: fault buf[0:2] read
d0: fault buf[3] write
d0: snapshot buf
d0: read buf[0:6]
d0: write buf[3] 9
d0: to-device buf2
d0: to-system buf2
d0: evict
d0: table buf
d0: exclusive buf[4:6]
d0: held buf[4:6]
d0: to-device-short buf[4:6]
d0: usage
d0: unbind
b: unmap buf[0]
a: fork child
child: exit
'''

def test_same(lockstep):
    a, d0 = lockstep.subject(), lockstep.device()
    buf = a.map("private-file", pages=8, prot="rwx")
    a.write(buf, 1)
    a.protect(buf[:2], "r")
    a.advise(buf[3], "dontneed")
    a.read(buf)
    other = a.remap(buf[6:])
    assert len(other) == 2
    b = a.fork()
    assert lockstep.subject("b") is b
    b.read(other)
    d0.bind(a)
    d0.fault(buf[0:2])
    d0.fault(buf[3], "write")
    d0.snapshot(buf)
    d0.read(buf[0:6])
    d0.write(buf[3], 9)
    d0.to_device(other)
    d0.to_system(other)
    d0.evict()
    d0.table(buf)
    d0.exclusive(buf[4:6])
    d0.held(buf[4:6])
    d0.to_device_short(buf[4:6])
    d0.usage()
    d0.unbind()
    b.unmap(buf[0])
    a.fork("child").exit()
    assert render(lockstep.run().program) == TEXT
""",
        "--hmm-binding=interval",
    )
    result.assert_outcomes(passed=1)


def test_a_call_for_newer_kernels_writes_its_step() -> None:
    writer = Writer()
    a, d0 = writer.subject("a"), writer.device("d0")
    buf = a.map(pages=2)
    d0.bind(a)
    d0.read_unlocked(buf)
    assert render(writer.program("x", "")).splitlines()[-1] == "d0: read-unlocked buf"


# Which tests there are


def test_kernels_flavours_and_drivers_make_tests(run: Pytest) -> None:
    result = run(
        f"""
def test_each(lockstep):
    {SHORT.format("x", "x", "x")}

@pytest.mark.hmm_kernel("debian:7.*", flavour="debug")
@pytest.mark.hmm_binding("interval")
def test_some(lockstep):
    {SHORT.format("x", "x", "x")}

@pytest.mark.hmm_kernel("tree:*")
def test_none(lockstep):
    {SHORT.format("x", "x", "x")}

@pytest.mark.hmm_wrong("skip-invalidate")
@pytest.mark.hmm_timeout(7)
def test_wrong(lockstep):
    lockstep("a: map buf anon 1 rw\\nd0: bind a\\nd0: table buf")

def test_other():
    pass
""",
        "--hmm-kernel=debian:6.1",
        "--hmm-kernel=debian:7.3",
        "--hmm-flavour=plain,debug",
        "-v",
        "-rs",
    )
    told = re.findall(r"::test_(\S+) (\w+)", "\n".join(line for line in result.outlines if "%]" in line))
    kernels = ("debian:6.1", "debian:6.1-debug", "debian:7.3", "debian:7.3-debug")
    expected = {(f"each[{kernel}-interval]", "PASSED") for kernel in kernels}
    expected |= {(f"each[{kernel}-{binding}]", "SKIPPED") for kernel in kernels for binding in ("mirror", "test_hmm")}
    expected |= {("some[debian:7.3-debug-interval]", "PASSED"), ("other", "PASSED")}
    expected |= {(f"wrong[{kernel}-interval]", "FAILED") for kernel in kernels}
    expected |= {(f"none[not-here-{binding}]", "SKIPPED") for binding in ("interval", "mirror", "test_hmm")}
    assert set(told) == expected
    result.stdout.fnmatch_lines(["*the test is for other kernels than those of this run (marker hmm_kernel)*"])
    assert [line for line in run.ran if line.startswith("debian:7.3 interval 7 ")]


def test_a_test_for_another_driver_is_skipped(run: Pytest) -> None:
    result = run(
        f"""
@pytest.mark.hmm_binding("interval")
def test_ours(lockstep):
    {SHORT.format("x", "x", "x")}

@pytest.mark.hmm_wrong("skip-invalidate")
def test_wrong(lockstep):
    {SHORT.format("x", "x", "x")}
""",
        "--hmm-binding=test_hmm",
        "-rs",
    )
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*for other drivers than those of this run*"])
    assert run.ran == []


def test_programs_are_parameters(run: Pytest) -> None:
    (run.path / "mine").mkdir()
    (run.path / "mine/one.hmm").write_text("a: map buf anon 1 rw\na: read buf\n")
    (run.path / "mine/two.hmm").write_text("a: map buf anon 1 rw\na: read buf\n")
    result = run(
        """
@pytest.mark.hmm_programs("snapshot/zero-p*", "mine/*.hmm")
def test_it(lockstep, hmm_program):
    lockstep(hmm_program)

def test_file(lockstep):
    lockstep.file("mine/one.hmm")
    lockstep.file("snapshot/hole")
""",
        "--hmm-binding=interval",
        "-v",
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(["*test_it?snapshot/zero-page?*", "*test_it?mine/two.hmm?*"])


def test_a_program_that_is_not_there(run: Pytest) -> None:
    result = run("@pytest.mark.hmm_programs('nosuch/*')\ndef test_it(lockstep, hmm_program): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no program 'nosuch/[*]'*"])


def test_what_a_kernel_must_have(run: Pytest) -> None:
    result = run(
        f"""
@pytest.mark.hmm_requires("device-private", "MIGRATE_FAULT_PAGE")
def test_has(lockstep):
    {SHORT.format("x", "x", "x")}

@pytest.mark.hmm_requires("migrate-pfn-compound")
def test_has_not(lockstep):
    {SHORT.format("x", "x", "x")}

@pytest.mark.hmm_requires("migrate-pfn-compond")
def test_mistyped(lockstep):
    {SHORT.format("x", "x", "x")}
""",
        "--hmm-binding=interval",
        "-rs",
    )
    result.assert_outcomes(passed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*hmm_requires: no kernel has 'migrate-pfn-compond'",
            "hint: one of: *migrate-pfn-compound*",
            "SKIPPED ?1? test_it.py:7: debian:6.1 has no migrate-pfn-compound",
        ]
    )


def test_a_model_without_a_kernel(run: Pytest) -> None:
    result = run(
        """
def test_model(hmm_model):
    allowed = hmm_model.allowed("a: map buf anon 2 rw\\na: write buf[0] 5\\na: read buf")
    assert [str(each) for each in allowed[-1].elements] == ["5", "0"]
    shown = hmm_model.obedient("a: map buf anon 1 rw\\na: read buf")
    assert hmm_model.judge("a: map buf anon 1 rw\\na: read buf", shown).verdict == "PASS"
"""
    )
    result.assert_outcomes(passed=1)


def test_random_numbers_depend_on_the_seed_and_the_test(run: Pytest) -> None:
    code = """
def test_one(hmm_random, hmm_seed):
    print("ONE", hmm_random.random(), hmm_seed)

def test_two(hmm_random):
    print("TWO", hmm_random.random())
"""

    def numbers(*arguments: str) -> list[str]:
        return [line for line in run(code, "-s", *arguments).outlines if "ONE" in line or "TWO" in line]

    once = numbers("--hmm-seed=0x10")
    assert once == numbers("--hmm-seed=16")
    assert once[0].endswith(" 16")
    assert once != numbers("--hmm-seed=17")
    assert once[0].split()[1] != once[1].split()[1]


def test_memory_that_was_lost_is_an_error_of_the_session(run: Pytest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for when a VM ends: the test that lost it has passed then, and is named."""
    conftest = run.path / "conftest.py"
    text = conftest.read_text()
    conftest.write_text(text[: text.index('@pytest.fixture(scope="session")\ndef hmm_lab')])
    journal = run.path / "journal"
    monkeypatch.setattr("harness.pytest_plugin.lab.SharedLab", lambda machine, **_: FakeLab(machine, journal))
    tests = "\n".join(
        f"def test_{name}(lockstep):\n    {SHORT.format(name, name, name)}" for name in ("x", "leaky", "y")
    )
    result = run(tests, "--hmm-binding=interval")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_y*",
            "the kernel did not pass in tests that are over:",
            "test_it.py::test_leaky",
            "*memory leak in hmm_range_fault (found when its VM was looked through)",
            *LOST,
        ]
    )
    stale = tests.replace("map y ", "map stale ").replace("a: read y", "d0: bind a\\nd0: table stale")
    stale = stale.replace("write y ", "write stale ")
    result = run(stale, "--hmm-binding=interval")
    result.assert_outcomes(passed=2, failed=1, errors=1)


def test_a_vm_whose_kernel_complains_did_not_pass(run: Pytest) -> None:
    code = """
from types import SimpleNamespace

@pytest.fixture
def hmm_vm():
    return SimpleNamespace(alive=lambda: ALIVE, exec=lambda *_, **__: (0, LOG), console=CONSOLE)

def test_vm(hmm_vm):
    pass
"""
    bad = "[    1.000000] WARNING: CPU: 0 PID: 1 at mm/hmm.c:1 hmm_range_fault+0x1/0x2"
    good = "[    1.000000] all is well"
    result = run(f"LOG = {bad!r}\nCONSOLE = ''\nALIVE = True\n{code}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the kernel complained during the test", "*hmm_range_fault*"])
    run(f"LOG = {good!r}\nCONSOLE = ''\nALIVE = True\n{code}").assert_outcomes(passed=1)

    # A panic ends QEMU: what is left of it is the console. A QEMU that the test ended left no complaint there.
    panic = "[    2.000000] Kernel panic - not syncing: \x1b]0;wanted"
    result = run(f"LOG = {good!r}\nCONSOLE = {panic!r}\nALIVE = False\n{code}")
    result.assert_outcomes(failed=1)
    shown = r"* Kernel panic - not syncing: \x1b?0;wanted"  # what the kernel says does not act on the terminal
    result.stdout.fnmatch_lines(["the kernel complained during the test", shown, "*kernel log*", shown])
    run(f"LOG = {bad!r}\nCONSOLE = {good!r}\nALIVE = False\n{code}").assert_outcomes(passed=1)


# Options


def test_the_command_line_comes_before_environment_ini_files_and_defaults(
    run: Pytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(*arguments: str) -> list[object]:
        found = read_settings(run.pytester.parseconfigure(*arguments))
        return [found.kernels, found.bindings, found.timeout, found.vms, found.restore]

    both = ("interval", "mirror", "test_hmm")
    assert settings() == [("debian:6.1",), both, 30.0, None, True]
    (run.path / "hmm-harness.toml").write_text(
        'kernel = "debian:5.10"\nbinding = "test_hmm"\nvms = 2\nno-restore = true'
    )
    assert settings() == [("debian:5.10",), ("test_hmm",), 30.0, 2, False]
    run.pytester.makeini("[pytest]\nhmm_kernel = debian:6.12, tree:/src/linux\nhmm_binding = interval\nhmm_vms = 3")
    assert settings() == [("debian:6.12", "tree:/src/linux"), ("interval",), 30.0, 3, False]
    monkeypatch.setenv("HMM_HARNESS_KERNEL", "debian:7.2")
    monkeypatch.setenv("HMM_HARNESS_VMS", "4")
    monkeypatch.setenv("HMM_HARNESS_NO_RESTORE", "0")
    assert settings() == [("debian:7.2",), ("interval",), 30.0, 4, True]
    typed = ["--hmm-kernel=a,b", "--hmm-kernel=c", "--hmm-binding=test_hmm", "--hmm-vms=5", "--hmm-timeout=2"]
    assert settings(*typed) == [("a", "b", "c"), ("test_hmm",), 2.0, 5, True]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("argument", "'nosuch' is no binding; there are interval, mirror, test_hmm"),
        ("environment", "HMM_HARNESS_BINDING: binding has no 'nosuch'"),
        ("ini", "ini hmm_binding: 'nosuch' is no binding"),
        ("toml", "hmm-harness.toml:1: binding has no 'nosuch'"),
    ],
)
def test_a_value_that_makes_no_sense(run: Pytest, monkeypatch: pytest.MonkeyPatch, how: str, words: str) -> None:
    arguments = ["--hmm-binding=nosuch"] if how == "argument" else []
    if how == "environment":
        monkeypatch.setenv("HMM_HARNESS_BINDING", "nosuch")
    elif how == "ini":
        run.pytester.makeini("[pytest]\nhmm_binding = nosuch")
    elif how == "toml":
        (run.path / "hmm-harness.toml").write_text('binding = "nosuch"')
    result = run(COW.format(name="buf"), *arguments)
    assert result.ret != pytest.ExitCode.OK
    assert words in result.stdout.str() + result.stderr.str()
    assert run.ran == []


def test_markers_and_options_tell_what_they_are(run: Pytest) -> None:
    result = run("", "--markers", "--strict-markers")
    for marker in ("kernel", "binding", "requires", "wrong", "timeout", "programs"):
        result.stdout.fnmatch_lines([f"@pytest.mark.hmm_{marker}(*"])
    text = run("", "--help").stdout.str()
    for option in ("kernel", "flavour", "binding", "timeout", "seed", "vms", "no-restore"):
        assert f"--hmm-{option}" in text
        assert f"$HMM_HARNESS_{option.upper().replace('-', '_')}" in text


def test_the_header_is_for_those_who_use_it(run: Pytest) -> None:
    used = run(COW.format(name="buf"), "--collect-only")
    used.stdout.fnmatch_lines(["hmm-harness: debian:6.1 (plain); interval, mirror, test_hmm; *; --hmm-seed *"])
    assert run.ran == []
    assert "hmm-harness:" not in run("def test_other(): pass").stdout.str()


# Cost, and several processes


def test_who_does_not_use_it_does_not_pay(run: Pytest) -> None:
    run.pytester.makeconftest("")
    result = run(
        """
import sys

def test_loaded():
    loaded = {name for name in sys.modules if name.split(".")[0] in ("cffi", "paramiko", "harness")}
    assert "harness.pytest_plugin" in loaded
    assert not loaded & {"cffi", "paramiko", "harness.run", "harness.model", "harness.target", "harness.program"}
""",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)


def test_workers_share_the_seed_and_say_what_they_ran_on(run: Pytest) -> None:
    pytest.importorskip("xdist")
    code = "".join(
        f"""
def test_{number}(lockstep, hmm_seed):
    {SHORT.format(name, name, name)}
    assert hmm_seed == 99
"""
        for number, name in enumerate(("x", "stale", "dead", "y"))
    )
    code = code.replace("a: read stale", "d0: bind a\\nd0: table stale")
    result = run(code, "-n2", "--hmm-seed=99", "--hmm-binding=interval", subprocess=True)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(["hmm-harness: debian:6.1 (plain); interval; *; --hmm-seed 99"])
    assert len(run.ran) == 5


def test_a_slot_is_held_once_and_goes_to_who_waits(tmp_path: Path) -> None:
    quiet = Progress(sys.stderr, quiet=True)
    one, two, three = (Slot(tmp_path / "locks", 2, quiet) for _ in range(3))
    one.take()
    one.take()
    two.take()
    assert not one.wanted()
    taken = threading.Event()

    def wait() -> None:
        three.take()
        taken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    while not one.wanted():
        assert waiter.is_alive()
    assert not taken.is_set()
    one.release()
    assert taken.wait(60)
    waiter.join(60)
    assert not two.wanted()
    two.release()
    three.release()
    one.take()
