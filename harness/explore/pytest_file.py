# SPDX-License-Identifier: GPL-2.0-only
"""A program as a test for our pytest plugin: the same steps as calls; what is to be expected the model knows."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields

from harness.compare import Verdict
from harness.explore.witness import Witness
from harness.program.operations import (
    DEVICES,
    FIRST_SUBJECT,
    Bind,
    EvictBy,
    Fork,
    Map,
    Move,
    Operation,
    Remap,
    Request,
    SequenceNumber,
    Span,
)
from harness.program.program import Program

_WIDTH = 110
_FIRST_REGION = "buf"  # what the plugin calls a region by itself, if nothing is called so yet
_METHODS: dict[type[Operation], str] = {EvictBy: "evict", SequenceNumber: "sequence"}
_BY_NAME = {  # arguments that are named, by the fields of the operation
    Map: {"pages": "pages", "prot": "prot"},
    Move: {"sources": "sources", "target": "to", "choices": "choices", "call": "call"},
    Request: {name: name for name in ("default", "mask", "pattern", "owner", "manner")},
}
_DEFAULTS = {
    Move: {"choices": "m", "call": "plain"},
    Request: {"default": "none", "mask": "none", "pattern": ".", "owner": "own", "manner": "fresh"},
}


def pytest_file(program: Program, binding: str, witness: Witness = Witness()) -> str:  # noqa: B008
    """The text of a file with one test, which fails where `witness` saw something."""
    names = _Names(program)
    scene = witness.scene
    marks = [f'@pytest.mark.hmm_binding("{binding}")']
    if scene is not None and scene.wrong:
        marks.append(f"@pytest.mark.hmm_wrong({', '.join(map(repr, scene.wrong))})")
    title = _documentation(program.title or program.name)
    lines = ["# SPDX-License-Identifier: GPL-2.0-only"]
    if scene is not None:
        seen = f"{witness.verdict}: {witness.reason}" if witness.reason else str(witness.verdict)
        lines += [f"# {part}" for part in _folded(f"Seen on {scene}: {seen}")]
        if witness.verdict is not Verdict.PASS and witness.replay:
            lines.append(f"# {witness.replay}")
        lines.append(f"# pytest --hmm-kernel {scene.kernel} --hmm-flavour {scene.flavour} FILE")
    lines += ["", "import pytest", "", "", *marks, f"def test_{_identifier(program.name)}(lockstep):", title]
    actors = [FIRST_SUBJECT, *(name for name in DEVICES if any(step.actor == name for step in program.steps))]
    given = [f'lockstep.{"device" if name in DEVICES else "subject"}("{name}")' for name in actors]
    lines.append(f"    {', '.join(names.of(name) for name in actors)} = {', '.join(given)}")
    lines += [f"    {line}" for line in names.steps()]
    return "\n".join(lines) + "\n"


class _Names:
    """What subjects, devices and regions are called in Python, where they share one room; and the steps."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._taken = {"lockstep", "pytest", *keyword.kwlist}
        self._actors = {name: self._free(name) for name in (*DEVICES, *program.subjects)}
        self._regions = {name: self._free(name) for name in program.regions}

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def of(self, actor: str) -> str:
        return self._actors[actor]

    def steps(self) -> Iterator[str]:
        """A line for each."""
        known: list[str] = []  # regions so far
        for step in self._program.steps:
            arguments = [
                self._argument(step, field.name) for field in fields(step) if field.name not in ("actor", "child")
            ]
            made = ""
            if isinstance(step, Map | Remap):
                made = f"{self._regions[step.region]} = "
                if step.region != _default(known):
                    arguments.append(f'name="{step.region}"')
                known.append(step.region)
            elif isinstance(step, Fork):
                made = f"{self._actors[step.child]} = "
                arguments.append(f'"{step.child}"')
            method = _METHODS.get(type(step), step.verb.replace("-", "_"))
            yield f"{made}{self._actors[step.actor]}.{method}({', '.join(filter(None, arguments))})"

    def _argument(self, step: Operation, name: str) -> str:
        value = getattr(step, name)
        if isinstance(value, Span):
            return self._span(value)
        if name == "region":  # what it makes
            return ""
        if isinstance(step, Bind):
            return self._actors[step.subject]
        if _DEFAULTS.get(type(step), {}).get(name) == value:
            return ""
        text = str(value) if isinstance(value, int) else f'"{value}"'
        by_name = _BY_NAME.get(type(step), {}).get(name)
        return f"{by_name}={text}" if by_name else text

    def _span(self, span: Span) -> str:
        region = self._regions[span.region]
        if (span.start, span.stop) == (0, self._program.regions[span.region].pages):
            return region
        return f"{region}[{span.start}]" if span.count == 1 else f"{region}[{span.start}:{span.stop}]"


def _default(known: list[str]) -> str:
    """What the plugin calls the next region."""
    number, name = 1, _FIRST_REGION
    while name in known:
        number += 1
        name = f"{_FIRST_REGION}{number}"
    return name


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name.removesuffix(".hmm")).strip("_").lower() or "program"


def _documentation(text: str) -> str:
    """As a docstring."""
    return f'    """{_escaped(text)}"""'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _folded(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)
