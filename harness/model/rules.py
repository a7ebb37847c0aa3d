# SPDX-License-Identifier: GPL-2.0-only
"""What differs between the drivers, as data, each with its source."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from harness.program.operations import (
    COHERENT,
    Advice,
    Advise,
    Backing,
    Bring,
    BringZeros,
    Call,
    ClearSoftDirty,
    Counted,
    DeviceOperation,
    DeviceReadUnlocked,
    DmaMap,
    DmaTable,
    DmaUnmap,
    Evict,
    EvictBy,
    Exclusive,
    Lookup,
    Manner,
    Map,
    Merge,
    Move,
    MovePages,
    Operation,
    Passes,
    Pin,
    Poison,
    Reap,
    Register,
    Request,
    Returns,
    Shift,
    SoftDirty,
    SwapOut,
    ToDevice,
    ToDeviceShort,
    ToSystem,
    Userfault,
    Watch,
    WriteProtect,
    WriteUnprotect,
)


@dataclass(frozen=True)
class Rules:
    """How a binding answers where HMM leaves it to the driver."""

    binding: str
    dead_errors: frozenset[int]  # operations on the memory of a process that has exited
    shows_moves: bool  # migration says of each page whether it moved
    fault_shows_entries: bool  # a fault shows the resulting entries
    device_pages: int | None  # memory of a device, in pages of 4096 bytes; None if it grows
    coherent: str | None  # which of `FEATURES` says that it has c0 and c1; None if it never has
    coherent_pages: int  # memory of each of these, in pages
    full_warns: bool  # its driver makes the kernel warn when these are not enough
    failure_oopses: bool  # ... and oops when a page of these fails
    eviction_waits: bool  # what does not leave it when it is evicted is waited for
    cannot: Mapping[str, str]  # verb of a device: why the driver cannot do it, always or at times
    asks_for_huge: bool  # it migrates huge pages whole where the kernel can
    takes_merged: str | None  # which of `FEATURES` it needs to migrate what KSM has merged, if any; None: it does not
    tells_leaks: bool  # of each device, how much of its memory is in use
    unreadable_error: int = errno.EFAULT  # a fault in a mapping that cannot be read; clause 35
    unreadable_shown: bool = True  # a snapshot says of such a mapping that it can never be accessed; clause 33
    reasons: bool = True  # the device is told why memory is invalidated
    remote_shown: bool = False  # a snapshot shows pages in the memory of other devices; clause 49
    may_wait: bool = False  # its faults may drop the mmap lock, or not
    hugetlb_error: int = 0  # a fault in a mapping of hugetlb pages
    selects: bool = True  # the kernel is told which pages to collect for a migration
    traps_cut_snapshots: bool = False  # poisoned memory, at times: `SNAPSHOT_CUT`
    exclusive_kept: bool = True  # what the device has to itself it loses only when it is told of that very page
    exclusive_home: bool = True  # it shows in whose memory it is what it has to itself
    exclusive_writes: bool = True  # it writes to what it has to itself; else it faults, as if it had nothing
    marks_dirty: bool = True  # what it writes to; else reclaim may drop that
    gates: bool = True  # its driver can park threads: `harness.program.race.Gate`
    exclusive_refusal: int | None = None  # before v6.15, what becomes of every page that it does not get
    features: frozenset[str] = frozenset()  # what the target says that its kernel has; see `FEATURES`

    def has(self, feature: str) -> bool:
        """Whether the kernel has `feature`, one of `FEATURES`."""
        assert feature in FEATURES, feature
        return feature in self.features

    @property
    def moves_huge(self) -> bool:
        """Huge pages, and holes of their size, may migrate whole."""
        return self.asks_for_huge and self.has("MIGRATE_PFN_COMPOUND")

    @property
    def moves_merged(self) -> bool:
        """Pages that KSM has merged go to a device's memory."""
        return self.takes_merged == "" or (self.takes_merged is not None and self.has(self.takes_merged))

    def obstacle(self, step: Operation) -> str | None:
        """Why no driver can carry `step` out on this kernel; None if it can be done."""
        if isinstance(step, DeviceOperation) and step.actor in COHERENT:
            why = self._no_coherent()
            if why is not None:
                return why
        elif isinstance(
            step, ToDevice | ToDeviceShort | ToSystem | Evict | EvictBy | Move | Returns
        ) and not self.has("DEVMEM"):
            return "this kernel has no device-private memory (CONFIG_DEVICE_PRIVATE)"
        if isinstance(step, Advise) and step.advice in POPULATE and not self.has("POPULATE"):
            return f"needs MADV_{step.advice.name}, which this kernel does not have"
        if isinstance(step, Advise) and step.advice in _AGES and not self.has("COLD"):
            return f"needs MADV_{step.advice.name}, which this kernel does not have"
        if isinstance(step, Map) and step.backing is Backing.HUGETLB and not self.has("HUGETLB"):
            return "needs MAP_HUGETLB with pages of 2 MiB (CONFIG_HUGETLBFS)"
        if isinstance(step, Map) and step.backing.of_driver and not self.has("MAPPED_NODE"):
            return "needs /dev/hmm_mirror0, a node of our module, to be mapped"
        if isinstance(step, Map) and step.backing.of_kernel and not self.has("KERNEL_PAGES"):
            return "needs to move the kernel's own pages of a process (vdso, vvar), which this kernel forbids"
        if isinstance(step, Poison) and not self.has("POISON"):
            return "needs MADV_HWPOISON (CONFIG_MEMORY_FAILURE)"
        if isinstance(step, Pin) and not self.has("PIN"):
            return "needs long-term pins (CONFIG_GUP_TEST of v6.2, or CONFIG_IO_URING), which this kernel lacks"
        if isinstance(step, Register | Bring | BringZeros) and not self.has("USERFAULT"):
            return (
                "needs userfaultfd(2) with UFFD_FEATURE_SIGBUS (CONFIG_USERFAULTFD), which this kernel does not have"
            )
        protects = isinstance(step, Register) and step.userfault is Userfault.WP
        if (protects or isinstance(step, WriteProtect | WriteUnprotect)) and not self.has("USERFAULT_WP"):
            return "needs UFFDIO_WRITEPROTECT, which this kernel does not have"
        if isinstance(step, Shift) and not self.has("USERFAULT_MOVE"):
            return "needs UFFDIO_MOVE, which this kernel does not have"
        if isinstance(step, Register) and step.userfault is Userfault.ANSWERED and self.may_wait:
            return f"{self.binding} may wait for a userfaultfd or not: v4.20's API does, kmod/compat/ does not"
        if isinstance(step, Advise) and step.advice in _GUARDS and not self.has("GUARD"):
            return f"needs MADV_{step.advice.name}, which this kernel does not have"
        if isinstance(step, Exclusive) and not (
            self.has("MAKE_DEVICE_EXCLUSIVE") or self.has("MAKE_DEVICE_EXCLUSIVE_RANGE")
        ):
            return "needs make_device_exclusive() (CONFIG_DEVICE_PRIVATE), which this kernel does not have"
        unlocked = isinstance(step, DeviceReadUnlocked) or (
            isinstance(step, Request) and step.manner is Manner.UNLOCKED
        )
        if unlocked and not self.has("RANGE_UNLOCKED"):
            return "needs hmm_range_fault_unlocked_timeout(), which this kernel does not have"
        if isinstance(step, Move) and step.call is Call.STRANGE_FAULT and not self.has("MIGRATE_FAULT_PAGE"):
            return "needs migrate_vma.fault_page, which this kernel does not have"
        if isinstance(step, Move) and step.call is Call.COMPOUND and not self.has("FOLIO_SPLIT"):
            return "needs MIGRATE_VMA_SELECT_COMPOUND, which this kernel does not have"
        if isinstance(step, EvictBy) and step.lookup is Lookup.REMOVAL:
            return "coherent memory may not go: what is pinned stays there" if step.actor in COHERENT else None
        if isinstance(step, EvictBy) and not self.has(_LOOKUPS[step.lookup]):
            return f"needs {_LOOKUPS[step.lookup].lower()}(), which this kernel does not have"
        if isinstance(step, Watch) and step.passes is Passes.TWO and not self.has("NOTIFIER_TWO_PASS"):
            return "needs interval notifiers of two passes, which this kernel does not have"
        if isinstance(step, Reap) and not self.has("REAP"):
            return "needs process_mrelease(2), which this kernel does not have"
        if isinstance(step, SoftDirty | ClearSoftDirty) and not self.has("SOFT_DIRTY"):
            return "needs soft-dirty marks (CONFIG_MEM_SOFT_DIRTY, CONFIG_PROC_PAGE_MONITOR)"
        if isinstance(step, Merge) and not self.has("KSM"):
            return "needs KSM, and to be told which pages it has merged (CONFIG_KSM, CONFIG_PROC_PAGE_MONITOR)"
        if isinstance(step, MovePages) and not self.has("MOVE_PAGES"):
            return "needs move_pages(2) (CONFIG_NUMA, CONFIG_MIGRATION), which this kernel does not have"
        if isinstance(step, Counted) and not self.has("SMAPS"):
            return "needs /proc/self/smaps (CONFIG_PROC_PAGE_MONITOR), which this kernel does not have"
        if isinstance(step, SwapOut) and not self.has("SWAP"):
            return "needs swap space (CONFIG_SWAP, and CONFIG_ZRAM to have it in memory) and MADV_PAGEOUT"
        if isinstance(step, DmaMap | DmaTable | DmaUnmap) and not self.has("HMM_DMA"):
            return "needs hmm_dma_map_pfn(), which this kernel does not have"
        return None

    def _no_coherent(self) -> str | None:
        """Why there is no device with coherent memory; None if there are such."""
        devices = " and ".join(COHERENT)
        if self.coherent is None:
            return f"{self.binding} has no {devices}: v4.20's MEMORY_DEVICE_PUBLIC was never usable"
        if not self.has("COHERENT"):
            return f"{devices} need MEMORY_DEVICE_COHERENT as it is since v6.1, which this kernel does not have"
        if not self.has(self.coherent):
            return f"{devices} need memory that is kept from the kernel (memmap=SIZE$ADDRESS): this guest has none"
        return None

    def overrun(self, device: str, asked: int) -> str | None:
        """Why no program may ask for `asked` pages to go to `device`, all told; None if it may."""
        if not self.full_warns or device not in COHERENT or asked <= self.coherent_pages:
            return None
        return f"{self.binding} warns when its coherent memory of {self.coherent_pages} pages may be full"

    def spoils(self, devices: Collection[str]) -> str | None:
        """Why memory must not fail where there may be pages in that of `devices`; None if it may."""
        if not self.failure_oopses or not set(COHERENT) & set(devices):
            return None
        return (
            f"{self.binding} leaves the failure of coherent memory to the kernel, which takes an anonymous page for "
            "one of a file and oopses (mm/memory-failure.c mf_generic_kill_procs())"
        )

    def strands(self, device: str) -> str | None:
        """Why `device` must not be evicted where pages of it may be some device's to itself; None if it may."""
        if not self.eviction_waits or device not in COHERENT:
            return None
        return (
            f"{self.binding} waits for ever for coherent memory that a device has to itself "
            "(lib/test_hmm.c dmirror_device_remove_chunks(), memunmap_pages())"
        )

    def room(self, device: str) -> int | None:
        """How many pages the memory of `device` has; None if it grows."""
        return self.coherent_pages if device in COHERENT else self.device_pages


