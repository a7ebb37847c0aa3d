# SPDX-License-Identifier: GPL-2.0-only
"""The executor on this machine's kernel: what needs no device works on any Linux."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.abi import CONSTANTS, ffi
from harness.model.rules import FEATURES
from tests.guest_executor import (
    BASE,
    BUS,
    PAGE,
    RW,
    SEGV,
    TORN,
    Seen,
    compile_executor,
    mapped,
    observe,
    operation,
    request,
    run,
    split,
)

READ_ONLY = CONSTANTS["WIRE_PROT_READ"]
MALFORMED = 65  # executor.h
NO_DEVICE = 69


@pytest.fixture(scope="session")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_executor(tmp_path_factory.mktemp("executor") / "executor")


def done(*elements: int, error: int = 0) -> Seen:
    return Seen("DONE", error, elements)


def test_what_system_calls_can_do_is_told_by_name(executor: Path) -> None:
    done = subprocess.run([executor, "features"], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert set(names) <= FEATURES.keys()
    assert "POPULATE" in names, "this machine's kernel is from 5.14 or later"


@pytest.mark.parametrize("backing", ["ANON", "SHARED", "FILE", "PRIVATE_FILE"])
def test_a_new_mapping_is_zero_and_keeps_what_is_written(executor: Path, backing: str) -> None:
    seen = observe(
        executor,
        [
            mapped(3, backing=backing),
            operation("READ", npages=3),
            operation("WRITE", page=1, npages=2, value=7),
            operation("READ", npages=3),
        ],
    )
    assert seen == [done(), done(0, 0, 0), done(0, 0), done(0, 7, 8)]


def test_accesses_that_raise_signals_are_observed_per_page(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(4),
            operation("WRITE", npages=4, value=1),
            operation("PROTECT", page=1, npages=1, argument=0),
            operation("PROTECT", page=2, npages=1, argument=READ_ONLY),
            operation("UNMAP", page=3, npages=1),
            operation("READ", npages=4),
            operation("WRITE", npages=4, value=11),
            operation("READ", npages=4),
        ],
    )
    assert seen[5:] == [done(1, SEGV, 3, SEGV), done(0, SEGV, SEGV, SEGV), done(11, SEGV, 3, SEGV)]


def test_system_calls_report_errors(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(2),
            mapped(1, page=1),
            operation("PROTECT", page=8, npages=1, argument=RW),
            operation("REMAP", page=8, npages=1, value=BASE),
            operation("ADVISE", npages=1, argument=12345),
            operation("UNMAP", page=8, npages=1),
        ],
    )
    errors = [0, errno.EEXIST, errno.ENOMEM, errno.EFAULT, errno.EINVAL, 0]
    assert seen == [done(error=error) for error in errors]


def test_remap_moves_pages(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(2),
            operation("WRITE", npages=2, value=5),
            operation("REMAP", page=1, npages=1, value=BASE + 64 * PAGE),
            operation("READ", npages=2),
            operation("READ", page=64, npages=1),
        ],
    )
    assert seen[2:] == [done(), done(5, SEGV), done(6)]


def test_advice_reaches_the_kernel(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(2),
            operation("WRITE", npages=2, value=5),
            operation("ADVISE", npages=1, argument=mmap.MADV_DONTNEED),
            operation("READ", npages=2),
        ],
    )
    assert seen[2:] == [done(), done(0, 6)]


@pytest.mark.parametrize("backing", ["SHARED", "FILE", "PRIVATE_FILE"])
def test_a_file_can_be_made_shorter_and_longer_again(executor: Path, backing: str) -> None:
    seen = observe(
        executor,
        [
            mapped(4, backing=backing),
            operation("WRITE", npages=4, value=5),
            operation("FORK", other=1),
            operation("TRUNCATE", page=1, npages=1, value=2),
            operation("READ", npages=4),
            operation("READ", actor=1, npages=4),
            operation("TRUNCATE", actor=1, npages=4, value=3),
            operation("READ", npages=4),
        ],
    )
    assert seen[3:] == [done(), done(5, 6, BUS, BUS), done(5, 6, BUS, BUS), done(), done(5, 6, 0, BUS)]


def test_there_is_no_file_to_be_made_shorter_where_nothing_is_mapped(executor: Path) -> None:
    seen = observe(executor, [mapped(2, backing="FILE"), operation("TRUNCATE", page=2, npages=1, value=1)])
    assert seen == [done(), done(error=errno.EFAULT)]


MISSING, WP, ANSWERED = (CONSTANTS[f"WIRE_USERFAULT_{name}"] for name in ("MISSING", "WP", "ANSWERED"))
COPY, ZERO, PROTECT, UNPROTECT, MOVE = (
    CONSTANTS[f"WIRE_RESOLVE_{name}"] for name in ("COPY", "ZERO", "PROTECT", "UNPROTECT", "MOVE")
)


@pytest.fixture
def minder(executor: Path) -> Path:
    """The executor, where it can have userfaultfds."""
    done = subprocess.run([executor, "features"], capture_output=True, text=True, check=True)
    if "USERFAULT_WP" not in done.stdout.split():
        pytest.skip("this machine lets nobody have a userfaultfd")
    return executor


def test_what_a_userfaultfd_has_to_bring_raises_sigbus_until_it_is_there(minder: Path) -> None:
    seen = observe(
        minder,
        [
            mapped(4),
            operation("USERFAULT", npages=4, argument=MISSING),
            operation("READ", npages=1),
            operation("RESOLVE", npages=2, argument=COPY, value=5),
            operation("RESOLVE", page=2, npages=1, argument=ZERO),
            operation("READ", npages=4),
            operation("RESOLVE", page=2, npages=2, argument=COPY, value=9),
            operation("FORK", other=1),
            operation("READ", actor=1, npages=4),
            operation("RESOLVE", actor=1, npages=1, argument=COPY, value=9),
        ],
    )
    assert seen[1:] == [
        done(), done(BUS), done(), done(), done(5, 6, 0, BUS), done(error=errno.EEXIST), done(), done(5, 6, 0, 0),
        done(error=errno.ENOENT),
    ]  # fmt: skip


def test_what_a_userfaultfd_write_protects_raises_sigbus_when_it_is_written(minder: Path) -> None:
    seen = observe(
        minder,
        [
            mapped(3),
            operation("WRITE", npages=3, value=5),
            operation("RESOLVE", npages=1, argument=PROTECT),
            operation("USERFAULT", npages=3, argument=WP),
            operation("RESOLVE", npages=2, argument=PROTECT),
            operation("WRITE", npages=3, value=8),
            operation("RESOLVE", npages=1, argument=UNPROTECT),
            operation("WRITE", npages=2, value=11),
            operation("READ", npages=3),
        ],
    )
    assert seen[2:] == [
        done(error=errno.ENOENT), done(), done(), done(BUS, BUS, 0), done(), done(0, BUS), done(11, 6, 10),
    ]  # fmt: skip


def test_a_userfaultfd_moves_pages(minder: Path) -> None:
    features = subprocess.run([minder, "features"], capture_output=True, text=True, check=True)
    if "USERFAULT_MOVE" not in features.stdout.split():
        pytest.skip("this machine's kernel has no UFFDIO_MOVE")
    seen = observe(
        minder,
        [
            mapped(2),
            mapped(2, page=8),
            operation("WRITE", page=8, npages=1, value=5),
            operation("USERFAULT", npages=2, argument=MISSING),
            operation("RESOLVE", page=1, npages=1, argument=MOVE, value=BASE + 8 * PAGE),
            operation("RESOLVE", page=0, npages=1, argument=MOVE, value=BASE + 9 * PAGE),
            operation("READ", npages=2),
            operation("READ", page=8, npages=1),
        ],
    )
    assert seen[4:] == [done(), done(error=errno.ENOENT), done(BUS, 5), done(0)]


def test_somebody_answers_a_userfaultfd_of_each_subject(minder: Path) -> None:
    """Also of one that takes the place of one that has ended, and there is nobody left when the program ends."""
    program = request(
        [
            mapped(4),
            operation("FORK", other=1),
            operation("USERFAULT", npages=2, argument=ANSWERED),
            operation("USERFAULT", page=2, npages=2, argument=ANSWERED),
            operation("READ", npages=3),
            operation("USERFAULT", actor=1, npages=4, argument=ANSWERED),
            operation("EXIT"),
            operation("WRITE", actor=1, page=1, npages=1, value=9),
            operation("FORK", actor=1, other=0),
            operation("USERFAULT", npages=4, argument=ANSWERED),
            operation("READ", npages=4),
            operation("READ", actor=1, npages=4),
        ]
    )
    result = run(minder, program * 3)
    assert (result.returncode, result.stderr) == (0, b"")
    for seen in split(result.stdout):
        assert seen[4:] == [
            done(1, 2, 3), done(), done(), done(0), done(), done(), done(1, 9, 3, 4), done(1, 9, 3, 4),
        ]  # fmt: skip


def test_children_share_what_is_shared_and_copy_what_is_private(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(1),
            mapped(1, page=8, backing="SHARED"),
            operation("WRITE", npages=1, value=1),
            operation("FORK", other=1),
            operation("FORK", actor=1, other=2),
            operation("WRITE", actor=2, npages=1, value=2),
            operation("WRITE", actor=2, page=8, npages=1, value=3),
            *(operation("READ", actor=subject, npages=1) for subject in (0, 1, 2)),
            *(operation("READ", actor=subject, page=8, npages=1) for subject in (0, 1, 2)),
        ],
    )
    assert seen[7:] == [done(1), done(1), done(2), done(3), done(3), done(3)]


def test_a_child_outlives_its_parent(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(1),
            operation("WRITE", npages=1, value=1),
            operation("FORK", other=1),
            operation("EXIT"),
            operation("READ", actor=1, npages=1),
            operation("FORK", actor=1, other=0),
            operation("READ", npages=1),
        ],
    )
    assert seen[3:] == [done(), done(1), done(), done(1)]


def test_steps_of_subjects_that_do_not_run_are_not_run(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(1),
            operation("READ", actor=3, npages=1),
            operation("FORK", other=1),
            operation("FORK", other=1),
            operation("EXIT", actor=1),
            operation("READ", actor=1, npages=1),
            operation("READ", npages=1),
        ],
    )
    assert [(one.status, one.error) for one in seen] == [
        ("DONE", 0),
        ("NOT_RUN", errno.ESRCH),
        ("DONE", 0),
        ("NOT_RUN", errno.EEXIST),
        ("DONE", 0),
        ("NOT_RUN", errno.ESRCH),
        ("DONE", 0),
    ]


def test_a_page_of_mixed_words_is_torn(tmp_path: Path) -> None:
    """token.h is what both sides of every comparison go through: checked against its own description."""
    source = tmp_path / "token.c"
    source.write_text(
        '#include <stdio.h>\n#include "token.h"\n'
        "int main(void) { static uint64_t page[PAGE_WORDS];\n"
        "while (fread(page, 1, sizeof(page), stdin) == sizeof(page))\n"
        '  printf("%llu\\n", (unsigned long long)token_load(page));\n'
        "token_store(page, 77); fwrite(page, 1, sizeof(page), stderr); }\n"
    )
    guest = Path(__file__).parent.parent / "harness/guest"
    program = tmp_path / "token"
    subprocess.run(["gcc", f"-I{guest}", f"-I{guest / 'executor'}", "-o", program, source], check=True)

    def page(*words: int) -> bytes:
        return b"".join(word.to_bytes(8, "little") for word in words)

    whole = [77 | i << 48 for i in range(512)]
    swapped = [whole[1], whole[0], *whole[2:]]
    pages = [
        page(*whole),
        page(*[0] * 512),
        page(*whole[:-1], 0),
        page(*whole[:-1], 78 | 511 << 48),
        page(*swapped),
        page(*whole[256:], *whole[:256]),
        page(*[0] * 511, 1),
        page(*[i << 48 for i in range(512)]),
    ]
    result = subprocess.run([program], input=b"".join(pages), capture_output=True, check=True)
    assert [int(line) for line in result.stdout.split()] == [77, 0, TORN, TORN, TORN, TORN, TORN, TORN]
    assert result.stderr == page(*whole)


def test_one_executor_runs_many_programs(executor: Path) -> None:
    programs = [
        request([mapped(1), operation("WRITE", npages=1, value=token), operation("READ", npages=1)])
        for token in range(1, 30)
    ]
    result = run(executor, b"".join([*programs, request([])]))
    assert result.returncode == 0
    seen = split(result.stdout)
    assert [one[2].elements[0] for one in seen[:-1]] == list(range(1, 30))
    assert seen[-1] == []


def test_large_programs_are_answered_in_full(executor: Path) -> None:
    reads = [operation("READ", npages=65536)] * 5
    small = [mapped(1), operation("READ", npages=1)]
    result = run(executor, request([mapped(65536, prot=READ_ONLY), *reads]) + request(small))
    seen, after = split(result.stdout)
    assert [len(one.elements) for one in seen] == [0] + [65536] * 5
    assert not any(map(any, (one.elements for one in seen)))
    assert after == [done(), done(0)]


def children(pid: int) -> Iterator[int]:
    """All descendants of a process."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from children(int(child))


