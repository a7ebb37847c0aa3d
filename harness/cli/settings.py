# SPDX-License-Identifier: GPL-2.0-only
"""What the user set once instead of typing it each time: environment variables and TOML files.

The command line outranks the environment, that outranks the project's file, that the user's, that the defaults. The
project's file is the first that is found from the working directory upward: hmm-harness.toml, or a pyproject.toml
with a table [tool.hmm-harness].
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.basedir import base_directory
from harness.cli.options import BINDINGS, number, seconds, words
from harness.defaults import DEFAULT_FLAVOUR, DEFAULT_KERNEL, DEFAULT_TIMEOUT
from harness.errors import UsageError

OWN_FILE = "hmm-harness.toml"
PYPROJECT = "pyproject.toml"
_TABLE = "hmm-harness"  # of [tool]
_ENVIRONMENT = "HMM_HARNESS_"
_OTHERS = frozenset(
    {"HMM_HARNESS_SEED", "HMM_HARNESS_SEED_TREE", "HMM_HARNESS_TREES"}
)  # of the pytest plugin and tests


class _ValueError(Exception):
    """A value is not what its setting takes; says what that is."""


class Setting(NamedTuple):
    """A long option that can be set elsewhere, too.

    `parse` makes a value of text, `check` one of what TOML has; both raise what says which values there are.
    `meaning` is for --help.
    """

    key: str
    default: Any
    meaning: str
    parse: Callable[[str], Any]
    check: Callable[[object], Any]

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return _ENVIRONMENT + self.key.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        """Its name among the parsed options."""
        return self.key.replace("-", "_")


class Source(NamedTuple):
    """A setting's value and where it is from: "default", "HMM_HARNESS_VMS", "/home/me/hmm-harness.toml:3"."""

    value: Any
    origin: str


def _list(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(each, str) and each for each in values):
        raise _ValueError('takes a text or a list of texts, such as "a" or ["a", "b"]')
    for each in values:
        _insist_printable(each)
    return values


def _some_of(allowed: tuple[str, ...]) -> Callable[[object], list[str]]:
    def check(value: object) -> list[str]:
        values = _list(value)
        for each in values:
            if each not in allowed:
                raise _ValueError(f"has no {each!r}; there are {', '.join(allowed)}")
        return values

    return check


