# SPDX-License-Identifier: GPL-2.0-only
"""Programs that show nothing, but go the way that all programs go."""

from __future__ import annotations

from typing import Any

from harness.abi import CONSTANTS, ffi

_PAGES = 4
_TIMEOUT_MS = 20_000
# code, argument, value
_STEPS = (
    ("MAP", CONSTANTS["WIRE_PROT_READ"] | CONSTANTS["WIRE_PROT_WRITE"], CONSTANTS["WIRE_ANON"]),
    ("BIND", 0, 0),
    ("WRITE", 0, 1),
    ("DEVICE_READ", 0, 0),
    ("TO_DEVICE", 0, 0),
    ("SNAPSHOT", 0, 0),
    ("READ", 0, 0),
)


def requests() -> dict[str, bytes]:
    """A request per binding, by the binding's name."""
    steps: Any = ffi.new("struct wire_operation[]", len(_STEPS))
    for step, (code, argument, value) in zip(steps, _STEPS, strict=True):
        step.code = CONSTANTS[f"WIRE_{code}"]
        step.argument = argument
        step.value = value
        if code != "BIND":
            step.address = CONSTANTS["WIRE_FIRST_ADDRESS"]
            step.npages = _PAGES
    encoded = {}
    for name in ("interval", "mirror", "test_hmm"):
        head = {
            "magic": CONSTANTS["WIRE_MAGIC"],
            "binding": CONSTANTS[f"WIRE_{name.upper()}"],
            "operations": len(_STEPS),
            "timeout_ms": _TIMEOUT_MS,
        }
        encoded[name] = bytes(ffi.buffer(ffi.new("struct wire_program *", head))) + bytes(ffi.buffer(steps))
    return encoded
