/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * User API of the hmm_harness module: /dev/hmm_harness0, /dev/hmm_harness1; and
 * /dev/hmm_harness2, /dev/hmm_harness3, whose memory the CPU reaches, where the
 * module was given some.
 *
 * An open file is one *mirror*: after HMM_HARNESS_BIND it shows the memory of
 * the process that called it to the device whose node was opened. The file may
 * be handed to another process (SCM_RIGHTS); every later ioctl acts on the
 * bound memory, whoever calls it.
 *
 * Rules that hold for every ioctl:
 *  - the first member is @size, sizeof() of the struct as the caller knows it.
 *    A larger struct is accepted as long as what the kernel does not know is
 *    zero (-E2BIG otherwise), a smaller one down to the first version's size
 *    (-EINVAL below it).
 *  - @flags without a meaning and reserved members must be zero: -EINVAL.
 *  - addresses are multiples of the page size, ranges are not empty: -EINVAL.
 *  - a range is at most HMM_HARNESS_MAX_PAGES long: -E2BIG.
 *  - a range neither wraps nor leaves the addresses that the process can have:
 *    -EINVAL. That there is no memory is no reason in itself.
 *  - unknown commands: -ENOTTY.
 *  - -ENXIO on an operation that needs a bound process when there is none, also
 *    when UNBIND comes in between; -ESRCH when the bound process has exited.
 *  - -EOPNOTSUPP for what the device is not capable of.
 *  - -EFAULT when the struct, or what it points to, cannot be accessed.
 *  - -EBUSY when an operation got nowhere for ten seconds, -EINTR when the
 *    caller is being killed (BIND, and WATCH with PLAIN, SHARED or TLB: at any
 *    signal, nothing has happened then), -ENOMEM.
 *  - outputs are copied back on failure as well, once the struct as such was
 *    accepted.
 *
 * This header is read by cffi as well: keep to constants with literal values,
 * enums, and structs of fixed-width members.
 */
#ifndef _UAPI_HMM_HARNESS_H
#define _UAPI_HMM_HARNESS_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define HMM_HARNESS_ABI_VERSION 1
/* Devices of each binding, and those with coherent memory, numbered after them */
#define HMM_HARNESS_NR_DEVICES 2
#define HMM_HARNESS_NR_COHERENT 2
#define HMM_HARNESS_MAX_PAGES 65536

/*
 * What is known of a page, one __u64 each. Not the kernel's own hmm_pfns: their
 * layout differs between versions.
 */
/* The CPU page table (or the device's) has an entry that can be read. */
#define HMM_HARNESS_PAGE_VALID 0x1
/* ... and written. */
#define HMM_HARNESS_PAGE_WRITE 0x2
/* It can never be accessed (HMM_PFN_ERROR). */
#define HMM_HARNESS_PAGE_ERROR 0x4
/* It is the shared zero page; a huge one is not told from others. */
#define HMM_HARNESS_PAGE_ZERO 0x8
/* It lives in the memory of the device asked. */
#define HMM_HARNESS_PAGE_LOCAL 0x10
/*
 * It lives in the memory of another device: in coherent memory. HMM shows
 * device-private memory of others as if there were nothing: never seen for that.
 */
#define HMM_HARNESS_PAGE_REMOTE 0x20
/* TABLE and DMA: the device's entry contradicts the CPU's (clause 1). */
#define HMM_HARNESS_PAGE_STALE 0x40
/* MIGRATE only: the page was moved by this call. */
#define HMM_HARNESS_PAGE_MOVED 0x80
/* SNAPSHOT and FAULT only: order of the CPU's mapping that covers the page. */
#define HMM_HARNESS_PAGE_ORDER_SHIFT 8
#define HMM_HARNESS_PAGE_ORDER_MASK 0x1f00
/*
 * REQUEST only: neither valid nor an error, but not 0 either: hmm_range_fault()
 * left other bits.
 */
#define HMM_HARNESS_PAGE_RESIDUE 0x2000
/* WATCHED only: the watch was told of a change of it. */
#define HMM_HARNESS_PAGE_HEARD 0x4000
/* DMA only: the page has a DMA address. */
#define HMM_HARNESS_PAGE_DMA 0x100000
/* EXCLUSIVE, TABLE, READ and WRITE only: the device has it to itself. */
#define HMM_HARNESS_PAGE_EXCLUSIVE 0x8000
/* MOVE only: migrate_vma_setup() collected it: it, or what is not there, may move. */
#define HMM_HARNESS_PAGE_COLLECTED 0x10000
/* MOVE only: ... as a part of a huge page, or of a hole of that size */
#define HMM_HARNESS_PAGE_COMPOUND 0x20000
/* MOVE only: it moved as a part of a huge page */
#define HMM_HARNESS_PAGE_WHOLE 0x40000
/* MOVE only, first page: the migration left a reference to it behind. */
#define HMM_HARNESS_PAGE_KEPT 0x200000
/*
 * HMM named another page of the same huge page: the number does not fit the
 * address. The device goes on with the right one.
 */
#define HMM_HARNESS_PAGE_SHIFTED 0x80000

