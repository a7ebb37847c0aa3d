# SPDX-License-Identifier: GPL-2.0-only
"""An initramfs for kernels whose drivers are modules: vm-images/initrd/init.c, and the modules in their order."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import BuildError
from harness.target.children import run
from harness.target.places import VM_IMAGES

# What the guest's init expects to be there; a kernel that has one of them built in needs no module.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "erofs")
INIT = VM_IMAGES / "initrd" / "init.c"
_UNPACKERS = {".gz": ("gzip", "gzip"), ".xz": ("xz", "xz-utils"), ".zst": ("zstd", "zstd")}  # MODULE_COMPRESS_*
_DIRECTORY = 0o040755
_EXECUTABLE = 0o100755
_ALIGNMENT = 4


def make_initrd(modules: Sequence[Path], target: Path) -> None:
    """Writes `target`, which loads `modules` in this order before the root file system is mounted.

    Raises BuildError if the init program does not compile.
    """
    program = target.with_suffix(".init")
    run(
        ["cc", "-O2", "-Wall", "-static", "-o", program, INIT],
        what="compiling the initramfs's init",
        hint="apt-get install gcc libc6-dev",
    )
    names = [f"modules/{module.name}" for module in modules]
    files: dict[str, bytes | None] = {"modules": None, "init": program.read_bytes()}
    files |= {name: module.read_bytes() for name, module in zip(names, modules, strict=True)}
    files["order"] = "".join(f"/{name}\n" for name in names).encode()
    target.write_bytes(cpio(files))
    program.unlink()


def needed(
    here: Callable[[list[str]], list[str]], release: str, names: Iterable[str], *, required: bool = False
) -> list[str]:
    """The files, relative to the root directory, that modprobe would load for `names`, in its order.

    `here` makes the command that runs a command where the modules are. A module that the kernel does not have is
    left out, or raises BuildError if it is required.
    """
    files: dict[str, None] = {}
    for name in names:
        argv = ["modprobe", f"--set-version={release}", "--show-depends", name]
        try:
            said = run(here(argv), what=f"looking for the module {name}")
        except BuildError:
            if required:
                raise
            continue
        for line in said.splitlines():
            kind, _, rest = line.strip().partition(" ")
            if kind == "insmod":
                files[rest.split()[0].lstrip("/")] = None
    return list(files)


def unpacked(module: Path, directory: Path) -> Path:
    """A copy of `module` in `directory` that every kernel can load. Raises BuildError if it cannot be unpacked."""
    target = directory / f"{module.name.partition('.')[0]}.ko"
    if module.suffix == ".ko":
        shutil.copyfile(module, target)
    elif module.suffix in _UNPACKERS:
        tool, package = _UNPACKERS[module.suffix]
        run(
            ["sh", "-c", f'exec {tool} --decompress --stdout <"$1" >"$2"', "sh", module, target],
            what=f"unpacking {module}",
            hint=f"apt-get install {package}",
        )
    else:
        raise BuildError(
            f"{module} is packed in a way that is not known here",
            hint=f"a kernel's modules are .ko, or .ko and one of {', '.join(_UNPACKERS)}; use debian: or stock:",
        )
    return target


def cpio(files: Mapping[str, bytes | None]) -> bytes:
    """An archive as Documentation/driver-api/early-userspace/buffer-format.rst describes it; None is a directory.

    Not the tool of that name: it is on few machines, and this is a screenful.
    """
    archive = bytearray()
    for number, (name, data) in enumerate({**files, "TRAILER!!!": b""}.items(), 1):
        content = data or b""
        mode = _DIRECTORY if data is None else _EXECUTABLE
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, time, size, device, device of a node, length of the name, checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (encoded, content):
            archive += part
            archive += bytes(-len(archive) % _ALIGNMENT)
    return bytes(archive)
