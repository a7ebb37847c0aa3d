# SPDX-License-Identifier: GPL-2.0-only
"""A store of JSON lines that is added to as rows come, and that another run goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.errors import HarnessError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RowT = TypeVar("RowT", bound="DataclassInstance")


class Rows(Generic[RowT]):
    """The store in `path`, None for none. With `resume`, what is there already is known.

    `read` makes a row of what a line has, and raises ValueError, TypeError or KeyError if there is none in it;
    `place` tells rows from each other: of two at the same place the later one counts.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        read: Callable[[Mapping[str, Any]], RowT],
        place: Callable[[RowT], Hashable],
        resume: bool = False,
    ) -> None:
        self._path = path
        self._place = place
        self._rows: dict[Hashable, RowT] = {}
        if path is None:
            return
        try:
            if resume and path.exists():
                self._rows = {place(row): row for row in _stored(path, read)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(map(_line, self._rows.values())), encoding="utf-8")
        except OSError as error:
            raise HarnessError(f"cannot write to {path}: {error.strerror}", hint="name another file") from None

    def add(self, row: RowT) -> None:
        """Keeps what is known now."""
        self._rows[self._place(row)] = row
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))

    def find(self, place: Hashable) -> RowT | None:
        """What is known at that place."""
        return self._rows.get(place)


def _line(row: DataclassInstance) -> str:
    return json.dumps(asdict(row)) + "\n"


def _stored(path: Path, read: Callable[[Mapping[str, Any]], RowT]) -> Iterator[RowT]:
    """What the store has; half a line at its end, of a run that was killed, is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield read(json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue
