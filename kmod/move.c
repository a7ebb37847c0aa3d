// SPDX-License-Identifier: GPL-2.0-only
/*
 * HMM_HARNESS_MOVE: one migration, with every choice that the kernel leaves to a
 * driver made by the caller.
 */
#include "compat.h"

#ifdef HH_DEVMEM

#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "internal.h"

#define HH_MOVE_TO (HMM_HARNESS_MOVE_TO_DEVICE | HMM_HARNESS_MOVE_TO_SYSTEM)
#define HH_FROM_DEVICES (HMM_HARNESS_FROM_OWN | HMM_HARNESS_FROM_OTHER)

static u64 hh_describe_source(unsigned long src)
{
	return (src & MIGRATE_PFN_MIGRATE ? HMM_HARNESS_PAGE_COLLECTED : 0) |
	       (src & MIGRATE_PFN_VALID ? HMM_HARNESS_PAGE_VALID : 0) |
	       (src & MIGRATE_PFN_WRITE ? HMM_HARNESS_PAGE_WRITE : 0) |
	       (src & HH_MIGRATE_COMPOUND ? HMM_HARNESS_PAGE_COMPOUND : 0);
}

static bool hh_is_source(struct hh_device *device,
			 const struct hh_migration *move, struct page *from)
{
	u32 sources = move->chosen->args->sources;

	if (is_zone_device_page(from)) {
		if (sources & HMM_HARNESS_FROM_OTHER)
			device = hh_other_device(device);
		return sources & HH_FROM_DEVICES &&
		       hh_devmem_owns(device, from) && hh_devmem_is_live(from);
	}
	if (!(sources & HMM_HARNESS_FROM_SYSTEM))
		return false;
	/*
	 * The pages of files have more to them than what is copied here. Those
	 * that are just being written to swap are a BUG() of the kernel, which
	 * moves none of them to a device. None begins to be while it is locked.
	 */
	if (!move->to_device)
		return PageAnon(from) && !hh_is_merged(from) &&
		       !hh_is_written(from);
	return !hh_is_merged(from) || device->binding->evict_merged;
}

/* Returns where the page at @addr goes, with its data there, or 0. */
static unsigned long hh_place(struct hh_device *device,
			      struct hh_migration *move, unsigned long src,
			      unsigned long addr)
{
	struct page *to = hh_devmem_target(device, move, addr);

	if (!to) {
		move->failed++;
		return 0;
	}
	/* No page: there was none, or the zero page. */
	hh_devmem_fill(to, migrate_pfn_to_page(src));
	return hh_migrate_dst(to);
}

/**
 * hh_move_copy() - hh_migration_copy() as the caller chose it
 * @device: the device
 * @move: the migration
 */
void hh_move_copy(struct hh_device *device, struct hh_migration *move)
{
	const struct hh_move *chosen = move->chosen;
	unsigned long i, j, n;

	chosen->args->collected = 0;
	for (i = 0; i < move->npages; i += n) {
		unsigned long src = move->src[i];
		struct page *from = migrate_pfn_to_page(src);
		u8 choice = HMM_HARNESS_CHOOSE_MOVE;

		n = src & HH_MIGRATE_COMPOUND ? HH_WHOLE : 1;
		for (j = i; j < i + n; j++) {
			chosen->before[j] = move->src[j];
			move->pages[j] = hh_describe_source(src);
		}
		if (!(src & MIGRATE_PFN_MIGRATE))
			continue;
		chosen->args->collected++;
		if (chosen->choices)
			choice = chosen->choices[i];
		if (choice == HMM_HARNESS_CHOOSE_STAY ||
		    (from && !hh_is_source(device, move, from)))
			continue;
		if (n > 1)
			hh_place_whole(device, move, i,
				       choice == HMM_HARNESS_CHOOSE_PIECES);
		else
			move->dst[i] = hh_place(device, move, src,
						move->start +
						(i << PAGE_SHIFT));
	}
}

