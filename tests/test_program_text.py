# SPDX-License-Identifier: GPL-2.0-only
"""The text form of programs: what it reads, what it refuses and how it says so."""

from __future__ import annotations

import pytest
from hypothesis import given

from harness.conformance import catalogue
from harness.errors import UsageError
from harness.program.operations import Map, Prot, Read, Span, Write
from harness.program.program import Program
from harness.program.text import ProgramSyntaxError, parse, render
from tests.strategies import programs

BUF = "a: map buf anon 8 rw\n"


def _error(text: str) -> ProgramSyntaxError:
    with pytest.raises(ProgramSyntaxError) as caught:
        parse(text, file="x.hmm")
    return caught.value


def test_reads_what_a_person_writes() -> None:
    program = parse(
        "# SPDX-License-Identifier: GPL-2.0-only\n# A promise\n# in two lines.\n\n"
        "a: map buf anon 8 rw  # a comment\n  a :write buf 0x10\na: read buf[2]\na: read buf[2:4]\n",
        file="x.hmm",
        name="x",
    )
    assert program.title == "A promise in two lines."
    assert program.steps[0] == Map("a", "buf", program.steps[0].backing, 8, Prot.RW)  # type: ignore[attr-defined]
    assert program.steps[1:] == (
        Write("a", Span("buf", 0, 8), 16),
        Read("a", Span("buf", 2, 3)),
        Read("a", Span("buf", 2, 4)),
    )


@given(programs())
def test_every_program_reads_back(program: Program) -> None:
    assert parse(render(program), file="x.hmm", name=program.name) == program


@pytest.mark.parametrize("name", catalogue.names())
def test_every_program_of_the_product_reads_back_and_says_its_promise(name: str) -> None:
    (program,) = catalogue.select([name])
    assert program.title.endswith((".", ")"))
    assert parse(render(program), file="x.hmm", name=name) == program


