/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device that mirrors the memory of processes, in software.
 *
 *   main.c    the module, its devices and their files
 *   ioctl.c   from a user's struct to a checked operation
 *   mirror.c  tie a file to a process
 *   table.c   the device's page table
 *   range.c   look at or fault memory, and act while what was seen is valid
 *   request.c look at or fault memory as the caller asks for it, page by page
 *   access.c  the device reads and writes
 *   exclusive.c pages that the device has to itself
 *   devmem.c  memory of the device, and migration to and from it
 *   move.c    migration as the caller asks for it, page by page
 *   whole.c   huge pages that migrate whole
 *   evict.c   the kernel finds the pages of the device by their numbers
 *   removal.c the memory of a device goes, and comes back
 *   events.c  tell over netlink, and by tracepoints, what devices hear and do
 *   debugfs.c show what there is
 *   gate.c    stop a thread at a named point, and let it go
 *   peek.c    look at both page tables without waiting for anybody
 *   wrong.c   deliberate mistakes
 *
 * All of these are the same for every device. How one talks to the kernel is
 * its binding, struct hh_binding:
 *
 *   interval.c, interval_devmem.c, watch.c, plain.c, claim.c, dma.c  today's API
 *   seed.c, seed_devmem.c          v4.20's, which compat/ has on later kernels
 *
 * Order of locks: mmap_lock, then what the kernel holds around invalidation,
 * then hh_mirror.lock, then that of the ring of events. Whoever holds
 * hh_mirror.lock neither faults, nor copies from or to user space, nor
 * allocates memory that may have to be reclaimed.
 */
#ifndef HMM_HARNESS_INTERNAL_H
#define HMM_HARNESS_INTERNAL_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mutex.h>
#include <linux/page-flags.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>

#include "compat.h"
#include "uapi/hmm_harness.h"
#include "uapi/hmm_harness_netlink.h"

/* Pages handled at a time: what one allocation of an operation has room for. */
#define HH_CHUNK 512

/* An operation that got nowhere for so long gives up with -EBUSY. */
#define HH_PATIENCE (10 * HZ)

/* Exclusive pages that stay locked on purpose, of a mirror, at most */
#define HH_MAX_KEPT 16

/* Room for the name of a device's node */
#define HH_NAME_SIZE 16

struct device;
struct hh_device;
struct hh_mirror;
struct hh_migration;
struct hh_pass;
struct hh_work;

/*
 * What a look at the CPU's page table found of a page, one unsigned long each:
 * these flags, the order of the mapping, the page's number. Of what a device
 * has to itself, which the CPU's table says only if it is asked for, a flag and
 * the number.
 */
#define HH_CPU_VALID 0x1UL
#define HH_CPU_WRITE 0x2UL
#define HH_CPU_ERROR 0x4UL
#define HH_CPU_EXCLUSIVE 0x8UL
#define HH_CPU_SHIFTED 0x200UL
#define HH_CPU_ORDER_SHIFT 4
#define HH_CPU_ORDER_MASK 0x1f0UL
#define HH_CPU_PFN_SHIFT 12