/* hmm_harness_info.capabilities */
#define HMM_HARNESS_CAP_MIRROR 0x1
#define HMM_HARNESS_CAP_DEVMEM 0x2
#define HMM_HARNESS_CAP_EVICT 0x4
/* REQUEST, and with it HMM_HARNESS_REQUEST_UNLOCKED */
#define HMM_HARNESS_CAP_REQUEST 0x10
#define HMM_HARNESS_CAP_UNLOCKED 0x20
/* WATCH and WATCHED, and with them HMM_HARNESS_WATCH_TWO_PASS */
#define HMM_HARNESS_CAP_WATCH 0x40
#define HMM_HARNESS_CAP_TWO_PASS 0x80
/* EVENTS, and a netlink family: hmm_harness_netlink.h */
#define HMM_HARNESS_CAP_EVENTS 0x100
#define HMM_HARNESS_CAP_DMA 0x1000
/* EXCLUSIVE */
#define HMM_HARNESS_CAP_EXCLUSIVE 0x200
/* The memory that HMM_HARNESS_CAP_DEVMEM speaks of is coherent: the CPU reaches it */
#define HMM_HARNESS_CAP_COHERENT 0x4000
/* GATE_ARM, GATE_WAIT and GATE_RELEASE */
#define HMM_HARNESS_CAP_GATES 0x8000
/* RETURNS; MOVE comes with HMM_HARNESS_CAP_DEVMEM */
#define HMM_HARNESS_CAP_RETURNS 0x400
/* HMM_HARNESS_EVICT_RANGE; _NUMBERS where the kernel has that, too */
#define HMM_HARNESS_CAP_EVICT_RANGE 0x800

/**
 * struct hmm_harness_info - HMM_HARNESS_INFO
 * @size: sizeof(struct hmm_harness_info)
 * @flags: must be zero
 * @abi_version: (out) HMM_HARNESS_ABI_VERSION of the module
 * @page_size: (out) bytes
 * @capabilities: (out) HMM_HARNESS_CAP_*
 * @device: (out) number of the device, as in the node's name
 * @nr_devices: (out) how many devices of its kind of node there are
 * @device_pages: (out) pages of memory the device has; 0 without
 *                HMM_HARNESS_CAP_DEVMEM
 */
struct hmm_harness_info {
	__u32 size;
	__u32 flags;
	__u32 abi_version;
	__u32 page_size;
	__aligned_u64 capabilities;
	__u32 device;
	__u32 nr_devices;
	__aligned_u64 device_pages;
};

/**
 * struct hmm_harness_bind - HMM_HARNESS_BIND, HMM_HARNESS_UNBIND
 * @size: sizeof(struct hmm_harness_bind)
 * @flags: must be zero
 *
 * BIND mirrors the caller's memory; -EBUSY when the file is bound. UNBIND stops
 * it: no callback runs after it returns. Pages in device memory stay there, as
 * they do when the file is closed.
 */
struct hmm_harness_bind {
	__u32 size;
	__u32 flags;
};

/* hmm_harness_range.flags of HMM_HARNESS_FAULT */
#define HMM_HARNESS_FAULT_WRITE 0x1
/* hmm_harness_range.flags of HMM_HARNESS_READ */
#define HMM_HARNESS_READ_UNLOCKED 0x1
/* hmm_harness_range.flags of HMM_HARNESS_MIGRATE, exactly one */
#define HMM_HARNESS_MIGRATE_TO_DEVICE 0x1
#define HMM_HARNESS_MIGRATE_TO_SYSTEM 0x2
/* hmm_harness_range.flags of HMM_HARNESS_SNAPSHOT and HMM_HARNESS_TABLE */
#define HMM_HARNESS_NOWAIT 0x1

/**
 * struct hmm_harness_range - every operation on a range of bound memory
 * @size: sizeof(struct hmm_harness_range)
 * @flags: see the operation
 * @addr: first address
 * @npages: length in pages, not 0
 * @pages: user pointer to @npages __u64, filled with HMM_HARNESS_PAGE_*; 0 if
 *         not wanted
 * @data: user pointer to @npages pages of data; READ and WRITE only, else 0:
 *        -EINVAL
 * @done: (out) pages completed from @addr on, also when the call fails
 * @retries: (out) how often an invalidation made the device start over
 *
 * @pages and @data are filled up to @done, and what follows is left alone. When
 * it is @pages or @data that cannot be accessed, and when MIGRATE fails with
 * -EINTR, -EBUSY, -ENXIO or -ENOMEM, pages from @done on may have been handled
 * without being told of.
 *
 * SNAPSHOT reports the CPU's page table without touching it.
 *
 * FAULT makes the pages accessible as asked and enters them into the device's
 * page table, up to the first page that fails: -EPERM when it is not writable,
 * -EFAULT when it cannot be accessed. All pages before it are entered.
 * @pages tells what was entered, so that a page that HMM granted read only
 * although it was asked for a writable one can be seen.
 *
 * READ and WRITE move data as the device does: page by page through its own
 * page table, with a fault where no entry allows the access, up to the first
 * page that fails. Errors are those of FAULT; -EACCES when HMM granted a page
 * read only that WRITE asked for. @pages tells the entry that was used.
 * READ_UNLOCKED: faults by hmm_range_fault_unlocked_timeout(), which takes the
 * mmap lock itself; -EOPNOTSUPP where there is none.
 *
 * MIGRATE moves pages, up to the first address without memory, with memory that
 * cannot be read, or with memory of a kind that never migrates: -EINVAL. A page
 * that does not move is no error. @pages has HMM_HARNESS_PAGE_MOVED when this
 * call moved the page, HMM_HARNESS_PAGE_LOCAL when it lives in the memory of
 * this device afterwards, nothing else. TO_DEVICE moves what is in system
 * memory, not what is in that of another device, and makes pages where an
 * anonymous mapping has none; all pages of the range that live in the device
 * then get an entry. TO_SYSTEM moves what is in
 * the memory of this device. Pages move before they are looked at again to be
 * told of and entered: when that second step fails, see @done above.
 *
 * MIGRATE_SHORT is MIGRATE with TO_DEVICE, but for the first page that the
 * device has to allocate there is no memory: that one does not move.
 *
 * EXCLUSIVE takes pages from all CPUs, for this device alone, and enters them
 * into its page table, by make_device_exclusive() or, before 6.15,
 * make_device_exclusive_range(). A CPU that touches such a page gets it back,
 * which the device is told before. It goes up to the first page that fails,
 * with the kernel's own error: -EFAULT where there is no memory that can be
 * written; -EOPNOTSUPP for memory that is not anonymous, of which the older
 * function says no more than that it was not granted. @pages has
 * HMM_HARNESS_PAGE_EXCLUSIVE, VALID and WRITE of a page that was granted, and 0
 * of one that was not. Coherent memory stays where it is meanwhile, and can only
 * leave its device when a CPU has touched it: UNBIND gives it back to the CPUs,
 * whichever device has it.
 *
 * TABLE reports the device's own page table, and what contradicts the CPU's: an
 * entry is stale when the CPU has another page there, or none, or may not write
 * where the device may; an exclusive one is when the CPU's table does not say
 * that this very page is some device's.
 *
 * SNAPSHOT and TABLE with NOWAIT wait for nobody, also not for a thread that is
 * parked at a gate with a lock: -EAGAIN, of SNAPSHOT, when somebody has the mmap
 * lock for writing, or waits for it, and while the device's memory is replaced;
 * -ESRCH when the process exits, -EOPNOTSUPP for hugetlb's memory, and on kernels
 * without hmm_range_fault(). What is told is of no one moment, and on any binding
 * what hmm_range_fault() says: v4.20's API says less of memory that cannot be
 * read, and nothing of special mappings. TABLE then tells of a contradiction only
 * if it knows of one for sure, and of none where memory is being unmapped.
 */
