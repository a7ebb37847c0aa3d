# SPDX-License-Identifier: GPL-2.0-only
"""The examples for CI systems: they are what those systems take, and what they call and keep exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from harness.cli import _parser
from harness.report.forms import FORMS
from harness.target import kernel
from harness.target.places import CHECKOUT

EXAMPLES = CHECKOUT / ".ci/examples"
GITHUB = EXAMPLES / "github.yml"
GITLAB = EXAMPLES / "gitlab.yml"


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@pytest.mark.parametrize(
    ("path", "schema"), [(GITHUB, "vendor.github-workflows"), (GITLAB, "vendor.gitlab-ci")], ids=["github", "gitlab"]
)
def test_the_schema_of_the_system_holds(path: Path, schema: str) -> None:
    arguments = ["--builtin-schema", schema, str(path)]
    ended = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_schemas_find_mistakes(tmp_path: Path) -> None:
    for source, line, schema in (
        (GITHUB, "timeout-minutes: 90", "vendor.github-workflows"),
        (GITLAB, "timeout: 90 minutes", "vendor.gitlab-ci"),
    ):
        broken = tmp_path / source.name
        text = source.read_text()
        assert line in text
        broken.write_text(text.replace(line, f"{line.partition(':')[0]}: {{}}"))
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(broken)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_every_target_and_option_that_is_called_is_there() -> None:
    """Each `make TARGET` is one, and `hmm-harness run` takes the arguments, for each entry of the matrix.

    It is called itself: make would make 2 of each of its exit codes.
    """
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for path, entries in ((GITHUB, github_matrix()), (GITLAB, gitlab_matrix())):
        text = re.sub(r"(?m)^ *#.*$", "", path.read_text())
        assert re.findall(r"\bmake ([a-z-]+)", text) == ["setup"]
        assert "setup" in targets
        (arguments,) = re.findall(r"\.venv/bin/hmm-harness (.*)$", text, re.MULTILINE)
        for spec, flavour in entries:
            options = _parser().parse_args(
                shlex.split(arguments.replace("$KERNEL", spec).replace("$FLAVOUR", flavour))
            )
            assert (options.kernel, options.flavour, options.reports) == ([spec], [flavour], Path("results"))


def test_every_kernel_of_the_matrix_can_be_asked_for() -> None:
    assert github_matrix() == gitlab_matrix()
    for spec, flavour in github_matrix():
        assert spec.partition(":")[0] in kernel.PROVIDERS
        assert flavour in kernel.flavours()


def github_matrix() -> set[tuple[str, str]]:
    matrix = load(GITHUB)["jobs"]["conformance"]["strategy"]["matrix"]
    entries = {(spec, flavour) for spec in matrix["kernel"] for flavour in matrix["flavour"]}
    return entries | {(each["kernel"], each["flavour"]) for each in matrix["include"]}


def gitlab_matrix() -> set[tuple[str, str]]:
    entries = set()
    for each in load(GITLAB)["hmm"]["parallel"]["matrix"]:
        kernels, flavours = (
            [value] if isinstance(value, str) else value for value in (each["KERNEL"], each["FLAVOUR"])
        )
        entries |= {(spec, flavour) for spec in kernels for flavour in flavours}
    return entries


def test_what_is_kept_is_what_a_run_leaves() -> None:
    """Reports by the names that --reports gives them, cached entries by kinds that there are."""
    job = load(GITLAB)["hmm"]
    assert job["artifacts"]["paths"] == ["results/"]
    assert job["artifacts"]["reports"]["junit"] == f"results/{FORMS['junit'].file}"
    steps = load(GITHUB)["jobs"]["conformance"]["steps"]
    upload = next(step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert upload["with"]["path"] == "results/"
    (comment,) = re.findall(r"path: results/ # (.*)", GITHUB.read_text())
    assert set(comment.split(", ")) == {form.file for form in FORMS.values()}

    kinds = set()
    for source in (CHECKOUT / "harness/target").rglob("*.py"):
        kinds |= set(re.findall(r"cache\.entry\(\s*\"([a-z-]+)\"", source.read_text()))
    cached = re.findall(r"hmm-harness/([a-z-]+)$", GITHUB.read_text() + GITLAB.read_text(), re.MULTILINE)
    assert cached
    assert set(cached) <= kinds
    environment = load(GITHUB)["jobs"]["conformance"]["env"]
    assert all(
        environment["CACHE"] in step["with"]["path"] for step in steps if "actions/cache" in step.get("uses", "")
    )


def test_a_cache_is_saved_when_something_was_built_and_only_then(tmp_path: Path) -> None:
    """The step that names it, run: a failed build gives no name, and what was restored keeps its own."""
    steps = load(GITHUB)["jobs"]["conformance"]["steps"]
    (name,) = (step for step in steps if step.get("id") == "built")
    (save,) = (step for step in steps if step.get("uses", "").startswith("actions/cache/save@"))
    (restore,) = (step for step in steps if step.get("uses", "").startswith("actions/cache/restore@"))
    assert save["with"]["path"] == restore["with"]["path"]
    assert save["with"]["key"] == "${{ steps.built.outputs.key }}"
    assert "steps.built.outputs.key != steps.cache.outputs.cache-matched-key" in save["if"]
    prefix = name["env"]["PREFIX"]
    assert prefix in restore["with"]["restore-keys"].splitlines()

    def named() -> str:
        output = tmp_path / "output"
        output.write_text("")
        env = {**os.environ, "CACHE": str(tmp_path / "cache"), "GITHUB_OUTPUT": str(output), "PREFIX": "hmm-x-"}
        subprocess.run(["bash", "-e", "-c", name["run"]], env=env, check=True)
        return output.read_text()

    assert named() == "", "nothing came of it"
    (tmp_path / "cache/hmm-harness/image/1").mkdir(parents=True)
    assert named() == "", "no kernel was built"
    (tmp_path / "cache/hmm-harness/kernel/1").mkdir(parents=True)
    first = named()
    assert re.fullmatch(r"key=hmm-x-[0-9a-f]{16}\n", first)
    assert named() == first
    (tmp_path / "cache/hmm-harness/kernel/2").mkdir()
    assert named() != first


def test_the_shell_in_them_can_be_read() -> None:
    steps = load(GITHUB)["jobs"]["conformance"]["steps"]
    job = load(GITLAB)["hmm"]
    for script in [step["run"] for step in steps if "run" in step] + [
        "\n".join(job["before_script"] + job["script"])
    ]:
        subprocess.run(["bash", "-n", "-c", script], check=True)
