# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: tests of a kernel's HMM, in lockstep with the reference model.

    def test_cow_after_fork(lockstep):
        a, d0 = lockstep.subject("a"), lockstep.device("d0")
        buf = a.map("anon", pages=8, prot="rw")
        a.write(buf, 10)
        d0.bind(a)
        d0.read(buf)
        b = a.fork()
        a.write(buf[0:4], 50)
        d0.table(buf)
        d0.read(buf)
        b.read(buf)

The steps run when the test ends, or at `lockstep.run()`. Nothing is imported, built or started before a fixture asks
for it.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError
from harness.pytest_plugin.outcomes import (
    DeviationWarning,
    Diverged,
    KernelCrashed,
    NotHere,
    NothingShown,
    NoVerdict,
    TimedOut,
)
from harness.pytest_plugin.settings import WORKER_SEED, Settings, add_options, asked_for, read_settings

if TYPE_CHECKING:
    from harness.program.program import Program
    from harness.progress import Progress
    from harness.pytest_plugin.lab import SharedLab
    from harness.pytest_plugin.model import Model
    from harness.pytest_plugin.play import Lockstep
    from harness.pytest_plugin.writer import Device, Subject
    from harness.target.artifacts import Kernel
    from harness.target.cache import Cache
    from harness.target.vm import VM, Machine

__all__ = [
    "DeviationWarning",
    "Diverged",
    "KernelCrashed",
    "NoVerdict",
    "NotHere",
    "NothingShown",
    "TimedOut",
]

_MARKERS = (
    "hmm_kernel(pattern, ..., flavour=pattern): only on kernels of these names, such as 'debian:7.*'",
    "hmm_binding(name, ...): only on these drivers",
    "hmm_requires(feature, ...): skipped where the kernel does not have it, such as 'device-private'",
    "hmm_wrong(mistake, ...): with these deliberate mistakes of the driver 'interval'",
    "hmm_timeout(seconds): for one program in the guest",
    "hmm_programs(pattern, ...): the fixture hmm_program is each of these programs, by name or file",
)
_BANNERS = pytest.StashKey[dict[str, None]]()
_LABS = pytest.StashKey[list["SharedLab"]]()
_WORKER_BANNERS = "hmm_banners"


# Options, and what is shown of them


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[_BANNERS] = {}
    config.stash[_LABS] = []


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: all workers have the same seed."""
    node.workerinput[WORKER_SEED] = read_settings(node.config).seed


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001  the hook's signature
    """pytest-xdist: what a worker had VMs of."""
    banners: dict[str, None] = node.config.stash[_BANNERS]
    banners.update(dict.fromkeys(getattr(node, "workeroutput", {}).get(_WORKER_BANNERS, ())))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The header, where it is known to matter or where nobody can know that this early."""
    distributed = config.getoption("dist", "no") != "no"
    return [_header(config)] if asked_for(config) or distributed else []


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """The header, if any test has to do with us."""
    concerned = any(_concerned(item) for item in items)
    return [_header(config)] if concerned and not asked_for(config) else []


def _header(config: pytest.Config) -> str:
    from harness.target.accel import remembered
    from harness.target.cache import Cache

    settings = read_settings(config)
    try:
        accel = remembered(Cache())
    except HarnessError as error:
        raise pytest.UsageError(f"{error.message}; {error.hint}") from None
    if accel is None:
        how = "KVM is tried with the first VM"
    else:
        how = f"{accel.name.upper()} ({accel.reason})" if accel.reason else accel.name.upper()
    kernels = ", ".join(f"{kernel} ({flavour})" for kernel, flavour in settings.targets)
    return f"hmm-harness: {kernels}; {', '.join(settings.bindings)}; {how}; --hmm-seed {settings.seed}"


