// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of a device. Private memory: struct pages that the CPU cannot reach,
 * each with an ordinary page behind it that holds the data, in place of a real
 * device's memory. Or coherent memory: physical memory that the kernel leaves
 * alone, which the CPU reaches as the device does. And migration, in all three
 * directions: to the device, back on request, and, of private memory, back
 * because a CPU touched the page.
 *
 * The field of a private page that is its driver's tells the page behind, whose
 * private field holds the state of the device page, see enum hh_page_state. The
 * field of a coherent page is that state.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "compat.h"

#ifdef HH_DEVMEM

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

/**
 * hh_devmem_owns() - whether a page is memory of a device
 * @device: the device
 * @page: any page
 */
bool hh_devmem_owns(struct hh_device *device, struct page *page)
{
	return (is_device_private_page(page) ||
		is_device_coherent_page(page)) &&
	       hh_page_pgmap(page) == device->devmem.pgmap;
}

/**
 * hh_devmem_backing() - the page that holds the data of a device page
 * @page: memory of one of our devices, in use
 *
 * The pages behind a large page follow each other as its pages do.
 */
struct page *hh_devmem_backing(struct page *page)
{
	struct page *head = hh_page_head(page);

	if (is_device_coherent_page(page))
		return page;
	return (struct page *)hh_page_data(head) + (page - head);
}

/**
 * enum hh_page_state - bits of the state of a device page in use
 * @HH_PAGE_LIVE: it has been migrated to and not yet been migrated from.
 *                Changes with the page locked. Eviction finds pages by their
 *                number, in any state, and must leave those alone that are just
 *                being set up or abandoned.
 * @HH_PAGE_FAULTING: migrate_to_ram() is at it
 */
enum hh_page_state {
	HH_PAGE_LIVE,
	HH_PAGE_FAULTING,
};

static unsigned long *hh_page_state(struct page *page)
{
	if (is_device_coherent_page(page))
		return hh_page_word(page);
	return &page_private(hh_devmem_backing(hh_page_head(page)));
}

/**
 * hh_devmem_is_live() - whether a device page has been migrated to
 * @page: memory of one of our devices, in use, and locked
 *
 * Return: false also when it has been migrated from
 */
bool hh_devmem_is_live(struct page *page)
{
	return test_bit(HH_PAGE_LIVE, hh_page_state(page));
}

/* Takes back what was lost on purpose once that is over. Under devmem->lock. */
static void hh_recover_lost(struct hh_devmem *devmem)
{
	if (!hh_wrong(HH_FREE_TWICE)) {
		devmem->freed -= devmem->nr_twice;
		devmem->nr_twice = 0;
	}
	if (!devmem->nr_lost || hh_wrong(HH_LEAK_DEVICE_PAGE))
		return;
	bitmap_or(devmem->free, devmem->free, devmem->lost, devmem->npages);
	bitmap_zero(devmem->lost, devmem->npages);
	devmem->freed += devmem->nr_lost;
	devmem->nr_lost = 0;
}

/*
 * Takes pages of that order out of the free ones. Returns the first, or NULL.
 * Under devmem->lock.
 */
static struct page *hh_pick(struct hh_devmem *devmem, unsigned int order)
{
	unsigned long i, n = 1UL << order;

	if (devmem->leaving)
		return NULL;
	/* Numbers are aligned, as the first one is. */
	for (i = 0; i + n <= devmem->npages; i += n) {
		i = ALIGN(find_next_bit(devmem->free, devmem->npages, i), n);
		if (i + n > devmem->npages)
			break;
		if (find_next_zero_bit(devmem->free, i + n, i) < i + n)
			continue;
		bitmap_clear(devmem->free, i, n);
		devmem->allocated += n;
		return pfn_to_page(devmem->first + i);
	}
	return NULL;
}

/* Pages behind those of a device: as many, each of its own; or NULL. */
static struct page *hh_alloc_backing(unsigned int order)
{
	struct page *backing;
	unsigned long i;

	backing = alloc_pages(GFP_HIGHUSER | __GFP_NOWARN |
			      (order ? __GFP_RETRY_MAYFAIL : 0), order);
	if (!backing)
		return NULL;
	if (order)
		split_page(backing, order);
	for (i = 0; i < 1UL << order; i++)
		set_page_private(backing + i, 0);
	return backing;
}

