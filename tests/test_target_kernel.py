# SPDX-License-Identifier: GPL-2.0-only
"""The kernel provider: what it is asked for, what goes wrong, and builds of a source that is a Makefile only."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness.errors import BuildError, HarnessError, MissingError, UsageError
from harness.progress import Progress
from harness.target import kconfig, kernel
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import archive, build, debian
from harness.target.places import VM_IMAGES

# Makes, with real make, what a kernel's Makefile makes; `compile` is where tests put what happens meanwhile.
MAKEFILE = """
compile := {compile}
allnoconfig:
	{{ cat $(KCONFIG_ALLCONFIG); echo 'CONFIG_SWAP=n'; }} > $(O)/.config
	mkdir -p $(O)/include/config && echo 6.66.6 > $(O)/include/config/kernel.release
	{{ echo 'export KBUILD_OUTPUT = $(O)'; echo 'include $(CURDIR)/Makefile'; }} > $(O)/Makefile
where:
	@echo $(KBUILD_OUTPUT)
bzImage:
	@echo '  CC      mm/hmm.o'
	@$(compile)
	mkdir -p $(O)/arch/x86/boot && env | grep KBUILD_BUILD | sort > $(O)/arch/x86/boot/bzImage
	echo object > $(O)/include/thing.o
modules: bzImage
	mkdir -p $(O)/lib && echo module > $(O)/lib/test-hmm.ko
