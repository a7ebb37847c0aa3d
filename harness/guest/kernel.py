# SPDX-License-Identifier: GPL-2.0-only
"""The guest's kernel, as the agent sees it: modules, log, taint, and the deliberate mistakes of our module."""

# pathlib is too slow to import: see agent.py.
# ruff: noqa: PTH110, PTH119, PTH123, PTH211

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time

_FINIT_MODULE = 313  # arch/x86/entry/syscalls/syscall_64.tbl
_DELETE_MODULE = 176
_RECORD_BYTES = 8192  # a record of /dev/kmsg is never longer: kernel/printk, PRINTKRB_RECORD_MAX and its prefix

# Lines that stand between the kernel's
LOST_LINES = "[hmm-harness: lines are missing here, the kernel's log buffer was overrun]"
EARLIER_LINES = "[hmm-harness: printed before this program started, up to here]"

_COMMAND_LINE = "/proc/cmdline"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Who gets some of the memory that is reserved, in this order: the parameters that take the addresses of two pieces,
# and the length of each in bytes. kmod/main.c devmem_mb; lib/test_hmm.c DEVMEM_CHUNK_SIZE
_TAKERS = (
    ("hmm_harness", "coherent_addr={},{}", 16 << 20),
    ("test_hmm", "spm_addr_dev0={} spm_addr_dev1={}", 256 << 20),
)
_TAINTED = "/proc/sys/kernel/tainted"
_TAINT_BYTES = 32
_HUGE = "/sys/kernel/mm/transparent_hugepage"
_HUGE_SETTINGS = (("use_zero_page", "1"), ("defrag", "madvise"), ("enabled", "madvise"))  # defaults of larger systems
_HUGE_BYTES = 2 << 20  # of a huge page
_HUGE_SECONDS = 60.0  # for khugepaged's first look: it has the lowest priority
_PROT_READ_WRITE = 3
_MAP_PRIVATE_ANONYMOUS = 0x22
_MADV_HUGEPAGE = 14
_PARAMETERS = "/sys/module/hmm_harness/parameters"

_SWAP_DEVICE = "zram0"
_SWAP_MODULES = ("lzo_rle", "zram")  # zram up to v6.11 asks for its compressor by name, as user space has to know
_SWAP_SPACE = "/run/hmm-harness.swap"  # executor/swap.c
_SWAP_BYTES = 64 << 20  # several times MAX_SWAPPED of harness/program/operations.py; memory is taken as it is used
_PAGE = 4096


class AgentError(Exception):
    """What the agent reports to its client: `message` says the cause, `hint` the remedy."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def _call(number: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def watch_races() -> None:
    """Switches KCSAN on, where the kernel has it: it does not look at the boot."""
    switch = "/sys/kernel/debug/kcsan"
    if os.path.exists(switch):
        with open(switch, "w") as file:
            file.write("on")


def allow_huge_pages() -> None:
    """Lets programs have huge pages, where the kernel has them, and nobody else.

    A kernel with less than 512 MiB switches them off, whatever its command line says: mm/huge_memory.c
    hugepage_init(). Then khugepaged is made to look once, at us: it does so when the first process asks for huge
    pages in memory that it has written, and after that not before its time, which the image made very long. What is
    written is in no 2 MiB that could become a huge page. Raises `AgentError` if khugepaged does not look.
    """
    if not os.path.exists(_HUGE):
        return
    for name, value in _HUGE_SETTINGS:
        with open(f"{_HUGE}/{name}", "w") as file:
            file.write(value)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    length = 2 * _HUGE_BYTES + _PAGE
    room = libc.mmap(None, length, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    # Without an anon_vma a mapping does not count: mm/huge_memory.c hugepage_vma_check()
    ctypes.memset(room if room % _HUGE_BYTES else room + 2 * _HUGE_BYTES, 1, 1)
    if libc.madvise(room, length, _MADV_HUGEPAGE):
        raise AgentError(f"the kernel refuses huge pages: {os.strerror(ctypes.get_errno())}")
    deadline = time.monotonic() + _HUGE_SECONDS
    while time.monotonic() < deadline:
        with open(f"{_HUGE}/khugepaged/full_scans") as file:
            if int(file.read()):
                return
        time.sleep(0.01)
    raise AgentError(
        f"khugepaged did not look for huge pages within {_HUGE_SECONDS:.0f} s",
        "it would change page tables while programs run: is the machine overloaded?",
    )


def load_module(path: str, parameters: str = "") -> None:
    """Loads the module file `path`; fine if it is loaded. Raises `AgentError` with the kernel's reason."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise AgentError(f"cannot open {path}: {error.strerror}", "rebuild the payload") from error
    try:
        _call(_FINIT_MODULE, fd, parameters.encode(), 0)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise AgentError(
                f"the kernel refuses {os.path.basename(path)}: {error.strerror}", "the kernel log has the reason"
            ) from error
    finally:
        os.close(fd)