def polling(*, seconds: float = 20) -> Iterator[None]:
    """Turns of a loop that waits for something; an AssertionError if it has not left the loop in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for nothing")


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.fixture
def running(executor: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An executor that waits for requests."""
    process = subprocess.Popen([executor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    process.stdin.write(data)
    process.stdin.flush()


def receive(process: subprocess.Popen[bytes]) -> list[Seen]:
    assert process.stdout
    head = process.stdout.read(ffi.sizeof("struct wire_outcome"))
    outcome: Any = ffi.from_buffer("struct wire_outcome *", head)
    return split(head + process.stdout.read(outcome.length - len(head)))[0]


def subject_of(process: subprocess.Popen[bytes]) -> int:
    """The first subject of the program under way: the only grandchild, once it has carried out its first step.

    One that was stopped earlier would not be known to the worker yet.
    """
    for _ in polling():
        found = list(children(process.pid))
        if len(found) == 2 and f"{BASE:x}-" in Path(f"/proc/{found[1]}/maps").read_text():
            return found[1]
    raise AssertionError("unreachable")


LONG = [mapped(1), *[operation("READ", npages=1)] * 60000]


def test_a_subject_that_is_killed_is_reported_and_ends_the_program(running: subprocess.Popen[bytes]) -> None:
    send(running, request(LONG))
    os.kill(subject_of(running), signal.SIGKILL)
    seen = receive(running)
    statuses = [one.status for one in seen]
    died = statuses.index("SUBJECT_DIED")
    assert seen[died].error == signal.SIGKILL
    assert set(statuses[:died]) <= {"DONE"}
    assert set(statuses[died + 1 :]) <= {"NOT_RUN"}
    send(running, request([mapped(1), operation("READ", npages=1)]))
    assert receive(running) == [done(), done(0)]


def test_a_subject_that_hangs_is_stuck(running: subprocess.Popen[bytes]) -> None:
    send(running, request(LONG, timeout_ms=1500))
    subject = subject_of(running)
    os.kill(subject, signal.SIGSTOP)
    seen = receive(running)
    statuses = [one.status for one in seen]
    stuck = statuses.index("STUCK")
    assert set(statuses[:stuck]) <= {"DONE"}
    assert set(statuses[stuck + 1 :]) == {"NOT_RUN"}
    assert not alive(subject)
    send(running, request([mapped(1), operation("READ", npages=1)]))
    assert receive(running) == [done(), done(0)]


def test_a_worker_that_hangs_is_stuck_and_replaced(running: subprocess.Popen[bytes]) -> None:
    """As when an ioctl does not return: the front answers in the worker's place."""
    send(running, request([]))
    assert receive(running) == []
    (worker,) = children(running.pid)
    os.kill(worker, signal.SIGSTOP)
    send(running, request([mapped(1), operation("READ", npages=1)], timeout_ms=200))
    assert receive(running) == [Seen("STUCK"), Seen("NOT_RUN")]
    assert not alive(worker)
    send(running, request([mapped(1), operation("READ", npages=1)]))
    assert receive(running) == [done(), done(0)]


def test_nothing_survives_the_executor(running: subprocess.Popen[bytes]) -> None:
    send(running, request([*LONG[:1], operation("FORK", other=1), *LONG[1:60000]]))
    for _ in polling():
        family = list(children(running.pid))
        if len(family) == 3:
            break
    running.kill()
    running.wait()
    for _ in polling():
        if not any(map(alive, family)):
            break


def test_a_worker_that_dies_ends_the_executor_with_a_message(running: subprocess.Popen[bytes]) -> None:
    send(running, request(LONG))
    subject_of(running)
    (worker, *_) = children(running.pid)
    os.kill(worker, signal.SIGKILL)
    assert running.wait(timeout=20) == 71
    assert running.stderr
    assert b"the worker died at operation" in running.stderr.read()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"x", "the input ends in the middle of a head: 1 of 16 bytes"),
        (b"\0" * 16, "magic 0, not 0x484d4d31"),
        (request([], head={"operations": 1}), "in the middle of the operations: 0 of 32 bytes"),
        (request([], head={"operations": 65537}), "65537 operations, at most 65536"),
        (request([], timeout_ms=0), "timeout of 0 ms"),
        (request([], head={"binding": 9}), "unknown binding 9"),
        (request([b"\0" * 32]), "operation 0 (code 0): unknown code"),
        (request([b"\x1f" + b"\0" * 31]), "operation 0 (code 31): unknown code"),
        (request([b"\x3b" + b"\0" * 31]), "operation 0 (code 59): unknown code"),
        (request([operation("READ", actor=16, npages=1)]), "actor out of range"),
        (request([operation("SNAPSHOT", actor=4, npages=1)]), "actor out of range"),
        (request([operation("FORK", other=16)]), "other out of range"),
        (request([operation("READ", npages=1, other=1)]), "other out of range"),
        (request([operation("READ")]), "npages out of range"),
        (request([operation("SWAP_OUT")]), "npages out of range"),
        (request([operation("SWAP_OUT", npages=1, argument=1)]), "an argument where none is meant"),
        (request([operation("PAGEMAP")]), "npages out of range"),
        (request([operation("PIN")]), "npages out of range"),
        (request([operation("UNPIN", npages=1)]), "a range where none is meant"),
        (request([operation("PIN", npages=1, argument=1)]), "an argument where none is meant"),
        (request([operation("READ", npages=65537)]), "npages out of range"),
        (request([operation("READ", npages=1 << 60)]), "npages out of range"),
        (request([operation("READ", page=-1, npages=1)]), "address out of range"),
        (request([operation("READ", page=(31 << 28) - 1, npages=2)]), "address out of range"),
        (request([operation("READ", page=1 << 50, npages=1)]), "address out of range"),
        (request([operation("EXIT", npages=1)]), "a range where none is meant"),
        (request([operation("MAP", npages=1, value=0)]), "unknown backing"),
        (request([operation("MAP", npages=1, value=10)]), "unknown backing"),
        (request([operation("MAP", npages=2, value=8)]), "npages out of range"),
        (request([operation("SOFT_DIRTY")]), "npages out of range"),
        (request([operation("CLEAR_SOFT_DIRTY", npages=1)]), "a range where none is meant"),
        (request([operation("LOCK", npages=1, argument=2)]), "unknown access"),
        (request([operation("MERGE", npages=1, argument=1)]), "an argument where none is meant"),
        (request([operation("MOVE_PAGES")]), "npages out of range"),
        (request([operation("COUNTED")]), "npages out of range"),
        (request([operation("MAP", npages=511, value=5)]), "no whole huge pages"),
        (request([operation("MAP", page=1, npages=512, value=5)]), "no whole huge pages"),
        (request([operation("MAP", npages=1, value=1, argument=8)]), "unknown protection"),
        (request([operation("PROTECT", npages=1, argument=16)]), "unknown protection"),
        (request([operation("FAULT", npages=1, argument=2)]), "unknown access"),
        (request([operation("WATCH", npages=1, argument=7)]), "unknown watch"),
        (request([operation("DMA", npages=513)]), "npages out of range"),
        (request([operation("DMA", npages=1, argument=16)]), "unknown mapping"),
        (request([operation("REAP", npages=1)]), "a range where none is meant"),
        (request([operation("DEVICE_READ", npages=1, argument=2)]), "unknown access"),
        (request([operation("TABLE", npages=1, argument=2)]), "unknown access"),
        (request([operation("EXCLUSIVE", npages=1, argument=1)]), "an argument where none is meant"),
        (request([operation("EXCLUSIVE")]), "npages out of range"),
        (request([operation("MOVE", npages=513, argument=9, value=1 << 32)]), "npages out of range"),
        (request([operation("MOVE", npages=1, argument=1 << 15, value=1 << 32)]), "unknown move"),
        (request([operation("MOVE", npages=1, argument=9)]), "choices out of range"),
        (request([operation("MOVE", npages=1, argument=9, value=17 << 32)]), "choices out of range"),
        (request([operation("RETURNS", argument=4)]), "unknown answer"),
        (request([operation("EVICT_BY", argument=3)]), "unknown look-up"),
        (request([operation("REMAP", npages=1, value=0)]), "new address out of range"),
        (request([operation("REMAP", npages=1, value=BASE + 1)]), "new address out of range"),
        (request([operation("WRITE", npages=2, value=(1 << 48) - 1)]), "token out of range"),
        (request([operation("WRITE", npages=1, value=1 << 48)]), "token out of range"),
        (request([operation("WRITE", npages=1, value=1, argument=1)]), "an argument where none is meant"),
        (request([operation("READ", npages=1, value=1)]), "a value where none is meant"),
        (request([operation("READ", npages=65536)] * 129), "the response could have"),
    ],
)
def test_malformed_requests_are_refused(executor: Path, data: bytes, complaint: str) -> None:
    good = request([mapped(1), operation("READ", npages=1)])
    result = run(executor, good + data)
    assert result.returncode == MALFORMED
    assert complaint in result.stderr.decode()
    assert split(result.stdout) == [[done(), done(0)]]