static void hh_free_backing(struct page *backing, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++) {
		set_page_private(backing + i, 0);
		__free_page(backing + i);
	}
}

/**
 * hh_devmem_alloc() - take free pages of a device into use
 * @device: the device
 * @order: how many, as one large page; or 0
 *
 * Return: the first of them, locked and with one reference; or NULL
 */
struct page *hh_devmem_alloc(struct hh_device *device, unsigned int order)
{
	struct hh_devmem *devmem = &device->devmem;
	struct page *backing = NULL, *page;

	if (!devmem->address) {
		backing = hh_alloc_backing(order);
		if (!backing) {
			atomic64_inc(&device->refused);
			return NULL;
		}
	}

	down_read(&devmem->reuse);
	spin_lock_irq(&devmem->lock);
	hh_recover_lost(devmem);
	page = hh_pick(devmem, order);
	spin_unlock_irq(&devmem->lock);
	if (!page) {
		up_read(&devmem->reuse);
		if (backing)
			hh_free_backing(backing, 1UL << order);
		return NULL;
	}

	/* Of coherent memory, this is the state: none of its bits is set. */
	hh_set_page_data(page, backing);
	/*
	 * Eviction finds the page as soon as it has a reference: pairs with
	 * hh_page_get_unless_free() in hh_evict_page(), after which the state,
	 * and the backing page that holds it, are looked at.
	 */
	smp_wmb();
	device->binding->use_page(device, page, order);
	up_read(&devmem->reuse);
	return page;
}

/**
 * hh_devmem_free() - take device pages back that nobody uses any more
 * @device: the device
 * @page: its page, the first one of a large page
 *
 * From any context: the last to let go of a coherent page can be a disk.
 */
void hh_devmem_free(struct hh_device *device, struct page *page)
{
	struct hh_devmem *devmem = &device->devmem;
	struct page *backing = hh_devmem_backing(page);
	unsigned long i, n = hh_page_count(page);
	unsigned long at = page_to_pfn(page) - devmem->first;
	unsigned long irq;

	if (hh_devmem_is_live(page))
		atomic_long_sub(n, &devmem->live);
	if (backing != page)
		hh_free_backing(backing, n);
	/* Set by writes of the device, and nobody clears it for us. */
	ClearPageDirty(page);

	spin_lock_irqsave(&devmem->lock, irq);
	if (hh_wrong(HH_LEAK_DEVICE_PAGE)) {
		bitmap_set(devmem->lost, at, n);
		devmem->nr_lost += n;
	} else {
		bitmap_set(devmem->free, at, n);
		devmem->freed += n;
	}
	if (hh_wrong(HH_FREE_TWICE)) {
		devmem->freed += n;
		devmem->nr_twice += n;
	}
	spin_unlock_irqrestore(&devmem->lock, irq);
	for (i = 0; i < n; i++)
		hh_event_free(device);
}

#ifdef HH_COMPOUND
/**
 * hh_devmem_split() - a large device page becomes several
 * @head: its first page
 * @tail: the first page of another part, which is no part of it any more
 *
 * A page with a reference too many cannot be split, so that it is done by the
 * fault under way, if there is one. That holds on to one part only, and lets go
 * of the others now: they may be gone when it ends. Where there are large pages,
 * the kernel keeps other faults away by the page's lock.
 */
void hh_devmem_split(struct page *head, struct page *tail)
{
	struct page *backing = hh_page_data(head);
	bool live = test_bit(HH_PAGE_LIVE, &page_private(backing));

	clear_bit(HH_PAGE_FAULTING, &page_private(backing));
	backing += tail - head;
	set_page_private(backing, live ? BIT(HH_PAGE_LIVE) : 0);
	hh_set_page_data(tail, backing);
}
#endif

/**
 * hh_devmem_target() - a small page to migrate to
 * @device: the device
 * @move: the migration
 * @addr: where it will be mapped
 *
 * Return: the page, locked; or NULL
 */
