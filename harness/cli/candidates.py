# SPDX-License-Identifier: GPL-2.0-only
"""What a shell can complete the words of a command line to. Each takes the beginning of the word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_SUFFIX = ".hmm"
_SHORT = re.compile(r"debian:\d+\.\d+|stock:(?:newest|\d+\.\d+)")


def programs(prefix: str) -> list[str]:
    """Names of programs, up to the next slash as with files, and files with programs."""
    from harness.conformance import catalogue

    found = [] if prefix.startswith((".", "/", "~")) else _steps(catalogue.names(), prefix)
    return found + files(prefix, _SUFFIX)


def clauses(prefix: str) -> list[str]:
    """Ids of clauses, up to the dash."""
    from harness.conformance.clauses import load

    return _steps(load().clauses, prefix.upper(), "-")


def areas(_prefix: str) -> list[str]:
    """Areas of clauses."""
    from harness.conformance.clauses import load

    return [area.name for area in load().areas]


def kernels(prefix: str) -> list[str]:
    """Kernels that are known without a network, and the other forms of names.

    Of one series, or one name of a package, the many come when that far is typed.
    """
    if prefix.startswith(("tree:", "image:")):
        scheme, _, path = prefix.partition(":")
        return [f"{scheme}:{each}" for each in files(path, "")]
    from harness.target import kernel
    from harness.target.cache import Cache

    deep = re.match(r"debian:\d+\.\d+[.-]|stock:l", prefix) is not None
    named = [name for name in kernel.names(cache=Cache()) if deep or _SHORT.fullmatch(name)]
    forms = [form.partition(":")[0] + ":" for form, _ in kernel.forms() if ":" in form]
    words = [form for form, _ in kernel.forms() if ":" not in form]
    return list(dict.fromkeys([*named, *words, *forms]))


def flavours(prefix: str) -> list[str]:
    """Flavours; in a list with commas, those that may follow."""
    from harness.target.kernel import flavours as known

    return _listed(known(), prefix)


def mistakes(prefix: str) -> list[str]:
    """Deliberate mistakes of the driver, read from its source."""
    from harness.target.mistakes import mistakes as known

    return _listed([each.name for each in known()], prefix)


def bugs(_prefix: str) -> list[str]:
    """Ids of known bugs."""
    from harness.conformance.bugs import load

    return [bug.id for bug in load()]


def kept(_prefix: str) -> list[str]:
    """VMs that are kept."""
    from harness.target.kept import kept_vms

    return [vm.name for vm in kept_vms()]


def files(prefix: str, suffix: str) -> list[str]:
    """Files with `suffix`, and directories, which end with a slash."""
    start = Path(prefix).expanduser()
    directory = start if prefix.endswith("/") or not prefix else start.parent
    found = []
    try:
        for entry in sorted(directory.iterdir()):
            shown = prefix[: prefix.rfind("/") + 1] + entry.name
            if entry.is_dir():
                found.append(f"{shown}/")
            elif entry.name.endswith(suffix):
                found.append(shown)
    except OSError:
        return []
    return found


def _steps(names: Iterable[str], prefix: str, separator: str = "/") -> list[str]:
    """Names cut after the `separator` that follows `prefix`: a few instead of a hundred."""
    cut = []
    for name in names:
        if name.startswith(prefix):
            end = name.find(separator, len(prefix))
            cut.append(name if end < 0 else name[: end + 1])
    return list(dict.fromkeys(cut))


def _listed(values: Iterable[str], prefix: str) -> list[str]:
    before, comma, _ = prefix.rpartition(",")
    taken = before.split(",")
    return [before + comma + value for value in values if value not in taken]
