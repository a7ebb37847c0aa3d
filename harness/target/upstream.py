# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own hmm-tests: built from the source of the kernel under test, run in its VM, case by case.

Each case runs alone, in a process of its own: what the kernel says meanwhile was said in it, and a case that takes
the kernel with it does not take the others.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from harness.defaults import PEER
from harness.errors import GuestError, MissingError
from harness.guest.kernel import EARLIER_LINES
from harness.labels import short
from harness.target.artifacts import Kernel
from harness.target.cache import digest_of
from harness.target.crashes import Crash, crashes
from harness.target.places import CHECKOUT
from harness.target.process import run_tool
from harness.target.vm import VM

_TOTALS = re.compile(r"^# Totals: pass:(\d+) fail:(\d+) xfail:\d+ xpass:\d+ skip:(\d+) error:(\d+)$", re.MULTILINE)
_IN_GUEST = "/tmp/hmm-tests"
_OURS = CHECKOUT / "harness/guest/peer"
_SELFTESTS = "tools/testing/selftests"
_HUGE_PAGES = 16
_OWN_SECONDS = 30.0  # that a case has: kselftest_harness.h TEST_TIMEOUT_DEFAULT
_GRACE_SECONDS = 30.0  # beyond that until the suite itself is given up: it knows that a case is late, and says so
_ANSWER_SECONDS = 30.0

_FIXTURE = re.compile(r"^FIXTURE\((\w+)\)", re.MULTILINE)
_VARIANT = re.compile(r"^FIXTURE_VARIANT_ADD\((\w+),\s*(\w+)\)", re.MULTILINE)
_TEST = re.compile(
    r"^(?:/\*(?P<comment>(?:[^*]|\*(?!/))*)\*/\n)?"
    r"(?P<text>TEST_F(?P<kind>_TIMEOUT|_SIGNAL)?\((?P<fixture>\w+),\s*(?P<test>\w+)(?:,\s*(?P<more>\w+))?\)\n.*?^\}$)",
    re.MULTILINE | re.DOTALL,
)
_INCLUDE = re.compile(r'^\s*#\s*include\s+["<](?:mm/)?(\w+)\.h[">]', re.MULTILINE)
_UAPI = re.compile(r"^\s*#\s*include\s+<linux/(\w+\.h)>", re.MULTILINE)
_REQUEST = re.compile(r"^#define\s+HMM_DMIRROR_(\w+)\s+_IOWR\('H',\s*(0x[0-9a-fA-F]+),", re.MULTILINE)
_ERRNO = re.compile(r"-(E[A-Z]{2,})\b")


@dataclass(frozen=True)
class Suite:
    """The program, linked statically.

    `requests`: names of the device's ioctls by number. `expected`: names of the errors that it mentions: a request
    that fails with another one fails against all expectation.
    """

    program: bytes = field(repr=False)
    requests: Mapping[int, str]
    expected: frozenset[str]

    @property
    def key(self) -> str:
        """The same for the same program."""
        return digest_of(self.program.hex())


@dataclass(frozen=True)
class Case:
    """A test of a fixture in one of its variants: `test` is "hmm.hmm_device_private.migrate".

    `number`: its place in the suite, from 1. `title` and `text`: what its source says of it, and the source.
    `seconds`: after which the suite gives it up.
    """

    test: str
    number: int
    title: str
    text: str
    seconds: float
    suite: Suite = field(repr=False)

    @property
    def spoils(self) -> bool:
        """Whether the VM is of no use to others afterwards: a case is to leave nothing behind."""
        return False

    @property
    def name(self) -> str:
        """Among the programs."""
        return f"{PEER}/{self.test}"


@dataclass(frozen=True)
class Outcome:
    """What a case showed: `output`, `status` (negative for a signal) and `late` are the suite's own.

    `left`: names of processes that were left behind. `earlier`: printed before it began. `number`: among the programs
    of its VM.
    """

    output: str
    status: int
    late: bool
    left: tuple[str, ...]
    seconds: float
    log: tuple[str, ...]
    earlier: tuple[Crash, ...]
    crashes: tuple[Crash, ...]
    number: int


@dataclass(frozen=True)
class Totals:
    """How many of its cases ended how."""

    passed: int
    failed: int
    skipped: int


def cases(kernel: Kernel) -> list[Case]:
    """All cases of the suite of `kernel`, in its order. Raises what `build` raises."""
    source = _source(kernel)
    header = kernel.source / "lib/test_hmm_uapi.h" if kernel.source else source
    suite = Suite(
        build(kernel),
        {int(number, 16): name for name, number in _REQUEST.findall(header.read_text())},
        frozenset(_ERRNO.findall(source.read_text())),
    )
    return list(read_cases(source.read_text(), suite))


