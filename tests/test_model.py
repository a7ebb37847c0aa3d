# SPDX-License-Identifier: GPL-2.0-only
"""The reference model against what is known of the kernel, step by step, and the comparison's verdicts."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import given, settings

from harness.compare import Verdict, compare, obstacle
from harness.model import rules as model_rules
from harness.model.allowed import Count, Entries, Expectation, Odd, Shape, Tokens, Whereabouts
from harness.model.rules import FEATURES, Rules, rules_for
from harness.model.world import World
from harness.program.observations import NO_MARKS, TORN, Element, Entry, Mark, Observation, Signal, Status, Told
from harness.program.operations import Call, Passes, Usage
from harness.program.program import Program
from harness.program.text import parse
from tests.strategies import programs

R = Mark.VALID
RW = Mark.VALID | Mark.WRITE
NOTHING = Entry(NO_MARKS)
ERROR = Entry(Mark.ERROR)
# What debian:6.1 has, userfaultfds with it, and the pins of later kernels
RULES = {
    binding: rules_for(
        binding, [*rules.features, "PIN", "USERFAULT", "USERFAULT_MOVE", "USERFAULT_WP", "MAPPED_NODE"]
    )
    for binding, rules in model_rules.RULES.items()
}


def _program(text: str) -> Program:
    return parse(text, file="x.hmm")


def _obedient(program: Program, rules: Rules = RULES["interval"]) -> tuple[list[Expectation], list[Observation]]:
    """What the model allows at each step of a run whose kernel always does the first thing that is allowed."""
    world = World(program, rules)
    expectations: list[Expectation] = []
    observations: list[Observation] = []
    for step in program.steps:
        error = min(_peek(program, rules, observations, Observation(Status.DONE)).errors)
        expectation = _peek(program, rules, observations, Observation(Status.DONE, error))
        if error:
            observation = Observation(Status.DONE, error)
        else:
            observation = Observation(Status.DONE, 0, tuple(_first(allowed) for allowed in expectation.elements))
            if expectation.hearing is not None:
                observation = Observation(Status.DONE, 0, expectation.hearing.sample())
            if isinstance(step, Usage):  # what was allocated is what is in use and what was freed
                in_use = observation.elements[0]
                faults = observation.elements[3]
                observation = Observation(Status.DONE, 0, (in_use, in_use, 0, faults, 0, 0))
        expectations.append(world.step(step, observation))
        world.learn(step, observation)
        observations.append(observation)
    return expectations, observations


def _peek(program: Program, rules: Rules, observations: list[Observation], seen: Observation) -> Expectation:
    """What the model expects of the step behind those that were observed, if that ends like `seen`."""
    world = World(program, rules)
    for step, observation in zip(program.steps, observations, strict=False):
        world.step(step, observation)
        world.learn(step, observation)
    return world.step(program.steps[len(observations)], seen)


def _first(allowed: Tokens | Entries | Count | Odd | Whereabouts) -> Element:
    match allowed:
        case Tokens(values=values):
            return max(values, key=str)
        case Entries(shapes=shapes):
            return Entry(shapes[0].marks, 9 if shapes[0].whole else 0)
        case Count(low=low):
            return low
        case Odd():
            return allowed.least
        case Whereabouts(values=values):
            return max(values, key=str)


def _last(text: str, binding: str = "interval") -> Expectation:
    return _obedient(_program(text), RULES[binding])[0][-1]


def _shows(text: str, *elements: Element) -> None:
    expectation = _last(text)
    assert 0 in expectation.errors
    assert len(expectation.elements) == len(elements)
    for allowed, element in zip(expectation.elements, elements, strict=True):
        assert allowed.admits(element), f"{element} is not in {allowed}"


def _forbids(text: str, *elements: Element) -> None:
    expectation = _last(text)
    for allowed, element in zip(expectation.elements, elements, strict=True):
        assert not allowed.admits(element), f"{element} is in {allowed}"


BUF = "a: map buf anon 4 rw\nd0: bind a\n"


def test_snapshot_of_each_state() -> None:
    text = BUF + "a: write buf[0] 5\na: read buf[1]\na: unmap buf[3]\nd0: snapshot buf"
    _shows(text, Entry(RW), Entry(R | Mark.ZERO), NOTHING, ERROR)
    _forbids(text, Entry(R), Entry(RW), Entry(R), NOTHING)


def test_unreadable_mappings_are_errors() -> None:
    _shows("a: map buf anon 1 w\nd0: bind a\na: write buf 3\nd0: snapshot buf", ERROR)
    _shows("a: map buf anon 1 none\nd0: bind a\nd0: snapshot buf", ERROR)


@pytest.mark.parametrize(
    ("prot", "access", "error"),
    [("rw", "write", 0), ("r", "read", 0), ("r", "write", errno.EPERM), ("none", "read", errno.EFAULT),
     ("none", "write", errno.EFAULT), ("w", "read", errno.EFAULT)],
)  # fmt: skip
def test_fault_permission(prot: str, access: str, error: int) -> None:
    assert _last(f"a: map buf anon 1 {prot}\nd0: bind a\nd0: fault buf {access}").errors == {error}


def test_fault_stops_at_a_hole_and_keeps_what_it_did() -> None:
    text = "a: map buf anon 3 rw\nd0: bind a\na: unmap buf[2]\nd0: fault buf write\n"
    assert _last(text).errors == {errno.EFAULT}
    _shows(text + "d0: snapshot buf", Entry(RW), Entry(RW), ERROR)


def test_contents_follow_copy_on_write() -> None:
    text = BUF + "a: write buf 10\na: fork b\na: write buf[0:2] 50\n"
    _shows(text + "b: read buf", 10, 11, 12, 13)
    _shows(text + "a: read buf", 50, 51, 12, 13)
    _shows(text + "d0: read buf", 50, 51, 12, 13)


def test_a_child_need_not_have_what_its_parent_has_only_read() -> None:
    """mm/memory.c vma_needs_copy(): without an anon_vma there is nothing that a fault would not bring."""
    text = "a: map buf anon 2 rw\na: read buf\na: fork b\nd0: bind b\n"
    _shows(text + "d0: snapshot buf", NOTHING, Entry(R | Mark.ZERO))
    _forbids(text + "d0: snapshot buf", Entry(R), Entry(RW))
    _shows(text + "d0: fault buf read", Entry(R | Mark.ZERO), Entry(R | Mark.ZERO))
    _forbids(text + "b: read buf\nd0: snapshot buf", NOTHING, NOTHING)
    _forbids(text + "d0: unbind\nd0: bind a\nd0: snapshot buf", NOTHING, NOTHING)


def test_shared_memory_is_shared() -> None:
    text = "a: map buf shared 2 rw\na: fork b\nd0: bind b\nd0: write buf 7\n"
    _shows(text + "a: read buf", 7, 8)


def test_private_file_keeps_the_file() -> None:
    text = "a: map buf private-file 2 rw\na: fork b\na: write buf 7\n"
    _shows(text + "b: read buf", 0, 0)


def test_behind_the_end_of_a_file_there_is_nothing() -> None:
    text = "a: map buf file 4 rw\na: write buf 5\nd0: bind a\nd0: read buf\na: truncate buf 2\n"
    _shows(text + "a: read buf", 5, 6, Signal.BUS, Signal.BUS)
    _forbids(text + "a: read buf[2:4]", 0, 7)
    _shows(text + "d0: snapshot buf", Entry(RW), Entry(RW), NOTHING, NOTHING)
    _forbids(text + "d0: table buf[2:4]", Entry(RW), Entry(RW | Mark.STALE))
    assert _last(text + "d0: fault buf read").errors == {errno.EFAULT}
    assert _last(text + "d0: fault buf[0:2] read").errors == {0}
    assert _last(text + "a: advise buf populate-write").errors == {errno.EFAULT}
    assert _last(text + "a: pin buf").errors == {errno.EFAULT}
    assert _last(text + "d0: exclusive buf[3]").errors == {errno.EFAULT}
    _shows(text + "a: truncate buf 4\na: read buf", 5, 6, 0, 0)
    _shows(text + "a: truncate buf 9\nd0: read buf", 5, 6, 0, 0)


def test_the_end_of_a_file_is_the_same_for_all_who_map_it() -> None:
    text = "a: map buf private-file 4 rw\na: fork b\nb: write buf 5\nd0: bind b\nd0: to-device buf\n"
    text += "a: remap buf[2:4] far\na: truncate far 3\n"
    _shows(text + "a: read far", 0, Signal.BUS)
    _shows(text + "b: read buf", 5, 6, 7, Signal.BUS)
    assert _last(text + "d0: usage").elements[0] == Count(3, 3)
    assert _last("a: map buf file 4 rw\na: unmap buf[0]\na: truncate buf 2").errors == {errno.EFAULT}


def test_a_request_that_fails_along_behind_the_end_of_a_file_deviates() -> None:
    program = _program("a: map buf file 4 rw\na: truncate buf 2\nd0: bind a\nd0: request buf none both f.. own fresh")
    before = [Observation(Status.DONE)] * 3
    failed = [*before, Observation(Status.DONE, errno.EFAULT)]
    assert compare(program, RULES["interval"], failed).verdict is Verdict.PASS
    shown = [*before, Observation(Status.DONE, 0, (Entry(RW), Entry(RW), NOTHING, NOTHING))]
    assert compare(program, RULES["interval"], shown).verdict is Verdict.FAIL, "page 3 was asked for"
    program = _program(
        "a: map buf file 4 rw\na: truncate buf 2\nd0: bind a\nd0: request buf none both f... own fresh"
    )
    assert compare(program, RULES["interval"], failed).reason.startswith("faulted-along")
    shown = [*before, Observation(Status.DONE, 0, (Entry(RW), NOTHING, NOTHING, NOTHING))]
    assert compare(program, RULES["interval"], shown).verdict is Verdict.PASS


def test_what_a_driver_has_mapped_is_for_no_device() -> None:
    for backing, untouched in (("pfnmap", ERROR), ("mixedmap", NOTHING)):
        text = f"a: map buf {backing} 3 rw\nd0: bind a\na: write buf[0] 5\n"
        _shows(text + "a: read buf", 5, 0, 0)
        _shows(text + "a: fork b\nb: read buf", 5, 0, 0)
        _shows(text + "d0: snapshot buf", ERROR, untouched, untouched)
        _forbids(text + "d0: snapshot buf", NOTHING, Entry(RW), Entry(RW))
        _shows(text + "a: read buf[1]\nd0: snapshot buf[1]", ERROR)
        assert _last(text + "d0: fault buf[0] read").errors == {errno.EFAULT}
        assert _last(text + "d0: fault buf[1] write").errors == {errno.EFAULT}
        assert _last(text + "d0: write buf 7").errors == {errno.EFAULT}
        assert _last(text + "d0: exclusive buf[0]").errors <= {errno.EEXIST, errno.EFAULT}
        assert _last(text + "d0: to-device buf").errors == {errno.EINVAL}
        assert _last(text + "d0: move buf system device m plain").errors == {errno.EINVAL}
        assert _last(text + "d0: fault buf[0] read", "mirror").errors == {errno.EINVAL}
    readonly = "a: map buf {} 1 rw\na: protect buf r\nd0: bind a\nd0: fault buf write"
    assert _last(readonly.format("pfnmap")).errors == {errno.EFAULT}
    assert _last(readonly.format("mixedmap")).errors == {errno.EPERM}
    text = "a: map buf mixedmap 2 rw\nd0: bind a\nd0: fault buf read\nd0: snapshot buf"
    for second in (ERROR, NOTHING):  # it may have been faulted along
        _shows(text, ERROR, second)
    _forbids(text, NOTHING, Entry(RW))


def test_access_that_is_not_allowed_raises() -> None:
    _shows("a: map buf anon 2 r\na: write buf 7", Signal.SEGV, Signal.SEGV)
    _shows("a: map buf anon 2 none\na: read buf", Signal.SEGV, Signal.SEGV)
    _forbids("a: map buf anon 2 none\na: read buf", 0, TORN)


def test_a_device_entry_may_be_missing_but_not_stale() -> None:
    text = BUF + "d0: write buf 10\na: protect buf[0:2] r\nd0: table buf"
    _shows(text, NOTHING, NOTHING, NOTHING, Entry(RW))
    _forbids(text, Entry(RW), Entry(RW | Mark.STALE), Entry(R | Mark.STALE), Entry(R))


def test_fork_takes_write_permission_from_the_device() -> None:
    text = BUF + "d0: write buf 10\na: fork b\nd0: table buf"
    _forbids(text, *[Entry(RW)] * 4)


def test_migration_moves_what_is_anonymous() -> None:
    text = BUF + "a: write buf[0] 5\na: read buf[1]\nd0: to-device buf\n"
    moved = Entry(Mark.MOVED | Mark.LOCAL)
    _shows(text, *[moved] * 4)
    assert _last(text + "d0: usage").elements[0] == Count(4, 4)
    _shows(text + "a: read buf", 5, 0, 0, 0)
    _shows(text + "d0: to-device buf", *[Entry(Mark.LOCAL)] * 4)
    _shows("a: map buf shared 1 rw\nd0: bind a\na: write buf 1\nd0: to-device buf", NOTHING)


def test_the_cpu_brings_device_pages_back() -> None:
    text = BUF + "a: write buf 5\nd0: to-device buf\na: read buf[0:2]\nd0: snapshot buf"
    _shows(text, Entry(RW), Entry(RW), Entry(RW | Mark.LOCAL), Entry(RW | Mark.LOCAL))
    _forbids(text, Entry(RW | Mark.LOCAL), NOTHING, Entry(RW), Entry(R | Mark.LOCAL))


def test_forked_device_pages_are_counted_once() -> None:
    text = BUF + "a: write buf 5\nd0: to-device buf\na: fork b\n"
    assert _last(text + "d0: usage").elements[0] == Count(4, 4)
    assert _last(text + "a: write buf 9\nd0: usage").elements[0] == Count(0, 0)
    assert _last(text + "a: unmap buf\nd0: usage").elements[0] == Count(4, 4)


def test_another_device_sees_nothing_of_a_device_page() -> None:
    text = BUF + "d1: bind a\na: write buf 5\nd0: to-device buf\n"
    _shows(text + "d1: snapshot buf", *[NOTHING] * 4)
    _shows(text + "d1: read buf", 5, 6, 7, 8)
    _shows(text + "d1: read buf\nd0: snapshot buf", *[Entry(RW)] * 4)


def test_pages_that_are_allocated_and_neither_freed_nor_used_are_a_leak() -> None:
    program = _program(BUF + "a: write buf 5\nd0: to-device buf\nd0: usage")
    _, observations = _obedient(program)
    for allocated, freed, verdict in ((14, 10, Verdict.PASS), (15, 10, Verdict.FAIL), (14, 11, Verdict.FAIL)):
        observations[-1] = Observation(Status.DONE, 0, (4, allocated, freed, 0, 9, 4))
        assert compare(program, RULES["interval"], observations).verdict is verdict


def test_memory_of_a_process_that_exited() -> None:
    text = BUF + "a: exit\nd0: snapshot buf"
    assert _last(text).errors == {errno.ESRCH}
    assert _last(text, "test_hmm").errors == {errno.EFAULT, errno.EINVAL}


def test_the_recorded_deviation_is_told_apart() -> None:
    text = "a: write buf 5\nd0: to-device buf\na: protect buf r\na: protect buf rw\nd0: fault buf write"
    program = _program(BUF + text)
    _, observations = _obedient(program)
    assert compare(program, RULES["interval"], observations).verdict is Verdict.PASS
    observations[-1] = Observation(Status.DONE, 0, (Entry(R | Mark.LOCAL),) * 4)
    comparison = compare(program, RULES["interval"], observations)
    assert comparison.verdict is Verdict.DEVIATION
    assert comparison.reason.startswith("own-readonly-write")
    observations[-1] = Observation(Status.DONE, 0, (NOTHING,) * 4)
    assert compare(program, RULES["interval"], observations).verdict is Verdict.FAIL


def _refused(text: str, elements: tuple[Element, ...], *features: str) -> Verdict:
    """The verdict on a last step that fails with EFAULT, on a kernel that has `features` besides device memory."""
    program = _program(BUF + "d1: bind a\na: write buf 5\nd0: to-device buf\n" + text)
    _, observations = _obedient(program)
    observations[-1] = Observation(Status.DONE, errno.EFAULT, elements)
    return compare(program, rules_for("interval", ["DEVMEM", *features]), observations).verdict


def test_only_a_kernel_that_cannot_bring_a_page_back_may_refuse_to() -> None:
    for text in ("d1: read buf", "d1: fault buf read", "d1: fault buf write", "d1: write buf 9"):
        assert _refused(text, ()) is Verdict.DEVIATION, text
        assert _refused(text, (), "MIGRATE_FAULT_PAGE") is Verdict.FAIL, text
    # Pages 0 and 1 are at hand, the third is the one that is refused.
    text = "a: write buf[0:2] 5\nd1: read buf"
    assert _refused(text, (5, 6)) is Verdict.DEVIATION
    assert _refused(text, (5,)) is Verdict.FAIL
    assert _refused(text, (5, 7)) is Verdict.FAIL


def test_what_a_kernel_has_not_is_skipped_and_named() -> None:
    program = _program(BUF + "a: advise buf populate-read\nd0: to-device buf\nd0: table buf")
    _, observations = _obedient(program)
    for features, words in (
        ((), "needs MADV_POPULATE_READ"),
        (("POPULATE",), "no device-private memory"),
    ):
        comparison = compare(program, rules_for("interval", features), observations)
        assert comparison.verdict is Verdict.SKIP
        assert words in comparison.reason
    rules = rules_for("interval", ("POPULATE", "DEVMEM", "SOMETHING_ELSE"))
    assert compare(program, rules, observations).verdict is Verdict.PASS


def _with(features: str, text: str, *errors: int) -> Verdict:
    """The verdict on steps that end with `errors`, on a kernel that has `features`."""
    observations = [Observation(Status.DONE, error) for error in errors]
    return compare(_program(text), rules_for("interval", ["POPULATE", *features.split()]), observations).verdict


def test_a_hole_stops_populate_or_is_told_of_at_the_end() -> None:
    text = "a: map buf anon 6 rw\na: protect buf[3:6] none\na: unmap buf[1]\na: advise buf populate-read"
    assert _with("", text, 0, 0, 0, errno.EINVAL) is Verdict.PASS
    assert _with("", text, 0, 0, 0, errno.ENOMEM) is Verdict.FAIL
    assert _with("POPULATE_STOPS_AT_HOLE", text, 0, 0, 0, errno.ENOMEM) is Verdict.PASS
    assert _with("POPULATE_STOPS_AT_HOLE", text, 0, 0, 0, errno.EINVAL) is Verdict.FAIL


def test_mremap_moves_several_mappings_where_the_kernel_can() -> None:
    text = "a: map buf anon 6 rw\na: protect buf[3:6] none\na: unmap buf[1]\na: remap buf to\n"
    assert _with("", text, 0, 0, 0, errno.EFAULT) is Verdict.PASS
    assert _with("", text, 0, 0, 0, 0) is Verdict.FAIL
    assert _with("REMAP_SEVERAL", text, 0, 0, 0, 0) is Verdict.PASS
    assert _with("REMAP_SEVERAL", text, 0, 0, 0, errno.EFAULT) is Verdict.FAIL
    text = "a: map buf anon 6 rw\na: unmap buf[0]\na: remap buf to"
    assert _with("REMAP_SEVERAL", text, 0, 0, errno.EFAULT) is Verdict.PASS


def test_a_huge_page_goes_and_comes_whole_where_driver_and_kernel_can() -> None:
    text = (
        "a: map big anon 1024 rw\nd0: bind a\nd1: bind a\nd0: to-device big\na: write big[0] 5\nd0: snapshot big[0:2]"
    )
    program = _program(text)
    can = rules_for("test_hmm", ["DEVMEM", "MIGRATE_FAULT_PAGE", "MIGRATE_PFN_COMPOUND"])
    cannot = rules_for("test_hmm", ["DEVMEM", "MIGRATE_FAULT_PAGE"])
    before = [Observation(Status.DONE)] * 4 + [Observation(Status.DONE, 0, (0,))]
    local = Entry(RW | Mark.LOCAL)
    for second, verdict in ((local, Verdict.PASS), (Entry(RW), Verdict.PASS), (NOTHING, Verdict.FAIL)):
        observations = [*before, Observation(Status.DONE, 0, (Entry(RW), second))]
        assert compare(program, can, observations).verdict is verdict
    observations = [*before, Observation(Status.DONE, 0, (Entry(RW), Entry(RW)))]
    assert compare(program, cannot, observations).verdict is Verdict.FAIL


def test_a_huge_page_of_another_device_may_look_like_an_error() -> None:
    program = _program("a: map big anon 1024 rw\nd0: bind a\nd1: bind a\nd0: to-device big\nd1: snapshot big[0:2]")
    observations = [*[Observation(Status.DONE)] * 4, Observation(Status.DONE, 0, (ERROR, ERROR))]
    features = ["DEVMEM", "MIGRATE_FAULT_PAGE", "MIGRATE_PFN_COMPOUND"]
    comparison = compare(program, rules_for("test_hmm", features), observations)
    assert comparison.verdict is Verdict.DEVIATION
    assert comparison.reason.startswith("remote-huge-error")
    assert compare(program, rules_for("test_hmm", features[:2]), observations).verdict is Verdict.FAIL


@settings(max_examples=40, deadline=None)  # regions with huge pages have many
@given(programs())
def test_what_the_model_allows_passes(program: Program) -> None:
    for binding in RULES:
        rules = rules_for(binding, FEATURES)
        if obstacle(program, rules):
            continue
        _, observations = _obedient(program, rules)
        comparison = compare(program, rules, observations)
        assert comparison.verdict in (Verdict.PASS, Verdict.DEVIATION), comparison


@settings(max_examples=40, deadline=None)  # regions with huge pages have many
@given(programs())
def test_what_the_model_does_not_allow_fails(program: Program) -> None:
    """Every observation of the model's is decided: another content, entry or error is a divergence."""
    rules = rules_for("interval", FEATURES)
    expectations, observations = _obedient(program, rules)
    for number, expectation in enumerate(expectations):
        wrong = list(observations)
        wrong[number] = Observation(Status.DONE, errno.EUCLEAN)
        assert compare(program, rules, wrong).verdict is Verdict.FAIL
        if not expectation.elements or observations[number].error:
            continue
        for bad in (TORN, Entry(RW | Mark.STALE), Signal.BUS):
            if bad == observations[number].elements[0]:
                continue  # memory has failed, or its return is refused
            elements = (bad, *observations[number].elements[1:])
            wrong[number] = Observation(Status.DONE, 0, elements)
            assert compare(program, rules, wrong).verdict is Verdict.FAIL