static int hh_check_move(struct hh_device *device,
			 const struct hmm_harness_move *args)
{
	u64 end;

	if (!device->devmem.npages)
		return -EOPNOTSUPP;
	if (args->flags & HMM_HARNESS_MOVE_STRANGE_FAULT &&
	    !device->binding->faults_strangely)
		return -EOPNOTSUPP;
	if (args->flags & HH_MOVE_MISTAKES && !device->binding->errs)
		return -EOPNOTSUPP;
	if (args->flags & HMM_HARNESS_MOVE_COMPOUND &&
	    (!device->binding->moves_whole || device->devmem.address))
		return -EOPNOTSUPP;
	if (hweight32(args->flags & HH_MOVE_TO) != 1 ||
	    hweight32(args->flags & HH_MOVE_MISTAKES) > 1)
		return -EINVAL;
	if (args->sources & ~(HMM_HARNESS_FROM_SYSTEM | HH_FROM_DEVICES))
		return -EINVAL;
	/* The kernel takes one owner. */
	if ((args->sources & HH_FROM_DEVICES) == HH_FROM_DEVICES)
		return -EINVAL;
	if (args->addr & ~PAGE_MASK || !args->npages || args->reserved)
		return -EINVAL;
	if (args->npages > HMM_HARNESS_MOVE_MAX_PAGES)
		return -E2BIG;
	if (check_add_overflow(args->addr, args->npages << PAGE_SHIFT, &end))
		return -EINVAL;
	return 0;
}

/* Returns what becomes of each page, to be freed; NULL where all move. */
static u8 *hh_get_choices(const struct hmm_harness_move *args)
{
	u8 *choices;
	u64 i;

	if (!args->choices)
		return NULL;
	choices = memdup_user(u64_to_user_ptr(args->choices), args->npages);
	if (IS_ERR(choices))
		return choices;
	for (i = 0; i < args->npages; i++) {
		if (choices[i] > HMM_HARNESS_CHOOSE_PIECES) {
			kfree(choices);
			return ERR_PTR(-EINVAL);
		}
	}
	return choices;
}

/* Takes a reference to the page that is to be locked, into the place of its dst. */
static int hh_act_hold(struct hh_work *work, unsigned long start,
		       unsigned long npages, u64 *pages, bool unchecked)
{
	struct page *page;

	/* On purpose, it may not be true any more: there is nothing to hold. */
	if (unchecked || !(work->cpu[0] & HH_CPU_VALID))
		return -ENOENT;
	page = compound_head(pfn_to_page(work->cpu[0] >> HH_CPU_PFN_SHIFT));
	if (!PageAnon(page) || is_zone_device_page(page))
		return -ENOENT;
	get_page(page);
	work->dst[0] = (unsigned long)page;
	return 0;
}

static const struct hh_pass hh_pass_hold = {
	.act = hh_act_hold,
};

/* Returns the page at @addr, locked, or the large one that it is a part of. */
static struct page *hh_lock_first(struct hh_work *work, u64 addr)
{
	struct page *page;
	int ret;

	ret = hh_walk(work, addr, 1, work->pages, &hh_pass_hold);
	if (ret)
		return ERR_PTR(ret);
	page = (struct page *)work->dst[0];
	ret = hh_page_lock_killable(page);
	if (!ret)
		return page;
	put_page(page);
	return ERR_PTR(ret);
}

/* Who waits for the page with the mmap lock must not be waited for. */
static int hh_lock_mapping(struct hh_work *work, bool locked)
{
	if (locked)
		return mmap_read_trylock(work->mm) ? 0 : -EBUSY;
	return mmap_read_lock_killable(work->mm);
}

static int hh_move_once(struct hh_work *work, const struct hh_move *chosen)
{
	struct hh_device *device = work->mirror->device;
	struct hmm_harness_move *args = chosen->args;
	struct hh_migration move = {
		.start = args->addr,
		.npages = args->npages,
		.to_device = args->flags & HMM_HARNESS_MOVE_TO_DEVICE,
		.whole = args->flags & HMM_HARNESS_MOVE_COMPOUND,
		.src = work->src,
		.dst = work->dst,
		.chosen = chosen,
		.pages = work->pages,
	};
	int ret;

	/* The driver is not asked at all when there is nothing to move. */
	memset(work->pages, 0, args->npages * sizeof(work->pages[0]));
	memset(work->cpu, 0, args->npages * sizeof(work->cpu[0]));
	memset(work->src, 0, args->npages * sizeof(work->src[0]));
	memset(work->dst, 0, args->npages * sizeof(work->dst[0]));
	ret = hh_lock_mapping(work, args->flags & HMM_HARNESS_MOVE_LOCKED);
	if (ret)
		return ret;
	/* Whether this is a mapping, and has all of it, is left to the kernel. */
	move.vma = vma_lookup(work->mm, move.start);
	ret = device->binding->migrate(device, &move);
	mmap_read_unlock(work->mm);
	args->moved = move.moved;
	args->raw_valid = MIGRATE_PFN_VALID;
	args->raw_migrate = MIGRATE_PFN_MIGRATE;
	args->raw_write = MIGRATE_PFN_WRITE;
	args->raw_compound = HH_MIGRATE_COMPOUND;
	return ret;
}

/* How often to look whether a reference that is too many goes away, in 5 ms each */
#define HH_LOOKS 8