struct hmm_harness_range {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
	__aligned_u64 pages;
	__aligned_u64 data;
	__aligned_u64 done;
	__aligned_u64 retries;
};

/* What is asked of a page: HMM_PFN_REQ_FAULT and HMM_PFN_REQ_WRITE */
#define HMM_HARNESS_ASK_FAULT 0x1
#define HMM_HARNESS_ASK_WRITE 0x2

/* hmm_harness_request.owner: whose device-private memory is shown */
#define HMM_HARNESS_AS_OWN 0
#define HMM_HARNESS_AS_NOBODY 1
#define HMM_HARNESS_AS_OTHER 2	/* that of the other device of this kind */

/* hmm_harness_request.flags */
#define HMM_HARNESS_REQUEST_STALE 0x1
#define HMM_HARNESS_REQUEST_UNLOCKED 0x2
#define HMM_HARNESS_REQUEST_EMPTY 0x4

#define HMM_HARNESS_REQUEST_MAX_PAGES 512

/* Of hmm_harness_request.counts: how often it is mapped; below that, references */
#define HMM_HARNESS_COUNT_MAPPED_SHIFT 32

/**
 * struct hmm_harness_request - HMM_HARNESS_REQUEST
 * @size: sizeof(struct hmm_harness_request)
 * @flags: HMM_HARNESS_REQUEST_*
 * @addr: first address
 * @npages: length in pages, 1 to HMM_HARNESS_REQUEST_MAX_PAGES, else -E2BIG
 * @default_flags: HMM_HARNESS_ASK_*, of every page
 * @mask: HMM_HARNESS_ASK_*, what of @asked counts
 * @owner: HMM_HARNESS_AS_*
 * @reserved: must be zero
 * @asked: user pointer to @npages __u8, HMM_HARNESS_ASK_* of each page; 0 for
 *         none
 * @pages: user pointer to @npages __u64, filled with HMM_HARNESS_PAGE_*; 0 if
 *         not wanted
 * @raw: user pointer to @npages __u64, filled with hmm_range.hmm_pfns as they
 *       are, for who has CAP_SYS_ADMIN, else -EPERM; 0 if not wanted
 * @counts: user pointer to @npages __u64, filled with the references to each
 *          page of a device, or to the large page that it is a part of, and with
 *          how often that is mapped, see HMM_HARNESS_COUNT_MAPPED_SHIFT; 0 of
 *          any other page. 0 if not wanted
 * @retries: (out) how often an invalidation made it start over
 * @sequence: (out) of the notifier, as mmu_interval_read_begin() gave it
 * @raw_valid: (out) HMM_PFN_VALID of this kernel
 * @raw_write: (out) HMM_PFN_WRITE
 * @raw_error: (out) HMM_PFN_ERROR
 * @raw_order: (out) mask of the order
 * @raw_pfn: (out) mask of the page's number
 *
 * One call of hmm_range_fault(), with every choice that it leaves to a driver.
 * Nothing is entered into the device's page table, and a call that fails fills
 * nothing in. STALE: with a sequence number that an invalidation has made
 * void, so that -EBUSY is what has to come of it. UNLOCKED:
 * hmm_range_fault_unlocked_timeout() in its place, which takes the mmap lock
 * itself; -EOPNOTSUPP where there is none. EMPTY: of a range that ends where it
 * starts, at @addr, so that -EINVAL is what has to come of it; @sequence tells
 * that HMM was asked. One of these at most.
 *
 * @counts are of the moment when what is told was known to be true. Each mapping
 * has a reference, and of private memory, nobody else has one for long.
 */
struct hmm_harness_request {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
	__u32 default_flags;
	__u32 mask;
	__u32 owner;
	__u32 reserved;
	__aligned_u64 asked;
	__aligned_u64 pages;
	__aligned_u64 raw;
	__aligned_u64 counts;
	__aligned_u64 retries;
	__aligned_u64 sequence;
	__aligned_u64 raw_valid;
	__aligned_u64 raw_write;
	__aligned_u64 raw_error;
	__aligned_u64 raw_order;
	__aligned_u64 raw_pfn;
};

