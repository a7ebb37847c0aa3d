# SPDX-License-Identifier: GPL-2.0-only
"""Files that a boot loader would take for kernels."""

from __future__ import annotations

import struct
from pathlib import Path


def write_bzimage(path: Path, release: str, *, body: bytes = b"image") -> Path:
    """A bzImage of `release` whose compressed kernel is `body`."""
    sector = bytearray(1024)
    body = body.ljust(-(-len(body) // 16) * 16, b"\0")
    struct.pack_into("<BHI", sector, 0x1F1, 1, 0, len(body) // 16)
    sector[0x1FE:0x200] = b"\x55\xaa"
    sector[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", sector, 0x20E, 0x100)
    version = f"{release} (me@here) #1 SMP\0".encode()
    sector[0x300 : 0x300 + len(version)] = version
    path.write_bytes(bytes(sector) + body)
    return path