def test_random_requests_are_refused_or_run(executor: Path) -> None:
    """Whatever comes in, the executor ends on its own, by no signal. No advice and no poison: memory would fail."""
    generator = random.Random(1)
    for _ in range(300):
        operations = [bytearray(operation("READ", npages=1)) for _ in range(3)]
        for one in operations:
            one[0] = generator.choice([0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 32, 38, 200])
            for _ in range(generator.randrange(3)):
                one[generator.randrange(1, 32)] = generator.randrange(256)
        result = run(executor, request([mapped(4), *map(bytes, operations)]))
        assert result.returncode in (0, MALFORMED, NO_DEVICE), result.stderr


def test_user_space_is_told_of_its_pages(executor: Path) -> None:
    """Of anonymous memory; and of a file whose pages its cache has, though they are not mapped any more."""
    present = CONSTANTS["WIRE_IS_PRESENT"] | CONSTANTS["WIRE_IS_IN_CORE"]
    steps = [
        mapped(4),
        operation("WRITE", page=1, npages=2, value=1),
        operation("PAGEMAP", npages=4),
        mapped(3, page=512, backing="FILE"),
        operation("WRITE", page=512, npages=2, value=1),
        operation("ADVISE", page=513, npages=1, argument=4),  # MADV_DONTNEED
        operation("PAGEMAP", page=512, npages=3),
        operation("PAGEMAP", npages=5),
    ]
    seen = observe(executor, steps)
    assert seen[2] == Seen("DONE", 0, (0, present, present, 0))
    assert seen[6] == Seen("DONE", 0, (present, CONSTANTS["WIRE_IS_IN_CORE"], 0))
    assert seen[7] == Seen("DONE", errno.ENOMEM)


