# SPDX-License-Identifier: GPL-2.0-only
"""An exploration on a cluster of dask.distributed: each thread of each worker is a slot, which has one VM at a time.

Who does what is decided here and not by the scheduler: a shard goes to one worker and to no other. So a worker that
is lost is noticed, what it did is done once more by another, and if that one is lost, too, it is an ERROR: it may be
what is lethal. Of a shard that was begun by several, one result is listened to. This process needs no QEMU.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ExitCode, HarnessError, MissingError, UsageError
from harness.explore import slots
from harness.explore.campaign import Campaign, Terms, Told, begin
from harness.explore.findings import Finding, GivenUp, Store
from harness.explore.shards import Shard, Task, code_hash, told_by
from harness.explore.slots import Order
from harness.program.text import render
from harness.progress import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

_WAIT_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_GATHER_SECONDS = 30.0
_PATIENCE_SECONDS = 600.0  # for a worker, where there is none; or as long as the exploration may take
_ATTEMPTS = 2
_MOST_FAILURES = 2  # of a worker, one after the other
_INSTALL = "in the checkout, here and where workers run: .venv/bin/pip install --editable '.[dask]'"


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of the scheduler at that address, or of the file that it wrote with --scheduler-file.

    Raises `UsageError` if dask.distributed is not installed, `HarnessError` if there is no scheduler.
    """
    try:
        from distributed import Client  # noqa: PLC0415  an optional extra
    except ImportError:
        raise UsageError("--scheduler needs dask.distributed, which is not installed", hint=_INSTALL) from None
    for name in (
        "distributed",
        *(each for each in logging.root.manager.loggerDict if each.startswith("distributed.")),
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is told by us
    where = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(**where, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise HarnessError(
            f"there is no dask scheduler at {scheduler}: {error}",
            hint="`dask scheduler` starts one, and says its address, such as tcp://HOST:8786",
        ) from None
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=_CONNECT_SECONDS)


def explore_on(
    client: Client,
    kernel: tuple[str, str],
    terms: Terms,
    store: Store,
    progress: Progress,
    *,
    scheduler: str,
    publish: Callable[[bool], None] | None = None,
    do: Callable[[str], str] = slots.do,
) -> ExitCode:
    """As `harness.explore.campaign.explore`, on the workers of a cluster. `do` is what they are asked to call."""
    cluster = Cluster(client, kernel, terms, progress, do)
    try:
        with progress.step("waiting for a worker"):
            target = cluster.first_target()
        campaign = Campaign(begin(terms, target, store), store, progress, publish)
        cluster.join(campaign)
        options = ["--scheduler", scheduler]
        return campaign.carry_out(cluster, f"on {scheduler}", options)
    finally:
        cluster.end()


@dataclass
class _Worker:
    """`instance`: of the process, when it is ready; `failures`: one after the other."""

    address: str
    slots: int
    instance: str = ""
    busy: int = 0
    failures: int = 0
    out: bool = False  # it gets nothing to do any more


@dataclass
class _Work:
    """A shard on its way. `reasons`: why it was not done, each time."""

    shard: Shard
    what: str
    reasons: list[str] = field(default_factory=list)
    shunned: list[_Worker] = field(default_factory=list)
    worker: _Worker | None = None
    future: Future[str] | None = None


class Cluster:
    """The crew of a campaign. One thread at a time calls what begins with an underscore."""

    def __init__(
        self, client: Client, kernel: tuple[str, str], terms: Terms, progress: Progress, do: Callable[[str], str]
    ) -> None:
        self._client = client
        self._name = secrets.token_hex(8)
        self._blank = self._blank_unit = Shard(Task.PREPARE, *kernel, terms, code_hash())
        self._progress = progress
        self._do = do
        self._workers: dict[str, _Worker] = {}
        self._refusal: HarnessError | None = None
        self._waiting: deque[_Work] = deque()
        self._running: dict[int, _Work] = {}
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()  # of those that run: numbers
        self._orders = 0
        self._alone_since = time.monotonic()
        self._patience = max(_PATIENCE_SECONDS, terms.seconds or 0.0)
        self._target = ""
        self._campaign: Campaign | None = None
        self._thread: threading.Thread | None = None

    def first_target(self) -> str:
        """Waits until a worker is ready; what it would explore, which is what all are to explore.

        Raises `HarnessError` if none can, or none comes.
        """
        while not self._target:
            self._notice()
            self._collect()
        return self._target

    def join(self, campaign: Campaign) -> None:
        """From now on this is the crew of `campaign`."""
        started = campaign.started
        self._campaign = campaign
        self._blank = replace(self._blank, target=started.target, begun=started.begun)
        self._blank_unit = replace(
            self._blank,
            task=Task.EXPLORE,
            corpus_hash=started.corpus_hash,
            corpus=tuple(render(program) for program in started.corpus),
            met=tuple(sorted(started.met)),
        )

    def begin(self, known: Sequence[Finding]) -> int:
        """Looks at what is known first; one thread tells everything."""
        for finding in known:
            self._waiting.append(self._again(finding) if finding.runs else self._look(finding))
        self._thread = threading.Thread(target=self._attend, daemon=True)
        self._thread.start()
        return 1

    def dismiss(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def end(self) -> None:
        """The workers' VMs end, also where somebody is at it."""
        with suppress(Exception):
            self._client.cancel([work.future for work in self._running.values() if work.future is not None])
        with suppress(Exception):
            self._client.run(self._do, Order(self._name).dump(), on_error="ignore")

    # What is to be done

    def _unit(self, number: int) -> _Work:
        shard = replace(self._blank_unit, number=number)
        return _Work(shard, f"unit {shard.terms.seed}/{number}")

    def _look(self, suspicion: Finding) -> _Work:
        assert self._campaign is not None
        place = str(self._campaign.store.place(suspicion.symptom))
        shard = replace(self._blank, task=Task.LOOK, finding=suspicion, place=place)
        return _Work(shard, f"looking into {suspicion.symptom}")

    def _again(self, finding: Finding) -> _Work:
        shard = replace(self._blank, task=Task.AGAIN, finding=finding)
        return _Work(shard, f"looking again at {finding.symptom}")

    # How it is done

    def _attend(self) -> None:
        assert self._campaign is not None
        campaign = self._campaign
        error: BaseException | None = None
        try:
            while not campaign.stop.is_set():
                self._notice()
                enough = not self._hand_out(campaign)
                if enough and not self._waiting and not self._at_work():
                    break
                self._collect()
        except BaseException as raised:  # noqa: BLE001  raised where somebody can act on it
            error = raised
        campaign.tell(Told(ended=True, error=None if campaign.stop.is_set() else error))

    def _at_work(self) -> bool:
        return any(work.shard.task is not Task.PREPARE for work in self._running.values())

    def _notice(self) -> None:
        """Workers that came, and those that went."""
        try:
            now: Mapping[str, int] = self._client.nthreads()
        except (OSError, TimeoutError) as error:
            raise HarnessError(
                f"the dask scheduler is gone: {error}", hint="all that was told is kept; the same command goes on"
            ) from None
        for address in self._workers.keys() - now.keys():
            self._lose(self._workers[address])
        for address in now.keys() - self._workers.keys():
            worker = self._workers[address] = _Worker(address, now[address])
            self._send(_Work(replace(self._blank, task=Task.PREPARE), "getting ready"), worker)
        if any(not worker.out for worker in self._workers.values()):
            self._alone_since = time.monotonic()
        elif self._workers and self._refusal is not None:
            raise self._refusal
        elif time.monotonic() - self._alone_since > self._patience:
            raise MissingError(
                f"no worker for {self._patience / 60:.0f} minutes", hint="`dask worker ADDRESS` starts one"
            )

    def _lose(self, worker: _Worker) -> None:
        """A worker that is not there any more, and what it was at."""
        self._workers.pop(worker.address, None)
        for number, work in list(self._running.items()):
            if work.worker is worker:
                del self._running[number]
                self._cancel(work)
                self._failed(work, f"the worker {worker.address} was lost")

    def _hand_out(self, campaign: Campaign) -> bool:
        """Gives each free slot something to do; whether there may be more units."""
        more = True
        for worker in list(self._workers.values()):
            while worker.instance and not worker.out and worker.busy < worker.slots:
                work = self._next_for(worker)
                if work is None:
                    number = campaign.take()
                    if number is None:
                        more = False
                        break
                    work = self._unit(number)
                self._send(work, worker)
        return more

    def _next_for(self, worker: _Worker) -> _Work | None:
        """What waits longest, unless it is for another worker to try."""
        others = [each for each in self._workers.values() if each.instance and not each.out and each is not worker]
        for work in self._waiting:
            if worker not in work.shunned or not any(each not in work.shunned for each in others):
                self._waiting.remove(work)
                return work
        return None

    def _send(self, work: _Work, worker: _Worker) -> None:
        hosts = Counter(_host(each.address) for each in self._workers.values() for _ in range(each.slots))
        order = Order(self._name, worker.instance, work.shard, hosts[_host(worker.address)])
        number = self._orders = self._orders + 1
        work.worker = worker
        worker.busy += 1
        self._running[number] = work
        work.future = self._client.submit(
            self._do,
            order.dump(),
            key=f"hmm-harness-{self._name}-{number}",
            workers=[worker.address],
            allow_other_workers=False,
            pure=False,
        )
        work.future.add_done_callback(lambda _: self._done.put(number))

    def _collect(self) -> None:
        """Waits for a moment for something to be done; takes in all that is."""
        with suppress(queue.Empty):
            number = self._done.get(timeout=_WAIT_SECONDS)
            while True:
                work = self._running.pop(number, None)
                if work is not None:  # else it is somebody else's by now
                    self._take_in(work)
                number = self._done.get_nowait()

    def _take_in(self, work: _Work) -> None:
        worker, future = work.worker, work.future
        assert worker is not None
        assert future is not None
        worker.busy -= 1
        try:
            lines = future.result(timeout=_GATHER_SECONDS)
        except slots.StrangerError:  # the worker that had this address is gone, and this is another one
            if self._workers.get(worker.address) is worker:
                self._lose(worker)
            self._failed(work, f"the worker {worker.address} was lost")
            return
        except Exception as error:  # noqa: BLE001  of whatever library is in between, or a bug of ours over there
            self._cancel(work)
            self._blame(worker, work, HarnessError(f"{type(error).__name__}: {error}"))
            return
        failure = slots.failure(lines)
        if failure is not None:
            self._blame(worker, work, failure)
            return
        worker.failures = 0
        if work.shard.task is Task.PREPARE:
            self._admit(worker, lines)
        else:
            self._tell(work, lines)

    def _blame(self, worker: _Worker, work: _Work, error: HarnessError) -> None:
        """A worker that cannot do it: another one may."""
        worker.failures += 1
        if work.shard.task is Task.PREPARE or worker.failures >= _MOST_FAILURES:
            self._refuse(worker, error)
        self._failed(work, f"on {worker.address}: {error.message}")

    def _refuse(self, worker: _Worker, error: HarnessError) -> None:
        worker.out = True
        self._refusal = HarnessError(f"{worker.address}: {error.message}", hint=error.hint)
        self._progress.say(f"a worker gets nothing to do: {self._refusal.message}")

    def _failed(self, work: _Work, reason: str) -> None:
        if work.shard.task is Task.PREPARE:
            return
        assert self._campaign is not None
        assert work.worker is not None
        work.reasons.append(reason)
        work.shunned.append(work.worker)
        if len(work.reasons) < _ATTEMPTS:
            self._progress.say(f"{work.what}: once more: {reason}")
            self._waiting.appendleft(work)
            return
        seed = work.shard.terms.seed
        given_up = GivenUp(
            work.what, "; ".join(work.reasons), work.shard.target, seed, work.shard.number, round(time.time(), 1)
        )
        self._campaign.tell(Told(given_up=given_up))

    def _admit(self, worker: _Worker, lines: str) -> None:
        told = slots.ready(lines)
        self._target = self._target or told.target
        if told.target != self._target:
            error = UsageError(
                f"it would explore another kernel, module or guest: {told.target}, not {self._target}",
                hint="share XDG_CACHE_HOME, or build on machines with the same compiler",
            )
            self._refuse(worker, error)
            return
        worker.instance = told.instance

    def _tell(self, work: _Work, lines: str) -> None:
        campaign = self._campaign
        assert campaign is not None
        for told in told_by(lines, work.shard):
            if told.suspicion is None:
                campaign.tell(told)
            elif campaign.is_new(told.suspicion.symptom):
                campaign.tell(told)
                self._waiting.append(self._look(told.suspicion))

    def _cancel(self, work: _Work) -> None:
        with suppress(Exception):
            self._client.cancel([work.future])


def _host(address: str) -> str:
    """Of tcp://HOST:PORT."""
    return address.rpartition("://")[2].rpartition(":")[0]
