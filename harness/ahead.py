# SPDX-License-Identifier: GPL-2.0-only
"""What is needed next, made by a thread meanwhile.

To unpack a kernel, to link it, to build a module for it and to boot it leave all CPUs but one idle: with the next
kernel's files to compile at the same time, they are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from harness.target import children
from harness.target.cache import Cache

What = TypeVar("What", bound=Hashable)
Made = TypeVar("Made")


class Ahead(Generic[What, Made]):
    """Makes things with `make`, one of them ahead. Used as a context manager; leaving it ends what is under way.

    `make` gets a cache of its own, which keeps what it handed out as long as this object lives; it is not to wait
    for anything but that and children (harness/target/children.py).
    """

    def __init__(self, make: Callable[[What, Cache], Made], cache: Cache) -> None:
        self._make = make
        self._given_up = threading.Event()
        self._cache = Cache(cache.root, given_up=self._given_up)
        self._begun: dict[What, Future[Made]] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up.set()
        children.call_off(self._threads)

    def begin(self, what: What) -> None:
        """Begins to make it, and returns at once."""
        made: Future[Made] = Future()

        def work() -> None:
            try:
                made.set_result(self._make(what, self._cache))
            except BaseException as error:  # noqa: BLE001  raised where somebody can act on it
                made.set_exception(error)

        self._begun[what] = made
        self._threads.append(threading.Thread(target=work, name="ahead", daemon=True))
        self._threads[-1].start()

    def get(self, what: What) -> Made:
        """Makes it, or waits for what was begun. Raises what `make` raises."""
        begun = self._begun.pop(what, None)
        return self._make(what, self._cache) if begun is None else begun.result()