def test_silence_is_never_a_pass() -> None:
    program = _program(BUF + "a: write buf 5\nd0: evict\nd0: usage")
    _, observations = _obedient(program)
    for status, verdict in [
        (Status.NOT_RUN, Verdict.ERROR),
        (Status.STUCK, Verdict.TIMEOUT),
        (Status.SUBJECT_DIED, Verdict.FAIL),
        (Status.UNSUPPORTED, Verdict.SKIP),
    ]:
        broken = list(observations)
        broken[3] = Observation(status)
        assert compare(program, RULES["interval"], broken).verdict is verdict
    assert compare(program, RULES["interval"], observations[:-1]).verdict is Verdict.ERROR
    observations[4] = Observation(Status.UNSUPPORTED)  # a query that the binding does not have
    comparison = compare(program, RULES["interval"], observations)
    assert (comparison.verdict, comparison.left_out) == (Verdict.PASS, (4,))


def test_shapes_admit_only_their_orders() -> None:
    assert Shape(RW, huge=True).admits(Entry(RW, 9))
    assert not Shape(RW).admits(Entry(RW, 9))
    assert not Shape(RW, huge=True).admits(Entry(RW, 4))


def test_pages_behind_a_fault_may_have_gone_home() -> None:
    """The deviation own-faulted-along: what was seen decides, and is reported."""
    text = "a: write buf 5\na: advise buf[0] dontneed\nd0: to-device buf[2:4]\n"
    program = _program(BUF + text + "d0: read buf\nd0: snapshot buf\nd0: usage")
    _, observations = _obedient(program)
    assert compare(program, RULES["interval"], observations).verdict is Verdict.PASS
    stayed, went = Entry(RW | Mark.LOCAL), Entry(RW)
    zero = Entry(R | Mark.ZERO)
    for pages, in_use, verdict in (
        ((stayed, stayed), 2, Verdict.PASS),
        ((stayed, went), 1, Verdict.DEVIATION),
        ((went, went), 0, Verdict.DEVIATION),
        ((went, went), 1, Verdict.FAIL),
        ((stayed, stayed), 1, Verdict.FAIL),
        ((NOTHING, stayed), 1, Verdict.FAIL),
    ):
        observations[-2] = Observation(Status.DONE, 0, (zero, Entry(RW), *pages))
        observations[-1] = Observation(Status.DONE, 0, (in_use, 2, 2 - in_use, 0, 0, 4))
        assert compare(program, RULES["interval"], observations).verdict is verdict, pages


