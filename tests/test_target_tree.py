# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of one's own: trees that are a Makefile only, images, and the kernel of this machine."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from harness.cli import _parser
from harness.errors import BuildError, ExitCode, HarnessError, MissingError, UsageError
from harness.progress import Progress
from harness.target import kconfig, kernel
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.kernels import build, given, host, initrd, inplace
from tests.bzimages import write_bzimage

# A kernel's Makefile as far as a build outside of the tree goes. Where the file trial is, objtool does not build
# unless the configuration does without it.
MAKEFILE = """
trial = if [ -e trial ] && grep -q ORC=y $(O)/.config; then echo "objtool.c:1: error: no idea"; exit 1; fi
allnoconfig:
	cat $(KCONFIG_ALLCONFIG) > $(O)/.config
	mkdir -p $(O)/include/config && echo 6.66.6 > $(O)/include/config/kernel.release
	echo "include $(CURDIR)/Makefile" > $(O)/Makefile
prepare lib/ctype.o mm/mmu_notifier.o:
	@$(trial)
bzImage: $(O)/compiled
	mkdir -p $(O)/arch/x86/boot && cp $(O)/compiled $(O)/arch/x86/boot/bzImage
$(O)/compiled: mm/hmm.c
	echo compiled >> ../tally
	(echo "flags $(KCFLAGS)"; cat mm/hmm.c) > $@
modules:
.PHONY: prepare bzImage
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree, and fragments that suit it."""
    configs = tmp_path / "configs"
    (configs / "tree").mkdir(parents=True)
    (configs / "base.config").write_text("CONFIG_UNWINDER_ORC=y  # traces\n")
    (configs / "plain.config").write_text("")
    (configs / "tree/asked-for.config").write_text("CONFIG_HMM_MIRROR=y  # HMM\n")
    (configs / "tree/old-objtool.config").write_text("CONFIG_UNWINDER_ORC=n  # needs objtool\n")
    monkeypatch.setattr(build, "CONFIGS", configs)
    monkeypatch.setattr(build, "NEEDS", 0)
    tree = tmp_path / "linux"
    for name in ("mm", "include", "arch/x86"):
        (tree / name).mkdir(parents=True)
    (tree / "Makefile").write_text(MAKEFILE)
    (tree / "arch/x86/Makefile").write_text("")
    (tree / "Kconfig").write_text("config UNWINDER_ORC\n\tbool\nconfig HMM_MIRROR\n\tbool\n")
    (tree / "mm/hmm.c").write_text("first\n")
    return tree


def provide(spec: str, root: Path, said: io.StringIO | None = None) -> Kernel:
    cache, progress = Cache(root / "cache"), Progress(said or io.StringIO())
    return kernel.provide_kernel(spec, "plain", cache=cache, progress=progress)


def test_a_clean_tree_is_built_outside_of_it_and_only_once(tree: Path, tmp_path: Path) -> None:
    before = sorted(each for each in tree.rglob("*") if each.is_file())
    built = provide(f"tree:{tree}", tmp_path)
    assert (built.release, built.origin) == ("6.66.6", "tree, not in git")
    assert built.image.read_text() == "flags \nfirst\n"
    assert sorted(each for each in tree.rglob("*") if each.is_file()) == before
    (tree.parent / "tally").unlink()
    assert provide(f"tree:{tree}", tmp_path) == built
    assert not (tree.parent / "tally").exists()


def test_what_has_changed_is_built_and_the_kernel_before_stays(tree: Path, tmp_path: Path) -> None:
    first = provide(f"tree:{tree}", tmp_path)
    (tree / "mm/hmm.c").write_text("second, longer\n")
    second = provide(f"tree:{tree}", tmp_path)
    assert second.key != first.key
    assert second.image.read_text() == "flags \nsecond, longer\n"
    assert first.image.read_text() == "flags \nfirst\n"


def test_a_build_in_the_cache_does_not_need_the_tree(tree: Path, tmp_path: Path) -> None:
    built = provide(f"tree:{tree}", tmp_path)
    assert (built.build / "Makefile").read_text() == "include ../Makefile\n"
    assert (built.build / "../Makefile").is_file()