/**
 * struct hh_binding - how a device talks to the kernel
 * @name: as the harness says it
 * @requests: whether @look does what hh_pass.request says
 * @moves_whole: whether @migrate does what hh_migration.whole says
 * @finds_numbers: whether the kernel is asked to find pages by their numbers
 * @waits_for_pages: whether @remove_memory is known to wait until no page is in use
 * @faults_strangely: whether @migrate does what
 *                    HMM_HARNESS_MOVE_STRANGE_FAULT says
 * @errs: whether @migrate calls the kernel as HH_MOVE_MISTAKES say
 * @node: pattern of the name of its nodes, with the device's number
 * @mirror_size: of its struct that begins with a struct hh_mirror
 * @work_size: of its struct that begins with a struct hh_work
 * @attach: begin to hear what the CPU invalidates; 0 or an error of BIND
 * @detach: stop; no callback runs after it returned
 * @look: read the CPU's page table into hh_work.cpu, and fault as the pass asks:
 *        0, -EAGAIN to start over, or an error for the user. After 0, @done is
 *        called once.
 * @watch: begin to be told of a part of the memory besides; or NULL
 * @watched: what such a watch was told; or NULL
 * @sequence: the number of such a watch's notifier; or NULL
 * @dma: map memory for DMA, and unmap it; or NULL
 * @exclude: make at most HH_CHUNK pages exclusive and enter them, telling of
 *           them in hh_work.pages; how many were done, and 0 or the error of
 *           the one that follows; or NULL
 * @changed: whether what @look saw is known to be outdated; a hint, without the
 *           mirror's lock
 * @done: whether what @look saw is outdated; with the mirror's lock held, unless
 *        the answer is of no interest
 * @add_memory: make the struct pages of the device's memory, of so many bytes,
 *              and fill in hh_devmem: pgmap, first, npages, the latter left 0
 *              where there cannot be any; NULL without any
 * @remove_memory: undo that; no page is in use
 * @use_page: take free device pages into use, of that order: locked, with a
 *            reference
 * @target_page: a page of system memory to migrate to, locked; NULL without any.
 *              The mapping is NULL where it is not known
 * @migrate: move pages, through hh_migration_copy() and hh_migration_settle()
 * @evict_merged: move a device page that KSM merged, and that belongs to no
 *                process in particular, back to system memory; returns how many
 *                moved. NULL where none may go to the device
 */
struct hh_binding {
	const char *name;
	bool requests;
	bool moves_whole;
	bool finds_numbers;
	bool waits_for_pages;
	bool faults_strangely;
	bool errs;
	const char *node;
	size_t mirror_size;
	size_t work_size;
	int (*attach)(struct hh_mirror *mirror);
	void (*detach)(struct hh_mirror *mirror);
	int (*look)(struct hh_work *work, unsigned long start,
		    unsigned long npages, const struct hh_pass *pass);
	int (*watch)(struct hh_mirror *mirror,
		     const struct hmm_harness_watch *args);
	int (*watched)(struct hh_mirror *mirror,
		       struct hmm_harness_watch *args);
	int (*sequence)(struct hh_mirror *mirror,
			struct hmm_harness_sequence *args);
	int (*dma)(struct hh_mirror *mirror, struct hmm_harness_dma *args);
	int (*exclude)(struct hh_work *work, unsigned long start,
		       unsigned long npages, unsigned long *done);
	bool (*changed)(struct hh_work *work);
	bool (*done)(struct hh_work *work);
	int (*add_memory)(struct hh_device *device, unsigned long size);
	void (*remove_memory)(struct hh_device *device);
	void (*use_page)(struct hh_device *device, struct page *page,
			 unsigned int order);
	struct page *(*target_page)(struct vm_area_struct *vma,
				    unsigned long addr);
	int (*migrate)(struct hh_device *device, struct hh_migration *move);
	unsigned long (*evict_merged)(struct hh_device *device,
				      struct page *page);
};

/**
 * struct hh_devmem - memory of a device
 * @address: where it is, if it is coherent memory, which the CPU reaches; else 0
 * @pgmap: its struct pages
 * @private: of the binding
 * @first: number of the first page
 * @npages: how many there are, 0 without device memory
 * @size: bytes that there are to be
 * @live: pages that have been migrated to and not yet been migrated from. Each
 *        counts and stops counting with its lock held, or when nobody has it any
 *        more
 * @reuse: held where a free page is taken into use, and for writing where none
 *         may be; taken after mmap_lock and locked pages, before what the kernel
 *         holds around invalidation
 * @there: held where all pages are gone through, and for writing where there may
 *         be none; taken before mmap_lock
 * @lock: protects all that follows
 * @leaving: no page may be taken into use
 * @free: a bit for each page, set if it is to be had
 * @lost: the same of pages that were not given back, on purpose
 * @nr_lost: how many these are
 * @nr_twice: how many are counted as freed once too often, on purpose
 * @allocated: pages ever allocated
 * @freed: pages ever freed
 * @cpu_faults: calls of migrate_to_ram()
 * @refused_to: the memory of which some of them shall fail, never looked at; of
 *              a mirror that is not dead
 * @refusals: how many more shall fail
 * @refused: how many did
 * @unheld: how many of them came without a reference to the page
 * @unlocked: how many came without its lock
 */