def _features(executor: Path) -> list[str]:
    return subprocess.run([executor, "features"], check=True, capture_output=True, text=True).stdout.split()


def test_what_was_written_since_marks_were_cleared_is_marked(executor: Path) -> None:
    if "SOFT_DIRTY" not in _features(executor):
        pytest.skip("this machine's kernel has no soft-dirty marks")
    steps = [
        mapped(4),
        operation("WRITE", npages=3, value=1),
        operation("SOFT_DIRTY", npages=4),
        operation("CLEAR_SOFT_DIRTY"),
        operation("WRITE", page=1, npages=1, value=1),
        operation("READ", page=2, npages=2),
        operation("SOFT_DIRTY", npages=4),
    ]
    seen = observe(executor, steps)
    assert seen[2] == done(1, 1, 1, 1)
    assert seen[6] == done(0, 1, 0, 0)


def test_equal_pages_are_merged_and_keep_what_they_hold(executor: Path) -> None:
    if "KSM" not in _features(executor):
        pytest.skip("KSM of this machine's kernel cannot be told what to do")
    steps = [
        mapped(4),
        *(operation("WRITE", page=page, npages=1, value=value) for page, value in enumerate((5, 6, 5))),
        operation("MERGE", npages=4),
        operation("READ", npages=4),
        operation("WRITE", page=2, npages=1, value=8),
        operation("READ", npages=4),
    ]
    seen = observe(executor, steps)
    assert seen[4] == done(1, 0, 1, 0)
    assert (seen[5], seen[7]) == (done(5, 6, 5, 0), done(5, 6, 8, 0))


