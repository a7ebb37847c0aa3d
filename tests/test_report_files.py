# SPDX-License-Identifier: GPL-2.0-only
"""Reports become files whole or not at all; the table of forms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.report import files, forms
from harness.report.results import read
from tests.sample_runs import interrupted_run, sample_run


def test_a_report_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report"
    for text in ("first \udcff", "second"):
        files.write(path, text)
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_report_has_the_permissions_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    files.write(tmp_path / "report", "text")
    assert (tmp_path / "report").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_links_devices_and_standard_output(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    files.write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    files.write(Path(os.devnull), "gone")
    assert Path(os.devnull).is_char_device()
    files.write(files.STDOUT, "said é")
    assert capfdbinary.readouterr().out == "said é".encode()


@pytest.mark.parametrize("name", ["file/below", "/proc/no/such", "."])
def test_what_cannot_be_written_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="cannot write the report") as caught:
        files.write(tmp_path / name, "text")
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report"
    files.write(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(HarnessError, match="No space left"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", forms.FORMS)
def test_every_form_can_be_written(tmp_path: Path, form: str) -> None:
    path = tmp_path / forms.FORMS[form].file
    forms.write(sample_run(hostile=True), form, path)
    assert path.stat().st_size > 10_000


def test_json_reads_back_as_the_same_run(tmp_path: Path) -> None:
    for run in (sample_run(hostile=True), interrupted_run()):
        forms.write(run, "json", tmp_path / "results")
        again = read(tmp_path / "results")
        assert again.results == run.in_order()
        assert (again.targets, again.end, again.programs, again.kernels) == (
            run.targets,
            run.end,
            run.programs,
            run.kernels,
        )


def test_whether_a_report_can_be_written_is_told_without_writing_it(tmp_path: Path) -> None:
    report = tmp_path / "new" / "x.xml"
    files.check(report)
    assert list(report.parent.iterdir()) == []
    report.write_text("the one before")
    files.check(report)
    files.check(Path("/dev/null"))
    files.check(files.STDOUT)
    assert [each.name for each in report.parent.iterdir()] == ["x.xml"]
    assert report.read_text() == "the one before"
    for path in (tmp_path / "new", report / "x", Path("/proc/1/x")):
        with pytest.raises(HarnessError, match="cannot write the report"):
            files.check(path)