def test_an_objtool_that_does_not_build_is_done_without(tree: Path, tmp_path: Path) -> None:
    (tree / "trial").touch()
    said = io.StringIO()
    built = provide(f"tree:{tree}", tmp_path, said)
    assert "trying without objtool" in said.getvalue()
    assert built.image.read_text().startswith("flags -w -Wno-error -fcf-protection=none\n")
    assert "UNWINDER_ORC=n" in built.config.read_text()


def test_flags_that_a_tree_handles_itself_are_left_to_it(tree: Path, tmp_path: Path) -> None:
    (tree / "trial").touch()
    (tree / "arch/x86/Makefile").write_text("KBUILD_CFLAGS += $(call cc-option,-fcf-protection=none)\n")
    assert provide(f"tree:{tree}", tmp_path).image.read_text().startswith("flags -w -Wno-error\n")


def test_a_tree_that_does_not_compile_says_where(tree: Path, tmp_path: Path) -> None:
    makefile = tree / "Makefile"
    makefile.write_text(
        makefile.read_text().replace("echo compiled >> ../tally", "echo 'mm/hmm.c:1: error: x'; exit 1")
    )
    with pytest.raises(BuildError, match=r"mm/hmm\.c:1: error"):
        provide(f"tree:{tree}", tmp_path)


def test_a_tree_that_changes_meanwhile_is_not_taken_for_what_it_was(tree: Path, tmp_path: Path) -> None:
    makefile = tree / "Makefile"
    makefile.write_text(makefile.read_text().replace("echo compiled >> ../tally", "echo more >> mm/hmm.c"))
    with pytest.raises(HarnessError, match="changed while it was built"):
        provide(f"tree:{tree}", tmp_path)


def test_the_commit_is_told(tree: Path, tmp_path: Path) -> None:
    git = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[:12]
    first = provide(f"tree:{tree}", tmp_path)
    assert first.origin == f"tree, commit {head}"
    os.utime(tree / "mm/hmm.c")
    assert provide(f"tree:{tree}", tmp_path).key == first.key
    (tree / "mm/hmm.c").write_text("changed\n")
    changed = provide(f"tree:{tree}", tmp_path)
    assert (changed.origin, changed.key != first.key) == (f"tree, commit {head} with changes", True)


def test_a_tree_that_is_configured_but_not_built(tree: Path, tmp_path: Path) -> None:
    (tree / ".config").write_text("")
    with pytest.raises(MissingError, match="configured but not built") as caught:
        provide(f"tree:{tree}", tmp_path)
    assert "bzImage modules" in str(caught.value.hint)
    assert "mrproper" in str(caught.value.hint)


