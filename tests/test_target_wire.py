# SPDX-License-Identifier: GPL-2.0-only
"""Programs and observations as bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given

from harness.abi import CONSTANTS, ffi
from harness.conformance import catalogue
from harness.errors import GuestError
from harness.program.observations import TORN, Entry, Mark, Observation, Signal, Status
from harness.program.operations import Advice, Prot
from harness.program.program import Program
from harness.program.text import parse
from harness.target.wire import decode, encode
from tests.strategies import programs


@given(programs())
def test_a_request_is_as_long_as_the_header_says(program: Program) -> None:
    for binding in ("interval", "mirror", "test_hmm"):
        request = encode(program, binding, 1.5)
        steps = len(program.steps)
        assert len(request) == ffi.sizeof("struct wire_program") + steps * ffi.sizeof("struct wire_operation")
        assert struct.unpack_from("<IIII", request) == (
            CONSTANTS["WIRE_MAGIC"],
            CONSTANTS[f"WIRE_{binding.upper()}"],
            steps,
            1500,
        )


def test_every_advice_and_protection_can_be_sent() -> None:
    for advice in Advice:
        encode(parse(f"a: map m anon 2 rw\na: advise m {advice}", file="x"), "interval", 1)
    for prot in Prot:
        encode(parse(f"a: map m anon 2 {prot}", file="x"), "interval", 1)


def test_every_program_of_the_product_can_be_sent() -> None:
    for program in catalogue.select([]):
        assert encode(program, "interval", 1)


def _observation(status: str, error: int, *numbers: int) -> bytes:
    return struct.pack(f"<IiQ{len(numbers)}Q", CONSTANTS[f"WIRE_{status}"], error, len(numbers), *numbers)


def _response(*observations: bytes, magic: int | None = None) -> bytes:
    head = ffi.new(
        "struct wire_outcome *", {"magic": magic or CONSTANTS["WIRE_MAGIC"], "observations": len(observations)}
    )
    return bytes(ffi.buffer(head)) + b"".join(observations)


PROGRAM = parse("a: map m anon 3 rw\na: read m\nd0: bind a\nd0: snapshot m\nd0: usage", file="x")
GOOD = (
    _observation("DONE", 0),
    _observation("DONE", 0, CONSTANTS["WIRE_TORN"], CONSTANTS["WIRE_SEGV"], 7),
    _observation("DONE", 0),
    _observation("DONE", 14, 0x903, 0x4),
    _observation("UNSUPPORTED", 0),
)


def test_reads_a_response() -> None:
    assert decode(PROGRAM, _response(*GOOD)) == (
        Observation(Status.DONE),
        Observation(Status.DONE, 0, (TORN, Signal.SEGV, 7)),
        Observation(Status.DONE),
        Observation(Status.DONE, 14, (Entry(Mark.VALID | Mark.WRITE, 9), Entry(Mark.ERROR))),
        Observation(Status.UNSUPPORTED),
    )


@pytest.mark.parametrize(
    "response",
    [
        b"",
        _response(*GOOD)[:-1],
        _response(*GOOD) + b"x",
        _response(*GOOD[:-1]),
        _response(*GOOD, magic=1),
    ],
)
def test_refuses_half_an_answer(response: bytes) -> None:
    with pytest.raises(GuestError):
        decode(PROGRAM, response)