def test_a_request_may_fault_pages_that_it_does_not_name() -> None:
    """The deviation faulted-along, and no more than that: not without a fault, and not where nothing was asked."""
    program = _program(BUF + "d0: request buf none both .b.. own fresh\nd0: snapshot buf")
    _, observations = _obedient(program)
    assert compare(program, RULES["interval"], observations).verdict is Verdict.PASS
    for pages, verdict in (
        ((NOTHING, Entry(RW), NOTHING, NOTHING), Verdict.PASS),
        ((Entry(RW), Entry(RW), Entry(R | Mark.ZERO), NOTHING), Verdict.DEVIATION),
        ((NOTHING, Entry(R), NOTHING, NOTHING), Verdict.FAIL),
        ((NOTHING, NOTHING, NOTHING, NOTHING), Verdict.FAIL),
    ):
        observations[-2:] = [Observation(Status.DONE, 0, pages)] * 2
        assert compare(program, RULES["interval"], observations).verdict is verdict, pages
    for words in ("none none .b..", "none both .w..", "none both ...."):
        program = _program(BUF + f"d0: request buf {words} own fresh")
        seen = [*_obedient(program)[1][:-1], Observation(Status.DONE, 0, (NOTHING, Entry(RW), NOTHING, NOTHING))]
        assert compare(program, RULES["interval"], seen).verdict is Verdict.FAIL, words


