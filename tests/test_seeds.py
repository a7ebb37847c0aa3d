# SPDX-License-Identifier: GPL-2.0-only
"""The deterministic machine without a VM: what a seed says, what a guest says, and what is handed to others."""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.compare import Verdict
from harness.conformance import catalogue
from harness.errors import ExitCode, GuestError, UsageError
from harness.explore import bundle
from harness.explore.seeds import Game, Played, assemble, judge_run, moments, overlap, try_seeds, unfit
from harness.guest.files import MACHINE_INIT
from harness.guest.kernel import LOST_LINES
from harness.program.observations import Status
from harness.program.operations import Span, Write
from harness.program.race import Race, loose
from harness.program.text import parse
from harness.target import clockwork
from harness.target.clockwork import Run, Setup, arguments, job, play, read_answer
from harness.target.events import numbers
from harness.target.gdbstub import Stub, run_to_round
from harness.target.places import CHECKOUT
from harness.target.wire import encode
from tests.guest_executor import compile_executor, mapped, observe, operation
from tests.guest_executor import run as run_executor

# What the executor can run without a device
TEXT = """\
# A promise.
a: map buf anon 2 rw
a: write buf 10
actor x: a: write buf[0] 50
actor y: a: read buf[1]
schedule x y
"""
ROUNDS = 4


def _race(text: str = TEXT) -> Race:
    race = parse(text, file="x.hmm", name="mine/x")
    assert isinstance(race, Race)
    return race


def _frame(what: str, content: bytes = b"") -> bytes:
    return struct.pack("<4sI", what.encode(), len(content)) + content


def _message(command: str) -> bytes:
    number = numbers()[f"HMM_HARNESS_CMD_{command}"]
    attribute = struct.pack("=HHQ", 12, numbers()["HMM_HARNESS_A_EVENT_NUMBER"], 7)
    return struct.pack("=IHHIIBBH", 20 + len(attribute), 30, 0, 0, 0, number, 1, 0) + attribute


EVENTS = _message("SUBSCRIBE") + _message("UNSUBSCRIBE")
RECORDS = b"6,1,2500000,-;hmm_harness: loaded\n SUBSYSTEM=x\n4,2,2500001,-,caller=T1;it is late\n"
HEAD = (
    _frame("CPUS", b"2")
    + _frame("HAVE", b"ONE,TWO THREE\n")
    + _frame("SECT", b"==> .text <==\n0x10\n")
    + _frame("LOGS", RECORDS)
    + _frame("TNTD", b"4096\n")
)


def _ended(response: bytes, *, events: bytes = EVENTS, log: bytes = b"", taint: int = 4096) -> bytes:
    """What a guest says of a round."""
    mark = b"6,3,2500002,-;hmm-init: round 1\n"
    said = [
        _frame("RESP", response),
        _frame("EVNT", events),
        _frame("LOGS", mark + log),
        _frame("TNTD", b"%d\n" % taint),
    ]
    return b"".join(said)


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_executor(tmp_path_factory.mktemp("executor") / "executor")


@pytest.fixture
def game(tmp_path: Path) -> Game:
    for name in ("bzImage", "base"):
        (tmp_path / name).write_bytes(name.encode() * 4)
    return Game((loose(_race()),), "interval", tmp_path / "bzImage", tmp_path / "base", "quiet", rounds=ROUNDS)


def _responses(executor: Path, game: Game, seed: int = 5) -> list[bytes]:
    """What the executor answers to the rounds of a seed, as if it knew that no device memory was left."""
    responses = []
    for number in range(1, game.rounds + 1):
        request = encode(game.races[0], game.binding, 20, moments=moments(game.races[0], seed, number, 3))
        result = run_executor(executor, request)
        assert (result.returncode, result.stderr) == (0, b"")
        responses.append(result.stdout[:16] + bytes(32) + result.stdout[48:])
    return responses


def _run(answer: bytes, *, console: bytes = b"", late: bool = False, status: int = 0) -> Run:
    return Run(console, answer, late, status, "", 1.0)