_NEEDS_MEMORY = (ToDevice, ToDeviceShort, ToSystem, Evict, EvictBy, Move, Returns)
_LOOKUPS = {Lookup.RANGE: "MIGRATE_DEVICE_RANGE", Lookup.PFNS: "MIGRATE_DEVICE_PFNS"}
_GUARDS = (Advice.GUARD_INSTALL, Advice.GUARD_REMOVE)
_AGES = (Advice.COLD, Advice.PAGEOUT)
POPULATE = (Advice.POPULATE_READ, Advice.POPULATE_WRITE)

# What the model asks of a kernel. Found by trying: in capitals those of kmod/probes/, by compiling, and of
# harness/guest/executor/features.c, by calling.
FEATURES = {
    "DEVMEM": "device-private memory",
    "COHERENT": "coherent device memory, and a way to tell its pages in use from free ones (v6.1)",
    "INTERVAL_COHERENT": "our module has memory for c0 and c1",
    "TEST_HMM_COHERENT": "so has test_hmm",
    "FOLIO_SPLIT": "huge pages stay that in the memory of a device (v6.19)",
    "MIGRATE_DEVICE_PFNS": "migrate_device_pfns() (v6.15)",
    "MIGRATE_DEVICE_RANGE": "migrate_device_range() (v6.1)",
    "MIGRATE_FAULT_PAGE": "who faults on a device page holds on to it (v6.1, 16ce101db85d)",
    "MIGRATE_PFN_COMPOUND": "huge pages migrate whole (v6.19)",
    "COLD": "MADV_COLD and MADV_PAGEOUT (v5.4)",
    "POISON": "MADV_HWPOISON (CONFIG_MEMORY_FAILURE)",
    "PIN": "FOLL_LONGTERM for programs (mm/gup_test.c PIN_LONGTERM_TEST_START, v6.2, or io_uring)",
    "KERNEL_PAGES": "the vdso and the vvar of a process can be moved",
    "VVAR_PFNMAP": "the vvar is mapped as the registers of a device are: VM_PFNMAP or VM_IO (up to 7.2)",
    "MAPPED_NODE": "our module's memory can be mapped",
    "USERFAULT": "userfaultfd(2) with UFFD_FEATURE_SIGBUS (CONFIG_USERFAULTFD)",
    "USERFAULT_MOVE": "UFFDIO_MOVE (v6.8)",
    "USERFAULT_WP_MOVES": "mremap() leaves the write-protection of a userfaultfd with the pages (up to 6.12)",
    "USERFAULT_WP": "UFFDIO_WRITEPROTECT of anonymous memory (v5.7)",
    "FREE_UNPOISONS": "MADV_FREE clears poisoned entries (mm/madvise.c madvise_free_pte_range())",
    "HMM_DMA": "hmm_dma_map_pfn() (v6.16)",
    "REAP": "process_mrelease(2) (v5.15)",
    "GUARD": "MADV_GUARD_INSTALL and _REMOVE (v6.13)",
    "HUGETLB": "MAP_HUGETLB, with pages of 2 MiB (CONFIG_HUGETLBFS)",
    "HUGETLB_DONTNEED": "MADV_DONTNEED of hugetlb mappings (v5.18)",
    "HUGETLB_REMAP": "mremap() of hugetlb mappings (v5.16)",
    "POPULATE": "MADV_POPULATE_READ and _WRITE (v5.14)",
    "POPULATE_STOPS_AT_HOLE": "they do not go on behind a hole (mm/madvise.c madvise_populate())",
    "RANGE_UNLOCKED": "hmm_range_fault_unlocked_timeout() (v7.3)",
    "MAKE_DEVICE_EXCLUSIVE": "a device can have a page to itself (v6.15)",
    "MAKE_DEVICE_EXCLUSIVE_RANGE": "a device can have pages to itself (v5.14 to v6.14)",
    "NOTIFIER_TWO_PASS": "interval notifiers are told in two passes (v7.2)",
    "KSM": "KSM merges equal pages (CONFIG_KSM)",
    "MOVE_PAGES": "move_pages(2) (CONFIG_NUMA)",
    "SMAPS": "/proc/self/smaps tells what each mapping has in memory (CONFIG_PROC_PAGE_MONITOR)",
    "RSS_EXACT": "counters of memory in /proc/self/status say what is so at once (v6.17)",
    "SOFT_DIRTY": "what a process has written since it asked is marked (CONFIG_MEM_SOFT_DIRTY)",
    "SWAP": "pages can be swapped out (CONFIG_SWAP, CONFIG_ZRAM)",
    "REMAP_SEVERAL": "mremap() moves several mappings at once (v6.17, mm/mremap.c remap_move())",
}