/* hmm_harness_watch.flags of HMM_HARNESS_WATCH */
#define HMM_HARNESS_WATCH_TWO_PASS 0x1
#define HMM_HARNESS_WATCH_EMPTY 0x2
#define HMM_HARNESS_WATCH_ENDLESS 0x4
#define HMM_HARNESS_WATCH_PLAIN 0x8
#define HMM_HARNESS_WATCH_SHARED 0x10
#define HMM_HARNESS_WATCH_TLB 0x20

#define HMM_HARNESS_MAX_WATCHES 16

/**
 * struct hmm_harness_watch - HMM_HARNESS_WATCH, HMM_HARNESS_WATCHED
 * @size: sizeof(struct hmm_harness_watch)
 * @flags: see the operation; one at most
 * @addr: first address
 * @npages: length in pages
 * @pages: WATCHED: user pointer to @npages __u64, filled with
 *         HMM_HARNESS_PAGE_HEARD or 0; 0 if not wanted. WATCH: 0
 * @calls: (out) WATCHED: how often the watch was called since it began
 * @finished: (out) WATCHED: how many of these had a second pass, or have ended
 * @strays: (out) WATCHED: how many did not concern the range at all, or came
 *          when they must not
 *
 * WATCH adds an mmu_interval_notifier of its own to what the file is bound to,
 * over a range that may overlap with others: -EEXIST when there is one of
 * exactly this range, -ENOSPC when there are HMM_HARNESS_MAX_WATCHES. It lasts
 * until the file is unbound. TWO_PASS: with invalidate_start() and _finish();
 * -EOPNOTSUPP where the kernel has no such passes. EMPTY, ENDLESS: with a length
 * of 0, or with one that goes beyond all addresses, in place of @npages: what
 * the kernel says of that; -EINVAL for both at once. When it takes the notifier
 * against all rules, it is removed at once, and the call succeeds.
 *
 * The others are no interval notifiers. They hear of all addresses and note what
 * concerns their range. PLAIN: __mmu_notifier_register(). SHARED: one from
 * mmu_notifier_get_locked(), which all such watches of a process have together. Both
 * are told when an invalidation starts and when it ends; a start without an end
 * within ten seconds is a stray, and, of PLAIN, an entry that changes outside of
 * both. SHARED waits for what is under way: -EBUSY when that does not end.
 * TLB: __mmu_notifier_register(), to be told when the CPUs' TLBs are flushed, as
 * who walks the CPU's page table is.
 *
 * WATCHED tells of the watch with exactly this range which pages it was told of
 * since it began, or since the last WATCHED: -ENOENT when there is none.
 */
struct hmm_harness_watch {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
	__aligned_u64 pages;
	__aligned_u64 calls;
	__aligned_u64 finished;
	__aligned_u64 strays;
};

/* hmm_harness_move.flags: one of the first two, and any of the others */
#define HMM_HARNESS_MOVE_TO_DEVICE 0x1
#define HMM_HARNESS_MOVE_TO_SYSTEM 0x2
#define HMM_HARNESS_MOVE_COMPOUND 0x4
#define HMM_HARNESS_MOVE_STRANGE_FAULT 0x8
#define HMM_HARNESS_MOVE_LOCKED 0x10
/* What is wrong with the call, one at most */
#define HMM_HARNESS_MOVE_EMPTY 0x20	/* no page */
#define HMM_HARNESS_MOVE_BEFORE 0x40	/* it begins before the mapping */
#define HMM_HARNESS_MOVE_BEHIND 0x80	/* ... or behind it */
#define HMM_HARNESS_MOVE_BEYOND 0x100	/* it ends behind it */
#define HMM_HARNESS_MOVE_NO_SOURCES 0x200	/* migrate_vma.src is NULL */
#define HMM_HARNESS_MOVE_NO_PLACES 0x400	/* ... .dst */
#define HMM_HARNESS_MOVE_NO_MAPPING 0x800	/* ... .vma */

/* hmm_harness_move.sources: which pages are taken; of one device at most */
#define HMM_HARNESS_FROM_SYSTEM 0x1
#define HMM_HARNESS_FROM_OWN 0x2
#define HMM_HARNESS_FROM_OTHER 0x4 /* of the other device of this binding */

/* What becomes of a page */
#define HMM_HARNESS_CHOOSE_MOVE 0
#define HMM_HARNESS_CHOOSE_STAY 1
#define HMM_HARNESS_CHOOSE_PIECES 2	/* move, a huge page to small ones */

#define HMM_HARNESS_MOVE_MAX_PAGES 512