struct hh_devmem {
	phys_addr_t address;
	struct dev_pagemap *pgmap;
	void *private;
	unsigned long first;
	unsigned long npages;
	unsigned long size;
	atomic_long_t live;
	struct rw_semaphore reuse;
	struct rw_semaphore there;
	spinlock_t lock; /* protects all that follows */
	bool leaving;
	unsigned long *free;
	unsigned long *lost;
	unsigned long nr_lost;
	unsigned long nr_twice;
	u64 allocated;
	u64 freed;
	u64 cpu_faults;
	const struct mm_struct *refused_to;
	u64 refusals;
	u64 refused;
	u64 unheld;
	u64 unlocked;
};

/**
 * struct hh_device - one of the devices
 * @binding: how it talks to the kernel
 * @id: number of the device among those of its binding, as in its name
 * @name: name of its node
 * @node: how user space finds it
 * @refused: how often there was no memory for what it needed
 * @mirrors_lock: protects @mirrors; taken before hh_mirror.lock
 * @mirrors: all that are bound
 * @devmem: its memory
 */
struct hh_device {
	const struct hh_binding *binding;
	unsigned int id;
	char name[HH_NAME_SIZE];
	struct device *node;
	atomic64_t refused;
	struct mutex mirrors_lock; /* protects mirrors */
	struct list_head mirrors;
	struct hh_devmem devmem;
};

/**
 * struct hh_mirror - the memory of a process as a device sees it
 * @device: the device
 * @link: in hh_device.mirrors
 * @id: a number that no other mirror has
 * @process: who bound it
 * @since: number of the last event before that
 * @mm: the memory, grabbed: it may have no user any more
 * @refs: one of the file while bound, one of every operation under way
 * @lock: protects all that follows; what the invalidation callback takes, so
 *        that nothing is invalidated while it is held
 * @table: the device's page table, by virtual page number; this, @commits and
 *         @invalidations are looked at without @lock by HMM_HARNESS_NOWAIT
 * @entries: entries in @table
 * @ghosts: how many of them are ghosts
 * @commits: how often something was entered into @table
 * @invalidations: calls of the invalidation callback
 * @refuse_start: first address of what is refused to whoever cannot wait
 * @refuse_end: address behind the last; 0 when nothing is
 * @nr_kept: exclusive pages that stay locked, on purpose
 * @kept: these
 * @faults: looks under way that keep what is invalidated, on purpose
 * @late: it keeps that until an operation is over, on purpose
 * @unready: on purpose, it hears before it is set up, or when it is gone
 * @holds_coherent: it got coherent memory to itself
 * @dead: unbound, nothing may be entered any more
 */
struct hh_mirror {
	struct hh_device *device;
	struct list_head link;
	u64 id;
	pid_t process;
	u64 since;
	struct mm_struct *mm;
	struct kref refs;
	struct mutex lock; /* protects all that follows, taken by invalidation */
	struct xarray table;
	u64 entries;
	u64 ghosts;
	u64 commits;
	u64 invalidations;
	unsigned long refuse_start;
	unsigned long refuse_end;
	unsigned int faults;
	unsigned int nr_kept;
	struct page *kept[HH_MAX_KEPT];
	bool late;
	bool unready;
	bool holds_coherent;
	bool dead;
};

/**
 * struct hh_file - an open file of a device
 * @device: the device
 * @lock: protects all that follows
 * @mirror: what the file is bound to, or NULL
 * @gone: what it was bound to, and hears of still, on purpose; or NULL
 */