def read_cases(source: str, suite: Suite) -> Iterator[Case]:
    """The cases that kselftest_harness.h makes of the text of a test program, in its order: __fixture_list."""
    number = 0
    for fixture in _FIXTURE.findall(source):
        variants = [variant for its, variant in _VARIANT.findall(source) if its == fixture] or [""]
        for variant in variants:
            for match in _TEST.finditer(source):
                if match["fixture"] != fixture:
                    continue
                number += 1
                yield Case(
                    test=".".join(filter(None, [fixture, variant, match["test"]])),
                    number=number,
                    title=" ".join((match["comment"] or "").replace("\n *", " ").split()),
                    text=f"{match['text']}\n",
                    seconds=float(match["more"]) if match["kind"] == "_TIMEOUT" else _OWN_SECONDS,
                    suite=suite,
                )


def choose(found: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Those that a shell pattern names: all of a name, its last part, or its first ones."""
    return [case for case in found if any(_is_meant(case.test, pattern) for pattern in patterns)]


def _is_meant(test: str, pattern: str) -> bool:
    pattern = pattern.removeprefix(f"{PEER}/")
    return any(fnmatch(each, pattern) for each in (test, test.rpartition(".")[2])) or fnmatch(test, f"{pattern}.*")


def build(kernel: Kernel) -> bytes:
    """The program, linked statically. Raises `MissingError` without source, `BuildError` if it does not build."""
    source = _source(kernel)
    assert kernel.source is not None
    selftests = kernel.source / _SELFTESTS
    sources = _with_helpers(source)
    with tempfile.TemporaryDirectory(prefix="hmm-harness-") as scratch:
        program = Path(scratch) / "hmm-tests"
        headers = Path(scratch) / "include"
        _link_headers(kernel.source, sources, headers)
        argv: list[str | Path] = ["gcc", "-static", "-O2", "-D_GNU_SOURCE", "-pthread", "-w"]
        argv += [f"-fmacro-prefix-map={kernel.source}/=", "-isystem", headers]
        argv += [f"-I{each}" for each in (_OURS, kernel.source, selftests)]
        argv += [*sources, _OURS / "witness.c", "-Wl,--wrap=fork,--wrap=ioctl,--wrap=mmap", "-o", program]
        run_tool(argv, log=Path(scratch) / "log")
        return program.read_bytes()


def _source(kernel: Kernel) -> Path:
    found = list(kernel.source.glob(f"{_SELFTESTS}/*/hmm-tests.c")) if kernel.source else []
    if not found:
        raise MissingError(
            f"{short(kernel.name)} has no source of hmm-tests: {_SELFTESTS}/mm/hmm-tests.c",
            hint="a kernel that is built here has it, such as debian:6.12 or tree:PATH",
        )
    return found[0]


def _with_helpers(source: Path) -> list[Path]:
    """`source`, and the files beside it whose headers it includes, as its Makefile links them."""
    found = [source]
    for each in found:  # which grows
        for name in _INCLUDE.findall(each.read_text()):
            header, helper = source.with_name(f"{name}.h"), source.with_name(f"{name}.c")
            if header.is_file() and helper.is_file() and helper not in found:
                found.append(helper)
    return found


def _link_headers(tree: Path, sources: Sequence[Path], directory: Path) -> None:
    """The kernel's own <linux/...> that `sources` include, where it has them for its tools: they know its calls."""
    (directory / "linux").mkdir(parents=True)
    for name in {name for each in sources for name in _UAPI.findall(each.read_text())}:
        header = tree / "tools/include/uapi/linux" / name
        if header.is_file() and not (directory / "linux" / name).exists():
            (directory / "linux" / name).symlink_to(header)


def furnish(vm: VM, program: bytes) -> None:
    """Puts the suite into a guest, and the huge pages that it wants to find."""
    vm.put(_IN_GUEST, program)
    vm.exec(f"echo {_HUGE_PAGES} > /proc/sys/vm/nr_hugepages", timeout=_ANSWER_SECONDS)


def run(vm: VM, program: bytes, *, timeout: float) -> Totals:
    """Runs the whole suite; at most `timeout` seconds."""
    furnish(vm, program)
    _, output = vm.exec(_IN_GUEST, timeout=timeout)
    match = _TOTALS.search(output)
    if match is None:
        raise GuestError(f"hmm-tests did not end with its totals; its last words: {output[-400:]!r}")
    passed, failed, skipped, errors = map(int, match.groups())
    return Totals(passed, failed + errors, skipped)


def run_case(vm: VM, case: Case) -> Outcome:
    """Runs one case in a guest that was furnished. Raises `VMFailure` if it did not live to answer."""
    seconds = case.seconds + _GRACE_SECONDS
    request = {"do": "case", "path": _IN_GUEST, "case": case.number, "seconds": seconds}
    answer, output = vm.call(request, timeout=seconds + _ANSWER_SECONDS)
    if "error" in answer:
        raise GuestError(f"the agent in the guest refused: {answer['error']}", hint=answer.get("hint"))
    log = tuple(answer["log"])
    late = log.index(EARLIER_LINES) if EARLIER_LINES in log else 0
    return Outcome(
        output=output.decode(errors="replace"),
        status=answer["status"],
        late=answer["late"],
        left=tuple(answer["left"]),
        seconds=answer["seconds"],
        log=log,
        earlier=tuple(crashes(log[:late])),
        crashes=tuple(crashes(log[late:], answer["taint"])),
        number=answer["number"],
    )