def test_a_seed_says_when_each_actor_begins() -> None:
    race = loose(_race())
    drawn = {seed: [moments(race, seed, number, 0) for number in range(1, 200)] for seed in (1, 2)}
    assert drawn[1] == [moments(race, 1, number, 0) for number in range(1, 200)]
    assert drawn[1] != drawn[2]
    assert len(set(drawn[1])) == len(drawn[1])
    apart = [abs(x - y) for x, y in drawn[1]]
    assert min(apart) < 1 << 8, "now and then close together"
    assert 1 << 15 < max(apart) < 1 << 18, "now and then far apart"
    assert moments(race, 1, 1, 4) == tuple(moment << 4 for moment in drawn[1][0]), "they are counted in instructions"


def test_actors_begin_at_their_moments_and_run_at_the_same_time(executor: Path) -> None:
    steps = [operation("WRITE", npages=1, value=50), operation("READ", 0, npages=1)]
    late = 200_000_000
    parts = [
        operation("RACE", value=2),
        operation("ACTOR", argument=2, value=late),
        *steps,
        operation("ACTOR", argument=1, value=1000),
        operation("READ", page=1, npages=1),
    ]
    _, race, of_x, wrote, read, of_y, other = observe(executor, [mapped(4), *parts])
    assert race.status == of_x.status == of_y.status == "DONE"
    assert (wrote.elements, read.elements, other.elements) == ((0,), (50,), (0,))
    x, y = of_x.elements, of_y.elements
    assert y[0] < y[1] < x[0] < x[1] < x[2] < x[3]
    assert x[0] - y[0] > late / 2
    assert 0 < x[-1] != y[-1] > 0, "their threads, and no gate that they came by"
    assert (len(x), len(y)) == (6, 4)


def test_races_that_take_their_schedule_are_left_out() -> None:
    (fit,) = catalogue.select(["race/lock"])
    (promising,) = catalogue.select(["race/migrating"])
    assert isinstance(fit, Race)
    assert isinstance(promising, Race)
    assert unfit(fit) is None
    assert "in the middle of another step" in (unfit(promising) or "")
    (reading,) = catalogue.select(["race/touched-twice"])
    assert isinstance(reading, Race)
    assert unfit(reading) == "x and y touch buf at once, and a page is not written at once"
    assert unfit(_race()) is None, "these are two pages"
    (evicting,) = catalogue.select(["race/evicted"])
    assert isinstance(evicting, Race)
    assert "an eviction leaves" in (unfit(evicting) or "")


def test_what_goes_page_by_page_is_a_step_for_each_page() -> None:
    race = loose(_race(TEXT.replace("a: write buf[0] 50", "a: write buf 50").replace("read buf[1]", "protect buf r")))
    assert [len(actor.steps) for actor in race.actors] == [2, 1]
    first, second = race.actors[0].steps
    assert (first, second) == (Write("a", Span("buf", 0, 1), 50), Write("a", Span("buf", 1, 2), 51))
    assert len(list(race.orders())) == 3
    assert loose(race) == race
    assert parse(bundle._text(race), file="x").steps == race.steps
    many = _race(TEXT.replace("buf anon 2", "buf anon 16").replace("read buf[1]", "advise buf dontneed"))
    assert unfit(many) is None, "only one page is written"
    long = _race(TEXT.replace("buf anon 2", "buf anon 16").replace("read buf[1]", "read buf[1:16]"))
    assert "too long" in (unfit(long) or "")


def test_one_that_is_asked_for_by_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["race", "machine", "race/migrating"]) == ExitCode.USAGE
    assert "race/migrating is not for the deterministic machine" in capsys.readouterr().err