struct hh_file {
	struct hh_device *device;
	spinlock_t lock; /* protects all that follows */
	struct hh_mirror *mirror;
	struct hh_mirror *gone;
};

/**
 * struct hh_work - an operation on a range, under way
 * @mirror: the mirror, referenced
 * @mm: its memory, which has a user as long as the operation goes on
 * @retries: how often an invalidation made it start over
 * @outdated: what was looked at is, and the driver does not know it, on purpose
 * @parked: how long it was stopped at gates, in jiffies
 * @cpu: what the CPU's page table says of the chunk in hand, HH_CPU_*
 * @pages: the same as HMM_HARNESS_PAGE_*
 * @src: migration only: where the pages of the chunk are
 * @dst: migration only: where they go
 */
struct hh_work {
	struct hh_mirror *mirror;
	struct mm_struct *mm;
	u64 retries;
	bool outdated;
	unsigned long parked;
	unsigned long cpu[HH_CHUNK];
	u64 pages[HH_CHUNK];
	unsigned long src[HH_CHUNK];
	unsigned long dst[HH_CHUNK];
};

/* mirror.c */
int hh_mirror_bind(struct hh_file *file);
int hh_mirror_unbind(struct hh_file *file);
void hh_mirror_forget(struct hh_file *file);
int hh_mirror_refuse(struct hh_mirror *mirror, unsigned long start,
		     unsigned long end);
struct hh_mirror *hh_mirror_get(struct hh_file *file);
void hh_mirror_put(struct hh_mirror *mirror);

/**
 * struct hh_change - what the CPU is about to change
 * @start: first address
 * @end: address behind the last
 * @blockable: whether it can wait for the device
 * @own_migration: known to be a migration that this device started
 * @release: the process exits
 * @reason: why, as far as the kernel says
 * @owner: who migrates, or gets exclusive access
 * @sequence: of the notifier; 0 where the kernel gives none
 */
struct hh_change {
	unsigned long start;
	unsigned long end;
	bool blockable;
	bool own_migration;
	bool release;
	enum hmm_harness_reason reason;
	enum hmm_harness_owner owner;
	unsigned long sequence;
};

bool hh_mirror_lock(struct hh_mirror *mirror, const struct hh_change *change);

/**
 * struct hh_entry - an entry of the device's page table, unpacked
 * @data: page that holds the data, reachable by the CPU
 * @page: page that the CPU's table pointed to; NULL for a ghost
 * @pfn: its number
 * @flags: what is known of it, HMM_HARNESS_PAGE_*
 */
struct hh_entry {
	struct page *data;
	struct page *page;
	unsigned long pfn;
	u64 flags;
};

/* table.c */
u64 hh_describe(struct hh_device *device, unsigned long cpu);
bool hh_table_load(struct hh_mirror *mirror, unsigned long index,
		   struct hh_entry *entry);
int hh_table_store(struct hh_mirror *mirror, unsigned long index,
		   unsigned long cpu, u64 *flags);
int hh_table_store_exclusive(struct hh_mirror *mirror, unsigned long index,
			     struct page *page, u64 *flags);
int hh_table_store_unchecked(struct hh_mirror *mirror, unsigned long index,
			     unsigned long cpu);
void hh_table_invalidate(struct hh_mirror *mirror,
			 const struct hh_change *change);
void hh_table_clear(struct hh_mirror *mirror);
void hh_table_lay_ghosts(struct hh_mirror *mirror);

/**
 * struct hh_request - a request that the caller put together
 * @args: what the caller wants
 * @owner: whose device-private memory is shown, or NULL
 * @asked: HMM_HARNESS_ASK_* of each page, or NULL
 * @raw: (out) what the kernel left of each page
 */
struct hh_request {
	struct hmm_harness_request *args;
	struct hh_device *owner;
	const u8 *asked;
	unsigned long *raw;
};