/**
 * struct hmm_harness_move - HMM_HARNESS_MOVE
 * @size: sizeof(struct hmm_harness_move)
 * @flags: HMM_HARNESS_MOVE_*
 * @addr: first address
 * @npages: length in pages, 1 to HMM_HARNESS_MOVE_MAX_PAGES, else -E2BIG
 * @sources: HMM_HARNESS_FROM_*
 * @reserved: must be zero
 * @choices: user pointer to @npages __u8, HMM_HARNESS_CHOOSE_* of each page; 0
 *           to move them all
 * @pages: user pointer to @npages __u64, filled with HMM_HARNESS_PAGE_*; 0 if
 *         not wanted
 * @before: user pointer to @npages __u64, filled with migrate_vma.src as
 *          migrate_vma_setup() left it; 0 if not wanted
 * @after: user pointer to @npages __u64, filled with migrate_vma.src as
 *         migrate_vma_pages() left it; 0 if not wanted
 * @places: user pointer to @npages __u64, filled with migrate_vma.dst after
 *          that; 0 if not wanted
 * @collected: (out) migrate_vma.cpages after migrate_vma_setup()
 * @moved: (out) how many pages moved
 * @raw_valid: (out) MIGRATE_PFN_VALID of this kernel
 * @raw_migrate: (out) MIGRATE_PFN_MIGRATE
 * @raw_write: (out) MIGRATE_PFN_WRITE
 * @raw_compound: (out) MIGRATE_PFN_COMPOUND, 0 where there is none
 * @uncleared: (out) how many words of migrate_vma.dst migrate_vma_setup() left as
 *             they were before, which was not 0
 *
 * One migration: migrate_vma_setup(), migrate_vma_pages() and
 * migrate_vma_finalize() once each, with every choice that they leave to a
 * driver. Nothing is entered into the device's page table. @pages has of what
 * migrate_vma_setup() says _COLLECTED, _VALID where there is a page, and _WRITE;
 * and _MOVED. A page stays if @choices say so, if there is no memory for it, or
 * if it is not of @sources where the kernel leaves that to the driver (binding
 * `mirror`). System memory that is to move to system memory moves only if it is
 * anonymous and not merged.
 *
 * COMPOUND: huge pages, and holes of their size, are collected and move whole:
 * MIGRATE_VMA_SELECT_COMPOUND; -EOPNOTSUPP where there is none. @choices has for
 * all of it what it has for the first page. Where there is no large page for it,
 * small ones take its place. @pages says _COMPOUND of all of it, _WHOLE where it is
 * still in one piece; @before is as the kernel has it, with a word for the first
 * page only.
 *
 * STRANGE_FAULT: with a migrate_vma.fault_page that is no page of a device,
 * which the kernel refuses: -EINVAL. -EOPNOTSUPP where there is no such member.
 *
 * EMPTY to NO_MAPPING: as the kernel must not be called, which says -EINVAL;
 * -EOPNOTSUPP for the binding `mirror`. There is none that ends before it begins:
 * migrate_vma_setup() takes the difference for a great number of pages.
 *
 * LOCKED: meanwhile somebody else has locked the page at @addr, or the large page
 * that it is a part of. @pages says _KEPT of the first page if there are more
 * references to it afterwards. A kernel that waits for it gets it after a second,
 * but it has a user then: all that the same page table maps from there on may be
 * passed over. -ENOENT: there is no anonymous page of system memory; -EBUSY:
 * somebody else wants the mapping to themselves.
 *
 * -EINVAL: there is no mapping that has all of the range, or it is of a kind
 * that never migrates. A call that fails has moved nothing, except with -EFAULT,
 * when results could not be told.
 *
 * MIGRATE_PFN_MIGRATE is never cleared in migrate_vma.src: the kernel wants that
 * left alone. @before, @after and @places are for who has CAP_SYS_ADMIN, else
 * -EPERM.
 */
struct hmm_harness_move {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
	__u32 sources;
	__u32 reserved;
	__aligned_u64 choices;
	__aligned_u64 pages;
	__aligned_u64 before;
	__aligned_u64 after;
	__aligned_u64 places;
	__aligned_u64 collected;
	__aligned_u64 moved;
	__aligned_u64 raw_valid;
	__aligned_u64 raw_migrate;
	__aligned_u64 raw_write;
	__aligned_u64 raw_compound;
	__aligned_u64 uncleared;
};

/* hmm_harness_returns.count: for good */
#define HMM_HARNESS_REFUSE_ALL 0xffffffffffffffff

/**
 * struct hmm_harness_returns - HMM_HARNESS_RETURNS
 * @size: sizeof(struct hmm_harness_returns)
 * @flags: must be zero
 * @count: how many to refuse; 0 for none any more
 * @refused: (out) how many were refused since the last call
 * @unheld: (out) how many came, since the last call, for a page to which there
 *          was no reference but those of its mappings: it could have been freed
 *          meanwhile, and be another one
 * @unlocked: (out) how many came for a page that nobody had locked
 *
 * migrate_to_ram() fails the next @count times that a CPU touches memory of this
 * device in the process that the file is bound to, also on behalf of the kernel
 * or of another device: the access ends in SIGBUS, the page stays. A device does
 * so to one process at a time, the last one; it ends when a file that is bound
 * to that is unbound.
 *
 * There is no way to fail for lack of memory: before v5.16, VM_FAULT_OOM in a
 * page fault calls the OOM killer, which kills whom it likes; since then the
 * kernel complains, and the access begins again.
 */
struct hmm_harness_returns {
	__u32 size;
	__u32 flags;
	__aligned_u64 count;
	__aligned_u64 refused;
	__aligned_u64 unheld;
	__aligned_u64 unlocked;
};

/* hmm_harness_evict.flags, at most one */
#define HMM_HARNESS_EVICT_RANGE 0x1
#define HMM_HARNESS_EVICT_NUMBERS 0x2
#define HMM_HARNESS_EVICT_REMOVE 0x4

/**
 * struct hmm_harness_sequence - HMM_HARNESS_SEQUENCE
 * @size: sizeof(struct hmm_harness_sequence)
 * @flags: must be zero
 * @addr: first address
 * @npages: length in pages
 * @sequence: (out) of the watch's notifier, as mmu_interval_read_begin() gave it
 * @before: (out) the one that the last SEQUENCE told, or the one when the watch
 *          began
 * @calls: (out) how often the watch was called in between
 * @retry: (out) what mmu_interval_read_retry() says of @before
 * @hint: (out) what mmu_interval_check_retry() said of it right before that
 * @reserved: (out) 0
 *
 * Of the watch with exactly this range: -ENOENT when there is none, or when it
 * is no interval notifier. All of it
 * but @hint is of one moment, with the lock held that the watch's callback
 * takes.
 */