_BINDINGS = {
    rules.binding: rules
    for rules in (
        Rules(
            "interval",
            dead_errors=frozenset({errno.ESRCH}),  # uapi/hmm_harness.h
            shows_moves=True,
            fault_shows_entries=True,
            device_pages=4096,  # kmod/main.c devmem_mb
            coherent="INTERVAL_COHERENT",
            coherent_pages=4096,  # kmod/main.c devmem_mb
            full_warns=False,
            failure_oopses=False,
            eviction_waits=False,
            cannot={"move": "the kernel has no huge pages (CONFIG_TRANSPARENT_HUGEPAGE)"},
            asks_for_huge=False,  # kmod/interval_devmem.c hh_interval_migrate()
            takes_merged="MIGRATE_DEVICE_RANGE",  # kmod/devmem.c hh_copy_in(): else it could not evict them
            tells_leaks=True,
        ),
        Rules(
            "mirror",
            dead_errors=frozenset({errno.ESRCH}),  # uapi/hmm_harness.h
            shows_moves=True,
            fault_shows_entries=True,
            device_pages=4096,  # kmod/main.c devmem_mb
            coherent=None,
            coherent_pages=0,
            full_warns=False,
            failure_oopses=False,
            eviction_waits=False,
            cannot={
                "request": "v4.20 has neither default_flags, nor a mask, nor an owner",
                "watch": "a mirror of v4.20 hears of all addresses",
                "miswatch": "a mirror of v4.20 hears of all addresses",
                "dma-map": "v4.20 leaves DMA to the driver",
                "exclusive": "v4.20 has no exclusive access",
                "read-unlocked": "v4.20 faults with the mmap lock held",
                "move": "migrate_vma() of v4.20 has no fault_page and no huge pages; ours is never called wrongly",
                "evict-by": "v4.20 finds pages by processes only",
            },
            asks_for_huge=False,  # v4.20 mm/migrate.c migrate_vma_collect_pmd() splits
            takes_merged=None,  # kmod/devmem.c hh_copy_in(): v4.20 could not evict them
            tells_leaks=True,
            # v4.20 mm/hmm.c hmm_vma_get_pfns(): such a mapping has no entries, and -EPERM
            unreadable_error=errno.EPERM,
            unreadable_shown=False,
            hugetlb_error=errno.EINVAL,  # v4.20 mm/hmm.c hmm_vma_get_pfns(), hmm_vma_fault()
            reasons=False,  # v4.20 hmm.h enum hmm_update_event: "no indication as to why"
            selects=False,  # v4.20 mm/migrate.c migrate_vma_collect_pmd()
            traps_cut_snapshots=True,
            may_wait=True,  # v4.20 mm/hmm.c hmm_vma_do_fault(): FAULT_FLAG_ALLOW_RETRY
            remote_shown=True,  # v4.20 mm/hmm.c hmm_vma_handle_pte(), is_device_private_entry()
        ),
        Rules(
            "test_hmm",
            # lib/test_hmm.c: dmirror_fault() -EFAULT, dmirror_snapshot() and dmirror_migrate_*() -EINVAL
            dead_errors=frozenset({errno.EFAULT, errno.EINVAL}),
            shows_moves=False,
            fault_shows_entries=False,
            device_pages=None,  # lib/test_hmm.c dmirror_allocate_chunk()
            coherent="TEST_HMM_COHERENT",
            coherent_pages=65536,  # lib/test_hmm.c: one chunk, DEVMEM_CHUNK_SIZE
            full_warns=True,  # dmirror_allocate_chunk(): "Conflicting mapping in same section"
            failure_oopses=True,  # dmirror_devmem_ops has no memory_failure()
            eviction_waits=True,  # dmirror_device_remove_chunks()
            # lib/test_hmm.c. What its table has lost it finds again as the page of the device itself, not as the
            # one behind it that holds the data: dmirror_do_fault(), dmirror_do_read().
            cannot={
                "request": "its requests are its own",
                "watch": "its only notifier is that of its mirror",
                "miswatch": "its only notifier is that of its mirror",
                "dma-map": "it is no device that does DMA",
                "refuse": "it refuses only while its lock is taken",
                "evict": "before v6.0 it evicts only when its file is closed",
                "to-device-short": "before v6.19 its allocations cannot be made to fail",
                "evict-by": "it evicts only when its file is closed",
                "move": "its migrations are its own",
                "returns": "it brings back what it can",
                "unbind": "it is bound to the process as long as its file is open",
                "bind": "its file is bound for good to the process that opened it",
                "fault": "it faults only where it needs to, and oopses on own pages that its table has lost",
                "read": "it oopses on own pages that its table has lost",
                "read-unlocked": "it oopses on own pages that its table has lost",
                "write": "it oopses on own pages that its table has lost, and warns on read-only ones",
            },
            asks_for_huge=True,  # MIGRATE_VMA_SELECT_COMPOUND in dmirror_migrate_to_device()
            takes_merged="",
            tells_leaks=False,
            exclusive_home=False,  # dmirror_check_atomic() says no more than that it has the page
            exclusive_kept=False,  # dmirror_do_update() removes the entry behind the range, too
            exclusive_writes=False,  # dmirror_do_write() wants DPT_XA_TAG_WRITE
            exclusive_refusal=errno.EBUSY,  # dmirror_exclusive()
            marks_dirty=False,  # dmirror_do_write()
            gates=False,
        ),
    )
}


def rules_for(binding: str, features: Collection[str]) -> Rules:
    """How `binding` behaves on a kernel that has `features`; those that the model does not ask for are ignored."""
    return replace(_BINDINGS[binding], features=frozenset(features) & FEATURES.keys())


# For who has no target to ask: what debian:6.1 has.
_DEBIAN_6_1 = (
    "COHERENT", "COLD", "DEVMEM", "FREE_UNPOISONS", "HUGETLB", "HUGETLB_DONTNEED", "HUGETLB_REMAP",
    "INTERVAL_COHERENT", "KERNEL_PAGES", "KSM", "MAKE_DEVICE_EXCLUSIVE_RANGE", "MIGRATE_DEVICE_RANGE",
    "MAPPED_NODE", "MIGRATE_FAULT_PAGE", "MOVE_PAGES", "POISON", "POPULATE", "REAP", "SMAPS", "SOFT_DIRTY", "SWAP",
    "TEST_HMM_COHERENT", "VVAR_PFNMAP",
)  # fmt: skip
RULES = {binding: rules_for(binding, _DEBIAN_6_1) for binding in _BINDINGS}
