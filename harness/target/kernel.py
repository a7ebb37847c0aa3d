# SPDX-License-Identifier: GPL-2.0-only
"""The kernels under test: what a spec on the command line means, and who provides it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.errors import UsageError
from harness.progress import Progress
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import archive, debian, host, image, stock, tree
from harness.target.kernels.build import NEEDS, command_line, flavours, make_environment, options
from harness.target.kernels.forms import FORMS, forms
from harness.target.kernels.provider import Offer, Provider

__all__ = [
    "NEEDS",
    "PROVIDERS",
    "built",
    "check",
    "flavours",
    "forms",
    "installed",
    "make_environment",
    "names",
    "offers",
    "provide_kernel",
]

PROVIDERS: dict[str, Provider] = {"debian": debian, "stock": stock, "tree": tree, "image": image, "host": host}
assert PROVIDERS.keys() == FORMS.keys()


def provide_kernel(spec: str, flavour: str, *, cache: Cache, progress: Progress) -> Kernel:
    """The kernel `spec` ("debian:6.1") in `flavour` ("plain"), from the cache or made now.

    Raises UsageError for a spec or flavour that does not exist, MissingError for what has to be installed,
    BuildError if it does not build, HarnessError if there is no space, or no archive to fetch it from.
    """
    provider, what = _provider(spec)
    kernel = provider.provide(what, flavour, cache=cache, progress=progress)
    return replace(kernel, append=f"{kernel.append} {command_line(flavour)}".strip())


def check(spec: str, flavour: str) -> None:
    """Raises UsageError for a spec or flavour that makes no sense, as far as that can be told at once."""
    provider, what = _provider(spec)
    options(flavour)
    provider.check(what, flavour)


def _provider(spec: str) -> tuple[Provider, str]:
    """Who provides `spec`, and the rest of it."""
    scheme, _, what = spec.partition(":")
    provider = PROVIDERS.get(scheme)
    if provider is None:
        lines = [f"    {form}: {meaning}" for form, meaning in forms()]
        raise UsageError(
            "\n".join([f"no such kernel: {spec!r}; a kernel is one of", *lines]),
            hint="hmm-harness kernel list: those that have names",
        )
    return provider, what


def offers(*, cache: Cache, progress: Progress) -> list[Offer]:
    """All kernels that can be had by name."""
    return [offer for provider in PROVIDERS.values() for offer in provider.offers(cache=cache, progress=progress)]


def built(kernels: Iterable[tuple[str, str]], *, cache: Cache, progress: Progress) -> frozenset[tuple[str, str]]:
    """Those of `kernels`, each as (spec, flavour), that are in the cache; of specs that name a place, none."""
    here = {(offer.spec, flavour) for offer in offers(cache=cache, progress=progress) for flavour, _ in offer.built}
    return frozenset(here.intersection(kernels))


def installed() -> list[str]:
    """The specs whose source is on this machine."""
    return debian.installed()


def names(*, cache: Cache) -> list[str]:
    """The names that are known at once, without apt and without a network: not what is built of them."""
    files = list(archive.remembered(cache))
    return [*debian.names(files), *stock.names(files)]
