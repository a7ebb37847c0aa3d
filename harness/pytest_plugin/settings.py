# SPDX-License-Identifier: GPL-2.0-only
"""What a pytest run is told about kernels.

The command line outranks the environment, that outranks pytest's ini file, that outranks the files of `hmm-harness`
itself (see harness/cli/settings.py), that outrank the defaults. The variables are those of `hmm-harness`, too.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cli.options import BINDINGS, number, seconds, words
from harness.defaults import DEFAULT_FLAVOUR, DEFAULT_KERNEL, DEFAULT_TIMEOUT
from harness.errors import UsageError

WORKER_SEED = "hmm_seed"  # in pytest-xdist's workerinput
_SEED_BITS = 32


def _names(text: str) -> list[str]:
    return [word.strip() for word in words(text) if word.strip()]


def _bindings(text: str) -> list[str]:
    for name in _names(text):
        if name not in BINDINGS:
            raise argparse.ArgumentTypeError(f"{name!r} is no binding; there are {', '.join(BINDINGS)}")
    return _names(text)


def _switch(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return known[text.lower()]


def _seed(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


@dataclass(frozen=True)
class _Setting:
    """`name` gives --hmm-NAME, HMM_HARNESS_NAME and the ini entry hmm_NAME; `read` makes its value of text."""

    name: str
    metavar: str
    read: Callable[[str], Any]
    help: str

    @property
    def option(self) -> str:
        return f"--hmm-{self.name}"

    @property
    def variable(self) -> str:
        return f"HMM_HARNESS_{self.name.upper().replace('-', '_')}"

    @property
    def entry(self) -> str:
        return f"hmm_{self.name.replace('-', '_')}"

    @property
    def several(self) -> bool:
        """Whether the option may be repeated."""
        return self.read in (_names, _bindings)


_SETTINGS = (
    _Setting("kernel", "KERNEL,...", _names, f"kernels under test; may be repeated (default: {DEFAULT_KERNEL})"),
    _Setting("flavour", "NAME,...", _names, f"configurations, each for every kernel (default: {DEFAULT_FLAVOUR})"),
    _Setting("binding", "NAME,...", _bindings, f"drivers to run on (default: {','.join(BINDINGS)})"),
    _Setting("timeout", "SECONDS", seconds, f"for one program in the guest (default: {DEFAULT_TIMEOUT:g})"),
    _Setting("seed", "N", _seed, "of the fixtures hmm_seed and hmm_random (default: a new one, which is shown)"),
    _Setting("vms", "N", number, "VMs at once, of all pytest processes together (default: as many as fit)"),
    _Setting("no-restore", "", _switch, "boot each VM instead of restoring a saved one"),
)


@dataclass(frozen=True)
class Settings:
    """What this run is to do. `vms` None: as many as fit."""

    kernels: tuple[str, ...]
    flavours: tuple[str, ...]
    bindings: tuple[str, ...]
    timeout: float
    seed: int
    vms: int | None
    restore: bool

    @property
    def targets(self) -> tuple[tuple[str, str], ...]:
        """Each kernel in each flavour."""
        return tuple((kernel, flavour) for kernel in self.kernels for flavour in self.flavours)


_READ = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Adds the options and the ini entries."""
    group = parser.getgroup("hmm-harness", "HMM of Linux kernels against a reference model (hmm-harness)")
    for setting in _SETTINGS:
        told = f"{setting.help}; also ${setting.variable}, ini {setting.entry}"
        if setting.read is _switch:
            group.addoption(setting.option, dest=setting.entry, action="store_true", default=None, help=told)
        else:
            group.addoption(
                setting.option,
                dest=setting.entry,
                action="extend" if setting.several else "store",
                type=setting.read,
                metavar=setting.metavar,
                help=told,
            )
        parser.addini(setting.entry, setting.help)


def read_settings(config: pytest.Config, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this run; read once, and only by who needs them.

    Raises `pytest.UsageError` for a value that makes no sense.
    """
    if _READ not in config.stash:
        config.stash[_READ] = _read(config, environment)
    return config.stash[_READ]


def asked_for(config: pytest.Config, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the command line, the environment or the ini file has any setting of ours."""
    return any(
        config.getoption(setting.entry) is not None
        or environment.get(setting.variable)
        or config.getini(setting.entry)
        for setting in _SETTINGS
    )


def _read(config: pytest.Config, environment: Mapping[str, str]) -> Settings:
    from harness.cli.settings import effective  # noqa: PLC0415  for those alone who use the plugin

    try:
        elsewhere = effective(Path.cwd(), environment)
    except UsageError as error:
        raise pytest.UsageError("; ".join(filter(None, [error.message, error.hint]))) from None
    found = {setting.name: _find(setting, config, environment) for setting in _SETTINGS}
    for name, value in found.items():
        if value is None and name in elsewhere and elsewhere[name].origin != "default":
            found[name] = elsewhere[name].value
    seed = getattr(config, "workerinput", {}).get(WORKER_SEED, found["seed"])  # a worker of pytest-xdist is told

    def several(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(found[name] or default))

    return Settings(
        kernels=several("kernel", (DEFAULT_KERNEL,)),
        flavours=several("flavour", (DEFAULT_FLAVOUR,)),
        bindings=several("binding", BINDINGS),
        timeout=DEFAULT_TIMEOUT if found["timeout"] is None else found["timeout"],
        seed=random.SystemRandom().getrandbits(_SEED_BITS) if seed is None else seed,
        vms=found["vms"],
        restore=not found["no-restore"],
    )


def _find(setting: _Setting, config: pytest.Config, environment: Mapping[str, str]) -> Any:
    """The value of a setting; None if nobody gave one."""
    value = config.getoption(setting.entry)
    if value is not None:
        return value
    for place, text in (
        (setting.variable, environment.get(setting.variable, "")),
        (f"ini {setting.entry}", str(config.getini(setting.entry) or "")),
    ):
        if text:
            try:
                return setting.read(text)
            except argparse.ArgumentTypeError as error:
                raise pytest.UsageError(f"{place}: {error}") from None
    return None