def make_swap_space(directory: str) -> None:
    """Makes a device ready to be used as swap space, if this kernel has zram: built in, or as modules in `directory`.

    Nothing is swapped out to it before the executor says so. Raises `AgentError` if a module does not load, and
    OSError if the device is not what it should be.
    """
    for name in _SWAP_MODULES:
        _load_with_needed(directory, name)
    size = f"/sys/block/{_SWAP_DEVICE}/disksize"
    if not os.path.exists(size):
        return
    with open(size, "w") as file:
        file.write(str(_SWAP_BYTES))
    # include/linux/swap.h union swap_header: version, last page, number of bad pages; and the word that ends the page
    header = struct.pack("=1024x3I", 1, _SWAP_BYTES // _PAGE - 1, 0).ljust(_PAGE - 10, b"\0") + b"SWAPSPACE2"
    device = f"/dev/{_SWAP_DEVICE}"
    fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, header)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.symlink(device, _SWAP_SPACE)


def load_unpoison(directory: str) -> None:
    """Loads what makes failed memory good again (mm/hwpoison-inject.c), if it is a module in `directory`.

    Raises `AgentError` if it does not load.
    """
    _load_with_needed(directory, "hwpoison_inject")


def _load_with_needed(directory: str, name: str) -> None:
    """Loads the module `name` of `directory` and first, what it depends on. Those that are not there are built in."""
    path = f"{directory}/{name}.ko"
    if not os.path.exists(path):
        return
    for needed in needed_modules(path):
        _load_with_needed(directory, needed)
    load_module(path)


def needed_modules(path: str) -> list[str]:
    """The names of the modules that the module file `path` says it depends on."""
    with open(path, "rb") as file:
        _, found, rest = file.read().partition(b"\0depends=")
    names = rest.partition(b"\0")[0].decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def reserved_memory(command_line: str = "") -> tuple[int, int]:
    """The first address and the length, in bytes, of the memory that the command line keeps from the kernel; 0, 0
    without any: `memmap=SIZE$ADDRESS`, Documentation/admin-guide/kernel-parameters.txt.
    """
    for word in (command_line or _read(_COMMAND_LINE)).split():
        size, dollar, address = word.removeprefix("memmap=").partition("$")
        if word.startswith("memmap=") and dollar and "," not in word:
            return _bytes(address), _bytes(size)
    return 0, 0


def _bytes(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper())
    return int(text[:-1], 0) * unit if unit else int(text, 0)


def memory_parameters(module: str, path: str, place: tuple[int, int]) -> str:
    """What tells `module`, whose file is `path`, of its part of the memory at `place`; nothing if it takes none."""
    start, size = place
    for name, form, piece in _TAKERS:
        if size < 2 * piece:
            continue
        if name == module:
            return form.format(start, start + piece) if _takes(path, form.partition("=")[0]) else ""
        start += 2 * piece
        size -= 2 * piece
    return ""


def _takes(path: str, parameter: str) -> bool:
    """Whether the module file `path` has `parameter`: the kernel warns of one that a module does not have."""
    with open(path, "rb") as file:
        return f"parmtype={parameter}:".encode() in file.read()