def _as_option(option: Callable[[str], Any]) -> Callable[[object], Any]:
    """A number in TOML that an option of the command line would take."""

    def check(value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _ValueError("takes a number")
        return option(repr(value))

    return check


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _ValueError("takes true or false")
    return value


def _switch_text(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise _ValueError("takes 1 or 0")


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise _ValueError("takes a path")
    _insist_printable(value)
    return Path(value)


SETTINGS = {
    setting.key: setting
    for setting in (
        Setting("kernel", [DEFAULT_KERNEL], "kernels; a command for one takes the first", words, _list),
        Setting("flavour", [DEFAULT_FLAVOUR], "their configurations, likewise", words, _list),
        Setting(
            "binding", None, "drivers to run on (default: all)", lambda text: _some_of(BINDINGS)(words(text)),
            _some_of(BINDINGS),
        ),
        Setting("vms", None, "VMs at once (default: as many as fit)", number, _as_option(number)),
        Setting("timeout", DEFAULT_TIMEOUT, "seconds for one program", seconds, _as_option(seconds)),
        Setting("no-restore", False, "boot each VM instead of restoring a saved one", _switch_text, _switch),
        Setting("reports", None, "directory for all reports of a run; relative to its file", Path, _path),
    )
}  # fmt: skip


def manual() -> str:
    """The settings as lines of --help."""
    return "\n".join(f"  {each.key:11} {each.variable:23} {each.meaning}" for each in SETTINGS.values())


def fill(options: argparse.Namespace, *keys: str, one_kernel: bool = False) -> None:
    """Gives the options `keys` that the command line left open what is set elsewhere.

    Raises `UsageError` for what is set wrong. `one_kernel`: of lists the first.
    """
    sources = effective(Path.cwd(), os.environ)
    for key in keys:
        attribute = SETTINGS[key].attribute
        if getattr(options, attribute) is None:
            value = sources[key].value
            setattr(options, attribute, value[0] if one_kernel and isinstance(value, list) else value)
    if "kernel" in keys and not getattr(options, "spec", None):  # which `kernel build` takes instead
        named = [options.kernel] if one_kernel else options.kernel
        named = built_against(named, getattr(options, "kdir", None))
        options.kernel = named[0] if one_kernel else named


def built_against(kernels: list[str], kdir: Path | None) -> list[str]:
    """The kernels as --kdir completes them. Raises `UsageError` if it goes with none of them."""
    if kdir is None or not kernels:
        return kernels
    from harness.target.kernels.image import needs_kdir, with_kdir

    if not any(map(needs_kdir, kernels)):
        raise UsageError(f"--kdir goes with image:PATH, not with {' '.join(kernels)}")
    return [with_kdir(each, kdir) if needs_kdir(each) else each for each in kernels]


def effective(directory: Path, environment: Mapping[str, str]) -> dict[str, Source]:
    """Every setting in `directory`, with its origin. Raises `UsageError` for what is wrong, with its place."""
    found = {key: Source(setting.default, "default") for key, setting in SETTINGS.items()}
    user = user_file(environment)
    if user.is_file():
        found |= _read(user, ())
    project = project_file(directory)
    if project is not None:
        found |= _read(project, ("tool", _TABLE) if project.name == PYPROJECT else ())
    _refuse_unknown(environment)
    for key, setting in SETTINGS.items():
        text = environment.get(setting.variable, "")
        if text:
            try:
                _insist_printable(text)
                found[key] = Source(setting.parse(text), setting.variable)
            except (_ValueError, argparse.ArgumentTypeError) as error:
                raise UsageError(f"{setting.variable}: {key} {error}", hint="unset it, or set it anew") from None
    return found


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """As in a file: who misspells HMM_HARNESS_KERNEL would else test another kernel, and see it pass."""
    known = {setting.variable for setting in SETTINGS.values()} | _OTHERS
    for name in environment:
        if name.startswith(_ENVIRONMENT) and name not in known:
            raise UsageError(f"unknown variable {name}", hint=_nearest(name, sorted(known)))


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _insist_printable(text: str) -> None:
    if not text.isprintable():
        raise _ValueError(f"has characters that cannot be shown: {text!r}")


def user_file(environment: Mapping[str, str]) -> Path:
    """Where the user's own settings are, if there are any."""
    return base_directory("XDG_CONFIG_HOME", ".config", environment) / "hmm-harness" / "config.toml"


def project_file(directory: Path) -> Path | None:
    """The file of the project that `directory` belongs to."""
    for place in (directory, *directory.parents):
        own = place / OWN_FILE
        if own.is_file():
            return own
        pyproject = place / PYPROJECT
        if pyproject.is_file() and _has_table(pyproject):
            return pyproject
    return None


def _has_table(path: Path) -> bool:
    """Whether a pyproject.toml has our table; most do not even have the word, and are not parsed."""
    if _TABLE.encode() not in path.read_bytes():
        return False
    tool = _parse(path, path.read_text(encoding="utf-8")).get("tool")
    return isinstance(tool, dict) and _TABLE in tool


def _parse(path: Path, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = int(place[1]) if place else len(text.splitlines())
        said = str(error)[: place.start()] if place else str(error)
        raise UsageError(f"{path}:{line}: {said}", hint="the file is no TOML") from None


def _read(path: Path, table: tuple[str, ...]) -> dict[str, Source]:
    """The settings in a table of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="a configuration file is readable, and UTF-8") from None
    values: Any = _parse(path, text)
    for name in table:
        values = values[name]
    if not isinstance(values, dict):
        raise UsageError(f"{path}: {'.'.join(table)} is no table", hint=f"begin one with [{'.'.join(table)}]")
    found = {}
    for key, value in values.items():
        place = f"{path}:{_line(text, table, key)}"
        setting = SETTINGS.get(key)
        if setting is None:
            raise UsageError(f"{place}: unknown key {key!r}", hint=_nearest(key, SETTINGS))
        try:
            checked = setting.check(value)
        except (_ValueError, argparse.ArgumentTypeError) as error:
            raise UsageError(f"{place}: {key} {error}", hint="`hmm-harness config --help` lists the keys") from None
        if isinstance(checked, Path):
            checked = path.parent / checked
        found[key] = Source(checked, place)
    return found


def _line(text: str, table: tuple[str, ...], key: str) -> int:
    """The line that sets `key` in `table`; tomllib does not tell. The first line if it is written in no usual way."""
    wanted = ".".join((*table, key))
    current = ""
    for count, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        assignment = re.match(r"\s*([\w\s\"'.-]+?)\s*=", line)
        if header:
            current = _bare(header[1])
            name = current
        elif assignment:
            name = ".".join(filter(None, (current, _bare(assignment[1]))))
        else:
            continue
        if f"{name}.".startswith(f"{wanted}."):
            return count
    return 1


def _bare(name: str) -> str:
    """A dotted name without spaces and quotes."""
    return re.sub(r"[\s\"']", "", name)