def _concerned(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return any(name == "lockstep" or name.startswith("hmm_") for name in names)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """pytest-xdist: tells the controller what this worker had VMs of."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        banners = session.config.stash[_BANNERS]
        output[_WORKER_BANNERS] = list(banners)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What the programs ran on."""
    banners = config.stash[_BANNERS]
    if banners:
        terminalreporter.section("hmm-harness")
        for banner in banners:
            terminalreporter.line(banner)
        terminalreporter.line(f"seed: --hmm-seed {read_settings(config).seed}")


# Which kernels, drivers and programs a test runs on


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each kernel, driver and program that it is for; one that is for none is skipped, and says why."""
    settings = read_settings(metafunc.config)
    if "hmm_machine" in metafunc.fixturenames:
        _for_kernels(metafunc, settings)
    if "hmm_binding" in metafunc.fixturenames:
        _for_bindings(metafunc, settings)
    if "hmm_program" in metafunc.fixturenames:
        _for_programs(metafunc)


def _for_kernels(metafunc: pytest.Metafunc, settings: Settings) -> None:
    targets = list(settings.targets)
    for mark in metafunc.definition.iter_markers("hmm_kernel"):
        flavours = mark.kwargs.get("flavour", "*")
        targets = [
            (kernel, flavour)
            for kernel, flavour in targets
            if any(fnmatch(kernel, pattern) for pattern in mark.args or ("*",)) and fnmatch(flavour, flavours)
        ]
    if not targets:
        _skip(metafunc, "hmm_machine", "the test is for other kernels than those of this run (marker hmm_kernel)")
    elif len(settings.targets) > 1:
        names = [kernel if flavour == "plain" else f"{kernel}-{flavour}" for kernel, flavour in targets]
        metafunc.parametrize("hmm_machine", targets, ids=names, indirect=True)


def _for_bindings(metafunc: pytest.Metafunc, settings: Settings) -> None:
    bindings = list(settings.bindings)
    for mark in metafunc.definition.iter_markers("hmm_binding"):
        bindings = [binding for binding in bindings if binding in mark.args]
    if any(metafunc.definition.iter_markers("hmm_wrong")):  # no other driver can make mistakes
        bindings = [binding for binding in bindings if binding == "interval"]
    if not bindings:
        why = "the test is for other drivers than those of this run (markers hmm_binding, hmm_wrong)"
        _skip(metafunc, "hmm_binding", why)
    elif len(settings.bindings) > 1:
        metafunc.parametrize("hmm_binding", bindings, indirect=True)


def _for_programs(metafunc: pytest.Metafunc) -> None:
    from harness.pytest_plugin.programs import select

    patterns = [pattern for mark in metafunc.definition.iter_markers("hmm_programs") for pattern in mark.args]
    try:
        programs = select(patterns, metafunc.definition.path.parent)
    except HarnessError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error.message}; {error.hint}") from None
    metafunc.parametrize("hmm_program", programs, ids=[program.name for program in programs], indirect=True)


def _skip(metafunc: pytest.Metafunc, fixture: str, why: str) -> None:
    metafunc.parametrize(
        fixture, [pytest.param(None, marks=pytest.mark.skip(reason=why), id="not-here")], indirect=True
    )


# Fixtures


@pytest.fixture(scope="session")
def hmm_cache() -> Cache:
    """The user's cache: what is built is built once, whatever the number of processes."""
    from harness.target.cache import Cache

    return Cache()


@pytest.fixture(scope="session")
def hmm_progress(pytestconfig: pytest.Config) -> Iterator[Progress]:
    """Shows what takes long, a kernel's build above all, past pytest's capture."""
    import os
    from contextlib import nullcontext

    from harness.progress import Progress

    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        real = os.dup(2)  # pytest puts its own file in place of 2 while a test or a fixture runs
    with os.fdopen(real, "w", encoding="utf-8", buffering=1) as stream:
        yield Progress(stream)


@pytest.fixture(scope="session")
def hmm_machine(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, hmm_cache: Cache, hmm_progress: Progress
) -> Machine:
    """The kernel under test with everything that it takes to boot it, built if need be."""
    from harness.target.lab import prepare

    kernel, flavour = getattr(request, "param", read_settings(pytestconfig).targets[0])
    return prepare(kernel, flavour, cache=hmm_cache, progress=hmm_progress)


@pytest.fixture(scope="session")
def hmm_kernel(hmm_machine: Machine) -> Kernel:
    """The kernel under test: name, flavour, release, build tree."""
    return hmm_machine.kernel


@pytest.fixture(scope="session")
def hmm_lab(
    hmm_machine: Machine, hmm_cache: Cache, hmm_progress: Progress, pytestconfig: pytest.Config
) -> Iterator[SharedLab]:
    """Keeps a VM of the kernel going, from test to test as long as they pass."""
    from harness.pytest_plugin.lab import SharedLab, settle

    settings = read_settings(pytestconfig)
    lab = SharedLab(hmm_machine, cache=hmm_cache, progress=hmm_progress, restore=settings.restore, vms=settings.vms)
    labs = pytestconfig.stash[_LABS]
    with lab:
        labs.append(lab)
        yield lab
        labs.remove(lab)
    if lab.banner:
        pytestconfig.stash[_BANNERS][lab.banner] = None
    settle(lab.belated)


@pytest.fixture
def hmm_binding(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> str:
    """The driver that programs run on: "interval" or "test_hmm"."""
    return str(getattr(request, "param", read_settings(pytestconfig).bindings[0]))


@pytest.fixture
def hmm_program(request: pytest.FixtureRequest) -> Program:
    """A program of the marker hmm_programs; each has a test of its own."""
    program: Program = request.param
    return program


@pytest.fixture(scope="session")
def hmm_seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run, the same in all processes; the header shows it."""
    return read_settings(pytestconfig).seed


@pytest.fixture
def hmm_random(request: pytest.FixtureRequest, hmm_seed: int) -> random.Random:
    """Random numbers that depend on the seed and the test's id alone."""
    return random.Random(f"{hmm_seed} {request.node.nodeid}")


@pytest.fixture(scope="session")
def hmm_model() -> Model:
    """The reference model alone: what is allowed, without a VM."""
    from harness.pytest_plugin.model import Model

    return Model()


@pytest.fixture
def hmm_vm(request: pytest.FixtureRequest, hmm_lab: SharedLab) -> Iterator[VM]:
    """A clean VM with the module loaded, for this test alone: `exec`, `put`, `call`. It must not complain."""
    _insist(request, hmm_lab)
    hmm_lab.discard()
    yield hmm_lab.vm()
    hmm_lab.discard()


@pytest.fixture
def lockstep(
    request: pytest.FixtureRequest, hmm_lab: SharedLab, hmm_binding: str, tmp_path_factory: pytest.TempPathFactory
) -> Lockstep:
    """Runs programs on the kernel and in the model, and compares: see `harness.pytest_plugin.play.Lockstep`."""
    from harness.pytest_plugin.play import Lockstep, Stage

    _insist(request, hmm_lab)
    node, config = request.node, request.config
    cache = getattr(config, "cache", None)
    keep = cache.mkdir("hmm-harness") if cache is not None else tmp_path_factory.mktemp("hmm-harness")
    timeouts = [float(mark.args[0]) for mark in node.iter_markers("hmm_timeout")]
    settings, kernel = read_settings(config), hmm_lab.kernel
    node.user_properties += [
        ("hmm_kernel", kernel.name), ("hmm_flavour", kernel.flavour), ("hmm_release", kernel.release),
        ("hmm_binding", hmm_binding), ("hmm_seed", settings.seed),
    ]  # fmt: skip
    promise = (getattr(getattr(node, "function", None), "__doc__", None) or "").strip().split("\n")[0]
    return Lockstep(
        Stage(
            lab=hmm_lab,
            binding=hmm_binding,
            wrong=_named(node, "hmm_wrong"),
            timeout=timeouts[0] if timeouts else settings.timeout,
            name=node.nodeid,
            title=promise,
            keep=Path(keep),
            directory=node.path.parent,
            log=lambda text: node.add_report_section("call", "kernel log", text),
            note=lambda name, value: node.user_properties.append((name, value)),
        )
    )


@pytest.fixture
def hmm_subject(lockstep: Lockstep) -> Subject:
    """The process that runs from the start of each program."""
    return lockstep.subject("a")


@pytest.fixture
def hmm_device(lockstep: Lockstep) -> Device:
    """The device d0."""
    return lockstep.device("d0")


def _named(node: pytest.Item, marker: str) -> tuple[str, ...]:
    """The arguments of all markers of that name."""
    return tuple(dict.fromkeys(str(name) for mark in node.iter_markers(marker) for name in mark.args))


def _insist(request: pytest.FixtureRequest, lab: SharedLab) -> None:
    """Skips the test where the kernel has not what it requires."""
    from harness.pytest_plugin.features import lacking

    missing = lacking(_named(request.node, "hmm_requires"), lab.features)
    if missing:
        raise NotHere(f"{lab.kernel.name} has no {', '.join(missing)}")


# From a test's end to what pytest tells of it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Between two tests, a VM whose room another process waits for goes."""
    outcome = yield
    for lab in item.config.stash[_LABS]:
        lab.rest()
    return outcome


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """When the body of a test is through: what was written and not run is run, and a VM's log is looked at."""
    outcome = yield
    used = getattr(pyfuncitem, "funcargs", {})
    if "lockstep" in used:
        used["lockstep"].finish()
    if "hmm_vm" in used:
        from harness.pytest_plugin.log import inspect_log

        inspect_log(used["hmm_vm"], lambda text: pyfuncitem.add_report_section("call", "kernel log", text))
    return outcome


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Trouble that says nothing of the kernel is an error, not a failure, whenever it comes; it is told shortly."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, NotHere):
        path, line, _ = item.location
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {error.msg}")
    elif isinstance(error, HarnessError):
        from harness.pytest_plugin.trouble import retell

        retell(error, report)
    return report