def test_pages_are_counted_and_placed(executor: Path) -> None:
    found = _features(executor)
    steps = [
        mapped(4),
        operation("WRITE", npages=2, value=1),
        operation("UNMAP", page=3, npages=1),
        operation("COUNTED", npages=4),
        operation("MOVE_PAGES", npages=4),
    ]
    counted, placed = observe(executor, steps)[3:]
    if "SMAPS" in found:
        assert counted.elements[:3] == (2, 2, 0)
        assert counted.elements[3] <= (0 if "RSS_EXACT" in found else 128)
    if "MOVE_PAGES" in found:
        assert placed.elements[:2] == (0, 0)
        assert placed.elements[2] in (errno.ENOENT, errno.EFAULT)
        assert placed.elements[3] == errno.EFAULT


def test_memory_is_locked_and_unlocked(executor: Path) -> None:
    steps = [
        mapped(4),
        operation("LOCK", npages=2),
        operation("PAGEMAP", npages=4),
        operation("UNMAP", page=1, npages=1),
        operation("LOCK", npages=4),
        operation("LOCK", npages=4, argument=1),
        operation("LOCK", npages=1, argument=1),
    ]
    seen = observe(executor, steps)
    present = CONSTANTS["WIRE_IS_PRESENT"] | CONSTANTS["WIRE_IS_IN_CORE"]
    assert seen[1:3] == [done(), done(present, present, 0, 0)]
    assert [each.error for each in seen[4:]] == [errno.ENOMEM, errno.ENOMEM, 0]