def test_a_request_as_another_owner_sees_its_memory() -> None:
    text = BUF + "a: write buf 5\nd1: bind a\nd1: to-device buf[0:2]\nd0: to-device buf[2:4]\n"
    here, there = Entry(RW | Mark.LOCAL), Entry(RW | Mark.REMOTE)
    for owner, pages in (
        ("own", (NOTHING, NOTHING, here, here)),
        ("other", (there, there, NOTHING, NOTHING)),
        ("nobody", (NOTHING,) * 4),
    ):
        _shows(text + f"d0: request buf none none . {owner} fresh", *pages)


def test_a_binding_that_can_show_nothing_is_no_evidence() -> None:
    program = _program(BUF + "d0: fault buf write\nd0: usage")
    observations = [Observation(Status.DONE)] * 3 + [Observation(Status.UNSUPPORTED)]
    assert compare(program, RULES["test_hmm"], observations).verdict is Verdict.SKIP


def test_a_device_has_no_entry_for_a_page_of_another_device() -> None:
    text = BUF + "d1: bind a\nd0: to-device buf\nd1: to-device buf\nd1: table buf"
    _forbids(text, *[Entry(RW)] * 4)
    _forbids(text, *[Entry(RW | Mark.LOCAL)] * 4)


def test_a_huge_page_needs_untouched_two_megabytes() -> None:
    text = "a: map buf anon 512 rw\nd0: bind a\na: write buf[0] 1\na: advise buf hugepage\na: write buf[1] 1\n"
    _shows(text + "d0: snapshot buf[5]", NOTHING)
    _forbids(text + "d0: snapshot buf[5]", Entry(RW))
    fresh = "a: map buf anon 512 rw\nd0: bind a\na: advise buf hugepage\na: write buf[1] 1\n"
    for entry in (NOTHING, Entry(RW), Entry(RW, 9)):
        _shows(fresh + "d0: snapshot buf[5]", entry)
    for entry in (Entry(R | Mark.ZERO), Entry(RW), Entry(RW, 9)):  # no huge page was to be had: the zero page
        _shows(fresh + "a: read buf[5]\nd0: snapshot buf[5]", entry)
    _forbids(fresh + "a: read buf[5]\na: write buf[5] 7\nd0: snapshot buf[5]", Entry(R | Mark.ZERO))