"""
BASE = "CONFIG_SMP=y  # races need two CPUs\n"


def no_archive() -> archive.Bases:
    """What a machine without a network, or without apt, says."""
    raise MissingError("apt has no index of a Debian archive", hint="apt-get update")


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of source packages and one of configurations, instead of the machine's."""
    (tmp_path / "src").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/base.config").write_text(BASE)
    (tmp_path / "configs/plain.config").write_text("# nothing more\n")
    monkeypatch.setattr(debian, "SOURCES", tmp_path / "src")
    monkeypatch.setattr(build, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(build, "NEEDS", 0)
    monkeypatch.setattr(archive, "bases", no_archive)
    return tmp_path


def package(world: Path, *, compile: str = "true", series: str = "6.66") -> None:
    """Installs a source package."""
    tree = world / f"linux-source-{series}"
    (tree / "lib").mkdir(parents=True, exist_ok=True)
    (tree / "Kconfig").write_text("config SMP\n\tbool\nmenuconfig SWAP\n\tbool\nconfig TEST_HMM\n\ttristate\n")
    (tree / "Makefile").write_text(MAKEFILE.format(compile=compile))
    (tree / "lib/test_hmm_uapi.h").write_text("/* uapi */\n")
    (tree / "lib/other.c").write_text("\n")
    tarball = world / f"src/linux-source-{series}.tar.xz"
    subprocess.run(["tar", "-C", world, "-cJf", tarball, tree.name], check=True)


def provide(world: Path, said: io.StringIO | None = None, *, spec: str = "debian:6.66") -> Kernel:
    return kernel.provide_kernel(
        spec, "plain", cache=Cache(world / "cache"), progress=Progress(said or io.StringIO())
    )


def test_a_build_leaves_what_the_others_need_and_no_more(world: Path) -> None:
    package(world)
    said = io.StringIO()
    built = provide(world, said)
    assert (built.name, built.flavour, built.release) == ("debian:6.66", "plain", "6.66.6")
    assert "kernel debian:6.66 (plain) is not in the cache: building it, once" in said.getvalue()
    assert built.config.read_text().startswith("CONFIG_SMP=y\n")
    assert built.modules["test_hmm"].read_text() == "module\n"
    assert built.source is not None
    assert (built.source / "lib/test_hmm_uapi.h").exists()
    assert not (built.source / "lib/other.c").exists()
    assert not list(built.build.rglob("*.o"))
    assert "KBUILD_BUILD_HOST=harness" in built.image.read_text()
    assert not (world / "cache/tmp").exists() or not list((world / "cache/tmp").iterdir())


def test_a_second_time_nothing_is_built(world: Path) -> None:
    package(world)
    first = provide(world)
    said = io.StringIO()
    assert provide(world, said) == first
    assert said.getvalue() == ""


def test_what_goes_into_a_kernel_is_in_its_key(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(world)
    keys = [provide(world).key]
    (world / "configs/base.config").write_text(BASE + "CONFIG_BUG=y  # the log is evidence\n")
    keys.append(provide(world).key)
    package(world, compile="true # another source")
    keys.append(provide(world).key)
    monkeypatch.setattr(build, "toolchain", lambda: "another compiler")
    keys.append(provide(world).key)
    assert len(set(keys)) == 4
    (world / "configs/base.config").write_text("# a comment is no change\n" + BASE + "CONFIG_BUG=y  # reworded\n")
    assert provide(world).key == keys[-1]


def test_the_make_and_the_shell_around_us_do_not_reach_the_build(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-n")
    monkeypatch.setenv("KBUILD_BUILD_HOST", "elsewhere")
    monkeypatch.setenv("O", "elsewhere")
    package(world)
    assert "elsewhere" not in provide(world).image.read_text()


@pytest.mark.parametrize("spec", ["foo", "ubuntu:6.66", "", ":6.66"])
def test_a_spec_that_is_none_names_every_form(world: Path, spec: str) -> None:
    with pytest.raises(UsageError, match="no such kernel") as caught:
        provide(world, spec=spec)
    for form, meaning in kernel.forms():
        assert f"    {form}: {meaning}" in caught.value.message


@pytest.mark.parametrize("spec", ["debian:", "debian:../../etc", "debian:6", "debian:x.y"])
def test_a_version_that_is_none(world: Path, spec: str) -> None:
    with pytest.raises(UsageError, match="no such kernel") as caught:
        provide(world, spec=spec)
    assert "debian:6.12.8" in str(caught.value.hint)


def test_what_is_not_installed_needs_an_archive(world: Path) -> None:
    with pytest.raises(MissingError, match="no index of a Debian archive"):
        provide(world, spec="debian:9.9")


def test_a_flavour_that_does_not_exist(world: Path) -> None:
    package(world)
    with pytest.raises(UsageError) as caught:
        kernel.provide_kernel("debian:6.66", "base", cache=Cache(world / "cache"), progress=Progress(io.StringIO()))
    assert caught.value.hint == "there are: plain"


def test_options_that_the_kernel_does_not_take_are_all_listed_with_their_reasons(world: Path) -> None:
    package(world)
    (world / "configs/plain.config").write_text(
        "CONFIG_SWAP=y  # swapped-out pages\n\nCONFIG_SMP=y  # overridden\nCONFIG_ABSENT=n  # off is what it is\n"
    )
    with (world / "configs/base.config").open("a") as base:
        base.write("CONFIG_TEST_HMM=m  # the test_hmm binding\n")
    makefile = world / "linux-source-6.66/Makefile"
    makefile.write_text(makefile.read_text().replace("cat $(KCONFIG_ALLCONFIG)", "echo CONFIG_SMP=y"))
    subprocess.run(
        ["tar", "-C", world, "-cJf", world / "src/linux-source-6.66.tar.xz", "linux-source-6.66"], check=True
    )
    with pytest.raises(BuildError) as caught:
        provide(world)
    assert caught.value.message.splitlines() == [
        "kernel debian:6.66 (plain) does not take 2 of the options that are asked for:",
        "    CONFIG_TEST_HMM=m (base.config:2; the test_hmm binding): is n",
        "    CONFIG_SWAP=y (plain.config:1; swapped-out pages): is n",
    ]


def test_a_build_that_fails_shows_the_first_errors_and_names_the_log(world: Path) -> None:
    package(world, compile="echo 'mm/hmm.c:7:1: error: expected expression'; exit 1")
    with pytest.raises(BuildError, match=r"mm/hmm\.c:7:1: error: expected expression") as caught:
        provide(world)
    log = Path(str(caught.value.hint).split(" is in ")[1])
    assert "  CC      mm/hmm.o" in log.read_text()
    assert list((world / "cache/kernel").iterdir()) == []
    assert list((world / "cache/tmp").iterdir()) == []


def test_a_disk_that_fills_up_during_the_build(world: Path) -> None:
    package(world, compile="echo 'cc1: fatal error: error writing: No space left on device'; exit 1")
    with pytest.raises(HarnessError, match=r"no space for kernel .* MiB are free"):
        provide(world)
    assert list((world / "cache/tmp").iterdir()) == []


def test_a_tarball_that_is_damaged(world: Path) -> None:
    (world / "src/linux-source-6.66.tar.xz").write_bytes(b"not an archive")
    with pytest.raises(BuildError, match="tar"):
        provide(world)
    assert list((world / "cache/tmp").iterdir()) == []


def builder(world: Path) -> subprocess.Popen[str]:
    """Another process that provides the kernel of this world."""
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from harness.progress import Progress
        from harness.target import kernel
        from harness.target.cache import Cache
        from harness.target.kernels import build, debian
        world = Path(sys.argv[1])
        debian.SOURCES, build.CONFIGS, build.NEEDS = world / "src", world / "configs", 0
        try:
            cache = Cache(world / "cache")
            print(kernel.provide_kernel("debian:6.66", "plain", cache=cache, progress=Progress()).key)
        except KeyboardInterrupt:
            sys.exit(130)
        """
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, world],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
    return path.read_text().strip()


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_entry_and_no_process(world: Path, kind: signal.Signals) -> None:
    package(world, compile=f"[ -e {world}/go-on ] || {{ echo $$$$ > {world}/compiler; exec sleep 600; }}")
    process = builder(world)
    compiler = int(wait_for(world / "compiler"))
    process.send_signal(kind)
    process.communicate(timeout=60)
    wait_until_gone(compiler)
    assert list((world / "cache/kernel").iterdir()) == []
    (world / "go-on").touch()
    provide(world)
    assert list((world / "cache/tmp").iterdir()) == []


def test_two_builders_at_once_build_once(world: Path) -> None:
    package(world, compile=f"echo built >> {world}/tally; while [ ! -e {world}/release ]; do sleep 0.01; done")
    first = builder(world)
    wait_for(world / "tally")
    second = builder(world)
    assert second.stderr is not None
    assert "another process is making kernel" in second.stderr.readline()
    (world / "release").touch()
    keys = {first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]}
    assert len(keys) == 1
    assert (world / "tally").read_text() == "built\n"


def test_a_damaged_kernel_is_built_again(world: Path) -> None:
    package(world)
    built = provide(world)
    built.image.write_text("")
    said = io.StringIO()
    assert provide(world, said).image.stat().st_size > 0
    assert "in the cache is damaged (bzImage has 0 bytes" in said.getvalue()


def test_no_compiler(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(world)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingError, match="gcc") as caught:
        provide(world)
    assert caught.value.hint == "make setup"


class TestFragments:
    """The configurations that come with the product."""

    @pytest.mark.parametrize("path", sorted(VM_IMAGES.glob("kernel/*.config")), ids=lambda path: path.stem)
    def test_every_option_says_who_needs_it_and_is_there_once(self, path: Path) -> None:
        names = [option.name for option in kconfig.read_fragment(path)]
        assert sorted(set(names)) == sorted(names)

    @pytest.mark.parametrize("line", ["CONFIG_SMP=y", "CONFIG_SMP=y #", "SMP=y  # why", "CONFIG_SMP  # why"])
    def test_a_line_that_is_no_option_with_a_reason(self, tmp_path: Path, line: str) -> None:
        fragment = tmp_path / "some.config"
        fragment.write_text(f"# comment\n{line}\n")
        with pytest.raises(UsageError, match=r"some\.config:2: not an option with a reason"):
            kconfig.read_fragment(fragment)


def test_environment_variables_of_tools_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCH", "arm64")
    monkeypatch.setenv("HOME", "/home/somebody")
    made = kernel.make_environment()
    assert "ARCH" not in made
    assert made["HOME"] == os.environ["HOME"]
    assert made["LC_ALL"] == "C"


def test_options_that_the_kernel_does_not_know_are_not_asked_for(world: Path) -> None:
    package(world)
    with (world / "configs/base.config").open("a") as base:
        base.write("CONFIG_SECRETMEM=y  # memory that a device must not see\n")
    assert "SECRETMEM" not in provide(world).config.read_text()


def test_a_build_tree_knows_where_it_lies_wherever_it_was_made(world: Path) -> None:
    package(world)
    built = provide(world)
    said = subprocess.run(
        ["make", "--silent", "-C", built.build, "where"], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == str(built.build)