def test_reads_what_a_guest_says() -> None:
    answer = read_answer(HEAD + _ended(b"one", taint=4608) + _ended(b"two", log=b"4,4,3000000,-;hm\n", taint=4608))
    assert (answer.cpus, answer.features, answer.sections) == (2, ("ONE", "TWO", "THREE"), "==> .text <==\n0x10\n")
    assert answer.boot == ("[    2.500000] hmm_harness: loaded", "[    2.500001][     T1] it is late")
    assert [each.response for each in answer.rounds] == [b"one", b"two"]
    assert [each.taint for each in answer.rounds] == [512, 0], "bits that a round added"
    assert answer.rounds[1].log == ("[    2.500002] hmm-init: round 1", "[    3.000000] hm")
    assert not answer.done
    assert read_answer(HEAD + _frame("DONE")).done
    assert read_answer(HEAD + _frame("LOST") + _frame("FAIL", b"no")).rest[-1] == LOST_LINES


@pytest.mark.parametrize("length", [0, 3, 8, 9, len(HEAD) - 1])
def test_a_guest_that_died_has_said_less(length: int) -> None:
    answer = read_answer(HEAD[:length])
    assert not answer.rounds
    assert not answer.done


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(GuestError, match="makes no sense"):
        read_answer(_frame("WHAT"))


def test_rounds_are_judged_one_by_one(executor: Path, game: Game) -> None:
    responses = _responses(executor, game)
    told = HEAD + b"".join(map(_ended, responses)) + _frame("DONE")
    right = judge_run(game, 5, _run(told))
    assert (right.comparison.verdict, right.number) == (Verdict.PASS, 0), right.comparison.reason
    # What is read behind the race is the token 50: another one is nobody's.
    torn = responses[2].replace(struct.pack("<Q", 50), struct.pack("<Q", 51))
    assert torn != responses[2]
    wrong = judge_run(game, 5, _run(HEAD + b"".join(map(_ended, [*responses[:2], torn])) + _frame("DONE")))
    assert (wrong.comparison.verdict, wrong.number) == (Verdict.FAIL, 3)
    assert "51" in wrong.comparison.reason
    assert wrong.execution is not None
    assert wrong.execution.course is not None
    assert [line.partition(":")[0] for line in overlap(game.races[0], wrong.execution.course)] == ["x", "y"]
    assert all(seen.status is Status.DONE for seen in wrong.execution.observations)


def test_a_complaint_of_the_kernel_is_its_rounds(executor: Path, game: Game) -> None:
    bad = b"4,9,3000000,-;WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2\n"
    first, second, *rest = _responses(executor, game)
    played = judge_run(game, 5, _run(HEAD + b"".join([_ended(first), _ended(second, log=bad), *map(_ended, rest)])))
    assert (played.comparison.verdict, played.number) == (Verdict.CRASHED, 2)


@pytest.mark.parametrize(
    ("run", "verdict", "says"),
    [
        (_run(HEAD + _frame("FAIL", b"no executor")), Verdict.ERROR, "no executor"),
        (_run(HEAD, late=True, status=-9), Verdict.TIMEOUT, "did not end"),
        (_run(b"", late=True, status=-9), Verdict.ERROR, "never said a word"),
        (_run(HEAD, status=1), Verdict.ERROR, "QEMU ended with status 1"),
        (_run(_frame("WHAT")), Verdict.ERROR, "makes no sense"),
        (
            _run(HEAD, console=b"[    1.000000] Kernel panic - not syncing: Attempted to kill init!\r\n"),
            Verdict.CRASHED,
            "panic",
        ),
    ],
)
def test_a_machine_that_does_not_come_to_its_end_is_no_pass(
    game: Game, run: Run, verdict: Verdict, says: str
) -> None:
    played = judge_run(game, 5, run)
    assert played.comparison.verdict is verdict
    assert says in played.comparison.reason
    assert not played.good


def test_rounds_that_are_missing_are_no_pass(executor: Path, game: Game) -> None:
    told = HEAD + b"".join(map(_ended, _responses(executor, game)[:-1])) + _frame("DONE")
    assert judge_run(game, 5, _run(told)).comparison.verdict is Verdict.ERROR