/**
 * struct hh_pass - a way to go over a range
 * @fault: every page shall be readable; else nothing is touched
 * @write: every page shall be writable as well
 * @steady: start over as well when something was entered into the table after
 *          the look at the CPU's
 * @exclusive: look, too, for what devices have to themselves
 * @unlocked: the fault takes the mmap lock itself, for a binding that can
 * @request: in place of @fault and @write, for a binding that can
 * @act: called once with the mirror's lock held, hh_work.cpu filled and still
 *       true, and room in @pages for what is to be told of each page.
 *       @unchecked, a deliberate mistake, means that they may not be true.
 */
struct hh_pass {
	bool fault;
	bool write;
	bool steady;
	bool exclusive;
	bool unlocked;
	const struct hh_request *request;
	int (*act)(struct hh_work *work, unsigned long start,
		   unsigned long npages, u64 *pages, bool unchecked);
};

/* range.c */
struct hh_work *hh_work_begin(struct hh_file *file, u64 addr, u64 npages);
void hh_work_end(struct hh_work *work);
int hh_walk(struct hh_work *work, unsigned long start, unsigned long npages,
	    u64 *pages, const struct hh_pass *pass);
extern const struct hh_pass hh_pass_read, hh_pass_write, hh_pass_unlocked;
int hh_fault_chunk(struct hh_work *work, unsigned long start,
		   unsigned long npages, const struct hh_pass *pass,
		   unsigned long *done);
int hh_tell_pages(struct hh_work *work, struct hmm_harness_range *args,
		  unsigned long npages);
int hh_note_local(struct hh_work *work, unsigned long start,
		  unsigned long npages, bool enter);
int hh_snapshot(struct hh_work *work, struct hmm_harness_range *args);
int hh_fault(struct hh_work *work, struct hmm_harness_range *args);
int hh_table(struct hh_work *work, struct hmm_harness_range *args);
bool hh_is_stale(const struct hh_entry *entry, unsigned long cpu);
int hh_exclusive(struct hh_work *work, struct hmm_harness_range *args);

/* Whether a fault of this device can take the mmap lock itself */
static inline bool hh_can_unlocked(const struct hh_device *device)
{
#ifdef HAVE_RANGE_UNLOCKED
	return device->binding->requests;
#else
	return false;
#endif
}

/* request.c */
int hh_request(struct hh_file *file, struct hmm_harness_request *args);
int hh_put_numbers(u64 to, const void *numbers, u64 npages);
bool hh_may_see_numbers(void);

/* main.c */
struct hh_device *hh_other_device(struct hh_device *device);
unsigned int hh_count_devices(const struct hh_binding *binding);

/* access.c */
int hh_read(struct hh_work *work, struct hmm_harness_range *args);
int hh_write(struct hh_work *work, struct hmm_harness_range *args);

/* Calls that the kernel must refuse */
#define HH_MOVE_MISTAKES                                                       \
	(HMM_HARNESS_MOVE_EMPTY | HMM_HARNESS_MOVE_BEFORE |                    \
	 HMM_HARNESS_MOVE_BEHIND | HMM_HARNESS_MOVE_BEYOND |                   \
	 HMM_HARNESS_MOVE_NO_SOURCES | HMM_HARNESS_MOVE_NO_PLACES |            \
	 HMM_HARNESS_MOVE_NO_MAPPING)

/**
 * struct hh_move - a migration that the caller put together
 * @args: what the caller wants
 * @choices: HMM_HARNESS_CHOOSE_* of each page, or NULL
 * @before: (out) hh_migration.src as the kernel filled it in
 */
struct hh_move {
	struct hmm_harness_move *args;
	const u8 *choices;
	unsigned long *before;
};

/**
 * struct hh_migration - a migration of a part of a mapping, mmap_lock held
 * @vma: the mapping
 * @start: first address
 * @npages: how many pages
 * @to_device: to the device's memory, or back
 * @deny: there is no device memory for so many of the first pages
 * @whole: huge pages migrate as such
 * @src: where the pages are
 * @dst: where they go
 * @fault_page: the page that a CPU touched, if that is why
 * @chosen: what the caller chose, or NULL
 * @pages: (out) HMM_HARNESS_PAGE_MOVED is set for each that moved; or NULL
 * @moved: (out) how many that are
 * @failed: (out) pages that went nowhere for lack of system memory
 */