struct hmm_harness_sequence {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
	__aligned_u64 sequence;
	__aligned_u64 before;
	__aligned_u64 calls;
	__u32 retry;
	__u32 hint;
	__aligned_u64 reserved;
};

/* hmm_harness_dma.flags, exactly one */
#define HMM_HARNESS_DMA_MAP 0x1
#define HMM_HARNESS_DMA_MAP_WRITE 0x2
#define HMM_HARNESS_DMA_SHOW 0x4
#define HMM_HARNESS_DMA_UNMAP 0x8

#define HMM_HARNESS_DMA_MAX_PAGES 512
#define HMM_HARNESS_MAX_DMA_MAPS 8

/**
 * struct hmm_harness_dma - HMM_HARNESS_DMA
 * @size: sizeof(struct hmm_harness_dma)
 * @flags: HMM_HARNESS_DMA_*
 * @addr: first address
 * @npages: length in pages, 1 to HMM_HARNESS_DMA_MAX_PAGES, else -E2BIG
 * @owner: MAP: HMM_HARNESS_AS_*; else 0
 * @reserved: must be zero
 * @pages: user pointer to @npages __u64, filled with HMM_HARNESS_PAGE_*; 0 if
 *         not wanted. UNMAP: 0
 * @mapped: (out) how many of the pages have a DMA address now
 * @kept: (out) MAP: how many of these had it before
 * @retries: (out) how often an invalidation made it start over
 *
 * A struct hmm_dma_map over exactly this range, with an mmu_interval_notifier of
 * its own, as drivers of RDMA have it; ranges may overlap.
 *
 * MAP and MAP_WRITE fault the pages as FAULT does, though all or none, and map
 * each with hmm_dma_map_pfn(); those that are mapped stay. The first makes the
 * map: -ENOSPC when there are HMM_HARNESS_MAX_DMA_MAPS. It lasts until UNMAP, or
 * until the file is unbound. A page is unmapped when it is invalidated. -EIO
 * when the DMA layer refuses a page; those before it are mapped. A page is
 * HMM_HARNESS_PAGE_STALE whose address leads to another page than the one that
 * HMM reported, or is another one than before although nothing was invalidated,
 * or of which HMM forgot that it was mapped.
 *
 * SHOW tells of each page that has a DMA address, and HMM_HARNESS_PAGE_STALE
 * where that contradicts the CPU's page table, as TABLE does. UNMAP unmaps all.
 * -ENOENT when there is no map of exactly this range.
 */
struct hmm_harness_dma {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
	__u32 owner;
	__u32 reserved;
	__aligned_u64 pages;
	__aligned_u64 mapped;
	__aligned_u64 kept;
	__aligned_u64 retries;
};

/**
 * struct hmm_harness_refuse - HMM_HARNESS_REFUSE
 * @size: sizeof(struct hmm_harness_refuse)
 * @flags: must be zero
 * @addr: first address
 * @npages: length in pages; 0, and @addr 0, for none
 *
 * From now on until the file is unbound, invalidations that must not sleep and
 * that concern this range are refused, as if the mirror's lock was taken. A
 * later call replaces the range.
 */
struct hmm_harness_refuse {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 npages;
};

/**
 * struct hmm_harness_evict - HMM_HARNESS_EVICT
 * @size: sizeof(struct hmm_harness_evict)
 * @flags: HMM_HARNESS_EVICT_*
 * @moved: (out) pages that went back to system memory, of every process
 * @left: (out) pages still in use afterwards
 *
 * A page that somebody has in hand at that moment stays, as does a coherent page
 * that is pinned, or that a device has to itself. RANGE lets the kernel
 * find the pages by migrate_device_range(), NUMBERS by migrate_device_pfns();
 * -EOPNOTSUPP where it has no such function. These leave alone as well what a
 * process has that changes its mappings at that moment.
 *
 * REMOVE takes the memory itself away when all has gone back but one page, which
 * the driver uses, and gives the device new memory in its place: private memory
 * of today's API only, else -EOPNOTSUPP. -EPROTO: the kernel did not wait until
 * that page was free. -EBUSY: something does not go; nothing was taken away.
 * Where there is no new memory, the call fails with the kernel's own error, and
 * the device has none until another such call.
 */
struct hmm_harness_evict {
	__u32 size;
	__u32 flags;
	__aligned_u64 moved;
	__aligned_u64 left;
};

/**
 * struct hmm_harness_usage - HMM_HARNESS_USAGE
 * @size: sizeof(struct hmm_harness_usage)
 * @flags: must be zero
 * @in_use: (out) device pages that are allocated now
 * @allocated: (out) device pages ever allocated
 * @freed: (out) device pages ever freed
 * @cpu_faults: (out) migrate_to_ram() calls; none of coherent memory
 * @invalidations: (out) invalidation callbacks of this file's mirror
 * @entries: (out) entries in this file's device page table
 * @refused: (out) how often the device did without what it needed because
 *           there was no memory: a page that did not move, a huge page that
 *           moved in pieces, an access that failed with -ENOMEM
 *
 * What concerns the mirror is 0 when the file is not bound. Pages are allocated
 * and freed also for migrations that the kernel refuses.
 */
struct hmm_harness_usage {
	__u32 size;
	__u32 flags;
	__aligned_u64 in_use;
	__aligned_u64 allocated;
	__aligned_u64 freed;
	__aligned_u64 cpu_faults;
	__aligned_u64 invalidations;
	__aligned_u64 entries;
	__aligned_u64 refused;
};