def test_a_page_that_was_freed_lazily_may_go_until_it_is_written() -> None:
    text = (
        "a: map buf anon 1 rw\nd0: bind a\na: write buf 9\na: advise buf free\na: read buf\na: advise buf pageout\n"
    )
    for token in (0, 9):
        _shows(text + "a: read buf", token)
    _forbids(text + "a: write buf 5\na: read buf", 0)
    _forbids(text + "a: write buf 5\na: read buf", 9)


def test_a_return_from_the_device_is_a_fault_that_is_counted() -> None:
    program = _program(BUF + "a: write buf 5\nd0: to-device buf\nd0: usage\na: read buf\nd0: usage")
    _, observations = _obedient(program)
    observations[-3] = Observation(Status.DONE, 0, (4, 4, 0, 100, 0, 0))
    for faults, verdict in ((104, Verdict.PASS), (110, Verdict.PASS), (103, Verdict.FAIL), (0, Verdict.FAIL)):
        observations[-1] = Observation(Status.DONE, 0, (0, 4, 4, faults, 0, 0))
        assert compare(program, RULES["interval"], observations).verdict is verdict


REAPED = (
    "a: map buf anon 4 rw\na: map ours shared 4 rw\na: write buf 10\na: write ours 20\nd0: bind a\nd0: read buf\n"
)


def test_the_reaper_takes_private_memory_for_good() -> None:
    text = REAPED + "d0: read ours\na: reap\n"
    _shows(text + "d0: table buf", *[NOTHING] * 4)
    _forbids(text + "d0: table buf", *[Entry(RW)] * 4)
    _shows(text + "d0: snapshot ours", *[Entry(RW)] * 4)
    _shows(text + "d0: read ours", 20, 21, 22, 23)
    assert _last(text + "d0: fault buf read").errors == {errno.EFAULT}
    assert _last(text + "d0: write buf 5").errors == {errno.EFAULT}
    assert _last(text + "d0: request buf both none . own fresh").errors == {errno.EFAULT}
    _shows(text + "d0: to-device buf", *[NOTHING] * 4)
    assert _last(text + "a: exit\nd0: snapshot buf").errors == {errno.ESRCH}


def test_what_is_refused_of_a_mapping_keeps_all_of_it() -> None:
    text = REAPED + "a: map more anon 2 rw\na: write more 5\nd0: refuse buf[1]\na: reap\n"
    assert _last(text).errors == {errno.EAGAIN}
    for element in (NOTHING, Entry(RW)):
        _shows(text + "d0: table buf", *[element] * 4)
    _shows(text + "d0: read buf", 10, 11, 12, 13)
    _shows(text + "d0: snapshot more", NOTHING, NOTHING)
    _shows(text + "d0: refuse ours\na: reap\nd0: snapshot buf", *[NOTHING] * 4)


def test_a_mapping_that_may_be_two_may_be_reaped_in_part() -> None:
    text = REAPED + "a: protect buf[2:4] r\na: protect buf[2:4] rw\nd0: refuse buf[0]\na: reap\n"
    for element in (NOTHING, Entry(RW)):
        _shows(text + "d0: snapshot buf[3]", element)
    _forbids(text + "d0: snapshot buf[0]", NOTHING)
    program = _program(text + "d0: fault buf read")
    steps = [Observation(Status.DONE)] * (len(program.steps) - 1)
    steps[5] = Observation(Status.DONE, 0, (10, 11, 12, 13))
    for at in (2, 3):
        steps[at] = Observation(Status.DONE, 0, (0, 0, 0, 0))
    steps[-1] = Observation(Status.DONE, errno.EAGAIN)
    rules = RULES["interval"]
    half = Observation(Status.DONE, errno.EFAULT, (Entry(RW),) * 2)
    assert compare(program, rules, [*steps, half]).verdict is Verdict.PASS
    assert compare(program, rules, [*steps, replace(half, elements=(Entry(RW),))]).verdict is Verdict.FAIL
    assert compare(program, rules, [*steps, Observation(Status.DONE, 0, (Entry(RW),) * 4)]).verdict is Verdict.PASS


def _sequences(*seen: tuple[int, int, int, int]) -> Verdict:
    """The verdict on two looks at a watch, with an invalidation between the first and the second, then none."""
    text = BUF + "a: write buf 1\nd0: watch buf one-pass\nd0: sequence buf\na: advise buf dontneed\n"
    program = _program(text + "d0: sequence buf\nd0: sequence buf")
    done = Observation(Status.DONE)
    shown = [Observation(Status.DONE, 0, each) for each in seen]
    zeros = Observation(Status.DONE, 0, (0, 0, 0, 0))
    return compare(program, RULES["interval"], [done, done, zeros, done, shown[0], done, *shown[1:]]).verdict