def unload_module(name: str) -> None:
    """Removes the module `name`. Raises `AgentError` if it is in use or not loaded."""
    try:
        _call(_DELETE_MODULE, name.encode(), os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EBUSY):
            raise AgentError(
                f"the kernel does not unload {name}: it is in use", "end the processes that have its devices open"
            ) from error
        raise AgentError(f"the kernel does not unload {name}: {error.strerror}") from error


class Taint:
    """The taint bits; Documentation/admin-guide/tainted-kernels.rst. Stays open: it is read after each program."""

    def __init__(self) -> None:
        self._fd = os.open(_TAINTED, os.O_RDONLY | os.O_CLOEXEC)

    def bits(self) -> int:
        """As they are now."""
        return int(os.pread(self._fd, _TAINT_BYTES, 0))


def features() -> list[str]:
    """What our module found this kernel to have, by name; nothing if it is not loaded."""
    try:
        return _split(_read(f"{_PARAMETERS}/features"))
    except FileNotFoundError:
        return []


def make_missing_nodes(driver: str, pattern: str, count: int) -> None:
    """Makes `pattern % 0` and so on, the nodes of the `count` devices of `driver`, if it has devices and no nodes.

    The test_hmm of v5.10 leaves that to a script.
    """
    if os.path.exists(pattern % 0):
        return
    for line in _read("/proc/devices").splitlines():
        major, _, name = line.strip().partition(" ")
        if name == driver:
            for minor in range(count):
                os.mknod(pattern % minor, stat.S_IFCHR | 0o600, os.makedev(int(major), minor))


def known_mistakes() -> list[str]:
    """The names of all deliberate mistakes that our module can make; none if it is not loaded."""
    try:
        return _split(_read(f"{_PARAMETERS}/wrong_names"))
    except FileNotFoundError:
        return []


def make_mistakes(names: list[str]) -> None:
    """From now on our module makes the mistakes `names`, and no others. Raises `AgentError` for an unknown one."""
    parameter = f"{_PARAMETERS}/wrong"
    if not os.path.exists(parameter):
        if names:
            raise AgentError("deliberate mistakes need the module hmm_harness, which is not loaded")
        return
    try:
        with open(parameter, "w") as file:
            file.write(",".join(names) + "\n")
        active = _split(_read(parameter))
    except OSError as error:
        raise AgentError(
            f"the module refuses the mistakes {', '.join(names)}: {error.strerror}",
            f"it knows: {', '.join(known_mistakes())}",
        ) from error
    if sorted(active) != sorted(names):
        raise AgentError(f"the module makes the mistakes {active}, not {names}")


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def open_kernel_log() -> int:
    """A file descriptor of /dev/kmsg that reads what is printed from now on, and does not wait for it."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.lseek(fd, 0, os.SEEK_END)
    return fd


_LEVEL, _INFORMATION = 7, 6  # of a record's first number: include/linux/kern_levels.h


class KernelLog:
    """The lines of /dev/kmsg, open as `fd`. It has a line as soon as printk() has returned.

    `grave`: whether one of those that were read, since somebody said otherwise, is more than information.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.grave = False

    def lines(self) -> list[str]:
        """What was printed since the last call, as dmesg shows it."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                lines.append(LOST_LINES)
                self.grave = True
                continue
            lines.append(as_dmesg(record.decode(errors="replace")))
            self.grave = self.grave or int(record.split(b",", 1)[0]) & _LEVEL < _INFORMATION


def as_dmesg(record: str) -> str:
    """Documentation/ABI/testing/dev-kmsg: `level,sequence,microseconds,flags;text`, then lines of key=value.

    A kernel with PRINTK_CALLER adds `caller=T1` or `caller=C0` to the flags: it tells reports of several CPUs apart.
    """
    head, _, rest = record.partition(";")
    fields = head.split(",")
    microseconds = int(fields[2])
    caller = "".join(f"[{field[7:]:>7}]" for field in fields[4:] if field.startswith("caller="))
    text = rest.partition("\n")[0]
    return f"[{microseconds // 1_000_000:5}.{microseconds % 1_000_000:06}]{caller} {text}"
