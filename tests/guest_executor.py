# SPDX-License-Identifier: GPL-2.0-only
"""Helpers of the tests of the guest's executor: requests from operations, responses to observations."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.abi import CONSTANTS, ffi
from harness.guest.files import executor_compiler

ROOT = Path(__file__).parent.parent
BASE = CONSTANTS["WIRE_FIRST_ADDRESS"]
PAGE = 4096
RW = CONSTANTS["WIRE_PROT_READ"] | CONSTANTS["WIRE_PROT_WRITE"]
SEGV = CONSTANTS["WIRE_SEGV"]
BUS = CONSTANTS["WIRE_BUS"]
TORN = CONSTANTS["WIRE_TORN"]


@dataclass(frozen=True)
class Seen:
    """A wire_observation and its elements."""

    status: str  # without WIRE_
    error: int = 0
    elements: tuple[int, ...] = ()


_STATUSES = {CONSTANTS[f"WIRE_{name}"]: name for name in ("NOT_RUN", "DONE", "UNSUPPORTED", "SUBJECT_DIED", "STUCK")}


def operation(
    code: str, actor: int = 0, *, page: int = 0, npages: int = 0, value: int = 0, argument: int = 0, other: int = 0
) -> bytes:
    """One wire_operation; `page` counts from the first address that programs may use."""
    ranged = npages > 0
    struct = ffi.new(
        "struct wire_operation *",
        {
            "code": CONSTANTS[f"WIRE_{code}"],
            "actor": actor,
            "other": other,
            "argument": argument,
            "address": BASE + page * PAGE if ranged else 0,
            "npages": npages,
            "value": value,
        },
    )
    return bytes(ffi.buffer(struct))


def mapped(npages: int, *, backing: str = "ANON", prot: int = RW, page: int = 0) -> bytes:
    """MAP of `npages` pages."""
    return operation("MAP", page=page, npages=npages, value=CONSTANTS[f"WIRE_{backing}"], argument=prot)


def request(
    steps: Sequence[bytes],
    *,
    binding: str = "INTERVAL",
    timeout_ms: int = 20000,
    head: Mapping[str, int] | None = None,
) -> bytes:
    """A whole request; `head` overrides members of its wire_program."""
    struct = ffi.new(
        "struct wire_program *",
        {
            "magic": CONSTANTS["WIRE_MAGIC"],
            "binding": CONSTANTS[f"WIRE_{binding}"],
            "operations": len(steps),
            "timeout_ms": timeout_ms,
            **(head or {}),
        },
    )
    return bytes(ffi.buffer(struct)) + b"".join(steps)


def split(responses: bytes) -> list[list[Seen]]:
    """The observations of each of the concatenated `responses`."""
    programs = []
    while responses:
        outcome: Any = ffi.from_buffer("struct wire_outcome *", responses, require_writable=False)
        assert outcome.magic == CONSTANTS["WIRE_MAGIC"]
        body, responses = responses[: outcome.length], responses[outcome.length :]
        offset = ffi.sizeof("struct wire_outcome")
        seen = []
        for _ in range(outcome.observations):
            one: Any = ffi.from_buffer("struct wire_observation *", body[offset:])
            offset += ffi.sizeof("struct wire_observation")
            end = offset + one.count * 8
            elements = tuple(int.from_bytes(body[i : i + 8], "little") for i in range(offset, end, 8))
            seen.append(Seen(_STATUSES[one.status], one.error, elements))
            offset = end
        assert offset == len(body)
        programs.append(seen)
    return programs


def compile_executor(output: Path, *, test_hmm_header: Path | None = None) -> Path:
    """Compiles the executor of this checkout; returns `output`."""
    subprocess.run(executor_compiler(ROOT, output, test_hmm_header=test_hmm_header), check=True)
    return output


def run(executor: Path, requests: bytes) -> subprocess.CompletedProcess[bytes]:
    """The executor's answer to all of `requests`, then the end of its input."""
    return subprocess.run([executor], input=requests, capture_output=True, timeout=60, check=False)


def observe(executor: Path, operations: Sequence[bytes], *, timeout_ms: int = 20000) -> list[Seen]:
    """What one program without devices shows."""
    result = run(executor, request(operations, timeout_ms=timeout_ms))
    assert (result.returncode, result.stderr) == (0, b"")
    (seen,) = split(result.stdout)
    return seen
