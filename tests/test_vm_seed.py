# SPDX-License-Identifier: GPL-2.0-only
"""The seed table on kernels: v4.20.1 itself and kmod/compat/ on a later one show the same, but for what is listed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue, seed
from harness.conformance.seed import Shown
from harness.program.observations import Observation
from harness.program.program import Program
from harness.progress import Progress
from harness.run import Plan, run
from harness.target.cache import Cache
from harness.target.lab import Execution, Lab, prepare
from harness.target.vm import Machine
from tests.needs import seed_tree

pytestmark = pytest.mark.vm

NATIVE = pytest.param("native", marks=pytest.mark.matrix)


class _Recording(Lab):
    """A lab that keeps what programs showed first: a program that fails runs a second time."""

    seen: dict[str, tuple[Observation, ...]]

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        self.seen.setdefault(program.name, execution.observations)
        return execution


@pytest.fixture(scope="session")
def native(cache: Cache, progress: Progress) -> Machine:
    """A kernel that has the API itself."""
    return prepare(f"tree:{seed_tree()}", "plain", cache=cache, progress=progress)


@pytest.fixture
def seed_lab(request: pytest.FixtureRequest, cache: Cache, progress: Progress) -> Iterator[_Recording]:
    """A lab of the fixture `native`, or of the kernel under test, which has compat."""
    machine: Machine = request.getfixturevalue("native" if request.param == "native" else "machine")
    with _Recording(machine, cache=cache, progress=progress) as lab:
        lab.seen = {}
        yield lab


def _shown(lab: _Recording, programs: Sequence[Program]) -> dict[str, Shown]:
    """What each program shows on the binding `mirror`; of one that crashed only that."""
    verdicts = {result.program: result.status for result in run(Plan(programs, ["mirror"]), lab)}
    told = (Verdict.PASS, Verdict.DEVIATION, Verdict.FAIL)
    return {
        name: Shown(verdict, lab.seen.get(name, ()) if verdict in told else ()) for name, verdict in verdicts.items()
    }


@pytest.mark.matrix
def test_native_and_compat_agree_but_for_what_is_listed(
    native: Machine, machine: Machine, cache: Cache, progress: Progress
) -> None:
    programs = catalogue.select([])
    shown = []
    features: tuple[str, ...] = ()
    for each in (native, machine):
        with _Recording(each, cache=cache, progress=progress) as lab:
            lab.seen = {}
            features = lab.features()
            assert ("HMM_MIRROR" in features) == (each is native)
            shown.append(_shown(lab, programs))
    found = seed.disagreements(programs, shown[0], shown[1], seed.load(), features)
    assert not found, "\n".join(found)
    verdicts = Counter(one.verdict for one in shown[0].values())
    ran = len(programs) - verdicts[Verdict.SKIP]
    assert ran > len(programs) / 3, verdicts  # the others are of what came after v4.20
    assert verdicts[Verdict.PASS] > ran * 0.9, verdicts


MEMORY = re.compile(r"hmm_harness: (hmm_mirror\d): memory of (hmm_device\d+)")


@pytest.mark.parametrize("seed_lab", ["compat", NATIVE], indirect=True)
def test_device_memory_comes_and_goes_with_the_module(seed_lab: _Recording) -> None:
    """hmm_device_put() gives the minor back, hmm_devmem_remove() the addresses, when no page is in use any more."""
    vm = seed_lab.vm()
    _, log = vm.exec("dmesg", timeout=60)
    before = sorted(MEMORY.findall(log))
    assert [name for name, _ in before] == ["hmm_mirror0", "hmm_mirror1"]
    assert len({device for _, device in before}) == 2
    for _ in range(2):
        assert vm.exec("grep -c hmm_device /proc/iomem", timeout=60) == (0, "2\n")
        (result,) = run(Plan(catalogue.select(["devmem/unbind"]), ["mirror"]), seed_lab)
        assert result.status is Verdict.PASS, "\n".join(result.explanation)
        assert seed_lab.vm() is vm
        answer, _ = vm.call({"do": "unload", "module": "hmm_harness"}, timeout=60)
        assert "error" not in answer, answer
        assert vm.exec("grep -c hmm_device /proc/iomem", timeout=60) == (1, "0\n")
        answer, _ = vm.call({"do": "load", "module": "hmm_harness"}, timeout=60)
        assert "error" not in answer, answer
        _, log = vm.exec("dmesg", timeout=60)
        assert sorted(MEMORY.findall(log)[-2:]) == before


# What the kernel maps into each process by itself is not for devices: VM_PFNMAP and VM_DONTEXPAND, hmm.h VM_SPECIAL.
SPECIAL = """
import ctypes, errno, fcntl, os, struct
file = os.open("/dev/hmm_mirror0", os.O_RDWR)
fcntl.ioctl(file, 0xD801, struct.pack("=II", 8, 0))

def call(number, address, pages):
    entries = (ctypes.c_uint64 * pages)()
    form = "=IIQQQQQQ"
    args = struct.pack(form, struct.calcsize(form), 0, address, pages, ctypes.addressof(entries), 0, 0, 0)
    try:
        fcntl.ioctl(file, number, args)
        error = "0"
    except OSError as failed:
        error = errno.errorcode[failed.errno]
    return error, [hex(entry) for entry in entries]

for line in open("/proc/self/maps"):
    if not line.rstrip().endswith(("[vvar]", "[vdso]")):
        continue
    start, end = (int(word, 16) for word in line.split()[0].split("-"))
    for address in range(start, end, 4096):
        pages = (end - address) // 4096
        print("look", *call(0xD803, address, pages))
        print("fault", *call(0xD804, address, 1))
"""


@pytest.mark.parametrize("seed_lab", ["compat", NATIVE], indirect=True)
def test_what_is_not_for_devices_is_special(seed_lab: _Recording) -> None:
    """HMM_PFN_SPECIAL in each of the driver's forms, which it shows as an error; and -EINVAL of a fault."""
    status, output = seed_lab.vm().exec(f"python3 -c '{SPECIAL}'", timeout=60)
    assert status == 0, output
    looks = [line for line in output.splitlines() if line.startswith("look ")]
    faults = [line for line in output.splitlines() if line.startswith("fault ")]
    assert len(looks) >= 3, "a page for each of the three forms of an entry, as they are side by side"
    for line in looks:
        assert re.fullmatch(r"look 0 \[('0x4'(, )?)+\]", line), line
    for line in faults:
        assert line == "fault EINVAL ['0x0']", line
