# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness kernel`: which kernels there are, building them, checking a configuration, removing them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.cli import candidates
from harness.cli.options import CONFIGURED, add_kernel, completed, manual, open_cache
from harness.cli.settings import built_against
from harness.errors import ExitCode, UsageError
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands
    from harness.target.checkconfig import Report
    from harness.target.kernels.provider import Offer

_MIB = 1 << 20
_KINDS = (
    "kernel",
    "stock",
    "test-hmm",
    "source",
    "tarball",
    "initrd",
    "index",
)  # what `kernel clean` removes of the cache


def add(commands: Commands) -> None:
    """Adds the commands to the parser."""
    group = manual(
        commands,
        "kernel",
        help="list, build and check kernels",
        description="""\
            Lists the kernels that can be had, builds them ahead of a run, and tells what a configuration lacks.""",
        examples=(
            ("kernel list", "what can be had, and what is in the cache"),
            ("kernel build debian:7.3 --flavour debug", "build one, to be used by later runs"),
            ("kernel build tree:~/linux", "your own tree: what has changed since the last time"),
            ("kernel check-config ~/linux/.config", "what is missing there, what for, and how to mend it"),
        ),
        more=_forms,
    )
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")

    command = manual(
        actions,
        "list",
        help="list the kernels that can be had, and what is in the cache",
        description="Lists the kernels that can be had by name, where each is from, and what of it is in the cache.",
        examples=(("kernel list", "the newest of each series"), ("kernel list --all", "every version")),
    )
    command.set_defaults(run_command=_list)
    command.add_argument("--all", action="store_true", help="every version, not only the newest of each series")
    command.add_argument("--update", action="store_true", help="read anew what the archive has; needs a network")

    command = manual(
        actions,
        "build",
        help="build a kernel, or fetch it, and our module for it",
        description="Makes what a run needs of a kernel, ahead of it. What is in the cache is not made again.",
        examples=(
            ("kernel build debian:7.3 --flavour debug", "half an hour of one CPU"),
            ("kernel build image:bzImage --kdir ~/build", "our module for a kernel that was built elsewhere"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_build)
    spec = command.add_argument(
        "spec", nargs="*", metavar="KERNEL", help="see the end of `hmm-harness kernel --help`"
    )
    completed(spec, candidates.kernels)
    add_kernel(command)
    command.add_argument("--no-module", action="store_true", help="the kernel alone, without our module")

    command = manual(
        actions,
        "check-config",
        help="tell which options a configuration lacks, what for, and the commands that mend it",
        description="""\
            Tells which options a configuration lacks, what each is for, and the commands that mend it. Ends with 0 if
            tests can run, be it that some are skipped or tell less, with 1 if options are missing without which
            nothing works, and with 2 if the command line is wrong or there is no configuration.""",
        examples=(
            ("kernel check-config ~/linux/.config", "what is missing there"),
            ("kernel check-config --flavour debug stock:7.3", "of a kernel"),
        ),
    )
    command.set_defaults(run_command=_check)
    command.add_argument("config", metavar="CONFIG", help="a .config, a directory that has one, or a kernel")
    command.add_argument("--flavour", default="plain", help="what it should be good for (default: %(default)s)")

    command = manual(
        actions,
        "clean",
        help="remove kernels, their sources and build trees from the cache",
        description="Removes kernels, and what they were made of, from the cache. The next run makes them anew.",
        examples=(("kernel clean debian:7.3", "one"), ("kernel clean", "all")),
    )
    command.set_defaults(run_command=_clean)
    command.add_argument("spec", nargs="*", metavar="KERNEL", help="as `kernel list` shows it (default: all)")


def _forms() -> str:
    from harness.target.kernels.forms import flavours, forms

    lines = [f"  {form}\n      {meaning}" for form, meaning in forms()]
    return "\n".join(["kernels:", *lines, f"flavours: {', '.join(flavours())}"])


def _list(options: argparse.Namespace, progress: Progress) -> int:
    from harness.target import kernel
    from harness.target.kernels.archive import SUITES, Archive

    cache = open_cache()
    if options.update:
        archive = Archive(cache, progress)
        archive.forget()
        list(archive.search(lambda _: False, SUITES))
    offers = kernel.offers(cache=cache, progress=progress)
    shown = [offer for offer in offers if options.all or offer.headline or offer.built]
    width = max((len(offer.spec) for offer in shown), default=0)
    for offer in shown:
        print(f"{offer.spec:{width}}  {_state(offer)}; {offer.origin}")
    if len(shown) < len(offers):
        print(f"{len(offers) - len(shown)} more versions: hmm-harness kernel list --all")
    if not any(offer.spec.startswith("stock:") for offer in offers):
        progress.say("what the archive has was not read yet: hmm-harness kernel list --update")
    return ExitCode.PASS


def _state(offer: Offer) -> str:
    if offer.built:
        return "built: " + ", ".join(f"{flavour} ({size / _MIB:.0f} MiB)" for flavour, size in offer.built)
    return f"to be fetched: {offer.fetch / _MIB:.0f} MiB" if offer.fetch else "source is here"


def _build(options: argparse.Namespace, progress: Progress) -> int:
    from harness.labels import label
    from harness.target.kernel import provide_kernel
    from harness.target.module import build_module

    cache = open_cache()
    for spec in built_against(options.spec, options.kdir) or [options.kernel]:
        kernel = provide_kernel(spec, options.flavour, cache=cache, progress=progress)
        print(f"{label(kernel.name, kernel.flavour)}: Linux {kernel.release}, {kernel.origin}")
        print(f"    {kernel.image}")
        if not options.no_module:
            module = build_module(kernel, cache=cache, progress=progress)
            print(f"    {module.path}")
    return ExitCode.PASS


def _check(options: argparse.Namespace, progress: Progress) -> int:
    from harness.target import checkconfig

    meant = _config_of(options.config, progress)
    config = meant.path
    source = config.parent if (config.parent / "Kconfig").is_file() else config.parent / "source"
    known = source if (source / "Kconfig").is_file() else None
    try:
        text = config.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{config} is no configuration: it is no text", hint="the .config of a kernel is") from None
    if not checkconfig.names_options(text):
        raise UsageError(f"{config} is no .config: it has no CONFIG_ line", hint="the .config of a kernel is meant")
    report = checkconfig.check(text, options.flavour, modules_load=meant.modules_load, source=known)
    _print(report, options.flavour)
    commands = report.commands(config, known)
    if commands and meant.as_it_is:
        print(meant.as_it_is)
        version = checkconfig.series(text)
        if version is not None:
            flavour = "" if options.flavour == "plain" else f" in the flavour {options.flavour}"
            print(f"debian:{version[0]}.{version[1]}{flavour} is built with what is missing here.")
    elif commands:
        print("To change that, in the kernel's source tree:\n")
        print("\n".join(commands))
    return ExitCode.FAIL if report.essential else ExitCode.PASS


def _print(report: Report, flavour: str) -> None:
    for title, missing in (
        ("Missing, and nothing works without:", report.essential),
        ("Missing, and without it tests are skipped or tell less:", report.useful),
    ):
        if missing:
            print(title)
            print("".join(f"    {line}\n" for line in report.lines(missing)))
    if not report.essential and not report.useful:
        print(f"Nothing is missing for the flavour {flavour}.")


class _Meant(NamedTuple):
    """The .config that is meant. `modules_load`: its drivers may be modules. `as_it_is`: why it cannot be changed."""

    path: Path
    modules_load: bool
    as_it_is: str = ""


def _config_of(what: str, progress: Progress) -> _Meant:
    scheme, colon, rest = what.partition(":")
    if colon and scheme == "stock":
        from harness.target.kernel import provide_kernel

        kernel = provide_kernel(what, "plain", cache=open_cache(), progress=progress)
        return _Meant(kernel.config, True, f"{what} is taken as it is shipped: nothing of that can be changed.")
    from harness.target.kernels import given, host, image

    if what == "host":
        _, build = host.places()
        as_it_is = "This machine's kernel is taken as it is: nothing of that can be changed."
        return _Meant(_existing(build), given.drivers_load(build), as_it_is)
    if colon and scheme == "debian":
        raise UsageError(
            f"{what} is built with the configuration of hmm-harness, which is checked at each build",
            hint="a .config, a directory that has one, tree:PATH, image:PATH, stock:... or host",
        )
    if colon and scheme == "image":
        image.check(rest, "plain")
        _, build = image.places(rest)
        as_it_is = "An image is taken as it is: nothing of that can be changed."
        if any((build / name).exists() for name in ("source", "Kconfig")):
            again = shlex.join(["hmm-harness", "kernel", "check-config", str(build)])
            as_it_is = f"An image is taken as it is. For another one of that build: {again}"
        return _Meant(_existing(build), given.drivers_load(build), as_it_is)
    config = _existing(Path(rest if colon and scheme == "tree" else what).expanduser())
    return _Meant(config, given.drivers_load(config.parent))


def _existing(path: Path) -> Path:
    """The .config that is `path`, or in it. Raises UsageError if there is none."""
    path = path / ".config" if path.is_dir() else path
    if not path.exists():
        raise UsageError(f"there is no configuration {path}", hint="make defconfig, or copy one there")
    return path


def _clean(options: argparse.Namespace, progress: Progress) -> int:
    cache = open_cache()
    if options.spec:
        from harness.target import kernel

        known = {offer.spec: offer for offer in kernel.offers(cache=cache, progress=progress)}
        unknown = [spec for spec in options.spec if spec not in known or not known[spec].entries]
        if unknown:
            raise UsageError(f"not in the cache: {', '.join(unknown)}", hint="hmm-harness kernel list")
        entries = [entry for spec in options.spec for entry in known[spec].entries]
    else:
        entries = [(kind, key) for kind in _KINDS for key in cache.keys(kind)]
    with progress.step("removing kernels"):
        freed = sum(cache.remove(kind, key) for kind, key in entries)
        if not options.spec:
            freed += cache.remove_workplaces()
    for kind, key in entries:
        if cache.size(kind, key):
            progress.say(f"{kind} {key[:12]} is in use by another process: left alone")
    print(f"removed {freed / _MIB:.0f} MiB from the cache")
    return ExitCode.PASS