/**
 * struct hmm_harness_events - HMM_HARNESS_EVENTS
 * @size: sizeof(struct hmm_harness_events)
 * @flags: must be zero
 * @mirror: (out) number of this file's mirror, which its events carry; 0 when
 *          the file is not bound
 * @since: (out) number of the last event before the file was bound; 0 when it
 *         is not
 * @last: (out) number of the last event so far
 *
 * All events up to @last have been handed to the sockets that get them, or were
 * lost. Those of one device and of others share the numbers.
 */
struct hmm_harness_events {
	__u32 size;
	__u32 flags;
	__aligned_u64 mirror;
	__aligned_u64 since;
	__aligned_u64 last;
};

/*
 * Gates: points of this driver where a thread can be made to stop. "With the
 * lock" is: with the lock held that the callback of an invalidation takes.
 */
/* A look at the CPU's page table, or a fault, of at most 512 pages: it begins, */
#define HMM_HARNESS_GATE_WALK_BEGIN 1
/* ... has taken the sequence number of the notifier (not the binding `mirror`), */
#define HMM_HARNESS_GATE_WALK_SEQUENCE 2
/* ... has taken the mmap lock, and not looked yet (not READ_UNLOCKED), */
#define HMM_HARNESS_GATE_WALK_LOCKED 3
/* ... has seen what there is, without the mmap lock (`mirror`: with it), */
#define HMM_HARNESS_GATE_WALK_SEEN 4
/* ... is about to take the lock, */
#define HMM_HARNESS_GATE_WALK_LOCK 5
/* ... has the lock, and has found that what was seen is still true, */
#define HMM_HARNESS_GATE_WALK_VALID 6
/* ... has entered that into its table, or told of it, with the lock, */
#define HMM_HARNESS_GATE_WALK_ENTERED 7
/* ... and has let go of the lock. */
#define HMM_HARNESS_GATE_WALK_END 8
/* A read or write of a page by the device: it begins, */
#define HMM_HARNESS_GATE_ACCESS_BEGIN 9
/* ... or has found the page in its table, with the lock. */
#define HMM_HARNESS_GATE_ACCESS_FOUND 10
/* The callback of an invalidation that may sleep: it begins, */
#define HMM_HARNESS_GATE_INVALIDATE_BEGIN 11
/* ... has the lock, */
#define HMM_HARNESS_GATE_INVALIDATE_LOCKED 12
/* ... has noted the sequence number, with the lock (not `mirror`), */
#define HMM_HARNESS_GATE_INVALIDATE_SEQUENCE 13
/* ... has removed what there was from the table, with the lock, */
#define HMM_HARNESS_GATE_INVALIDATE_REMOVED 14
/* ... and has let go of the lock; the CPU's page table changes after that. */
#define HMM_HARNESS_GATE_INVALIDATE_END 15
/* A migration, with the mmap lock, also because a CPU touched a page: begins, */
#define HMM_HARNESS_GATE_MIGRATE_BEGIN 16
/* ... the kernel has taken the pages out of the page tables, and locked them, */
#define HMM_HARNESS_GATE_MIGRATE_SETUP 17
/* ... they are copied, */
#define HMM_HARNESS_GATE_MIGRATE_COPIED 18
/* ... they have become others, which are not mapped yet, */
#define HMM_HARNESS_GATE_MIGRATE_PAGES 19
/* ... and these are in the page tables. */
#define HMM_HARNESS_GATE_MIGRATE_END 20
/* A CPU touched private memory of the device (migrate_to_ram): at the beginning, */
#define HMM_HARNESS_GATE_RETURN_BEGIN 21
/* ... and at the end of what the driver does about it. */
#define HMM_HARNESS_GATE_RETURN_END 22
/* Exclusive access: before the mmap lock is taken, */
#define HMM_HARNESS_GATE_EXCLUSIVE_BEGIN 23
/* ... with it, when invalidations have begun to be watched for, */
#define HMM_HARNESS_GATE_EXCLUSIVE_CLAIMED 24
/* ... when the kernel has granted the pages, which are locked, */
#define HMM_HARNESS_GATE_EXCLUSIVE_GRANTED 25
/* ... when they are in the table, still locked, */
#define HMM_HARNESS_GATE_EXCLUSIVE_ENTERED 26
/* ... and without page locks and the mmap lock. */
#define HMM_HARNESS_GATE_EXCLUSIVE_END 27
/* UNBIND, also because a file is closed: it begins, */
#define HMM_HARNESS_GATE_UNBIND_BEGIN 28
/* ... the table is empty and nothing enters it any more, */
#define HMM_HARNESS_GATE_UNBIND_DEAD 29
/* ... and no callback runs any more. */
#define HMM_HARNESS_GATE_UNBIND_END 30
#define HMM_HARNESS_GATE_LAST 30

/* hmm_harness_gate.flags of GATE_ARM */
#define HMM_HARNESS_GATE_ANY_DEVICE 0x1

/* Threads that an open file can have under control */
#define HMM_HARNESS_MAX_ACTORS 8
/* Milliseconds; the most that a thread can be parked, or waited for */
#define HMM_HARNESS_GATE_MAX_TIME 20000
/* hmm_harness_gate.trace: how many, and what each is besides the gate */
#define HMM_HARNESS_GATE_TRACE 128
#define HMM_HARNESS_GATE_DEVICE_SHIFT 8
#define HMM_HARNESS_GATE_CLOCK_SHIFT 16