def test_the_kernels_own_pages_are_moved_and_can_be_read(executor: Path) -> None:
    if "KERNEL_PAGES" not in _features(executor):
        pytest.skip("this machine's kernel does not let them be moved")
    seen = observe(executor, [mapped(1, backing="VDSO"), operation("READ", npages=1), operation("FORK", other=1)])
    assert seen == [done(), done(TORN), done()]  # it is code


def test_what_is_in_memory_is_told_where_nothing_can_be_swapped_out(executor: Path) -> None:
    """A page that was written is there, one that was not touched is not; there is no swap space on this machine."""
    steps = [mapped(4), operation("WRITE", page=1, npages=2, value=1), operation("SWAP_OUT", npages=4)]
    result = run(executor, request(steps))
    assert result.returncode == 0
    assert result.stderr == b"executor: there is no swap space: No such file or directory\n"
    (seen,) = split(result.stdout)
    assert seen[2].elements[0::3] == (1, 1)
    assert seen[2].status == "DONE"
    holed = [mapped(4), operation("UNMAP", page=1, npages=1), operation("SWAP_OUT", npages=4)]
    (seen,) = split(run(executor, request(holed)).stdout)
    assert seen[2] == Seen("DONE", errno.ENOMEM)


def test_pages_are_pinned_and_let_go(executor: Path) -> None:
    found = subprocess.run([executor, "features"], check=True, capture_output=True, text=True).stdout.split()
    steps = [
        mapped(4),
        operation("WRITE", npages=4, value=1),
        operation("PIN", npages=2),
        operation("PIN", npages=2),  # one at a time
        operation("FORK", other=1),
        operation("UNPIN", actor=1),  # what its parent has is not its own
        operation("PIN", page=2, npages=1),
        operation("UNPIN"),
        operation("PROTECT", page=1, npages=1, argument=1),
        operation("PIN", npages=2),
        operation("PIN", page=2, npages=2),
        operation("READ", npages=4),
        operation("READ", actor=1, npages=4),
    ]
    errors = [seen.error for seen in observe(executor, steps)]
    if "PIN" not in found:
        pytest.skip("needs CONFIG_GUP_TEST or CONFIG_IO_URING, and the right to use them")
    assert errors == [0, 0, 0, errno.EBUSY, 0, 0, errno.EBUSY, 0, 0, errno.EFAULT, 0, 0, 0]