@pytest.mark.parametrize(("spec", "says"), [("tree:", "without a path"), ("tree:/nonexistent", "no directory")])
def test_a_tree_that_is_not_there(tmp_path: Path, spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        provide(spec, tmp_path)


def test_a_directory_that_is_no_tree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a kernel's source tree nor"):
        provide(f"tree:{tmp_path}", tmp_path)


# A kernel's Makefile as far as a build in the tree goes.
IN_PLACE = """
bzImage: arch/x86/boot/bzImage
arch/x86/boot/bzImage: mm/hmm.c
	echo "  CC      mm/hmm.o"
	echo "$(CC) $(KCFLAGS)" >> ../tally
	(printf 'image of '; cat mm/hmm.c) > $@
modules: lib/test_hmm.ko
lib/test_hmm.ko: lib/test_hmm.c
	cp lib/test_hmm.c $@
"""
COMMAND = "savedcmd_init/main.o := {} -Wp,-MMD,init/.main.o.d -nostdinc -c -o init/main.o init/main.c"


def compiled_by(place: Path, words: str, *options: str) -> None:
    """`place` was built with the compiler `words`, as that calls itself today."""
    (place / "init/.main.o.cmd").write_text(f"{COMMAND.format(words)}\n\nsource_init/main.o := init/main.c\n")
    said = subprocess.run([*words.split(), "--version"], capture_output=True, text=True, check=True).stdout
    lines = [f'CONFIG_CC_VERSION_TEXT="{said.partition(chr(10))[0]}"', *options]
    config = kconfig.render(build.options("plain", "tree/asked-for"))
    (place / ".config").write_text("\n".join([config, *lines, ""]))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that is built and lacks nothing."""
    monkeypatch.setattr(given, "_MODULES", tmp_path / "no-modules")
    place = tmp_path / "finished"
    for name in ("arch/x86/boot", "include/generated", "include/config", "lib", "mm", "init"):
        (place / name).mkdir(parents=True)
    for name, text in (
        ("include/config/kernel.release", "6.66.6-mine\n"),
        ("Makefile", IN_PLACE),
        ("mm/hmm.c", "first"),
        ("lib/test_hmm.c", "a driver"),
    ):
        (place / name).write_text(text)
    for name in ("include/generated/autoconf.h", "Kconfig", "Module.symvers"):
        (place / name).touch()
    compiled_by(place, "gcc")
    subprocess.run(["make", "-s", "-C", place, "bzImage", "modules"], check=True, capture_output=True)
    (tmp_path / "tally").unlink()
    return place


def commit(place: Path) -> None:
    git = ["git", "-C", str(place), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-f", "Makefile", "Kconfig", "mm", "lib/test_hmm.c"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)


@pytest.mark.parametrize("in_git", [True, False])
def test_a_built_tree_is_made_again_as_it_is_now(finished: Path, tmp_path: Path, in_git: bool) -> None:
    if in_git:
        commit(finished)
    first = provide(f"tree:{finished}", tmp_path)
    assert (first.release, first.build, first.initrd) == ("6.66.6-mine", finished, None)
    assert (first.image.read_text(), first.modules["test_hmm"].read_text()) == ("image of first", "a driver")
    assert provide(f"tree:{finished}", tmp_path) == first
    assert not (tmp_path / "tally").exists(), "nothing had changed"

    (finished / "mm/hmm.c").write_text("BROKEN")
    said = io.StringIO()
    second = provide(f"tree:{finished}", tmp_path, said)
    assert second.image.read_text() == "image of BROKEN"
    assert second.key != first.key
    assert second.origin.endswith("with changes" if in_git else "not in git")
    assert first.image.read_text() == "image of first", "a VM that is started later is what the first is about"


@pytest.mark.parametrize("name", ["lib/test_hmm.c", "include/linux/hmm.h"])
def test_what_only_modules_are_made_of_makes_another_kernel(finished: Path, tmp_path: Path, name: str) -> None:
    """Its image is the same, and what was built for it may not be: ours is, from headers, and test_hmm."""
    (finished / name).parent.mkdir(exist_ok=True)
    (finished / name).write_text("before")
    first = provide(f"tree:{finished}", tmp_path)
    (finished / name).write_text("changed since")
    second = provide(f"tree:{finished}", tmp_path)
    assert second.image.read_text() == first.image.read_text()
    assert second.key != first.key
    if name.startswith("lib"):
        assert second.modules["test_hmm"].read_text() == "changed since"


def test_a_built_tree_that_does_not_compile_any_more(finished: Path, tmp_path: Path) -> None:
    """Its image is there, of what it was before."""
    makefile = finished / "Makefile"
    makefile.write_text(IN_PLACE.replace("(printf", "echo 'mm/hmm.c:1: error: x'; exit 1; (printf"))
    os.utime(finished / "mm/hmm.c")
    with pytest.raises(BuildError, match=r"(?s)does not build as it is now.*mm/hmm\.c:1: error: x"):
        provide(f"tree:{finished}", tmp_path)


def test_a_built_tree_that_changes_meanwhile(finished: Path, tmp_path: Path) -> None:
    makefile = finished / "Makefile"
    makefile.write_text(IN_PLACE.replace("(printf", "echo more >> lib/test_hmm.c; (printf"))
    commit(finished)
    os.utime(finished / "mm/hmm.c")
    with pytest.raises(HarnessError, match="changed while it was built"):
        provide(f"tree:{finished}", tmp_path)


def test_a_built_tree_is_made_as_its_owner_does(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its compiler and the flags of the environment, and without what is meant for a make around us."""
    monkeypatch.setenv("KCFLAGS", "-Wextra")
    monkeypatch.setenv("MAKEFLAGS", "-n")
    monkeypatch.setenv("KBUILD_OUTPUT", "/nonexistent")
    compiled_by(finished, "env gcc")
    os.utime(finished / "mm/hmm.c")
    used = provide(f"tree:{finished}", tmp_path)
    assert (tmp_path / "tally").read_text() == "env gcc -Wextra\n"
    assert used.make_variables == ("CC=env gcc",)


@pytest.mark.parametrize(
    ("compiler", "options", "words"),
    [
        ("gcc", (), []),
        ("gcc-12", (), ["CC=gcc-12"]),
        ("ccache gcc", (), ["CC=ccache gcc"]),
        ("x86_64-linux-gnu-gcc", (), ["CROSS_COMPILE=x86_64-linux-gnu-"]),
        ("clang", ("CONFIG_CC_IS_CLANG=y",), ["CC=clang"]),
        ("clang", ("CONFIG_LD_IS_LLD=y", "CONFIG_AS_IS_LLVM=y"), ["LLVM=1", "LLVM_IAS=1"]),
        ("clang-19", ("CONFIG_LD_IS_LLD=y", "CONFIG_AS_IS_GNU=y"), ["LLVM=-19", "LLVM_IAS=0"]),
        ("/opt/llvm/bin/clang", ("CONFIG_LD_IS_LLD=y",), ["LLVM=/opt/llvm/bin/"]),
        ("ccache clang", ("CONFIG_LD_IS_LLD=y",), ["LLVM=1", "CC=ccache clang"]),
    ],
)
def test_the_compiler_that_a_tree_was_built_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, options: tuple[str, ...], words: list[str]
) -> None:
    monkeypatch.setattr(inplace, "_version", lambda asked, _tree: f"{' '.join(asked)} 9.9")
    (tmp_path / "init").mkdir()
    (tmp_path / "init/.main.o.cmd").write_text(COMMAND.format(compiler))
    config = tmp_path / ".config"
    for line in (f'CONFIG_CC_VERSION_TEXT="{compiler} 9.9"', f"# Compiler: {compiler} 9.9", "# of before 4.18"):
        config.write_text("\n".join([line, *options]))
        assert inplace.compiler_words(tmp_path) == words