struct hh_migration {
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned long npages;
	bool to_device;
	unsigned long deny;
	bool whole;
	unsigned long *src;
	unsigned long *dst;
	struct page *fault_page;
	const struct hh_move *chosen;
	u64 *pages;
	unsigned long moved;
	unsigned long failed;
};

/**
 * struct hh_event - what is told over netlink
 * @number: of the event
 * @time: when, in nanoseconds of CLOCK_MONOTONIC
 * @thread: who ran then
 * @kind: HMM_HARNESS_CMD_INVALIDATION and those that follow it
 * @device: who tells
 * @mirror: hh_mirror.id
 * @process: of the mirror, or who touched memory of the device
 * @start: first address
 * @end: address behind the last
 * @sequence: of an invalidation
 * @asked: of a migration
 * @moved: of a migration
 * @reason: of an invalidation
 * @owner: of an invalidation
 * @direction: of a migration
 * @blockable: of an invalidation
 * @refused: of an invalidation
 *
 * Each attribute is explained in netlink/hmm-harness.yaml.
 */
struct hh_event {
	u64 number;
	u64 time;
	u32 kind;
	pid_t thread;
	pid_t process;
	struct hh_device *device;
	u64 mirror;
	u64 start;
	u64 end;
	u64 sequence;
	u32 asked;
	u32 moved;
	u8 reason;
	u8 owner;
	u8 direction;
	bool blockable;
	bool refused;
};

/* events.c */
int hh_events_init(void);
void hh_events_exit(void);
void hh_event_tell(const struct hh_event *event);
void hh_event_change(struct hh_mirror *mirror, const struct hh_change *change,
		     bool refused);
void hh_event_migration(struct hh_device *device,
			const struct hh_migration *move, unsigned long asked);
void hh_event_free(struct hh_device *device);
void hh_event_fault(struct hh_device *device, unsigned long addr);
int hh_event_flush(void);
u64 hh_event_last(void);
struct seq_file;
void hh_event_describe(struct seq_file *file);

/* debugfs.c */
void hh_debugfs_init(void);
void hh_debugfs_add(struct hh_device *device);
void hh_debugfs_exit(void);

/* interval.c, interval_devmem.c */
extern const struct hh_binding hh_interval;

/* plain.c */
#ifdef HH_INTERVAL
void hh_plain_exit(void);
#else
static inline void hh_plain_exit(void)
{
}
#endif

/* dma.c */
#ifdef HAVE_HMM_DMA
int hh_dma_init(struct hh_device *device);
#else
static inline int hh_dma_init(struct hh_device *device)
{
	return 0;
}
#endif

/* seed.c, seed_devmem.c */
extern const struct hh_binding hh_seed;

/* devmem.c */
#ifdef HH_DEVMEM
void hh_migration_copy(struct hh_device *device, struct hh_migration *move);
void hh_migration_settle(struct hh_device *device, struct hh_migration *move);
vm_fault_t hh_devmem_fault(struct hh_device *device,
			   struct vm_area_struct *vma, unsigned long addr,
			   struct page *page, unsigned int order);
void hh_devmem_free(struct hh_device *device, struct page *page);
int hh_devmem_init(struct hh_device *device, unsigned int mebibytes);
void hh_devmem_exit(struct hh_device *device);
bool hh_devmem_owns(struct hh_device *device, struct page *page);
struct page *hh_devmem_backing(struct page *page);
void hh_devmem_usage(struct hh_device *device, struct hmm_harness_usage *usage);
int hh_migrate(struct hh_work *work, struct hmm_harness_range *args);
int hh_migrate_short(struct hh_work *work, struct hmm_harness_range *args);
int hh_evict(struct hh_device *device, struct hmm_harness_evict *args);
struct page *hh_devmem_alloc(struct hh_device *device, unsigned int order);
struct page *hh_devmem_target(struct hh_device *device,
			      struct hh_migration *move, unsigned long addr);
