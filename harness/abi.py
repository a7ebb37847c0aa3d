# SPDX-License-Identifier: GPL-2.0-only
"""The cffi view of what crosses the border of the kernel and of the guest.

The text of `kmod/include/uapi/hmm_harness.h` and `harness/guest/wire.h` is the only source: `ffi` knows their
structs, `CONSTANTS` their numbers by name. Works in a checkout and in the guest, where the files lie the same
way below `/payload`. Importing this parses both headers (a second under emulation), so import it late there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from cffi import FFI

from harness.guest.files import UAPI_HEADER, WIRE_HEADER

_ROOT = Path(__file__).resolve().parent.parent

# What <linux/types.h> and <stdint.h> say on x86-64, where __aligned_u64 is aligned by nature.
_TYPES = """
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef uint64_t __aligned_u64;
"""

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_LITERAL = re.compile(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*")
_IO = re.compile(r"_IO\(\s*(\w+)\s*,\s*(\w+)\s*\)")


def _value(text: str, known: Mapping[str, int]) -> int:
    if _LITERAL.fullmatch(text):
        return int(text, 0)
    if text in known:
        return known[text]
    match = _IO.fullmatch(text)
    if match:
        # <asm-generic/ioctl.h>: no direction, no size
        return _value(match[1], known) << 8 | _value(match[2], known)
    raise ValueError(f"cannot evaluate the constant {text!r}: use a literal, an earlier name or _IO()")


def read_headers(texts: Iterable[str]) -> tuple[FFI, dict[str, int]]:
    """What C headers of the simple kind declare: the types as an FFI, the constants by name.

    They may hold comments, include guards, `#define` of a literal, an earlier constant or `_IO()`, and
    declarations that cffi reads. Raises `ValueError` for another `#define`, and cffi's errors.
    """
    ffi = FFI()
    ffi.cdef(_TYPES)
    constants: dict[str, int] = {}
    for text in texts:
        code = _COMMENT.sub(" ", text)
        for name, value in _DEFINE.findall(code):
            constants[name] = _value(value, constants)
        declarations = _DIRECTIVE.sub("", code)
        for name in re.findall(r"\[(\w+)\]", declarations):
            if name in constants:
                declarations = declarations.replace(f"[{name}]", f"[{constants[name]}]")
        ffi.cdef(declarations)
    return ffi, constants


ffi, _constants = read_headers((_ROOT / header).read_text() for header in (UAPI_HEADER, WIRE_HEADER))
CONSTANTS: Mapping[str, int] = MappingProxyType(_constants)
