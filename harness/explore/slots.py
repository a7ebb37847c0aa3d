# SPDX-License-Identifier: GPL-2.0-only
"""What a worker of a cluster does for an exploration: each of its threads is a slot, which has one VM at a time.

A VM stays from one shard to the next. It ends with the exploration, with the worker, or when nobody has asked for
it for a while, because whoever did may be gone.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import GuestError, HarnessError, UsageError
from harness.explore.campaign import target_hash
from harness.explore.shards import Shard, Task, carry_out, code_hash
from harness.matrix import shared
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare
from harness.target.vm import VM, Machine

_IDLE_SECONDS = 60.0  # a unit takes some ten
_FAILED = "failed"
_ENDED = "the exploration has ended"


class StrangerError(Exception):
    """The order was for another process, which had this one's address before."""


@dataclass(frozen=True)
class Order:
    """What a slot is asked: a shard, or to end what `campaign` has begun. `instance`: of the worker, if it matters.

    `crowd`: how many slots share the worker's machine.
    """

    campaign: str
    instance: str = ""
    shard: Shard | None = None
    crowd: int = 1

    def dump(self) -> str:
        """As JSON."""
        shard = None if self.shard is None else self.shard.dump()
        return json.dumps({"campaign": self.campaign, "instance": self.instance, "shard": shard, "crowd": self.crowd})

    @classmethod
    def load(cls, text: str) -> Order:
        """The value again."""
        told = json.loads(text)
        if told["shard"] is not None:
            told["shard"] = Shard.load(told["shard"])
        return cls(**told)


@dataclass(frozen=True)
class Ready:
    """What a worker says that has prepared all: which process it is, and the hash of what it would explore."""

    instance: str
    target: str


def ready(lines: str) -> Ready:
    """The answer to `Task.PREPARE`."""
    return Ready(**json.loads(lines))


def failure(lines: str) -> HarnessError | None:
    """What kept a worker from doing a shard, if something did."""
    if not lines.startswith(f'{{"{_FAILED}"'):
        return None
    told = json.loads(lines)
    return HarnessError(told[_FAILED], hint=told["hint"])


class Slots:
    """The slots of one process. `prepare`: kernel and flavour to a machine; `lab`: something that has a VM of it."""

    def __init__(
        self, prepare: Callable[[str, str], Machine], lab: Callable[[Machine, threading.Event], Lab]
    ) -> None:
        self._prepare = prepare
        self._make = lab
        self._instance = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._preparing = threading.Lock()
        self._machines: dict[tuple[str, str, str], Machine] = {}
        self._endings: dict[str, threading.Event] = {}  # of each campaign
        self._idle: list[tuple[float, str, Lab]] = []

    def do(self, text: str) -> str:
        """Carries out an order; JSON lines; see `failure` and `ready` for those that are no result.

        Raises `StrangerError` if it was for another worker.
        """
        order = Order.load(text)
        if order.instance not in ("", self._instance):
            raise StrangerError(f"this worker is {self._instance}, the order was for {order.instance}")
        if order.shard is None:
            self._end(order.campaign)
            return ""
        try:
            return self._carry_out(order, order.shard)
        except HarnessError as error:
            return json.dumps({_FAILED: error.message, "hint": error.hint})

    def _carry_out(self, order: Order, shard: Shard) -> str:
        if shard.code != code_hash():
            raise UsageError("it has another version of hmm-harness", hint="install the same on all machines")
        machine = self._machine(order.campaign, shard.kernel, shard.flavour)
        target = target_hash(machine, shard.terms.wrong)
        if shard.task is Task.PREPARE:
            return json.dumps(asdict(Ready(self._instance, target)))
        if shard.target != target:
            raise UsageError(f"it has another kernel, module or guest: {target}, not {shard.target}")
        with self._lab(order, machine) as lab:
            return "\n".join(carry_out(shard, lab))

    def _machine(self, campaign: str, kernel: str, flavour: str) -> Machine:
        with self._preparing:
            key = (campaign, kernel, flavour)
            if key not in self._machines:
                self._machines[key] = self._prepare(kernel, flavour)
            return self._machines[key]

    @contextmanager
    def _lab(self, order: Order, machine: Machine) -> Iterator[Lab]:
        with self._lock:
            ending = self._endings.setdefault(order.campaign, threading.Event())
            if ending.is_set():
                raise GuestError(_ENDED)
            mine = next((each for each in reversed(self._idle) if each[1] == order.campaign), None)
            if mine is not None:
                self._idle.remove(mine)
        lab = mine[2] if mine is not None else self._make(shared(machine, order.crowd), ending)
        try:
            yield lab
        except BaseException:
            lab.discard()
            raise
        finally:
            with self._lock:
                keep = not ending.is_set()
                if keep:
                    self._idle.append((time.monotonic(), order.campaign, lab))
            if keep:
                _later(_IDLE_SECONDS, self._sweep)
            else:
                lab.discard()

    def _end(self, campaign: str) -> None:
        """Does not wait: it is called where the worker hears of everything."""
        with self._lock:
            self._endings.setdefault(campaign, threading.Event()).set()
        for key in [key for key in self._machines if key[0] == campaign]:
            self._machines.pop(key, None)
        _later(0.0, self._sweep)

    def _sweep(self) -> None:
        """Ends VMs that nobody is going to ask for, or has for a while."""
        now = time.monotonic()
        with self._lock:
            over = [
                each for each in self._idle if now - each[0] >= _IDLE_SECONDS - 1 or self._endings[each[1]].is_set()
            ]
            self._idle = [each for each in self._idle if each not in over]
        for _, _, lab in over:
            lab.discard()


def _later(seconds: float, work: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


class _EndingLab(Lab):
    """Has no VM for an exploration that has ended: what it is at then is over soon."""

    def __init__(self, machine: Machine, ending: threading.Event, **resources: Any) -> None:
        super().__init__(machine, **resources)
        self._ending = ending

    def vm(self) -> VM:
        if self._ending.is_set():
            raise GuestError(_ENDED)
        return super().vm()


def _slots() -> Slots:
    cache, progress = Cache(), Progress()  # a worker's log says what takes long
    return Slots(
        lambda kernel, flavour: prepare(kernel, flavour, cache=cache, progress=progress),
        lambda machine, ending: _EndingLab(machine, ending, cache=cache, progress=progress),
    )


_MINE = _slots()


def do(text: str) -> str:
    """What a cluster is asked to call: an `Order` in JSON to JSON lines, in whatever worker."""
    return _MINE.do(text)
