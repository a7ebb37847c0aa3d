# SPDX-License-Identifier: GPL-2.0-only
"""The agent and the executor in a guest: what they do with devices, modules and the kernel's log."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from harness.target.lab import Lab
from tests.guest_executor import BUS, Seen, mapped, operation, request, split

pytestmark = pytest.mark.vm

HUGEPAGE = 14  # MADV_HUGEPAGE
HWPOISON = 100  # MADV_HWPOISON
LATE = "[hmm-harness: printed before this program started, up to here]"


def call(lab: Lab, content: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
    return lab.vm().call(content, body, timeout=60)


def run(
    lab: Lab, steps: Sequence[bytes], *, binding: str = "INTERVAL", wrong: Sequence[str] = (), timeout_ms: int = 20000
) -> tuple[dict[str, Any], list[Seen]]:
    """The agent's result of one program, and its observations."""
    program = request(steps, binding=binding, timeout_ms=timeout_ms)
    answer, body = call(lab, {"do": "run", "wrong": list(wrong), "programs": [len(program)]}, program)
    assert "error" not in answer, answer
    (result,) = answer["results"]
    (seen,) = split(body)
    return result, seen


MIGRATED = [mapped(4), operation("BIND"), operation("WRITE", npages=4, value=1), operation("TO_DEVICE", npages=4)]


def test_hello_lists_both_bindings(lab: Lab) -> None:
    answer, _ = call(lab, {"do": "hello"})
    assert answer["release"] == lab.kernel.release
    assert answer["bindings"] == ["interval", "mirror", "test_hmm"]
    assert answer["info"]["modules"]["hmm_harness"] == "loaded"
    assert "skip-invalidate" in answer["info"]["mistakes"]
    assert {"DEVMEM", "REMAP_SEVERAL"} & set(answer["info"]["features"])


def test_no_huge_page_is_made_of_pages_that_are_there(lab: Lab) -> None:
    """khugepaged has looked once, before any program: else it would look when one asks for huge pages."""
    place = "/sys/kernel/mm/transparent_hugepage/khugepaged"
    status, scans = lab.vm().exec(f"cat {place}/full_scans", timeout=60)
    assert status == 0
    assert int(scans) > 0
    steps = [
        mapped(1024),
        operation("WRITE", npages=1024, value=1),
        operation("ADVISE", npages=1024, argument=HUGEPAGE),
    ]
    result, seen = run(lab, steps)
    assert [(each.status, each.error) for each in seen] == [("DONE", 0)] * len(steps), result
    assert lab.vm().exec(f"sleep 2; cat {place}/pages_collapsed {place}/full_scans", timeout=60) == (0, f"0\n{scans}")


@pytest.mark.parametrize("binding", ["INTERVAL", "TEST_HMM"])
def test_device_memory_is_free_again_after_a_program(lab: Lab, binding: str) -> None:
    result, seen = run(lab, [*MIGRATED, operation("DEVICE_READ", npages=4)], binding=binding)
    assert seen[4] == Seen("DONE", 0, (1, 2, 3, 4))
    assert result["residue"] == ({"d0": 0, "d1": 0} if binding == "INTERVAL" else {})
    assert result["taint"] == 0


def test_pages_that_a_driver_leaks_are_residue(lab: Lab) -> None:
    result, _ = run(lab, MIGRATED, wrong=["leak-device-page"])
    assert result["residue"]["d0"] == 4
    lab.discard()


def test_device_operations_work_after_the_subjects_exit(lab: Lab) -> None:
    _, seen = run(lab, [*MIGRATED, operation("EXIT"), operation("SNAPSHOT", npages=4), operation("USAGE")])
    assert seen[5] == Seen("DONE", errno.ESRCH)
    assert (seen[6].status, seen[6].elements[0]) == ("DONE", 0)


def test_a_device_goes_from_one_subject_to_another(lab: Lab) -> None:
    steps = [
        *MIGRATED,
        operation("FORK", other=1),
        operation("WRITE", actor=1, npages=1, value=9),
        operation("BIND", other=1),
        operation("UNBIND"),
        operation("BIND", other=1),
        operation("DEVICE_READ", npages=2),
    ]
    _, seen = run(lab, steps)
    assert seen[6:] == [
        Seen("DONE", errno.EBUSY),
        Seen("DONE"),
        Seen("DONE"),
        Seen("DONE", 0, (9, 2)),
    ]