def test_nothing_of_this_computer_gets_into_the_machine(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "bzImage", tmp_path / "initrd", "quiet", 3, 9)
    argv = arguments(setup, "qemu", console="C", answer="A")
    assert "shift=3,sleep=off" in argv
    assert "base=2020-01-01T00:00:00,clock=vm" in argv
    assert argv[argv.index("-seed") + 1] == "9"
    text = " ".join(argv)
    assert not any(word in text for word in ("virtio", "-netdev", "-drive", "kvm", "-gdb", "-S", "socket", "stdio"))
    assert arguments(setup, "qemu", console="C", answer="A", gdb=77)[: len(argv)] == argv, (
        "a debugger changes nothing"
    )


def test_what_is_to_be_run_is_in_the_initramfs(game: Game, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    setup = assemble(replace(game, wrong=("skip-retry",), shift=4), 5, out)
    data = setup.initrd.read_bytes()
    requests = [
        encode(game.races[0], "interval", game.timeout, moments=moments(game.races[0], 5, number, 4))
        for number in range(1, ROUNDS + 1)
    ]
    assert data == (tmp_path / "base").read_bytes() + job(requests, ["skip-retry"])
    assert all(struct.pack("<I", len(request)) + request in data for request in requests)
    assert b"skip-retry" in data
    assert (setup.shift, setup.seed, setup.cpus) == (4, 5, 2)


# A QEMU that writes what it is told to where its command line says
FAKE = """\
#!/bin/sh
[ "$1" != --version ] || { echo "QEMU emulator version 7.2.22 (Debian)"; exit; }
for word; do
    case $word in
    file,id=console,path=*) printf 'console %s' "$EXTRA" >"${word#*path=}" ;;
    file,id=answer,path=*) printf answer >"${word#*path=}" ;;
    esac
done
"""
SHA256 = hashlib.sha256(b"console answer").hexdigest()


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    path = directory / "qemu-system-x86_64"
    path.write_text(FAKE)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    monkeypatch.setenv("EXTRA", "")
    return path


def test_what_comes_out_has_a_fingerprint(game: Game, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert qemu.exists()
    setup = Setup(game.kernel, game.initrd, "quiet", 3, 9)
    first, second = play(setup, seconds=60), play(setup, seconds=60)
    assert (first.console, first.answer, first.status, first.late) == (b"console ", b"answer", 0, False)
    assert first.fingerprint == second.fingerprint == SHA256
    monkeypatch.setenv("EXTRA", "more")
    assert play(setup, seconds=60).fingerprint != SHA256


def test_a_machine_that_does_not_end_is_killed(game: Game, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu.write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setattr(clockwork, "_SILENCE_SECONDS", 0.2)
    run = play(Setup(game.kernel, game.initrd, "quiet", 3, 9), seconds=60)
    assert (run.late, run.status) == (True, -9)


def test_seeds_come_in_their_order(game: Game, qemu: Path) -> None:
    assert qemu.exists()
    found = list(try_seeds(game, [3, 1, 2], vms=2))
    assert [played.seed for played in found] == [3, 1, 2]
    assert [played.shift for played in found] == [game.shift_of(seed) for seed in (3, 1, 2)]
    assert not any(played.good for played in found), "what it says is no frame"


@pytest.fixture
def made(game: Game, qemu: Path, tmp_path: Path) -> Path:
    """A bundle of what that QEMU does."""
    assert qemu.exists()
    found = replace(game, wrong=("skip-retry",), marks=(0x10, 0x20))
    (played,) = try_seeds(found, [6], vms=1)
    directory = tmp_path / "made"
    bundle.write(directory, found, replace(played, number=3), qemu="7.2.22", says=["What it shows"])
    return directory


def _replay(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([directory / "replay.sh", *words], capture_output=True, text=True, cwd="/", check=False)


def test_a_bundle_replays_by_itself(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {path.name for path in made.iterdir()} == {
        "README", "bzImage", "initrd", "machine.json", "race-1.hmm", "replay.sh",
    }  # fmt: skip
    result = _replay(made)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"the same: {SHA256}\n", "")
    assert str(made.parent) not in (made / "replay.sh").read_text(), "it works wherever it is"
    monkeypatch.setenv("EXTRA", "more")
    result = _replay(made)
    assert result.returncode == 1
    assert result.stdout.startswith("not the same: ")


def test_a_bundle_says_that_the_qemu_is_another_one(made: Path, qemu: Path) -> None:
    qemu.write_text(FAKE.replace("7.2.22", "9.0.0"))
    assert "written with QEMU 7.2.22, here is 9.0.0" in _replay(made).stderr


def test_a_bundle_reads_back(made: Path, game: Game) -> None:
    found = bundle.read(made)
    assert found.game.races == game.races
    assert (found.game.wrong, found.game.rounds, found.game.marks) == (("skip-retry",), ROUNDS, (0x10, 0x20))
    assert (found.seed, found.number, found.qemu, found.fingerprint) == (6, 3, "7.2.22", SHA256)
    assert found.setup == Setup(made / "bzImage", made / "initrd", "quiet", game.shift_of(6), 6, 2)


def test_what_is_no_bundle_is_refused(made: Path, tmp_path: Path) -> None:
    for content in ("{}", "[1]", "no", '{"format": 1}', '{"format": 99}'):
        (made / "machine.json").write_text(content)
        with pytest.raises(UsageError):
            bundle.read(made)
    with pytest.raises(UsageError, match="is no bundle"):
        bundle.read(tmp_path / "nothing")


def _serve(listener: socket.socket, replies: Sequence[bytes], asked: list[bytes]) -> None:
    """Answers each packet with the next of `replies`; a connection is one run."""
    connection, _ = listener.accept()
    data = b""
    with connection:
        for reply in replies:
            while b"#" not in data or len(data) < data.index(b"#") + 3:
                data += connection.recv(100)
            packet, _, rest = data.partition(b"#")
            content = packet.partition(b"$")[2]
            assert int(rest[:2], 16) == sum(content) & 0xFF
            data = rest[2:]
            asked.append(content)
            connection.sendall(b"+$%b#%02x" % (reply, sum(reply) & 0xFF))


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_debugger_goes_from_mark_to_mark(listener: socket.socket) -> None:
    asked: list[bytes] = []
    thread = threading.Thread(target=_serve, args=(listener, [b"OK", b"T05thread:01;", b"OK"] * 3, asked))
    thread.start()
    run_to_round(listener.getsockname()[1], (0xFFFFFFFF81000010, 0xFFFFFFFF81000020), 2, seconds=10)
    thread.join()
    listener.close()
    begins, between = b"ffffffff81000010", b"ffffffff81000020"
    expected = []
    for mark in (begins, between, begins):
        expected += [b"Z1,%b,1" % mark, b"c", b"z1,%b,1" % mark]
    assert asked == expected


def test_a_machine_that_ends_before_the_mark_is_told(listener: socket.socket) -> None:
    thread = threading.Thread(target=_serve, args=(listener, [b"OK", b"W00"], []))
    thread.start()
    with Stub(listener.getsockname()[1]) as stub, pytest.raises(GuestError, match="did not come to 0x10"):
        stub.run_to(0x10, seconds=10)
    thread.join()
    listener.close()


def test_the_init_compiles_and_is_for_the_guest_alone(tmp_path: Path) -> None:
    init = tmp_path / "init"
    subprocess.run(clockwork._init_compiler(init), check=True)
    result = subprocess.run([init], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "hmm-init: this is for pid 1 of the guest\n")
    text = (CHECKOUT / MACHINE_INIT).read_text()
    for what in ("CPUS", "HAVE", "SECT", "LOGS", "LOST", "RESP", "SAID", "EVNT", "TNTD", "FAIL", "DONE"):
        assert f'tell("{what}"' in text
        assert f" *   {what} " in text


def test_played_without_an_answer_is_told() -> None:
    played = judge_run(Game((loose(_race()),), "interval", Path(), Path(), ""), 1, _run(_frame("WHAT")))
    assert isinstance(played, Played)
    assert played.answer is None