void hh_devmem_fill(struct page *to, struct page *from);
void hh_devmem_split(struct page *head, struct page *tail);
int hh_evict_all(struct hh_device *device, u64 *moved);
unsigned long hh_pages_in_use(struct hh_devmem *devmem);
bool hh_devmem_is_live(struct page *page);
struct mm_struct *hh_find_user(struct page *page, unsigned long nth,
			       struct mm_struct *only, unsigned long *addr);
int hh_refuse_returns(struct hh_file *file, struct hmm_harness_returns *args);
void hh_refuse_nothing(struct hh_mirror *mirror);

/* move.c */
int hh_move(struct hh_file *file, struct hmm_harness_move *args);
void hh_move_copy(struct hh_device *device, struct hh_migration *move);

/* whole.c */
#ifdef HH_COMPOUND
void hh_place_whole(struct hh_device *device, struct hh_migration *move,
		    unsigned long at, bool pieces);
#else
static inline void hh_place_whole(struct hh_device *device,
				  struct hh_migration *move, unsigned long at,
				  bool pieces)
{
}
#endif

/* evict.c */
int hh_evict_by_number(struct hh_device *device, u32 how, u64 *moved);

/* removal.c */
int hh_evict_by_removal(struct hh_device *device,
			struct hmm_harness_evict *args);
#else
static inline int hh_devmem_init(struct hh_device *device,
				 unsigned int mebibytes)
{
	return 0;
}

static inline void hh_devmem_exit(struct hh_device *device)
{
}

static inline bool hh_devmem_owns(struct hh_device *device, struct page *page)
{
	return false;
}

static inline struct page *hh_devmem_backing(struct page *page)
{
	return page;
}

static inline void hh_devmem_usage(struct hh_device *device,
				   struct hmm_harness_usage *usage)
{
}

static inline int hh_migrate(struct hh_work *work,
			     struct hmm_harness_range *args)
{
	return -EOPNOTSUPP;
}

static inline int hh_migrate_short(struct hh_work *work,
				   struct hmm_harness_range *args)
{
	return -EOPNOTSUPP;
}

static inline int hh_evict(struct hh_device *device,
			   struct hmm_harness_evict *args)
{
	return -EOPNOTSUPP;
}

static inline int hh_refuse_returns(struct hh_file *file,
				    struct hmm_harness_returns *args)
{
	return -EOPNOTSUPP;
}

static inline void hh_refuse_nothing(struct hh_mirror *mirror)
{
}

static inline int hh_move(struct hh_file *file, struct hmm_harness_move *args)
{
	return -EOPNOTSUPP;
}
#endif

/* peek.c */
int hh_snapshot_now(struct hh_mirror *mirror, struct hmm_harness_range *args);
int hh_table_now(struct hh_mirror *mirror, struct hmm_harness_range *args);

/* gate.c */
extern atomic_t hh_actors_count;
unsigned long hh_gate_pass(u32 gate, const struct hh_device *device);
int hh_gate_arm(struct hh_file *file, struct hmm_harness_gate *args);
int hh_gate_wait(struct hh_file *file, struct hmm_harness_gate *args);
int hh_gate_release(struct hh_file *file, struct hmm_harness_gate *args);
void hh_gates_close(const struct hh_file *file);

/**
 * hh_gate() - a point where the current thread stops if somebody wants that
 * @gate: HMM_HARNESS_GATE_*
 * @device: of the device
 *
 * Sleeps. Costs a look at a number as long as no thread is under control.
 *
 * Return: for how long it stopped, in jiffies
 */
static inline unsigned long hh_gate(u32 gate, const struct hh_device *device)
{
	if (likely(!atomic_read(&hh_actors_count)))
		return 0;
	return hh_gate_pass(gate, device);
}

