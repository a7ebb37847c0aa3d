# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel's configuration lacks, what each missing option would enable, and the commands that mend it.

The options and their reasons are those of vm-images/kernel; which of them nothing works without is said here.
"""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.target import kconfig
from harness.target.kernels import build

_ALWAYS = "tree/asked-for"
# Without one of these the guest does not come up, or there is no HMM to test.
_ESSENTIAL = frozenset(
    f"CONFIG_{name}"
    for name in (
        "64BIT", "PCI", "PRINTK", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "UNIX98_PTYS", "BLOCK", "VIRTIO_PCI",
        "VIRTIO_BLK", "VIRTIO_CONSOLE", "NET", "UNIX", "INET", "VIRTIO_NET", "EROFS_FS", "SHMEM", "TMPFS", "DEVTMPFS",
        "PROC_FS", "SYSFS", "BINFMT_ELF", "MODULES", "MULTIUSER", "FUTEX", "EPOLL", "POSIX_TIMERS", "FILE_LOCKING",
        "HMM_MIRROR",
    )
)  # fmt: skip
# Those of them that an initramfs can load.
_LOADABLE = frozenset(
    f"CONFIG_{name}" for name in ("VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_CONSOLE", "VIRTIO_NET", "EROFS_FS")
)
_TELLING = "# -- memory management: what HMM stands on"  # of base.config; what is above is the machine and user space
# Of those that tests only tell less without: since which version Kconfig has one, and until which it had one. It is
# asked where there is the text of a .config alone, which names nothing whose dependencies are off; an option that it
# names is there, whatever this says: vendors backport.
_SINCE = {
    f"CONFIG_{name}": version
    for name, version in (
        ("KASAN_GENERIC", (5, 0)),
        ("DEBUG_PLIST", (5, 4)),
        ("KASAN_VMALLOC", (5, 5)),
        ("KCSAN_REPORT_ONCE_IN_MS", (5, 8)),
        ("TEST_HMM", (5, 8)),
        ("FAULT_INJECTION_USERCOPY", (5, 10)),
        ("LOCKDEP_CHAINS_BITS", (5, 10)),  # 5.13; stable kernels of 5.10 have it
        ("GUP_TEST", (5, 11)),
        ("PREEMPT_DYNAMIC", (5, 12)),
        ("SECRETMEM", (5, 14)),
        ("PAGE_TABLE_CHECK", (5, 17)),
        ("PAGE_TABLE_CHECK_ENFORCED", (5, 17)),
        ("NUMA_MIGRATION", (7, 2)),
    )
}
_UNTIL = {"CONFIG_GUP_BENCHMARK": (5, 11)}  # GUP_TEST since
_HEADER = re.compile(r"(?m)^# Linux/\S+ (\d+)\.(\d+)\S* Kernel Configuration$")
_MENTIONED = re.compile(r"(?m)^(?:# )?(CONFIG_[A-Za-z0-9_]+)[= ]")


@dataclass(frozen=True)
class Missing:
    """An option that is not as it should be. `mentioned`: whether the .config knows its name."""

    option: kconfig.Option
    has: str
    mentioned: bool


@dataclass(frozen=True)
class Report:
    """What is missing: `essential` if nothing works without, `useful` if tests are skipped or tell less."""

    essential: tuple[Missing, ...]
    useful: tuple[Missing, ...]

    @staticmethod
    def lines(missing: Iterable[Missing]) -> list[str]:
        """A line for each."""
        lines = []
        for each in missing:
            unknown = (
                "" if each.mentioned else "; not in the file: a dependency is off, or the kernel has no such option"
            )
            lines.append(f"{each.option}, is {each.has} ({each.option.reason}){unknown}")
        return lines

    def commands(self, config: Path, source: Path | None) -> list[str]:
        """The commands that mend it; `source` is the kernel's source tree, which is the working directory else.

        What is called otherwise than make reads it, such as /boot/config-6.1.0-42-amd64, is made the .config there.
        """
        top = shlex.quote(str(source)) if source is not None else "."
        here = config.name == ".config"
        target = shlex.quote(str(config)) if here else f"{top}/.config"
        switches = {"y": "--enable", "m": "--module", "n": "--disable"}
        words = []
        for each in (*self.essential, *self.useful):
            name, value = each.option.name.removeprefix("CONFIG_"), each.option.value
            words.append(f"{switches[value]} {name}" if value in switches else f"--set-val {name} {value}")
        if not words:
            return []
        copy = [] if here or not config.is_file() else [f"cp {shlex.quote(str(config))} {target}"]
        lines = [f"{top}/scripts/config --file {target}"]
        lines += [f"    {' '.join(words[start : start + 4])}" for start in range(0, len(words), 4)]
        place = f" O={shlex.quote(str(config.resolve().parent))}" if here else ""
        return [*copy, " \\\n".join(lines), f"make -C {top}{place} olddefconfig"]


def names_options(text: str) -> bool:
    """Whether a text can be a .config: it has a line about an option."""
    return _MENTIONED.search(text) is not None


def series(config: str) -> tuple[int, int] | None:
    """The version that a .config says to be of, (6, 12); None if it does not say."""
    said = _HEADER.search(config)
    return (int(said[1]), int(said[2])) if said else None


def check(config: str, flavour: str, *, modules_load: bool, source: Path | None = None) -> Report:
    """What the text of a .config lacks for `flavour`.

    `modules_load`: drivers may be modules, since an initramfs loads them. With the kernel's `source`, options that
    it does not define are left out; without it, those that kernels of the version that the .config is of do not
    have. Raises UsageError if there is no such flavour.
    """
    known = kconfig.defined(source) if source is not None else None
    mentioned = set(_MENTIONED.findall(config))
    version = series(config)
    asked = build.options(flavour, _ALWAYS)
    subject = _subject(flavour)
    essential: list[Missing] = []
    useful: list[Missing] = []
    for option, has in kconfig.missing(asked, config):
        if known is not None and option.name not in known:
            continue
        enough = has == "y" or (has == "m" and modules_load and option.name in _LOADABLE)
        if enough and option.value in {"y", "m"}:
            continue
        if option.name in _ESSENTIAL or option.name == subject:
            essential.append(Missing(option, has, option.name in mentioned))
        elif option.name not in mentioned and version is not None and not _exists(option.name, version):
            continue
        elif option.value != "n" and _tells(option):
            useful.append(Missing(option, has, option.name in mentioned))
    return Report(tuple(essential), tuple(useful))


def _exists(name: str, version: tuple[int, int]) -> bool:
    """Whether Kconfig of a version has an option, as far as is known here."""
    return _SINCE.get(name, version) <= version < _UNTIL.get(name, (sys.maxsize, 0))


def _tells(option: kconfig.Option) -> bool:
    """Whether a test is skipped, or tells less, without an option; the others save time or size."""
    name, line = option.place.rsplit(":", 1)
    if name != "base.config":
        return not name.startswith("asked-for")
    return int(line) > _line_of(_TELLING)


@functools.cache
def _line_of(heading: str) -> int:
    """The line of base.config that begins with `heading`."""
    lines = (build.CONFIGS / "base.config").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(heading))


def _subject(flavour: str) -> str | None:
    """The first option of a flavour's fragment: without it, a kernel is not of that flavour."""
    options = kconfig.read_fragment(build.CONFIGS / f"{flavour}.config")
    return options[0].name if options else None