def test_a_sequence_number_changes_with_each_invalidation_and_is_odd() -> None:
    quiet, changed = (5, 0, 0, 0), (7, 1, 1, 1)
    assert _sequences(quiet, changed, (7, 0, 0, 0)) is Verdict.PASS
    assert _sequences(quiet, (9, 1, 0, 2), (11, 1, 1, 1)) is Verdict.PASS, "there may be more of them"
    assert _sequences(quiet, (5, 0, 0, 0), (5, 0, 0, 0)) is Verdict.FAIL, "it must be called"
    assert _sequences(quiet, (7, 0, 0, 1), (7, 0, 0, 0)) is Verdict.FAIL, "who reads must be told"
    assert _sequences(quiet, (5, 1, 1, 1), (5, 0, 0, 0)) is Verdict.FAIL, "it must grow"
    assert _sequences((4, 0, 0, 0), changed, (7, 0, 0, 0)) is Verdict.FAIL, "it is odd"
    assert _sequences(quiet, changed, (7, 0, 1, 0)) is Verdict.FAIL, "a hint is never wrong"
    assert _sequences(quiet, changed, (7, 1, 1, 0)) is Verdict.FAIL, "nobody reads again for nothing"
    assert _sequences(quiet, changed, (9, 0, 0, 0)) is Verdict.FAIL, "it stays while nothing happens"


def test_a_page_is_mapped_for_dma_until_it_is_invalidated() -> None:
    text = BUF + "a: write buf 1\nd0: dma-map buf write own\n"
    here = Entry(RW | Mark.DMA)
    _shows(text, *[here] * 4)
    _forbids(text, *[Entry(RW)] * 4)
    for element in (here, NOTHING):
        _shows(text + "d0: dma-table buf", *[element] * 4)
    _forbids(text + "d0: dma-table buf", *[Entry(RW | Mark.DMA | Mark.STALE)] * 4)
    _forbids(text + "a: advise buf dontneed\nd0: dma-table buf", *[here] * 4)
    _forbids(text + "a: fork b\nd0: dma-table buf", *[here] * 4)
    assert _last(text + "a: unmap buf[3]\nd0: dma-map buf read own").errors == {errno.EFAULT}
    assert _last(text + "a: protect buf r\nd0: dma-map buf write own").errors == {errno.EPERM}


def test_whose_device_memory_is_mapped_for_dma_is_the_drivers_to_say() -> None:
    text = BUF + "a: write buf 1\nd0: to-device buf[0]\nd0: dma-map buf[0] read "
    _shows(text + "own", Entry(RW | Mark.LOCAL | Mark.DMA))
    _shows(text + "nobody", Entry(RW | Mark.DMA))
    other = BUF + "d1: bind a\na: write buf 1\nd1: to-device buf[0]\nd0: dma-map buf[0] read "
    _shows(other + "other", Entry(RW | Mark.REMOTE | Mark.DMA))
    _shows(other + "other\nd0: dma-table buf[0]", Entry(RW | Mark.REMOTE | Mark.DMA))
    _shows(other + "own", Entry(RW | Mark.DMA))


MOVED = Entry(RW | Mark.COLLECTED | Mark.MOVED)
STAYED = Entry(RW | Mark.COLLECTED)


def test_a_move_shows_what_was_collected_and_what_moved() -> None:
    text = BUF + "a: write buf[0:2] 7\na: read buf[2]\n"
    made, filled = Entry(Mark.COLLECTED | Mark.MOVED), Entry(Mark.COLLECTED)
    _shows(text + "d0: move buf system device m. plain", MOVED, STAYED, made, filled)
    _forbids(text + "d0: move buf system device m. plain", STAYED, MOVED, filled, made)
    # The zero page is system memory, a hole is nobody's.
    _shows(text + "d0: move buf own device m plain", NOTHING, NOTHING, NOTHING, made)
    _shows(text + "d0: move buf system device m. plain\nd0: usage", 2, 2, 0, 0, 0, 0)
    _shows(text + "d0: move buf system device . plain\nd0: usage", 0, 0, 0, 0, 0, 0)


def test_a_move_takes_from_one_device_and_brings_to_another() -> None:
    text = BUF + "d1: bind a\na: write buf 7\nd0: to-device buf[0:2]\n"
    _shows(text + "d1: move buf other device m plain", MOVED, MOVED, NOTHING, NOTHING)
    _shows(text + "d1: move buf own device m plain", NOTHING, NOTHING, NOTHING, NOTHING)
    moved = text + "d1: move buf system+other device m plain\n"
    _shows(moved + "d1: snapshot buf", *[Entry(RW | Mark.LOCAL)] * 4)
    _shows(moved + "d0: snapshot buf", *[NOTHING] * 4)
    _shows(moved + "a: read buf", 7, 8, 9, 10)
    # v4.20 collects what it finds, and the driver has to look.
    shown = _last(text + "d1: move buf own device m plain", "mirror").elements
    assert all(allowed.admits(STAYED) and not allowed.admits(MOVED) for allowed in shown)


def test_a_move_takes_from_no_device_but_the_one_that_is_named() -> None:
    """The other one of a kind, private or coherent: its owner is in migrate_vma.pgmap_owner."""
    text = BUF + "d1: bind a\nc0: bind a\nc1: bind a\na: write buf 7\n"
    text += "d1: to-device buf[0]\nc0: to-device buf[1]\nc1: to-device buf[2]\n"
    _shows(text + "d0: move buf other device m plain", MOVED, NOTHING, NOTHING, NOTHING)
    _shows(text + "d0: move buf system+other device . plain", STAYED, NOTHING, NOTHING, STAYED)
    _shows(text + "c0: move buf other device . plain", NOTHING, NOTHING, STAYED, NOTHING)
    _shows(text + "c0: move buf own device . plain", NOTHING, STAYED, NOTHING, NOTHING)
    _forbids(text + "d0: move buf[1:3] other device m plain", MOVED, MOVED)


def test_a_move_is_about_one_mapping() -> None:
    refused = frozenset({errno.EINVAL})
    assert _last(BUF + "a: protect buf[1] r\nd0: move buf system device m plain").errors == refused
    assert _last(BUF + "a: unmap buf[1]\nd0: move buf system device m plain").errors == refused
    for call in Call:
        allowed = _last(BUF + f"a: write buf 7\nd0: move buf system device m {call}").errors
        assert allowed == (refused if call.refused else frozenset({0}))


def test_every_kind_of_watch_hears_what_the_cpu_loses() -> None:
    for passes in Passes:
        text = BUF + f"a: write buf 7\nd0: watch buf[0:2] {passes}\na: advise buf[1] dontneed\nd0: watched buf[0:2]"
        heard = _last(text).elements
        assert [allowed.admits(NOTHING) for allowed in heard] == [True, False], passes


def test_a_flush_of_tlbs_is_of_what_a_cpu_could_use() -> None:
    text = BUF + "a: write buf 7\nd0: to-device buf\n"
    for passes, told in ((Passes.TLB, False), (Passes.PLAIN, True)):
        heard = _last(text + f"d0: watch buf {passes}\na: unmap buf\nd0: watched buf").elements
        assert all(allowed.admits(NOTHING) is not told for allowed in heard)