def test_a_tree_of_another_compiler_is_not_built_anew(finished: Path, tmp_path: Path) -> None:
    """The owner would not thank us."""
    config = finished / ".config"
    config.write_text(config.read_text().replace('CONFIG_CC_VERSION_TEXT="', 'CONFIG_CC_VERSION_TEXT="not '))
    with pytest.raises(HarnessError, match="was built with another compiler: not gcc") as caught:
        provide(f"tree:{finished}", tmp_path)
    assert f"image:{finished}/arch/x86/boot/bzImage,kdir={finished}" in str(caught.value.hint)
    (finished / "init/.main.o.cmd").unlink()
    with pytest.raises(HarnessError, match="does not tell how it was compiled"):
        provide(f"tree:{finished}", tmp_path)


def test_an_image_with_its_build_directory(finished: Path, tmp_path: Path) -> None:
    image = write_bzimage(tmp_path / "bzImage", "6.66.6-mine")
    used = provide(f"image:{image},kdir={finished}", tmp_path)
    assert (used.image.read_bytes(), used.build) == (image.read_bytes(), finished)
    write_bzimage(finished / "arch/x86/boot/bzImage", "6.66.6-mine")
    beside = provide(f"image:{finished}/arch/x86/boot/bzImage", tmp_path)
    assert beside.build == finished
    with pytest.raises(UsageError, match="built against") as caught:
        provide(f"image:{image}", tmp_path)
    assert "--kdir" in str(caught.value.hint)


def test_an_image_that_cannot_be_booted_is_refused_before_anything_is_built(finished: Path, tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    spec = f"image:{image},kdir={finished}"
    with pytest.raises(UsageError, match="there is no kernel"):
        provide(spec, tmp_path)
    image.write_text("text\n")
    with pytest.raises(UsageError, match="is no bzImage"):
        provide(spec, tmp_path)
    image.write_bytes(bytes(4096))
    with pytest.raises(UsageError, match="is no bzImage"):
        provide(spec, tmp_path)
    write_bzimage(image, "6.66.5")
    with pytest.raises(UsageError, match=r"is Linux 6\.66\.5, .* is of 6\.66\.6-mine"):
        provide(spec, tmp_path)
    whole = write_bzimage(image, "6.66.6-mine", body=bytes(100)).read_bytes()
    image.write_bytes(whole[:-1])
    with pytest.raises(UsageError, match=f"is cut off: {len(whole) - 1} bytes of {len(whole)}"):
        provide(spec, tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("include/generated/autoconf.h", "it has no include/generated/autoconf.h"),
        ("Module.symvers", "which symbols the kernel exports"),
    ],
)
def test_what_a_build_directory_lacks(finished: Path, tmp_path: Path, name: str, says: str) -> None:
    (finished / name).unlink()
    with pytest.raises(MissingError, match=says) as caught:
        provide(f"tree:{finished}", tmp_path)
    assert "make -C" in str(caught.value.hint)