struct page *hh_devmem_target(struct hh_device *device,
			      struct hh_migration *move, unsigned long addr)
{
	if (move->to_device)
		return hh_devmem_alloc(device, 0);
	return device->binding->target_page(move->vma, addr);
}

/**
 * hh_devmem_fill() - copy a page to where it goes
 * @to: of a device, or of the system
 * @from: likewise; NULL for a page of zeros
 */
void hh_devmem_fill(struct page *to, struct page *from)
{
	if (is_zone_device_page(to))
		to = hh_devmem_backing(to);
	/* The pages of files will not move, and may even be unreadable. */
	if (!from || !PageAnon(from) || hh_wrong(HH_MIGRATE_NO_COPY))
		clear_highpage(to);
	else if (is_zone_device_page(from))
		copy_highpage(to, hh_devmem_backing(from));
	else
		copy_highpage(to, from);
}

/* Fills move->dst for all of move->src that are to move to the device. */
static void hh_copy_in(struct hh_device *device, struct hh_migration *move)
{
	struct page *from, *to;
	unsigned long i;

	for (i = 0; i < move->npages; i++) {
		if (!(move->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		from = migrate_pfn_to_page(move->src[i]);
		/* Memory of a device, where the kernel collects that, too */
		if (from && is_zone_device_page(from))
			continue;
		if (from && hh_is_merged(from) &&
		    !device->binding->evict_merged)
			continue;
		if (move->deny) {
			move->deny--;
			continue;
		}
		to = hh_devmem_alloc(device, 0);
		if (!to)
			continue;
		/* No page: there was none, or the zero page. */
		hh_devmem_fill(to, from);
		move->dst[i] = hh_migrate_dst(to);
	}
}

static void hh_copy_page(struct page *to, struct page *from)
{
	copy_highpage(to, from);
	if (hh_wrong(HH_MIGRATE_BACK_SHORT))
		memzero_page(to, PAGE_SIZE / 2, PAGE_SIZE / 2);
}

/* Fills move->dst for all of move->src that are to move back. */
static void hh_copy_out(struct hh_device *device, struct hh_migration *move)
{
	struct page *from, *to, *before = NULL;
	unsigned long i, addr = move->start;

	for (i = 0; i < move->npages; i++, addr += PAGE_SIZE) {
		from = migrate_pfn_to_page(move->src[i]);
		if (!from || !(move->src[i] & MIGRATE_PFN_MIGRATE) ||
		    !hh_devmem_owns(device, from) || !hh_devmem_is_live(from))
			continue;
		if (move->src[i] & HH_MIGRATE_COMPOUND) {
			hh_place_whole(device, move, i, false);
			continue;
		}
		to = device->binding->target_page(move->vma, addr);
		if (!to) {
			move->failed++;
			atomic64_inc(&device->refused);
			continue;
		}
		from = hh_devmem_backing(from);
		if (hh_wrong(HH_MIGRATE_BACK_SHIFTED) && before)
			hh_copy_page(to, before);
		else
			hh_copy_page(to, from);
		before = from;
		move->dst[i] = hh_migrate_dst(to);
	}
}

/* Unlocks where pages go before they are there, on purpose. */
static void hh_unlock_targets(struct hh_migration *move)
{
	struct page *to;
	unsigned long i;

	for (i = 0; i < move->npages; i++) {
		to = migrate_pfn_to_page(move->dst[i]);
		if (to)
			unlock_page(to);
	}
}

/**
 * hh_migration_copy() - allocate where pages go, and copy them there
 * @device: the device
 * @move: the migration; the kernel has filled in src, and locked the pages
 */
void hh_migration_copy(struct hh_device *device, struct hh_migration *move)
{
	if (move->chosen)
		hh_move_copy(device, move);
	else if (move->to_device)
		hh_copy_in(device, move);
	else
		hh_copy_out(device, move);
	if (hh_wrong(HH_UNLOCKED_TARGET) && move->to_device)
		hh_unlock_targets(move);
}

/* Notes that a page is not in use by a process any more, if it is a device's. */
static void hh_settle_source(struct hh_device *device, struct page *from)
{
	if (!hh_devmem_owns(device, from))
		device = hh_other_device(device);
	if (hh_devmem_owns(device, from) &&
	    test_and_clear_bit(HH_PAGE_LIVE, hh_page_state(from)))
		atomic_long_sub(hh_page_count(hh_page_head(from)),
				&device->devmem.live);
}

static void hh_settle_target(struct hh_device *device, struct page *to)
{
	if (hh_devmem_owns(device, to) &&
	    !test_and_set_bit(HH_PAGE_LIVE, hh_page_state(to)))
		atomic_long_add(hh_page_count(hh_page_head(to)),
				&device->devmem.live);
}

/**
 * hh_migration_settle() - note what moved
 * @device: the device
 * @move: the migration; all pages are still locked, and those that have
 *        MIGRATE_PFN_MIGRATE in src have moved
 */
void hh_migration_settle(struct hh_device *device, struct hh_migration *move)
{
	unsigned long i, j, n, asked = 0;
	struct page *from, *to;
	u64 told;

	for (i = 0; i < move->npages; i += n) {
		bool whole = move->dst[i] & HH_MIGRATE_COMPOUND;

		n = whole ? HH_WHOLE : 1;
		from = migrate_pfn_to_page(move->src[i]);
		to = migrate_pfn_to_page(move->dst[i]);
		if (!to)
			continue;
		asked += n;
		if (!(move->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (from)
			hh_settle_source(device, from);
		hh_settle_target(device, to);
		told = HMM_HARNESS_PAGE_MOVED |
		       (whole ? HMM_HARNESS_PAGE_WHOLE : 0);
		for (j = i; move->pages && j < i + n; j++)
			move->pages[j] |= told;
		move->moved += n;
	}
	hh_event_migration(device, move, asked);
}

/*
 * Migrates at most @npages from @start on; @done says how many were tried.
 * @deny is counted down: see struct hh_migration.
 */
static int hh_migrate_chunk(struct hh_work *work, unsigned long start,
			    unsigned long npages, bool to_device,
			    unsigned long *deny, unsigned long *done)
{
	struct hh_device *device = work->mirror->device;
	struct hh_migration move = {
		.start = start,
		.to_device = to_device,
		.deny = *deny,
		.src = work->src,
		.dst = work->dst,
		.pages = work->pages,
	};
	int ret = -EINVAL;

	if (mmap_read_lock_killable(work->mm))
		return -EINTR;
	move.vma = vma_lookup(work->mm, start);
	if (move.vma && (move.vma->vm_flags & VM_READ)) {
		npages = min(npages, (move.vma->vm_end - start) >> PAGE_SHIFT);
		move.npages = npages;
		memset(work->pages, 0, npages * sizeof(work->pages[0]));
		ret = device->binding->migrate(device, &move);
	}
	mmap_read_unlock(work->mm);
	*deny = move.deny;
	if (!ret)
		*done = npages;
	return ret;
}

static int hh_migrate_range(struct hh_work *work,
			    struct hmm_harness_range *args, bool to_device,
			    unsigned long deny)
{
	unsigned long start, n, i;
	int ret;

	if (!work->mirror->device->devmem.npages)
		return -EOPNOTSUPP;

	while (args->done < args->npages) {
		if (fatal_signal_pending(current))
			return -EINTR;
		start = args->addr;
		if (!hh_wrong(HH_MIGRATE_FIRST))
			start += args->done << PAGE_SHIFT;
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = hh_migrate_chunk(work, start, n, to_device, &deny, &n);
		if (!ret)
			ret = hh_note_local(work, start, n, to_device);
		if (ret)
			return ret;
		if (hh_wrong(HH_MIGRATE_CLAIMS_ALL))
			for (i = 0; i < n; i++)
				work->pages[i] |= HMM_HARNESS_PAGE_MOVED;
		ret = hh_tell_pages(work, args, n);
		if (ret)
			return ret;
	}
	return 0;
}

/**
 * hh_migrate() - HMM_HARNESS_MIGRATE
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: 0; -EINVAL at an address that has no memory that can migrate, the one
 * at @args->done; those of hh_walk()
 */
int hh_migrate(struct hh_work *work, struct hmm_harness_range *args)
{
	return hh_migrate_range(work, args,
				args->flags & HMM_HARNESS_MIGRATE_TO_DEVICE, 0);
}

/**
 * hh_migrate_short() - HMM_HARNESS_MIGRATE_SHORT
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: as hh_migrate()
 */
int hh_migrate_short(struct hh_work *work, struct hmm_harness_range *args)
{
	return hh_migrate_range(work, args, true, 1);
}

static vm_fault_t hh_try_to_ram(struct hh_device *device,
				struct vm_area_struct *vma, unsigned long addr,
				struct page *page, unsigned int order)
{
	unsigned long npages = 1UL << order;
	unsigned long one[2] = {};
	unsigned long *room = one;
	struct hh_migration move = {
		.vma = vma,
		.start = ALIGN_DOWN(addr, PAGE_SIZE << order),
		.npages = npages,
		.whole = order > 0,
		.fault_page = page,
	};
	int ret;

	if (order)
		room = kcalloc(2 * npages, sizeof(*room), GFP_KERNEL);
	if (!room)
		return VM_FAULT_OOM;
	move.src = room;
	move.dst = room + npages;
	ret = device->binding->migrate(device, &move);
	if (order)
		kfree(room);
	if (ret)
		return VM_FAULT_SIGBUS;
	return move.failed ? VM_FAULT_OOM : 0;
}

/**
 * hh_devmem_fault() - a CPU touched a device page
 * @device: the device
 * @vma: where it is mapped: of any process that has it, not only a mirror's
 * @addr: the address
 * @page: the page
 * @order: of a large page that is mapped as such, else 0
 *
 * Where each CPU that comes here has a reference to the page, migration fails as
 * long as more than one has. So all but the first turn round at once, to come
 * again until the page is gone, and the first does not give up at once.
 *
 * Return: 0, VM_FAULT_OOM, or VM_FAULT_SIGBUS
 */
vm_fault_t hh_devmem_fault(struct hh_device *device,
			   struct vm_area_struct *vma, unsigned long addr,
			   struct page *page, unsigned int order)
{
	struct hh_devmem *devmem = &device->devmem;
	vm_fault_t ret = 0;
	bool held = hh_page_refs(page) > hh_page_mapped(page);
	bool watched, refuse;
	int tries = 32;

	hh_gate(HMM_HARNESS_GATE_RETURN_BEGIN, device);
	spin_lock_irq(&devmem->lock);
	devmem->cpu_faults++;
	watched = devmem->refused_to == vma->vm_mm;
	if (watched) {
		devmem->unheld += !held;
		devmem->unlocked += !PageLocked(page);
	}
	refuse = watched && devmem->refusals;
	if (refuse) {
		devmem->refused++;
		if (devmem->refusals != HMM_HARNESS_REFUSE_ALL)
			devmem->refusals--;
	}
	spin_unlock_irq(&devmem->lock);
	hh_event_fault(device, addr);
	if (refuse)
		return VM_FAULT_SIGBUS;

	if (!HH_FAULT_PAGE_HELD) {
		ret = hh_try_to_ram(device, vma, addr, page, order);
		hh_gate(HMM_HARNESS_GATE_RETURN_END, device);
		return ret;
	}

	if (test_and_set_bit(HH_PAGE_FAULTING, hh_page_state(page)))
		return 0;
	while (!ret && hh_devmem_is_live(page) && tries--)
		ret = hh_try_to_ram(device, vma, addr, page, order);
	/* If a large page was split, the state is not where it was. */
	clear_bit(HH_PAGE_FAULTING, hh_page_state(page));
	hh_gate(HMM_HARNESS_GATE_RETURN_END, device);
	return ret;
}

/* What was counted so far was told, or is nobody's any more. */
static void hh_returns_forget(struct hh_devmem *devmem)
{
	lockdep_assert_held(&devmem->lock);
	devmem->refused = 0;
	devmem->unheld = 0;
	devmem->unlocked = 0;
}

/**
 * hh_refuse_returns() - HMM_HARNESS_RETURNS
 * @file: whose device
 * @args: what the caller asked for
 *
 * Return: 0, -ENXIO when the file is not bound, or -EOPNOTSUPP without private
 * memory
 */
int hh_refuse_returns(struct hh_file *file, struct hmm_harness_returns *args)
{
	struct hh_devmem *devmem = &file->device->devmem;
	struct hh_mirror *mirror;
	int ret = 0;

	/* What the CPU reaches need not return. */
	if (!devmem->npages || devmem->address)
		return -EOPNOTSUPP;
	mirror = hh_mirror_get(file);
	if (!mirror)
		return -ENXIO;
	spin_lock_irq(&devmem->lock);
	if (READ_ONCE(mirror->dead)) {
		ret = -ENXIO;
	} else {
		args->refused = devmem->refused;
		args->unheld = devmem->unheld;
		args->unlocked = devmem->unlocked;
		hh_returns_forget(devmem);
		devmem->refusals = args->count;
		devmem->refused_to = mirror->mm;
	}
	spin_unlock_irq(&devmem->lock);
	hh_mirror_put(mirror);
	return ret;
}

/**
 * hh_refuse_nothing() - end what hh_refuse_returns() began
 * @mirror: a mirror that is dead
 */
void hh_refuse_nothing(struct hh_mirror *mirror)
{
	struct hh_devmem *devmem = &mirror->device->devmem;

	spin_lock_irq(&devmem->lock);
	if (devmem->refused_to == mirror->mm) {
		devmem->refused_to = NULL;
		devmem->refusals = 0;
		hh_returns_forget(devmem);
	}
	spin_unlock_irq(&devmem->lock);
}

/**
 * hh_pages_in_use() - pages in use now, whatever the accounts are made to say
 * @devmem: the memory
 */
unsigned long hh_pages_in_use(struct hh_devmem *devmem)
{
	unsigned long in_use;

	spin_lock_irq(&devmem->lock);
	in_use = devmem->allocated - devmem->freed - devmem->nr_lost +
		 devmem->nr_twice;
	spin_unlock_irq(&devmem->lock);
	return in_use;
}

/*
 * Pages evicted at a time: so few that struct hh_evict fits in a page, which is
 * what there is always memory for when the module is unloaded.
 */
#define HH_EVICT_CHUNK 128

/**
 * struct hh_evict - an eviction under way
 * @killable: whether it may stop when the caller is being killed
 * @src: where pages are
 * @dst: where they go
 */
struct hh_evict {
	bool killable;
	unsigned long src[HH_EVICT_CHUNK];
	unsigned long dst[HH_EVICT_CHUNK];
};

/**
 * hh_find_user() - find who has a device page
 * @page: the page, referenced and locked
 * @nth: which of those that may have it mapped, from 0
 * @only: consider this memory only, whose mmap_lock is held; or NULL
 * @addr: (out) the address there
 *
 * The kernel has migrate_device_range() for this, which looks the processes up
 * by itself. But it looks twice, before and after the copy, and nothing keeps
 * what it finds them by, the page's anon_vma, from being freed in between by
 * the exit of the last process that has the page. mmap_lock does: see evict.c.
 *
 * With @only, what is found keeps the page's anon_vma as long as the lock is
 * held: munmap() takes mappings away with the lock held for reading as well, but
 * of those only that nobody can look up any more.
 *
 * Return: a memory that has a user now, with a reference; @only, without; or
 * NULL when there are no more, or they cannot be looked at
 */
struct mm_struct *hh_find_user(struct page *page, unsigned long nth,
			       struct mm_struct *only, unsigned long *addr)
{
	struct mm_struct *mm = NULL;
	struct hh_mapped *mapped = hh_mapped_of(page);
	struct anon_vma *anon_vma, *root;
	struct vm_area_struct *vma;
	unsigned long mapping;
	struct rb_node *node;
	pgoff_t first, index, end;

	/* The steps of folio_lock_anon_vma_read(), which is not exported */
	rcu_read_lock();
	mapping = (unsigned long)READ_ONCE(mapped->mapping);
	if ((mapping & HH_MAPPING_FLAGS) != HH_MAPPING_ANON ||
	    !hh_is_mapped(page))
		goto unlock;
	anon_vma = (struct anon_vma *)(mapping - HH_MAPPING_ANON);
	root = READ_ONCE(anon_vma->root);
	if (!down_read_trylock(&root->rwsem))
		goto unlock;
	if (!hh_is_mapped(page))
		goto up;

	for (node = rb_first_cached(&anon_vma->rb_root); node && !mm;
	     node = rb_next(node)) {
		vma = rb_entry(node, struct anon_vma_chain, rb)->vma;
		/* Of a large page, any part will do. */
		first = hh_vma_anon_pgoff(vma);
		index = max(mapped->index, first);
		end = min(mapped->index + hh_page_count(page),
			  first + vma_pages(vma));
		if (index >= end)
			continue;
		if (only && (vma->vm_mm != only ||
			     vma_lookup(only, vma->vm_start) != vma))
			continue;
		if (nth) {
			nth--;
			continue;
		}
		*addr = vma->vm_start + ((index - first) << PAGE_SHIFT);
		if (only || mmget_not_zero(vma->vm_mm))
			mm = vma->vm_mm;
	}
up:
	up_read(&root->rwsem);
unlock:
	rcu_read_unlock();
	return mm;
}

/*
 * Moves what one memory has of the device, from @addr on, up to @end as long as
 * nothing moves.
 */
static unsigned long hh_evict_from(struct hh_device *device,
				   struct mm_struct *mm, unsigned long addr,
				   unsigned long end, struct hh_evict *evict)
{
	struct hh_migration move = {
		.src = evict->src,
		.dst = evict->dst,
	};

	if (!evict->killable)
		mmap_read_lock(mm);
	else if (mmap_read_lock_killable(mm))
		return 0;
	move.vma = vma_lookup(mm, addr);
	for (; move.vma && !move.moved && addr < min(end, move.vma->vm_end);
	     addr += move.npages << PAGE_SHIFT) {
		move.start = addr;
		move.npages = min_t(unsigned long, HH_EVICT_CHUNK,
				    (move.vma->vm_end - addr) >> PAGE_SHIFT);
		if (device->binding->migrate(device, &move))
			break;
	}
	mmap_read_unlock(mm);
	return move.moved;
}

/* Moves a page, and with it others that are mapped behind it. */
static unsigned long hh_evict_page(struct hh_device *device, struct page *page,
				   struct hh_evict *evict)
{
	unsigned long nth, addr = 0, end = 0, moved = 0;
	struct mm_struct *mm;
	bool merged = false;

	/* Ordered before all looks at the page, see hh_devmem_alloc(). */
	for (nth = 0; hh_page_get_unless_free(page); nth++) {
		mm = NULL;
		if (trylock_page(page)) {
			merged = hh_is_merged(page);
			if (hh_devmem_is_live(page))
				mm = hh_find_user(page, nth, NULL, &addr);
			end = addr + (hh_page_count(page) << PAGE_SHIFT);
			unlock_page(page);
		}
		/* Nothing migrates as long as we hold on to it. */
		put_page(page);
		if (merged)
			return moved + device->binding->evict_merged(device,
								     page);
		if (!mm)
			break;
		moved += hh_evict_from(device, mm, addr, end, evict);
		mmput(mm);
	}
	return moved;
}

/* Goes over all device pages once. */
static unsigned long hh_evict_pass(struct hh_device *device,
				   struct hh_evict *evict)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long pfn = devmem->first;
	unsigned long end = pfn + devmem->npages;
	unsigned long moved = 0;

	for (; pfn < end; pfn++) {
		if (evict->killable && fatal_signal_pending(current))
			break;
		moved += hh_evict_page(device, pfn_to_page(pfn), evict);
		cond_resched();
	}
	return moved;
}

/**
 * hh_evict_all() - move all pages back to system memory, as far as they go
 * @device: the device, whose memory stays there
 * @moved: (out) how many moved
 *
 * Return: 0, -ENOMEM
 */
int hh_evict_all(struct hh_device *device, u64 *moved)
{
	struct hh_evict *evict = kmalloc_obj(*evict, GFP_KERNEL);

	if (!evict)
		return -ENOMEM;
	evict->killable = true;
	*moved = hh_evict_pass(device, evict);
	kfree(evict);
	return 0;
}

/**
 * hh_evict() - HMM_HARNESS_EVICT: move all pages back to system memory
 * @device: the device
 * @args: what the caller asked for
 *
 * Return: 0; -EINTR when the caller is being killed; -EOPNOTSUPP without device
 * memory, or without the kernel's help that was asked for; -ENOMEM; those of
 * hh_evict_by_removal()
 */
int hh_evict(struct hh_device *device, struct hmm_harness_evict *args)
{
	struct hh_devmem *devmem = &device->devmem;
	int ret;

	if (args->flags & HMM_HARNESS_EVICT_REMOVE)
		return hh_evict_by_removal(device, args);
	if (!devmem->npages)
		return -EOPNOTSUPP;
	if (hh_wrong(HH_EVICT_NOTHING)) {
		args->moved = hh_pages_in_use(devmem);
		args->left = 0;
		return 0;
	}

	if (down_read_killable(&devmem->there))
		return -EINTR;
	if (!devmem->npages)
		ret = -EOPNOTSUPP;
	else if (args->flags)
		ret = hh_evict_by_number(device, args->flags, &args->moved);
	else
		ret = hh_evict_all(device, &args->moved);
	up_read(&devmem->there);
	args->left = hh_pages_in_use(devmem);
	if (!ret && fatal_signal_pending(current))
		ret = -EINTR;
	return ret;
}

/**
 * hh_devmem_usage() - fill in the accounts of a device's memory
 * @device: the device
 * @usage: what to fill in
 */
void hh_devmem_usage(struct hh_device *device, struct hmm_harness_usage *usage)
{
	struct hh_devmem *devmem = &device->devmem;

	spin_lock_irq(&devmem->lock);
	hh_recover_lost(devmem);
	usage->allocated = devmem->allocated;
	usage->freed = devmem->freed;
	usage->in_use = devmem->allocated - devmem->freed;
	usage->cpu_faults = devmem->cpu_faults;
	spin_unlock_irq(&devmem->lock);
}

/**
 * hh_devmem_init() - give a device memory
 * @device: the device
 * @mebibytes: how much, 0 for none. Where it is coherent, @device->devmem.address
 *             says where that is
 *
 * Return: 0 or a negative error
 */
int hh_devmem_init(struct hh_device *device, unsigned int mebibytes)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long size;
	int ret;

	/* Struct pages are made and removed 2 MiB at a time. */
	size = (unsigned long)ALIGN(mebibytes, 2) << 20;
	if (!size || !device->binding->add_memory)
		return 0;

	devmem->free = bitmap_zalloc(size >> PAGE_SHIFT, GFP_KERNEL);
	devmem->lost = bitmap_zalloc(size >> PAGE_SHIFT, GFP_KERNEL);
	ret = -ENOMEM;
	if (devmem->free && devmem->lost)
		ret = device->binding->add_memory(device, size);
	if (ret) {
		bitmap_free(devmem->free);
		bitmap_free(devmem->lost);
		return ret;
	}
	bitmap_fill(devmem->free, devmem->npages);
	devmem->size = devmem->npages ? size : 0;
	return 0;
}

/**
 * hh_devmem_exit() - take the memory of a device away
 * @device: the device, which nobody can open any more
 *
 * Processes may still have pages there.
 */
void hh_devmem_exit(struct hh_device *device)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long patience = jiffies + HH_PATIENCE;
	struct hh_evict *evict;
	bool told = false;

	if (!devmem->npages)
		goto free;

	evict = kmalloc_obj(*evict, GFP_KERNEL | __GFP_NOFAIL);
	evict->killable = false;
	for (;;) {
		hh_evict_pass(device, evict);
		if (!hh_pages_in_use(devmem))
			break;
		/* Somebody has a page in hand, or pinned, or memory is short. */
		if (!told && time_after(jiffies, patience)) {
			told = true;
			pr_warn("%s: waiting for %lu pages of its memory, which somebody holds on to\n",
				device->name, hh_pages_in_use(devmem));
		}
		msleep(20);
	}
	kfree(evict);

	device->binding->remove_memory(device);
free:
	bitmap_free(devmem->free);
	bitmap_free(devmem->lost);
}

#endif /* HH_DEVMEM */