def test_refused_returns_leave_the_page_where_it_is() -> None:
    text = BUF + "a: write buf 7\nd0: to-device buf[0:2]\nd0: returns refused\n"
    _shows(text + "a: read buf", Signal.BUS, Signal.BUS, 9, 10)
    _forbids(text + "a: read buf", 7, 8, Signal.BUS, Signal.BUS)
    _shows(text + "a: write buf 3\nd0: read buf", 7, 8, 5, 6)
    assert _last(text + "a: advise buf populate-read").errors == {errno.EFAULT}
    assert _last(text + "d1: bind a\nd1: fault buf[1] read").errors == {errno.EFAULT}
    _shows(text + "a: read buf\nd0: returns allowed", 2)
    _forbids(text + "a: read buf\nd0: returns allowed", 1)
    _shows(text + "d0: returns allowed\na: read buf", 7, 8, 9, 10)


def _deviation(text: str, *elements: Element) -> str:
    """The reason of the deviation that these elements of the last step are."""
    program = _program(text)
    _, before = _obedient(program)
    result = compare(program, RULES["interval"], [*before[:-1], Observation(Status.DONE, 0, elements)])
    assert result.verdict is Verdict.DEVIATION, result.reason
    return result.reason


@pytest.mark.parametrize(("answer", "name"), [("held", "fault-not-held"), ("locked", "fault-not-locked")])
def test_what_the_kernel_comes_without_is_a_deviation(answer: str, name: str) -> None:
    text = BUF + f"a: write buf 7\nd0: to-device buf\nd0: returns {answer}\na: read buf[0]\nd0: returns {answer}"
    _shows(text, 0, 0)
    assert not _last(text).elements[1].admits(1)
    assert name in _deviation(text, 0, 1)
    _shows(
        BUF + "a: write buf 7\nd0: to-device buf\nd0: returns refused\na: read buf\n" + f"d0: returns {answer}", 4, 0
    )


def test_a_page_that_somebody_has_locked_stays() -> None:
    text = BUF + "a: write buf[0:2] 7\nd0: move buf system device m locked"
    collected = Entry(Mark.COLLECTED | Mark.VALID | Mark.WRITE | Mark.MOVED)
    filled = Entry(Mark.COLLECTED | Mark.MOVED)
    _shows(text, NOTHING, collected, filled, filled)
    _forbids(text, collected, NOTHING, NOTHING, NOTHING)
    assert not _last(text).elements[0].admits(Entry(Mark.KEPT))
    _shows(text + "\nd0: usage", 3, 0, 0, 0, 0, 0)
    gone = frozenset({errno.ENOENT})
    assert _last(BUF + "d0: move buf system device m locked").errors == gone
    assert _last(BUF + "a: read buf\nd0: move buf system device m locked").errors == gone
    assert _last(BUF + "a: write buf 7\nd0: to-device buf\nd0: move buf own system m locked").errors == gone


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_what_a_device_is_not_shown_nobody_locks_for_it(binding: str) -> None:
    """The page is looked for before the kernel is asked to move any: kmod/move.c hh_move_locked()."""
    gone, refused = frozenset({errno.ENOENT}), frozenset({errno.EINVAL})
    moved = "d0: bind a\nd0: move buf system device m locked"
    for made in ("map buf pfnmap 1 rw", "map buf mixedmap 1 rw\na: write buf 1", "map buf hugetlb 512 rw"):
        assert _last(f"a: {made}\n{moved}", binding).errors == gone
    for lost in ("unmap buf[0]", "protect buf none", "swap-out buf"):
        assert _last(f"a: map buf anon 2 rw\na: write buf 1\na: {lost}\n{moved}", binding).errors == gone
    assert _last(f"a: map buf anon 2 rw\na: write buf 1\na: unmap buf[1]\n{moved}", binding).errors == refused
    shown = gone if binding == "mirror" else refused
    assert _last(f"a: map buf hugetlb 512 rw\na: write buf[0] 1\n{moved}", binding).errors == shown


def test_user_space_is_told_little_of_what_a_driver_maps_by_its_numbers() -> None:
    _shows("a: map buf pfnmap 1 rw\na: read buf\na: pagemap buf", Told.NOTHING)
    _shows("a: map buf pfnmap 1 rw\na: read buf\na: pagemap buf", Told.CACHED)
    _forbids("a: map buf pfnmap 1 rw\na: read buf\na: pagemap buf", Told.PRESENT)
    _forbids("a: map buf pfnmap 1 rw\na: pagemap buf", Told.CACHED)
    _shows("a: map buf mixedmap 1 rw\na: write buf 1\na: pagemap buf", Told.PRESENT)
    _forbids("a: map buf mixedmap 1 rw\na: write buf 1\na: pagemap buf", Told.NOTHING)


def test_a_huge_page_that_somebody_has_locked_is_let_go_of() -> None:
    text = "a: map buf anon 512 rw\na: advise buf hugepage\nd0: bind a\na: write buf 10\n"
    text += "d0: move buf system device m locked"
    _shows(text, *[NOTHING] * 512)
    assert "locked-huge-kept" in _deviation(text, Entry(Mark.KEPT), *[NOTHING] * 511)


def test_what_the_table_of_a_locked_huge_page_has_may_be_passed_over_with_it() -> None:
    text = "a: map buf anon 1024 rw\na: advise buf hugepage\nd0: bind a\na: write buf 10\na: advise buf[7] dontneed\n"
    move = text + "d0: move buf[0:512] system device m locked"
    filled = Entry(Mark.COLLECTED | Mark.MOVED)
    _shows(move, *[NOTHING] * 512)
    _shows(move, *[NOTHING] * 7, filled, *[NOTHING] * 504)


def test_eviction_by_number_needs_a_kernel_that_can() -> None:
    program = _program(BUF + "a: write buf 7\nd0: to-device buf\nd0: evict-by pfns")
    done = [Observation(Status.DONE)] * len(program.steps)
    result = compare(program, RULES["interval"], done)
    assert result.verdict is Verdict.SKIP
    assert "needs migrate_device_pfns(), which this kernel does not have" in result.reason
    _shows(BUF + "a: write buf 7\nd0: to-device buf\nd0: evict-by range", 4, 0)
    _shows(BUF + "a: write buf 7\nd0: to-device buf\nd0: evict-by removal", 4, 0)


def _huge_move(choice: str, *shown: Entry, between: tuple[tuple[str, Entry], ...] = ()) -> Verdict:
    """The verdict on a move of 2 MiB that were written: what is `shown`, the last of it to the end.

    `between`: steps before it, and what each shows of all pages.
    """
    text = "a: map buf anon 512 rw\na: advise buf hugepage\nd0: bind a\na: write buf 10\n"
    steps = "".join(step + "\n" for step, _ in between)
    program = _program(text + steps + f"d0: move buf system device {choice} compound")
    done = Observation(Status.DONE)
    written = Observation(Status.DONE, 0, (0,) * 512)
    before = [Observation(Status.DONE, 0, (entry,) * 512) for _, entry in between]
    seen = Observation(Status.DONE, 0, (*shown, *(shown[-1],) * (512 - len(shown))))
    return compare(
        program, rules_for("interval", ("DEVMEM", "FOLIO_SPLIT")), [done, done, done, written, *before, seen]
    ).verdict