/* References to a page, without that of what is about to put it on an LRU list */
static int hh_count_refs(struct page *page)
{
	return page_count(page) - !PageLRU(page);
}

/*
 * Whether a page that was not let go of has more references than before. Others
 * have some for a moment.
 */
static bool hh_is_kept(struct page *page, int refs)
{
	unsigned int looks;

	for (looks = 0; hh_count_refs(page) > refs; looks++) {
		if (looks == HH_LOOKS)
			return true;
		usleep_range(4000, 6000);
	}
	return false;
}

/* How long whoever waits for a page that somebody else has locked waits at least */
#define HH_HOLD HZ

/**
 * struct hh_hold - a page that somebody else has locked
 * @work: unlocks it once anybody waits for it
 * @page: the page
 * @unlocked: it did
 */
struct hh_hold {
	struct delayed_work work;
	struct page *page;
	bool unlocked;
};

static void hh_hold_check(struct work_struct *work)
{
	struct hh_hold *hold = container_of(to_delayed_work(work),
					    struct hh_hold, work);

	if (!hh_page_is_awaited(hold->page)) {
		schedule_delayed_work(&hold->work, HH_HOLD);
		return;
	}
	hold->unlocked = true;
	unlock_page(hold->page);
}

/*
 * As hh_move_once(), while somebody else has the first page locked. Mostly the
 * kernel passes over it. But it waits for the lock of a large page that is mapped
 * in parts, to split it: since 6.19, mm/migrate_device.c
 * migrate_vma_split_folio(). So it is another thread that has it locked, and lets
 * go of it then. The reference that remains keeps the page as it is.
 */
static int hh_move_locked(struct hh_work *work, const struct hh_move *chosen)
{
	struct page *page = hh_lock_first(work, chosen->args->addr);
	struct hh_hold hold = { .page = page };
	bool kept;
	int refs;
	int ret;

	if (IS_ERR(page))
		return PTR_ERR(page);
	refs = hh_count_refs(page);
	INIT_DELAYED_WORK_ONSTACK(&hold.work, hh_hold_check);
	schedule_delayed_work(&hold.work, HH_HOLD);
	ret = hh_move_once(work, chosen);
	cancel_delayed_work_sync(&hold.work);
	destroy_delayed_work_on_stack(&hold.work);
	kept = hh_is_kept(page, refs);
	if (!hold.unlocked)
		unlock_page(page);
	put_page(page);
	if (!ret && kept)
		work->pages[0] |= HMM_HARNESS_PAGE_KEPT;
	return ret;
}

static int hh_tell_move(struct hh_work *work,
			const struct hmm_harness_move *args)
{
	int ret;

	ret = hh_put_numbers(args->pages, work->pages, args->npages);
	if (!ret)
		ret = hh_put_numbers(args->before, work->cpu, args->npages);
	if (!ret)
		ret = hh_put_numbers(args->after, work->src, args->npages);
	if (!ret)
		ret = hh_put_numbers(args->places, work->dst, args->npages);
	return ret;
}

/**
 * hh_move() - HMM_HARNESS_MOVE
 * @file: whose memory
 * @args: what the caller asked for
 *
 * Return: 0, those of hh_work_begin(), hh_walk() and migrate_vma_setup(), -EINTR,
 * -EFAULT, -ENOENT, -EBUSY, -EPERM, or -EOPNOTSUPP
 */
int hh_move(struct hh_file *file, struct hmm_harness_move *args)
{
	struct hh_move chosen = { .args = args };
	struct hh_work *work;
	u8 *choices;
	int ret;

	BUILD_BUG_ON(HMM_HARNESS_MOVE_MAX_PAGES > HH_CHUNK);
	BUILD_BUG_ON(sizeof(unsigned long) != sizeof(u64));

	ret = hh_check_move(file->device, args);
	if (ret)
		return ret;
	if ((args->before || args->after || args->places) &&
	    !hh_may_see_numbers())
		return -EPERM;
	choices = hh_get_choices(args);
	if (IS_ERR(choices))
		return PTR_ERR(choices);
	work = hh_work_begin(file, args->addr, args->npages);
	if (IS_ERR(work)) {
		ret = PTR_ERR(work);
		goto free;
	}
	chosen.choices = choices;
	chosen.before = work->cpu;
	if (args->flags & HMM_HARNESS_MOVE_LOCKED)
		ret = hh_move_locked(work, &chosen);
	else
		ret = hh_move_once(work, &chosen);
	if (!ret)
		ret = hh_tell_move(work, args);
	hh_work_end(work);
free:
	kfree(choices);
	return ret;
}

#endif /* HH_DEVMEM */