def test_a_missing_device_is_not_a_verdict(executor: Path) -> None:
    if Path("/dev/hmm_harness0").exists():
        pytest.skip("this machine has the module loaded")
    result = run(executor, request([mapped(1), operation("BIND")]))
    assert result.returncode == NO_DEVICE
    assert b"operation 1 needs /dev/hmm_harness0: No such file" in result.stderr
    assert result.stdout == b""


def test_memory_is_reaped_while_the_process_stops_on_its_way_out(executor: Path) -> None:
    seen = observe(
        executor,
        [
            mapped(4),
            mapped(2, backing="SHARED", page=8),
            operation("WRITE", npages=4, value=5),
            operation("WRITE", page=8, npages=2, value=50),
            operation("FORK", other=1),
            operation("REAP"),
            operation("READ", npages=4),
            operation("REAP"),
            operation("READ", 1, npages=4),
            operation("EXIT"),
            operation("READ", 1, page=8, npages=2),
        ],
    )
    assert seen[4:6] == [done(), done()]
    assert seen[6] == Seen("NOT_RUN", errno.ESRCH), "it is being killed"
    assert seen[7:] == [done(), done(5, 6, 7, 8), done(), done(50, 51)]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_nothing_stays_stopped_when_the_worker_dies(executor: Path) -> None:
    """The subject is stopped and killed; a step that never ends keeps the worker busy."""
    steps = [mapped(1), operation("FORK", other=1), operation("REAP"), *[operation("READ", 1, npages=1)] * 60000]
    process = subprocess.Popen([executor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(request(steps))
    process.stdin.flush()
    stopped: list[int] = []
    deadline = time.monotonic() + 20
    while not stopped and time.monotonic() < deadline:
        for worker in _children(process.pid):
            stopped = [
                pid for pid in _children(worker) if "(tracing stop)" in Path(f"/proc/{pid}/status").read_text()
            ]
            if stopped:
                os.kill(worker, signal.SIGKILL)
                break
    assert stopped
    process.communicate(timeout=20)
    for pid in stopped:
        assert not Path(f"/proc/{pid}").exists()


def _race(segments: list[tuple[int, int]], *actors: list[bytes], looks: Sequence[bytes] = ()) -> list[bytes]:
    """The parts of a race: segments of (actor, gate), the steps of each actor, and what is looked at."""
    parts = [operation("RACE", argument=len(segments), value=len(actors), other=len(looks))]
    parts += [operation("SEGMENT", other=actor, argument=gate) for actor, gate in segments]
    for steps in actors:
        parts += [operation("ACTOR", argument=len(steps)), *steps]
    return [*parts, *looks]


def test_actors_run_in_the_order_of_the_segments(executor: Path) -> None:
    x = [operation("WRITE", npages=1, value=50), operation("READ", npages=2)]
    y = [operation("WRITE", npages=2, value=70)]
    seen = observe(executor, [mapped(4), *_race([(1, 0), (0, 0)], x, y), operation("READ", npages=2)])
    race, first, second, of_x, wrote, read, of_y, other, after = seen[1:]
    assert race == Seen("DONE")
    assert first.elements[:2] == (CONSTANTS["WIRE_ENDED"], 1)
    assert second.elements[:2] == (CONSTANTS["WIRE_ENDED"], 2)
    *x_times, expired, thread = of_x.elements
    *y_times, y_expired, y_thread = of_y.elements
    segments = [first.elements[2:4], second.elements[2:4]]
    times = [segments[0][0], *y_times, *segments[0][1:], segments[1][0], *x_times, segments[1][1]]
    assert times == sorted(set(times)), "each is later than the one before"
    assert abs(times[0] - time.monotonic_ns()) < 60e9, "by a clock that the kernel's events have, too"
    assert (expired, y_expired) == (0, 0), "nobody was parked for too long"
    assert 0 < thread != y_thread > 0
    assert (wrote, other) == (Seen("DONE", 0, (0,)), Seen("DONE", 0, (0, 0)))
    assert read == after == Seen("DONE", 0, (50, 71))


def test_looks_are_taken_before_the_first_segment_and_after_each(executor: Path) -> None:
    x = [operation("READ", npages=2)]
    looks = [operation("LOOK", npages=3), operation("LOOK", 1, page=1, npages=1)]
    seen = observe(executor, [mapped(4), *_race([(0, 0), (0, 0)], x, looks=looks), operation("READ", npages=1)])
    nothing = errno.ENODEV  # neither device was opened
    assert seen[-3] == Seen("DONE", 0, (nothing, nothing, *[0] * 6) * 3)
    assert seen[-2] == Seen("DONE", 0, (nothing, nothing, 0, 0) * 3)
    assert seen[-1] == Seen("DONE", 0, (0,))


def test_an_actor_can_fork_and_exit(executor: Path) -> None:
    x = [operation("FORK", other=1)]
    y = [operation("WRITE", npages=1, value=70)]
    z = [operation("READ", 2, npages=1), operation("EXIT", 2)]
    steps = [
        mapped(1),
        operation("WRITE", npages=1, value=10),
        operation("FORK", other=2),
        *_race([(0, 0), (1, 0), (2, 0)], x, y, z),
        operation("READ", 1, npages=1),
        operation("READ", npages=1),
        operation("READ", 2, npages=1),
    ]
    seen = observe(executor, steps)
    assert [each.status for each in seen] == ["DONE"] * (len(seen) - 1) + ["NOT_RUN"]
    assert seen[-5:-2] == [Seen("DONE", 0, (10,)), Seen("DONE"), Seen("DONE", 0, (10,))]
    assert seen[-2] == Seen("DONE", 0, (70,))


def test_each_actor_has_its_own_signals(executor: Path) -> None:
    bad = [operation("READ", page=8, npages=2), operation("WRITE", page=8, npages=1, value=1)]
    good = [operation("WRITE", npages=2, value=20)]
    seen = observe(executor, [mapped(2), *_race([(0, 0), (1, 0)], bad, good)])
    assert seen[5:7] == [Seen("DONE", 0, (SEGV, SEGV)), Seen("DONE", 0, (SEGV,))]
    assert seen[8] == Seen("DONE", 0, (0, 0))


def test_an_actor_of_a_subject_that_does_not_run_keeps_the_race_from_beginning(executor: Path) -> None:
    seen = observe(
        executor, [mapped(2), *_race([(0, 0)], [operation("READ", 1, npages=1)]), operation("READ", npages=1)]
    )
    assert [each.status for each in seen] == ["DONE", "NOT_RUN", "NOT_RUN", "NOT_RUN", "NOT_RUN", "DONE"]


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([operation("SEGMENT")], b"no race that it belongs to"),
        ([operation("ACTOR", argument=1)], b"no race that it belongs to"),
        ([operation("RACE", argument=1, value=1)], b"a segment is missing"),
        ([operation("RACE", argument=0, value=1)], b"an actor is missing"),
        (
            [operation("RACE", value=1), operation("ACTOR", argument=1, value=10**12), operation("READ", npages=1)],
            b"moment out of range",
        ),
        (
            [
                *_race([(0, 0)], [operation("READ", npages=1)])[:2],
                operation("ACTOR", argument=1, value=1),
                operation("READ", npages=1),
            ],
            b"a schedule says who runs when",
        ),
        (_race([(0, 0)], [operation("READ", npages=1)])[:-1], b"an actor is missing"),
        (_race([(1, 0)], [operation("READ", npages=1)]), b"actor out of range"),
        (_race([(0, 99)], [operation("READ", npages=1)]), b"unknown gate"),
        (_race([(0, 0)], [operation("READ", npages=1), operation("UNBIND")]), b"of one subject, or of devices"),
        (_race([(0, 0)], [operation("READ", npages=1), operation("READ", 1, npages=1)]), b"of one subject"),
        (_race([(0, 0)], [operation("REAP")]), b"not for actors"),
        (_race([(0, 0)], [operation("READ", npages=513)]), b"npages out of range for an actor"),
        (_race([(0, 0)], [operation("READ", npages=1)] * 9), b"steps of an actor out of range"),
        (_race([(0, 0)] * 65, [operation("READ", npages=1)]), b"segments out of range"),
        ([operation("LOOK", npages=1)], b"no race that it belongs to"),
        (
            _race([(0, 0)], [operation("READ", npages=1)], looks=[operation("LOOK", npages=1)])[:-1],
            b"a look is missing",
        ),
        (
            _race([(0, 0)], [operation("READ", npages=1)], looks=[operation("LOOK", npages=65)]),
            b"npages out of range",
        ),
        (
            _race([(0, 0)], [operation("READ", npages=1)], looks=[operation("LOOK", 4, npages=1)]),
            b"actor out of range",
        ),
        (
            _race([(0, 0)], [operation("READ", npages=1)], looks=[operation("LOOK", npages=1)] * 9),
            b"looks out of range",
        ),
        (_race([(0, 0)], [operation("LOOK", npages=1)]), b"not for actors"),
    ],
)
def test_a_race_that_is_not_whole_is_refused(executor: Path, parts: list[bytes], what: bytes) -> None:
    result = run(executor, request(parts))
    assert result.returncode == 65
    assert what in result.stderr
