# SPDX-License-Identifier: GPL-2.0-only
"""Events arrive, all of them, whoever may hear them; and when they do not, that is noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from harness.abi import CONSTANTS
from harness.compare import Verdict, compare
from harness.model.rules import rules_for
from harness.program.observations import Event, Happening
from harness.program.operations import PAGE_SIZE
from harness.program.program import Program
from harness.program.text import parse
from harness.progress import Progress
from harness.run import Plan, run
from harness.target.cache import Cache
from harness.target.events import messages
from harness.target.lab import Lab, prepare
from harness.target.wire import encode
from tests.test_events import SPEC

pytestmark = pytest.mark.vm

MANY = 100_000
_PAGES = 12_800
_ROUNDS = 4  # with two devices, and an invalidation of each page in each
_FIRST = CONSTANTS["WIRE_FIRST_ADDRESS"] // PAGE_SIZE
_INVALIDATIONS = (Happening.CLEAR, Happening.UNMAP, Happening.PROTECTION_PAGE, Happening.UNKNOWN)


def storm(rounds: int) -> Program:
    """Each page of each round gets a page of its own in the zero page's place, which both devices hear."""
    steps = ["a: read buf", "a: write buf 1", "a: advise buf dontneed"] * rounds
    text = "\n".join([f"a: map buf anon {_PAGES} rw", "d0: bind a", "d1: bind a", *steps, "d0: events", "d1: events"])
    return parse(text, file="storm", name="storm")


@pytest.fixture(scope="module", params=["this", pytest.param("debian:7.3", marks=pytest.mark.matrix)])
def storm_lab(request: pytest.FixtureRequest, cache: Cache, progress: Progress) -> Iterator[Lab]:
    """A VM of the kernel under test, or of another one."""
    if request.param == "this":
        yield request.getfixturevalue("lab")
        return
    with Lab(prepare(request.param, "plain", cache=cache, progress=progress), cache=cache, progress=progress) as lab:
        yield lab


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_a_hundred_thousand_invalidations_without_loss(storm_lab: Lab, binding: str) -> None:
    """By their numbers, and by what has to have happened to each page: neither believes the other."""
    program = storm(_ROUNDS)
    execution = storm_lab.execute(program, binding, wrong=(), timeout=300)
    assert execution.lost_events == 0
    assert execution.crashes == ()
    total = 0
    for seen in execution.observations[-2:]:  # what each of the two devices heard
        times: Counter[int] = Counter()
        for event in seen.elements:
            assert isinstance(event, Event)
            if event.what in _INVALIDATIONS:
                total += 1
                times.update(range(event.start, event.stop))
        # Of each page, in each round: that it takes the zero page's place, and that it goes.
        assert min(times[_FIRST + page] for page in range(_PAGES)) >= 2 * _ROUNDS
    assert total >= MANY
    rules = rules_for(binding, storm_lab.features())
    assert compare(program, rules, execution.observations).verdict is Verdict.PASS


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_losses_on_the_way_are_counted(storm_lab: Lab, binding: str) -> None:
    """The module loses every second one, and tells nobody but by the numbers."""
    execution = storm_lab.execute(storm(1), binding, wrong=("lose-events",), timeout=300)
    heard = sum(len(seen.elements) for seen in execution.observations[-2:])
    assert execution.lost_events >= _PAGES
    assert abs(execution.lost_events - heard) < heard / 10
    (result,) = run(Plan([storm(1)], [binding], wrong=["lose-events"], timeout=120), storm_lab)
    assert result.status is Verdict.INCONCLUSIVE, "\n".join(result.explanation)


def test_events_without_room_make_a_run_inconclusive(lab: Lab) -> None:
    vm = lab.vm()

    def reload(parameters: str) -> None:
        for request in ({"do": "unload"}, {"do": "load", "parameters": parameters}):
            answer, _ = vm.call(request | {"module": "hmm_harness"}, timeout=60)
            assert "error" not in answer, answer

    reload("event_slots=1")
    (result,) = run(Plan([storm(1)], ["interval"], timeout=120), lab)
    assert result.status is Verdict.INCONCLUSIVE, "\n".join(result.explanation)
    assert "events of the driver were lost on the way" in result.reason
    lab.discard()


SCRIPT = """
import ctypes, os, sys
sys.path.insert(0, "/payload")
from harness.guest.events import Listener
from harness.guest.kernel import AgentError

def tries(before=None, after=None):
    if os.fork() == 0:
        try:
            before and before()
            listener = Listener()
            after and after()
            listener.begin()
            print("heard", flush=True)
        except AgentError as error:
            print("refused:", error.message, flush=True)
        os._exit(0)
    os.wait()

tries()
tries(after=lambda: os.setuid(65534))
NEWNET = 0x40000000
if os.path.exists("/proc/self/ns/net"):
    tries(before=lambda: ctypes.CDLL(None).unshare(NEWNET))
"""


def test_only_who_may_configure_networks_hears_and_in_the_first_namespace_only(lab: Lab) -> None:
    status, output = lab.vm().exec(f"python3 -c '{SCRIPT}'", timeout=120)
    assert status == 0, output
    root, nobody, *elsewhere = (line for line in output.splitlines() if line.startswith(("heard", "refused")))
    assert root == "heard"
    assert "EPERM" in nobody
    # Nobody is elsewhere without CONFIG_NET_NS, which kernels as they are shipped have.
    assert all(line.startswith("refused: no events can be heard") for line in elsewhere), output