def test_operations_of_a_device_that_is_not_bound(lab: Lab) -> None:
    steps = [
        mapped(1),
        operation("SNAPSHOT", npages=1),
        operation("USAGE"),
        operation("BIND"),
        operation("TABLE", npages=1),
    ]
    _, seen = run(lab, steps)
    assert seen[1] == Seen("DONE", errno.ENXIO)
    assert seen[2].elements[0] == 0
    assert seen[3:] == [Seen("DONE"), Seen("DONE", 0, (0,))]


def test_bus_errors_are_told_from_segmentation_faults(lab: Lab) -> None:
    _, seen = run(
        lab,
        [
            mapped(2),
            operation("WRITE", npages=2, value=1),
            operation("ADVISE", page=1, npages=1, argument=HWPOISON),
            operation("READ", npages=2),
            operation("WRITE", npages=2, value=3),
        ],
    )
    assert seen[2:] == [Seen("DONE"), Seen("DONE", 0, (1, BUS)), Seen("DONE", 0, (0, BUS))]
    lab.discard()


# What the header of test_hmm.c (the binding) says: an access would crash the kernel
LOSES_ENTRIES = {
    "protect": [operation("PROTECT", page=1, npages=1, argument=1)],
    "the page before is unmapped": [operation("UNMAP", npages=1)],
    "fork": [operation("FORK", other=1)],
}


@pytest.mark.parametrize("access", ["DEVICE_READ", "DEVICE_WRITE", "FAULT"])
@pytest.mark.parametrize("cause", LOSES_ENTRIES)
def test_test_hmm_is_kept_from_touching_device_pages_without_entries(lab: Lab, cause: str, access: str) -> None:
    value = 5 if access == "DEVICE_WRITE" else 0
    steps = [
        *MIGRATED,
        *LOSES_ENTRIES[cause],
        operation(access, page=1, npages=1, value=value),
        operation("READ", npages=1),
    ]
    result, seen = run(lab, steps, binding="TEST_HMM")
    assert [one.status for one in seen[-2:]] == ["UNSUPPORTED", "NOT_RUN"]
    assert (result["taint"], result["log"]) == (0, [])


def test_a_program_that_does_not_end_in_time_is_stuck_and_leaves_nothing(lab: Lab) -> None:
    result, seen = run(lab, [*MIGRATED, *[operation("EVICT")] * 60000], timeout_ms=300)
    statuses = [one.status for one in seen]
    stuck = statuses.index("STUCK")
    assert set(statuses[stuck + 1 :]) == {"NOT_RUN"}
    assert result["residue"] == {}
    result, _ = run(lab, MIGRATED)
    assert result["residue"] == {"d0": 0, "d1": 0}


def test_kernel_log_lines_are_those_of_the_program(lab: Lab) -> None:
    run(lab, MIGRATED)
    code, output = lab.vm().exec("echo '<6>between two programs' > /dev/kmsg", timeout=60)
    assert code == 0, output
    result, _ = run(lab, MIGRATED)
    assert len(result["log"]) == 2
    assert result["log"][0].endswith("] between two programs")
    assert result["log"][1] == LATE


def test_unknown_mistakes_are_refused_with_those_there_are(lab: Lab) -> None:
    answer, _ = call(lab, {"do": "run", "wrong": ["nonsense"], "programs": []})
    assert "refuses the mistakes nonsense" in answer["error"]
    assert "skip-invalidate" in answer["hint"]


def test_the_module_is_unloaded_refused_and_loaded(lab: Lab) -> None:
    assert call(lab, {"do": "unload", "module": "hmm_harness"})[0] == {}
    assert call(lab, {"do": "hello"})[0]["bindings"] == ["test_hmm"]
    program = request(MIGRATED)
    answer, _ = call(lab, {"do": "run", "programs": [len(program)]}, program)
    assert "needs /dev/hmm_harness0" in answer["error"]
    assert "not loaded" in answer["hint"]
    answer, _ = call(lab, {"do": "load", "module": "hmm_harness", "parameters": "wrong=nonsense"})
    assert "refuses hmm_harness.ko: Invalid argument" in answer["error"]
    assert any("nonsense" in line for line in answer["log"])
    assert call(lab, {"do": "load", "module": "hmm_harness"})[0] == {}
    result, _ = run(lab, MIGRATED)
    assert result["residue"] == {"d0": 0, "d1": 0}
    lab.discard()