/**
 * struct hmm_harness_gate - HMM_HARNESS_GATE_ARM, _WAIT and _RELEASE
 * @size: sizeof(struct hmm_harness_gate)
 * @flags: see the operation
 * @thread: a thread of any process, by its number (gettid())
 * @gate: ARM: HMM_HARNESS_GATE_*, 0 for none; else 0
 * @skip: ARM: how often it passes there first; else 0
 * @time: ARM: how long it stays parked; WAIT: how long to wait, 0 to ask only;
 *        milliseconds, up to HMM_HARNESS_GATE_MAX_TIME; ARM: not 0; RELEASE: 0
 * @trace: WAIT: user pointer to HMM_HARNESS_GATE_TRACE __u64, filled with the
 *         last gates that the thread came by, from the oldest on: the gate, the
 *         number of the device, and when, the last 48 bits of CLOCK_MONOTONIC in
 *         nanoseconds, later each time that any thread comes by any; 0 if not
 *         wanted. Else 0
 * @parked: (out) WAIT: the gate where it is parked, 0 if it is not
 * @armed: (out) WAIT: the gate where it parks next, 0 if there is none
 * @passed: (out) WAIT: how many gates it came by since it was first armed
 * @expired: (out) WAIT: how often it went on without RELEASE
 *
 * ARM: the next time that the thread comes to this gate of this device, or of
 * ANY_DEVICE of the module, it is parked there. That replaces where it was to be
 * parked before, and does not concern where it is parked now. -ESRCH: there is
 * no such thread; -ENOSPC: the file has HMM_HARNESS_MAX_ACTORS already.
 *
 * RELEASE lets it go on if it is parked. It goes on by itself when its time is
 * over, and when it is killed, which counts as expired, unless it exits already;
 * and when the file is closed for good: an ioctl of the parked thread itself on
 * that file keeps it open. WAIT returns when it is parked, when it will not be, or when the time is
 * over. -ENOENT: the file never armed that thread.
 *
 * A parked thread has the locks that the gate is inside of. It is never parked
 * where it must not sleep.
 */
struct hmm_harness_gate {
	__u32 size;
	__u32 flags;
	__u32 thread;
	__u32 gate;
	__u32 skip;
	__u32 time;
	__aligned_u64 trace;
	__u32 parked;
	__u32 armed;
	__aligned_u64 passed;
	__aligned_u64 expired;
};

/*
 * mmap() of a node, bound or not: new zeroed pages, of which HMM must show and
 * fault none. Only MAP_SHARED: -EINVAL; -E2BIG for more than _MAX_PAGES; -ENOMEM
 * also when all mappings of all nodes would have more than _ALL_PAGES. The offset
 * says how they are mapped:
 * _PFNS: as the registers of a device are, VM_IO and VM_PFNMAP. _MIXED: among
 * pages that others may have (VM_MIXEDMAP), each with an entry that says that
 * nobody may. Any other offset: -EINVAL.
 */
#define HMM_HARNESS_MMAP_PFNS 0
#define HMM_HARNESS_MMAP_MIXED 0x40000000
#define HMM_HARNESS_MMAP_MAX_PAGES 512
#define HMM_HARNESS_MMAP_ALL_PAGES 16384

/* _IO(): the size travels in the struct, so a command keeps its number. */
#define HMM_HARNESS_TYPE 0xD8
#define HMM_HARNESS_INFO _IO(HMM_HARNESS_TYPE, 0x00)
#define HMM_HARNESS_BIND _IO(HMM_HARNESS_TYPE, 0x01)
#define HMM_HARNESS_UNBIND _IO(HMM_HARNESS_TYPE, 0x02)
#define HMM_HARNESS_SNAPSHOT _IO(HMM_HARNESS_TYPE, 0x03)
#define HMM_HARNESS_FAULT _IO(HMM_HARNESS_TYPE, 0x04)
#define HMM_HARNESS_READ _IO(HMM_HARNESS_TYPE, 0x05)
#define HMM_HARNESS_WRITE _IO(HMM_HARNESS_TYPE, 0x06)
#define HMM_HARNESS_MIGRATE _IO(HMM_HARNESS_TYPE, 0x07)
#define HMM_HARNESS_EVICT _IO(HMM_HARNESS_TYPE, 0x08)
#define HMM_HARNESS_TABLE _IO(HMM_HARNESS_TYPE, 0x09)
#define HMM_HARNESS_USAGE _IO(HMM_HARNESS_TYPE, 0x0a)
#define HMM_HARNESS_REQUEST _IO(HMM_HARNESS_TYPE, 0x10)
#define HMM_HARNESS_WATCH _IO(HMM_HARNESS_TYPE, 0x11)
#define HMM_HARNESS_WATCHED _IO(HMM_HARNESS_TYPE, 0x12)
#define HMM_HARNESS_DMA _IO(HMM_HARNESS_TYPE, 0x17)
#define HMM_HARNESS_SEQUENCE _IO(HMM_HARNESS_TYPE, 0x19)
#define HMM_HARNESS_REFUSE _IO(HMM_HARNESS_TYPE, 0x1b)
#define HMM_HARNESS_EXCLUSIVE _IO(HMM_HARNESS_TYPE, 0x13)
#define HMM_HARNESS_MIGRATE_SHORT _IO(HMM_HARNESS_TYPE, 0x14)
#define HMM_HARNESS_MOVE _IO(HMM_HARNESS_TYPE, 0x15)
#define HMM_HARNESS_RETURNS _IO(HMM_HARNESS_TYPE, 0x16)
#define HMM_HARNESS_EVENTS _IO(HMM_HARNESS_TYPE, 0x30)
#define HMM_HARNESS_GATE_ARM _IO(HMM_HARNESS_TYPE, 0x40)
#define HMM_HARNESS_GATE_WAIT _IO(HMM_HARNESS_TYPE, 0x41)
#define HMM_HARNESS_GATE_RELEASE _IO(HMM_HARNESS_TYPE, 0x42)

#endif /* _UAPI_HMM_HARNESS_H */