def test_a_huge_page_moves_whole_in_pieces_or_not_at_all() -> None:
    stayed = Entry(RW | Mark.COLLECTED | Mark.COMPOUND)
    pieces = Entry(stayed.marks | Mark.MOVED)
    whole = Entry(pieces.marks | Mark.WHOLE)
    small = MOVED  # it may have been small pages all along
    for choice, allowed in (("m", {whole, small}), ("p", {pieces, small}), (".", {stayed, STAYED})):
        for entry in (stayed, pieces, whole, small, STAYED):
            expected = Verdict.PASS if entry in allowed else Verdict.FAIL
            assert _huge_move(choice, entry) is expected, f"{choice}: {entry}"
    assert _huge_move("m", whole, small) is Verdict.FAIL, "a part of a huge page"
    assert _huge_move("m", small, whole) is Verdict.FAIL


def test_what_was_seen_to_be_a_huge_page_moves_as_one() -> None:
    stayed = Entry(RW | Mark.COLLECTED | Mark.COMPOUND)
    pieces = Entry(stayed.marks | Mark.MOVED)
    whole = Entry(pieces.marks | Mark.WHOLE)
    for order, may in ((9, set[Entry]()), (0, {MOVED})):
        look = (("d0: snapshot buf", Entry(RW, order)),)
        for entry in (whole, pieces, MOVED, stayed, STAYED):
            expected = Verdict.PASS if entry in may | {whole} else Verdict.FAIL
            assert _huge_move("m", entry, between=look) is expected, f"order {order}: {entry}"
        assert _huge_move("m", pieces, whole, between=look) is Verdict.FAIL
    huge = ("d0: snapshot buf", Entry(RW, 9))
    assert _huge_move("p", pieces, between=(huge,)) is Verdict.PASS
    assert _huge_move("p", MOVED, between=(huge,)) is Verdict.FAIL, "the kernel was not to split it, the driver was"
    assert _huge_move(".", STAYED, between=(huge,)) is Verdict.FAIL
    entered = ("d0: table buf", Entry(NO_MARKS))
    assert _huge_move("m", MOVED, between=(huge, entered)) is Verdict.FAIL
    fault = ("d0: fault buf read", Entry(RW, 9))
    assert _huge_move("m", MOVED, between=(huge, fault)) is Verdict.PASS, "that was then"


def test_a_device_that_is_half_full_need_not_have_room_in_one_piece() -> None:
    text = (
        "a: map fill anon 8 rw\na: map buf anon 512 rw\na: advise buf hugepage\na: write buf 10\nd0: bind a\n"
        "d0: to-device fill[0:{}]\nd0: snapshot buf\nd0: move buf system device m compound"
    )
    here, pieces = Entry(Mark.LOCAL | Mark.MOVED), Entry(RW | Mark.COLLECTED | Mark.COMPOUND | Mark.MOVED)
    for full, verdict in ((4, Verdict.PASS), (3, Verdict.FAIL)):
        shown: list[tuple[Element, ...]] = [(), (), (), (0,) * 512, (), (here,) * full]
        shown += [(Entry(RW, 9),) * 512, (pieces,) * 512]
        seen = [Observation(Status.DONE, 0, each) for each in shown]
        rules = rules_for("interval", ("DEVMEM", "FOLIO_SPLIT"))
        assert compare(_program(text.format(full)), rules, seen).verdict is verdict


def _request(last: str, *steps: str, error: int = errno.EFAULT) -> Verdict:
    """The verdict on a request that fails where d0 gives nothing back: of buf[1] and of buf[2] it has the pages."""
    text = BUF + "a: write buf[0:3] 7\nd0: to-device buf[1:3]\nd0: returns refused\n"
    program = _program(text + "".join(step + "\n" for step in steps) + last)
    here = Entry(Mark.LOCAL | Mark.MOVED)
    before: list[tuple[Element, ...]] = [(), (), (0,) * 3, (here,) * 2, (0,), *[()] * len(steps)]
    seen = [Observation(Status.DONE, 0, each) for each in before]
    rules = rules_for("interval", [*RULES["interval"].features, "HMM_DMA"])
    return compare(program, rules, [*seen, Observation(Status.DONE, error)]).verdict


def test_a_request_that_faults_what_the_device_refuses_fails() -> None:
    gone = "a: advise buf[0] dontneed"
    whole = "d0: request buf fault none . own fresh"
    assert _request("d0: request buf[0:3] fault none . own fresh") is Verdict.FAIL, "all of it is there"
    assert _request("d0: request buf[0:3] fault none . own fresh", gone) is Verdict.DEVIATION
    assert _request(whole) is Verdict.FAIL, "the page that is not there is the last"
    assert _request("d0: dma-map buf[0:3] read own", gone) is Verdict.DEVIATION
    assert _request("d0: request buf[0:2] none both fb own fresh", gone) is Verdict.DEVIATION
    assert _request("d0: request buf[0:2] none both f. own fresh", gone) is Verdict.DEVIATION
    assert _request("d0: request buf[0:2] none both .f own fresh", gone) is Verdict.FAIL
    assert _request("d0: request buf[0:3] fault none . nobody fresh") is Verdict.PASS, "it asks for them"
    assert _request("d0: request buf[0:3] fault none . own fresh", gone, error=errno.EPERM) is Verdict.FAIL
    assert _request("d0: request buf[0:3] fault none . own fresh", gone, "d0: returns allowed") is Verdict.FAIL


def test_what_such_a_request_may_have_faulted_need_not_be_there() -> None:
    text = BUF + "a: write buf[1:3] 7\nd0: to-device buf[1:3]\nd0: returns refused\n"
    text += "d0: request buf fault none . own fresh\nd0: snapshot buf"
    local = Entry(RW | Mark.LOCAL)
    for first in (Entry(R | Mark.ZERO), NOTHING):
        here = Entry(Mark.LOCAL | Mark.MOVED)
        shown: list[tuple[Element, ...]] = [(), (), (0,) * 2, (here,) * 2, (0,)]
        seen = [Observation(Status.DONE, 0, each) for each in shown]
        seen += [Observation(Status.DONE, errno.EFAULT), Observation(Status.DONE, 0, (first, local, local, NOTHING))]
        assert compare(_program(text), RULES["interval"], seen).verdict is Verdict.DEVIATION
    gone = Entry(RW)
    seen[-1] = Observation(Status.DONE, 0, (NOTHING, gone, local, NOTHING))
    assert compare(_program(text), RULES["interval"], seen).verdict is Verdict.FAIL, "it was refused"