BOUND = """
import fcntl, os, struct
file = os.open("/dev/hmm_harness1", os.O_RDWR)
fcntl.ioctl(file, 0xD801, struct.pack("=II", 8, 0))
print(os.getpid(), open("/sys/kernel/debug/hmm_harness/hmm_harness1").read())
"""


def test_debugfs_shows_devices_mirrors_and_pages(lab: Lab) -> None:
    status, output = lab.vm().exec(f"python3 -c '{BOUND}'", timeout=60)
    assert status == 0, output
    process = output.split()[0]
    assert f"process {process}, entries 0" in output
    assert "pages: 4096, of these free 4096, live 0, on their way 0, lost on purpose 0" in output
    _, output = lab.vm().exec("cat /sys/kernel/debug/hmm_harness/*", timeout=60)
    assert "mirror " not in output, "it is gone with its file"
    assert "last number: " in output


def test_debugfs_is_read_while_the_module_comes_and_goes(lab: Lab) -> None:
    readers = "(while [ ! -e /tmp/enough ]; do cat /sys/kernel/debug/hmm_harness/* >/dev/null 2>&1; done) &"
    # A file of the module that is just being read keeps it: rmmod fails, as it should.
    again = "until rmmod hmm_harness 2>/dev/null; do :; done; insmod /payload/modules/hmm_harness.ko || exit 1"
    reloads = f"for i in 1 2 3 4 5 6 7 8; do {again}; done"
    status, output = lab.vm().exec(f"{readers} ({reloads}); s=$?; touch /tmp/enough; exit $s", timeout=120)
    assert status == 0, output
    (result,) = run(Plan([storm(1)], ["interval"], timeout=120), lab)
    assert result.status is Verdict.PASS, "\n".join(result.explanation)
    lab.discard()


TRACED = """
set -e
mkdir -p /tmp/trace
mount -t tracefs none /tmp/trace
echo 1 > /tmp/trace/events/hmm_harness/enable
"""


def test_tracepoints_tell_the_same(lab: Lab) -> None:
    vm = lab.vm()
    status, output = vm.exec(TRACED, timeout=60)
    if status:
        pytest.skip(f"needs CONFIG_EVENT_TRACING: {output.strip().splitlines()[-1]}")
    text = "a: map buf anon 4 rw\na: write buf 1\nd0: bind a\nd0: to-device buf\na: read buf[2]\na: unmap buf\n"
    (result,) = run(Plan([parse(text + "d0: events", file="traced")], ["interval"]), lab)
    assert result.status is Verdict.PASS, "\n".join(result.explanation)
    assert lab.vm() is vm
    _, trace = vm.exec("cat /tmp/trace/trace; umount /tmp/trace", timeout=60)
    buf = "0x10000000000"
    assert f"{buf}-{buf[:-4]}4000 migrate owner=own" in trace, trace
    assert f"{buf}-{buf[:-4]}4000 to-device asked=4 moved=4" in trace
    assert f"{buf[:-4]}2000\n" in trace, "the CPU's touch"
    assert f"{buf}-{buf[:-4]}4000 unmap owner=none" in trace
    assert "page_free: hmm_harness0" in trace


EACH_KIND = """
a: map buf anon 8 rw
a: write buf 10
a: fork b
d0: bind a
d1: bind b
d0: to-device buf[0:4]
d0: to-system buf[0]
a: read buf[1]
a: unmap buf[2]
b: exit
d0: events
d1: events
"""
_BYTES = {"flag": 0, "u32": 4, "u64": 8}
_AT_TIMES = {"sequence", "blockable", "refused"}  # a flag is there or not, a sequence where the kernel gives one


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_what_is_told_has_the_form_of_the_description(lab: Lab, binding: str) -> None:
    """Each message has the attributes of its kind, no more and no fewer, in the form that the YAML gives them."""
    program = parse(EACH_KIND, file="each-kind", name="each-kind")
    if "DEVMEM" not in lab.features():
        pytest.skip("needs device-private memory")
    request = encode(program, binding, 60)
    header = {"do": "run", "wrong": [], "programs": [len(request)], "events": [0]}
    answer, body = lab.vm().call(header, request, timeout=90)
    told = list(messages(body[answer["results"][0]["length"] :]))
    forms = {each["name"]: each for each in SPEC["attribute-sets"][0]["attributes"]}
    entries = {each["name"]: each["entries"] for each in SPEC["definitions"]}
    kinds = {
        each["name"]: each["event"] if "event" in each else each["do"]["reply"] for each in SPEC["operations"]["list"]
    }
    for command, attributes in told:
        described = set(kinds[command]["attributes"])
        assert described - _AT_TIMES <= set(attributes) <= described, command
        for name, value in attributes.items():
            form = forms[name]
            if form["type"] == "string":
                assert value.endswith(b"\0") and len(value) > 1, name
                continue
            assert len(value) == _BYTES[form["type"]], f"{command}: {name}"
            if "enum" in form:
                assert int.from_bytes(value, "little") < len(entries[form["enum"]]), f"{command}: {name}"
    assert {command for command, _ in told} == kinds.keys() - {"state"}