@pytest.mark.parametrize(
    ("text", "where", "what", "hint"),
    [
        (
            BUF + "a: raed buf",
            "x.hmm:2",
            "unknown operation 'raed' of a subject",
            "did you mean 'read'?",
        ),
        (
            BUF + "d0: bind a\nd0: flush buf",
            "x.hmm:3",
            "unknown operation 'flush' of a device",
            "evict",
        ),
        (
            BUF + "a: read buf[0:9]",
            "x.hmm:2",
            "reaches past the end of buf, which has 8 pages",
            "[0:8]",
        ),
        (BUF + f"a: read buf[{'9' * 5000}]", "x.hmm:2", "is no range of pages", None),
        (BUF + "a: read buf[3:3]", "x.hmm:2", "is empty", None),
        (f"a: map buf anon {2**60} rw", "x.hmm:1", f"{2**60} pages in one region", "1 to 65536"),
        ("a: map buf anon 0 rw", "x.hmm:1", "0 pages", "1 to 65536"),
        ("a: map buf anno 8 rw", "x.hmm:1", "'anno' is no backing", "anon, shared"),
        ("a: map buf anon 8 wr", "x.hmm:1", "'wr' is no prot", "none, r, w, rw"),
        ("a: map buf anon eight rw", "x.hmm:1", "'eight' is no number", None),
        ("a: map buf anon 8", "x.hmm:1", "'map' takes 4 arguments, not 3", "map NAME anon|shared"),
        ("a: read buf", "x.hmm:1", "no region 'buf' yet", "makes one"),
        ("b: map buf anon 8 rw", "x.hmm:1", "no subject 'b' yet", "fork b"),
        (BUF + "a: exit\na: read buf", "x.hmm:3", "subject 'a' has exited", None),
        (BUF + "d0: read buf", "x.hmm:2", "d0 is not bound", "bind a"),
        (BUF + "d0: bind a\nd0: bind a", "x.hmm:3", "d0 is bound to 'a'", "unbind"),
        (BUF + "a: map buf anon 8 rw", "x.hmm:2", "region 'buf' exists already", None),
        (BUF + "a: fork a", "x.hmm:2", "subject 'a' exists already", None),
        (BUF + "a: fork d1", "x.hmm:2", "'d1' is the name of a device", None),
        (BUF + "a: write buf 0", "x.hmm:2", "token 0 is out of range", "use 1 to"),
        (BUF + "a: write buf[1:2:3] 4", "x.hmm:2", "is no range of pages", "`buf[3]`"),
        (BUF + "d0: bind a\nd0: request buf none both fx own fresh", "x.hmm:3", "'fx' does not say", "`f` fault"),
        (BUF + f"d0: bind a\nd0: request buf none both {'f' * 17} own fresh", "x.hmm:3", "does not say", "1 to 16"),
        (BUF + "d0: bind a\nd0: request buf none bth f own fresh", "x.hmm:3", "'bth' is no asked", "none, fault"),
        (
            "a: map big anon 513 rw\nd0: bind a\nd0: request big none both f own fresh",
            "x.hmm:3",
            "513 pages in one request",
            "at most 512",
        ),
        (
            BUF + "d0: bind a\nd0: watch buf plain\nd0: sequence buf",
            "x.hmm:4",
            "d0's watch of this is no interval notifier: it has no sequence number",
            None,
        ),
        (BUF + "d0: bind a\nd0: watched buf", "x.hmm:3", "d0 does not watch exactly this", "`d0: watch ...` first"),
        (
            BUF + "d0: bind a\nd0: watch buf one-pass\nd0: watch buf one-pass",
            "x.hmm:4",
            "watches exactly this already",
            None,
        ),
        (BUF + "d0: bind a\nd0: sequence buf", "x.hmm:3", "d0 does not watch exactly this", "`d0: watch ...` first"),
        (BUF + "d0: bind a\nd0: miswatch buf long", "x.hmm:3", "'long' is no length", "empty, endless"),
        (BUF + "a: reap\na: read buf", "x.hmm:3", "subject 'a' is being killed", "`a: exit`"),
        (BUF + "a: reap\nd0: bind a", "x.hmm:3", "subject 'a' is being killed", "`a: exit`"),
        (BUF + "a: exit\na: reap", "x.hmm:3", "subject 'a' has exited", None),
        (BUF + "d0: bind a\nd0: dma-table buf", "x.hmm:3", "d0 does not map exactly this", "`d0: dma-map ...` first"),
        (
            BUF + "d0: bind a\nd0: dma-map buf read own\nd0: dma-unmap buf\nd0: dma-unmap buf",
            "x.hmm:5",
            "d0 does not map exactly this",
            None,
        ),
        (
            "a: map big anon 513 rw\nd0: bind a\nd0: dma-map big read own",
            "x.hmm:3",
            "513 pages mapped at once",
            "at most 512",
        ),
        (
            "a: map big anon 9 rw\nd0: bind a\n" + "".join(f"d0: dma-map big[{n}] read own\n" for n in range(9)),
            "x.hmm:11",
            "more than 8 mappings of d0",
            None,
        ),
        (
            "a: map big anon 4096 rw\na: advise big[0] pageout\na: swap-out big",
            "x.hmm:3",
            "more than 4096 pages swapped out, all told",
            "fewer",
        ),
        (
            "a: map big anon 4096 rw\na: swap-out big\na: advise big[0] pageout",
            "x.hmm:3",
            "more than 4096 pages",
            "fewer",
        ),
        (BUF + "a: swap-out buf[0:4]\na: poison buf[7]", "x.hmm:3", "buf may be in the swap cache", "another region"),
        (
            BUF + "a: advise buf pageout\na: remap buf new\na: poison new\na: swap-out new[0]",
            "x.hmm:5",
            "new may be in the swap cache",
            "another region",
        ),
        (BUF + "a: map file file 1 rw\na: poison file", "x.hmm:3", "file is not anonymous", None),
        (BUF + "a: truncate buf 2", "x.hmm:2", "buf has no file", "file and private-file"),
        ("a: map buf file 8 rw\na: truncate buf -1", "x.hmm:2", "-1 pages in one file", "0 to 65536"),
        (BUF + "a: userfault buf none", "x.hmm:2", "'none' is no userfault", "missing, wp, answered"),
        (BUF + "a: userfault buf missing\na: remap buf to", "x.hmm:3", "buf has a userfaultfd", "`remap` pages that"),
        (BUF + "a: userfault buf[0:4] wp\na: remap buf to", "x.hmm:3", "buf has a userfaultfd", "one `userfault ..."),
        (BUF + "a: userfault buf wp\na: fork b\nb: remap buf to", "x.hmm:4", "buf has a userfaultfd", None),
        (
            BUF + "a: userfault buf wp\na: remap buf to\na: write to 5\na: userfault to wp",
            "x.hmm:5",
            "to has pages that were write-protected elsewhere",
            "right after the first `remap`",
        ),
        (
            BUF + "a: userfault buf wp\na: remap buf to\na: remap to on\na: userfault on wp",
            "x.hmm:5",
            "on has pages that were write-protected elsewhere",
            None,
        ),
        (BUF + "a: userfault buf wp\na: advise buf free", "x.hmm:3", "buf has a userfaultfd", "`free` is for"),
        (BUF + "a: userfault buf[0:3] wp\na: userfault buf[2] missing", "x.hmm:3", "a has given these pages", None),
        (BUF + "a: advise buf hugepage\na: userfault buf wp", "x.hmm:3", "buf may have huge pages", None),
        (BUF + "a: poison buf[7]\na: userfault buf[0] wp", "x.hmm:3", "buf may have pages that are pinned", None),
        (BUF + "a: pin buf\na: unpin\na: userfault buf wp", "x.hmm:4", "buf may have pages that are pinned", None),
        ("a: map buf shared 8 rw\na: userfault buf wp", "x.hmm:2", "buf is not anonymous", None),
        ("a: map buf private-file 8 rw\na: userfault-zero buf", "x.hmm:2", "buf is a private mapping", None),
        (BUF + "a: userfault-move buf[0] buf", "x.hmm:2", "more than one page at once", "page by page"),
        (BUF + "a: userfault-move buf[0] buf[8]", "x.hmm:2", "reaches past the end of buf", None),
        (
            BUF + "a: advise buf free\na: userfault-move buf[0] buf[1]",
            "x.hmm:3",
            "may have pages that are huge",
            None,
        ),
        (BUF + "a: userfault-copy buf 0", "x.hmm:2", "token 0 is out of range", "use 1 to"),
        ("a: map buf pfnmap 513 rw", "x.hmm:1", "513 pages of a driver", "at most 512"),
        ("a: map buf mixedmap 8 rw\na: remap buf to", "x.hmm:2", "buf is a driver's memory", "`remap` another"),
        ("a: map code vdso 1 rw", "x.hmm:1", "the vdso is one page here, rx", "`map code vdso 1 rx`"),
        ("a: map data vvar 2 r", "x.hmm:1", "the vvar is one page here, r", "`map data vvar 1 r`"),
        ("a: map one vdso 1 rx\na: map two vdso 1 rx", "x.hmm:2", "can be mapped once", None),
        ("a: map code vdso 1 rx\na: read code", "x.hmm:2", "code is the kernel's own", "`read` another region"),
        ("a: map code vdso 1 rx\nd0: bind a\nd0: read code", "x.hmm:3", "code is the kernel's own", None),
        ("a: map buf hugetlb 512 rw\na: lock buf", "x.hmm:2", "buf is of huge pages or a driver's", "`lock` another"),
        ("a: map buf shared 8 rw\na: merge buf", "x.hmm:2", "buf is not anonymous", "only anonymous"),
        (BUF + "a: advise buf free\na: merge buf", "x.hmm:3", "buf may have pages that are huge", "`merge` another"),
        (BUF + "a: userfault buf missing\na: lock buf", "x.hmm:3", "buf may have pages that are huge", None),
        (BUF + "a: lock buf\na: merge buf", "x.hmm:3", "buf may be locked, or merged", "`merge` another"),
        (BUF + "a: lock buf\na: advise buf dontneed", "x.hmm:3", "buf may be locked or merged", "`advise` another"),
        (BUF + "a: merge buf\na: remap buf to\na: poison to", "x.hmm:4", "to may be locked or merged", None),
        (BUF + "a: merge buf\na: userfault-move buf[0] buf[1]", "x.hmm:3", "buf may be locked or merged", None),
        (BUF + "a: lock buf\na: reap", "x.hmm:3", "some memory may be locked or merged", "let a exit"),
        (
            BUF + "a: map more anon 2 rw\nd0: bind a\na: merge buf\nd0: to-device buf\na: merge more",
            "x.hmm:6",
            "merged pages may be in the memory of a device",
            "merge before anything goes there",
        ),
        (BUF + "a: fork b\na: merge buf", "x.hmm:3", "there was a fork", "merge before that"),
        (BUF + "a: counted buf[0:7]", "x.hmm:2", "not all of buf", "take the whole region"),
        ("a: map buf hugetlb 8 rw", "x.hmm:1", "8 pages in a hugetlb region", "a multiple of 512"),
        (
            BUF + "d0: bind a\nd0: move buf system device mx plain",
            "x.hmm:3",
            "'mx' does not say what becomes of each page",
            "`m` moves, `.` stays",
        ),
        (
            "a: map buf anon 513 rw\nd0: bind a\nd0: move buf system device m plain",
            "x.hmm:3",
            "513 pages in one move",
            "at most 512",
        ),
        ("map buf", "x.hmm:1", "cannot read 'map buf'", "actor: verb"),
        ("a:", "x.hmm:1", "cannot read 'a:'", None),
        ("# nothing\n", "x.hmm:1", "no operation", None),
    ],
)
def test_refuses_with_file_and_line(text: str, where: str, what: str, hint: str | None) -> None:
    error = _error(text)
    assert str(error).startswith(f"{where}: ")
    assert what in str(error)
    if hint is not None:
        assert hint in (error.hint or "")


def test_a_pattern_that_matches_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no program 'nosuch'") as caught:
        catalogue.select(["nosuch"])
    assert caught.value.hint is not None


def test_a_folder_names_its_programs() -> None:
    chosen = catalogue.select(["snapshot"])
    assert len(chosen) > 5
    assert all(program.name.startswith("snapshot/") for program in chosen)


def test_there_are_forty_programs() -> None:
    assert len(catalogue.names()) >= 40


def test_a_name_that_is_too_long_for_a_file_is_no_program() -> None:
    with pytest.raises(UsageError, match="no program"):
        catalogue.select(["x" * 5000])


def test_a_program_has_at_most_as_many_steps_as_can_be_sent() -> None:
    assert "more than 65536 steps" in str(_error(BUF + "a: read buf\n" * 65536))
