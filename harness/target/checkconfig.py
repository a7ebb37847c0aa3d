# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel's configuration lacks, what each missing option would enable, and the commands that mend it.

The options and their reasons are those of vm-images/kernel; which of them nothing works without is said here.
"""

from __future__ import annotations

import functools
import os
import re
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
        """The commands that mend it; `source` is the kernel's source tree."""
        top = os.fspath(source) if source is not None else "."
        switches = {"y": "--enable", "m": "--module", "n": "--disable"}
        words = []
        for each in (*self.essential, *self.useful):
            name, value = each.option.name.removeprefix("CONFIG_"), each.option.value
            words.append(f"{switches[value]} {name}" if value in switches else f"--set-val {name} {value}")
        if not words:
            return []
        lines = [f"{top}/scripts/config --file {config}"]
        lines += [f"    {' '.join(words[start : start + 4])}" for start in range(0, len(words), 4)]
        return [" \\\n".join(lines), f"make -C {top} O={config.resolve().parent} olddefconfig"]


def check(config: str, flavour: str, *, modules_load: bool, source: Path | None = None) -> Report:
    """What the text of a .config lacks for `flavour`.

    `modules_load`: drivers may be modules, since an initramfs loads them. With the kernel's `source`, options that
    it does not define are left out. Raises UsageError if there is no such flavour.
    """
    known = kconfig.defined(source) if source is not None else None
    mentioned = set(_MENTIONED.findall(config))
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
        elif option.value != "n" and _tells(option):
            useful.append(Missing(option, has, option.name in mentioned))
    return Report(tuple(essential), tuple(useful))


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
