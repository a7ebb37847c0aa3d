# SPDX-License-Identifier: GPL-2.0-only
"""What a bzImage says of itself: Documentation/arch/x86/boot.rst, 'The Real-Mode Kernel Header'."""

from __future__ import annotations

import struct
from pathlib import Path

from harness.errors import UsageError

_HEADER = 0x1F1  # setup_sects, which a header has since Linux 1.3.73
_SECTOR = 512
_HEADER_END = 0x210
_VERSIONS_FROM = 0x200  # what kernel_version counts from
_LONGEST_VERSION = 512


def release_of(image: Path) -> str:
    """The release of the kernel in `image`, as `uname -r` says it. Raises UsageError for what cannot be booted."""
    hint = "a kernel to boot is arch/x86/boot/bzImage of a build, or /boot/vmlinuz-RELEASE"
    if not image.is_file():
        raise UsageError(f"there is no kernel {image}", hint=hint)
    try:
        with image.open("rb") as file:
            head = file.read(_HEADER_END)
            if len(head) < _HEADER_END or head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
                raise UsageError(f"{image} is no bzImage", hint=hint)
            setup_sectors, _flags, paragraphs = struct.unpack_from("<BHI", head, _HEADER)
            (version_at,) = struct.unpack_from("<H", head, 0x20E)
            whole = (setup_sectors + 1) * _SECTOR + paragraphs * 16
            size = image.stat().st_size
            if size < whole:
                raise UsageError(f"{image} is cut off: {size} bytes of {whole}", hint="copy it, or build it, again")
            file.seek(_VERSIONS_FROM + version_at)
            version = file.read(_LONGEST_VERSION).partition(b"\0")[0].decode(errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {image}: {error.strerror}", hint=hint) from error
    return version.partition(" ")[0]
