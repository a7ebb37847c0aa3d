# SPDX-License-Identifier: GPL-2.0-only
"""What a configuration lacks, and that what our fragments ask for exists in some kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.target import checkconfig, kconfig
from harness.target.kernels import build

KNOWN = {
    words[0]: words[1:]
    for words in map(str.split, (Path(__file__).parent / "kconfig-known").read_text().splitlines())
    if words[0] != "#"
}
FRAGMENTS = sorted(build.CONFIGS.rglob("*.config"))
SERIES = ("5.10", "6.1", "6.12", "7.2", "7.3")


def complete(flavour: str = "plain") -> str:
    """A .config that has all."""
    return kconfig.render(build.options(flavour, "tree/asked-for"))


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.stem)
def test_every_option_is_known_to_some_kernel(fragment: Path) -> None:
    """One that no kernel knows would be left out of each build, without a word."""
    unknown = [option.name for option in kconfig.read_fragment(fragment) if not KNOWN.get(option.name)]
    assert unknown == [], "a mistake, or tests/kconfig-known is older than the fragment"


@pytest.mark.parametrize("flavour", [flavour for flavour in build.flavours() if flavour != "plain"])
def test_what_a_flavour_is_about_exists_in_every_series(flavour: str) -> None:
    first = kconfig.read_fragment(build.CONFIGS / f"{flavour}.config")[0]
    assert set(SERIES) <= set(KNOWN[first.name])


@pytest.mark.parametrize("flavour", build.flavours())
def test_nothing_is_missing(flavour: str) -> None:
    report = checkconfig.check(complete(flavour), flavour, modules_load=False)
    assert (report.essential, report.useful) == ((), ())
    assert report.commands(Path(".config"), None) == []


def test_what_is_missing_is_told_apart_with_its_reason(tmp_path: Path) -> None:
    config = complete().replace("CONFIG_EROFS_FS=y", "# CONFIG_EROFS_FS is not set").replace("CONFIG_KSM=y\n", "")
    report = checkconfig.check(config, "plain", modules_load=False)
    assert report.lines(report.essential) == ["CONFIG_EROFS_FS=y, is n (the image and the payload)"]
    assert report.lines(report.useful) == [
        "CONFIG_KSM=y, is n (merging: write-protects under a mirror); "
        "not in the file: a dependency is off, or the kernel has no such option"
    ]
    assert report.commands(tmp_path / ".config", Path("/src/linux")) == [
        f"/src/linux/scripts/config --file {tmp_path}/.config \\\n    --enable EROFS_FS --enable KSM",
        f"make -C /src/linux O={tmp_path} olddefconfig",
    ]


def test_drivers_may_be_modules_where_an_initramfs_loads_them() -> None:
    config = complete().replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m")
    assert checkconfig.check(config, "plain", modules_load=True).essential == ()
    (missing,) = checkconfig.check(config, "plain", modules_load=False).essential
    assert (missing.option.name, missing.has) == ("CONFIG_VIRTIO_BLK", "m")


def test_a_module_is_not_enough_for_what_is_needed_before_modules() -> None:
    config = complete().replace("CONFIG_UNIX=y", "CONFIG_UNIX=m")
    assert [each.option.name for each in checkconfig.check(config, "plain", modules_load=True).essential] == [
        "CONFIG_UNIX"
    ]


def test_what_saves_time_only_is_no_reason_to_build_again() -> None:
    config = complete().replace("CONFIG_KERNEL_LZ4=y", "CONFIG_KERNEL_GZIP=y").replace("CONFIG_VT=n", "CONFIG_VT=y")
    report = checkconfig.check(config, "plain", modules_load=False)
    assert (report.essential, report.useful) == ((), ())


def test_a_kernel_without_kasan_is_not_of_the_flavour_debug() -> None:
    report = checkconfig.check(complete(), "debug", modules_load=False)
    assert [each.option.name for each in report.essential] == ["CONFIG_KASAN"]
    assert "CONFIG_PROVE_LOCKING" in [each.option.name for each in report.useful]


def test_an_option_that_the_source_does_not_define_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text("config KSM\n\tbool\n")
    config = complete().replace("CONFIG_KSM=y\n", "").replace("CONFIG_SECRETMEM=y\n", "")
    report = checkconfig.check(config, "plain", modules_load=False, source=tmp_path)
    assert [each.option.name for each in report.useful] == ["CONFIG_KSM"]


def test_a_flavour_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="no such flavour"):
        checkconfig.check("", "tree/asked-for", modules_load=False)


def test_what_a_kernel_is_told_at_boot_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.command_line("plain") == ""
    words = build.command_line("debug").split()
    for word, option in (("kmemleak=on", "CONFIG_DEBUG_KMEMLEAK"), ("page_poison=on", "CONFIG_PAGE_POISONING")):
        assert word in words
        assert option in [each.name for each in build.options("debug")], "of what the kernel has"
    monkeypatch.setattr(build, "CONFIGS", tmp_path)
    for line in ("kmemleak=on\n", "quiet  # a word that init would get\n"):
        (tmp_path / "debug.cmdline").write_text(line)
        with pytest.raises(UsageError, match=r"debug\.cmdline:1: not a word of the command line with a reason"):
            build.command_line("debug")


def test_what_make_is_told_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GCOV_PROFILE_hmm.o=y" in build.variables("coverage")
    assert build.variables("plain") == []
    monkeypatch.setattr(build, "CONFIGS", tmp_path)
    (tmp_path / "coverage.make").write_text("GCOV_PROFILE_hmm.o=y\n")
    with pytest.raises(UsageError, match=r"coverage\.make:1: not a variable with a reason"):
        build.variables("coverage")


def _of(series: str) -> str:
    return f"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 {series}.9-1 Kernel Configuration\n#\n"


@pytest.mark.parametrize("version", ["4.20", *SERIES])
@pytest.mark.parametrize("flavour", build.flavours())
def test_a_kernel_does_not_lack_what_its_kconfig_does_not_have(version: str, flavour: str) -> None:
    """GUP_TEST and GUP_BENCHMARK, of which each version has one. Only the version is known here: all is off."""
    always = checkconfig.check("", flavour, modules_load=False)
    report = checkconfig.check(_of(version), flavour, modules_load=False)
    assert [each.option.name for each in report.useful] == [
        each.option.name for each in always.useful if version in KNOWN[each.option.name]
    ]
    assert report.essential == always.essential, "nothing works without"


def test_an_option_that_the_file_names_is_there_whatever_its_version() -> None:
    config = _of("5.10") + complete().replace("CONFIG_SECRETMEM=y", "# CONFIG_SECRETMEM is not set")
    (missing,) = checkconfig.check(config, "plain", modules_load=False).useful
    assert missing.option.name == "CONFIG_SECRETMEM"


def test_a_file_that_make_does_not_read_is_copied_first(tmp_path: Path) -> None:
    config = tmp_path / "config 6.1.0-42-amd64"
    config.write_text(complete().replace("CONFIG_KSM=y\n", ""))
    report = checkconfig.check(config.read_text(), "plain", modules_load=False)
    assert report.commands(config, None) == [
        f"cp '{config}' ./.config",
        "./scripts/config --file ./.config \\\n    --enable KSM",
        "make -C . olddefconfig",
    ]


def test_the_version_of_a_configuration() -> None:
    assert checkconfig.series(_of("7.3")) == (7, 3)
    assert checkconfig.series(complete()) is None


@pytest.mark.parametrize(
    ("text", "is_one"), [("root:x:0:0:root:/root:/bin/bash\n", False), ("# CONFIG_A is not set\n", True)]
)
def test_what_names_no_option_is_no_configuration(text: str, is_one: bool) -> None:
    assert checkconfig.names_options(text) is is_one