/**
 * hh_work_gate() - hh_gate() of an operation, whose patience is not used up by it
 * @gate: HMM_HARNESS_GATE_*
 * @work: the operation
 */
static inline void hh_work_gate(u32 gate, struct hh_work *work)
{
	work->parked += hh_gate(gate, work->mirror->device);
}

/**
 * hh_change_gate() - hh_gate() of an invalidation, if that may sleep
 * @gate: HMM_HARNESS_GATE_*
 * @mirror: the mirror
 * @change: what the CPU is about to change
 */
static inline void hh_change_gate(u32 gate, const struct hh_mirror *mirror,
				  const struct hh_change *change)
{
	if (change->blockable)
		hh_gate(gate, mirror->device);
}

/* Deliberate mistakes: wrong.c says what each is. */
enum hh_mistake {
	HH_SKIP_INVALIDATE,
	HH_INVALIDATE_SHORT,
	HH_SKIP_OWN_MIGRATE,
	HH_SKIP_RETRY,
	HH_RETRY_OUTSIDE_LOCK,
	HH_IGNORE_PERMISSION,
	HH_WRITE_ENTRY_ALWAYS,
	HH_FAULT_FORGETS_WRITE,
	HH_FAULT_REPORTS_SUCCESS,
	HH_SNAPSHOT_FAULTS,
	HH_OWNER_UNSET,
	HH_SKIP_DIRTY,
	HH_MIGRATE_NO_COPY,
	HH_MIGRATE_CLAIMS_ALL,
	HH_MIGRATE_BACK_SHORT,
	HH_MIGRATE_BACK_SHIFTED,
	HH_LEAK_DEVICE_PAGE,
	HH_EVICT_NOTHING,
	HH_LOSE_EVENTS,
	HH_HIDE_EVENTS,
	HH_DMA_SKIP_UNMAP,
	HH_WATCH_SKIP_SEQUENCE,
	HH_SKIP_NONBLOCKABLE,
	HH_KEEP_EXCLUSIVE,
	HH_EXCLUSIVE_CLAIMS_ALL,
	HH_SPLIT_WHOLE,
	HH_INVALIDATE_LATER,
	HH_SKIP_PROTECT,
	HH_FAILURE_LOSES,
	HH_ASK_GARBAGE,
	HH_RETRY_FOREVER,
	HH_DROP_LOCK,
	HH_LAST_SEQUENCE,
	HH_MIGRATE_FIRST,
	HH_FREE_TWICE,
	HH_TOUCH_SOURCES,
	HH_TOUCH_TARGETS,
	HH_UNLOCKED_TARGET,
	HH_WATCH_NOBODY,
	HH_WATCH_ENDS_ITSELF,
	HH_MEMORY_UNOWNED,
	HH_SLEEP_NONBLOCKABLE,
	HH_KEEP_LOCKED,
	HH_FAULT_INSIDE,
	HH_LOCK_PAGE_INSIDE,
	HH_PUT_MM_INSIDE,
	HH_BIND_HALF,
	HH_UNBIND_LATE,
	HH_NR_MISTAKES,
};

extern unsigned long hh_mistakes;

/**
 * hh_wrong() - whether a deliberate mistake is switched on
 * @mistake: which
 */
static inline bool hh_wrong(enum hh_mistake mistake)
{
	return READ_ONCE(hh_mistakes) & BIT(mistake);
}

/**
 * hh_may_break() - whether a deliberate mistake may write to a read-only page
 * @page: any page
 *
 * Only to anonymous pages, which at most a process and its relatives have. The
 * page cache belongs to all, and a page that KSM merged, which counts as
 * anonymous too, to whoever had the same data.
 */
static inline bool hh_may_break(struct page *page)
{
	return PageAnon(page) && !hh_is_merged(page);
}

/* mapping.c */
int hh_mmap(struct file *filp, struct vm_area_struct *vma);

/* ioctl.c */
long hh_ioctl(struct file *filp, unsigned int cmd, unsigned long arg);

#endif /* HMM_HARNESS_INTERNAL_H */