def test_a_configuration_that_cannot_do(finished: Path, tmp_path: Path) -> None:
    config = finished / ".config"
    config.write_text(config.read_text().replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m"))
    with pytest.raises(HarnessError, match=r"CONFIG_VIRTIO_BLK=y, is m \(the image and the payload\)") as caught:
        provide(f"tree:{finished}", tmp_path)
    assert caught.value.hint == f"hmm-harness kernel check-config --flavour plain tree:{finished}"


def test_the_configuration_of_an_image_is_checked_where_it_was_built(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(what: str) -> int:
        options = _parser().parse_args(["kernel", "check-config", what])
        return int(options.run_command(options, Progress(io.StringIO())))

    again = "hmm-harness kernel check-config"
    config = finished / ".config"
    config.write_text(config.read_text().replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m"))
    (finished / "Kconfig").unlink()  # as elsewhere than in a source tree: it would say that there are no options
    image = write_bzimage(tmp_path / "bzImage", "6.66.6-mine")
    for what in (f"image:{image},kdir={finished}", f"image:{finished}/arch/x86/boot/bzImage"):
        assert check(what) == ExitCode.FAIL
        said = capsys.readouterr().out
        assert "nothing works without:\n    CONFIG_VIRTIO_BLK=y, is m (the image and the payload)" in said
        assert "scripts/config" not in said, "an image stays as it is"
        assert said.endswith("An image is taken as it is: nothing of that can be changed.\n")
    (finished / "source").mkdir(exist_ok=True)
    check(f"image:{image},kdir={finished}")
    assert capsys.readouterr().out.endswith(f"For another one of that build: {again} {finished}\n")
    assert check(str(finished)) == ExitCode.FAIL
    assert f"--file {config}" in capsys.readouterr().out
    modules = tmp_path / "modules/6.66.6-mine"  # from where an initramfs gets it
    modules.mkdir(parents=True)
    (modules / "modules.dep").touch()
    monkeypatch.setattr(given, "_MODULES", modules.parent)
    assert check(f"image:{image},kdir={finished}") == ExitCode.PASS
    with pytest.raises(UsageError, match="built against"):
        check(f"image:{image}")
    with pytest.raises(UsageError, match="without a path"):
        check("image:")


def test_a_machine_without_its_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "BOOT", tmp_path)
    monkeypatch.setattr(host, "MODULES", tmp_path / "modules")
    with pytest.raises(MissingError, match=r"there is no .*vmlinuz-"):
        provide("host", tmp_path)
    release = os.uname().release
    (tmp_path / f"vmlinuz-{release}").touch()
    with pytest.raises(MissingError, match="no module can be built for the running kernel") as caught:
        provide("host", tmp_path)
    assert caught.value.hint == f"apt-get install linux-headers-{release}"


def test_an_initramfs_is_what_cpio_reads() -> None:
    archive = initrd.cpio({"modules": None, "modules/a.ko": b"12345", "init": b""})
    size = len(archive)
    assert size % 4 == 0
    assert archive[:6] == b"070701"
    names = [name for name in (b"modules\0", b"modules/a.ko\0", b"init\0", b"TRAILER!!!\0") if name in archive]
    assert len(names) == 4
    at = archive.index(b"modules/a.ko\0")
    header = archive[at - 110 : at]
    assert int(header[54:62], 16) == 5
    assert int(header[94:102], 16) == len(b"modules/a.ko\0")
    assert archive[(at + 13 + 3) // 4 * 4 :][:5] == b"12345"
