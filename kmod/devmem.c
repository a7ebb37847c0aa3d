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
#include "compat.h"

#ifdef HH_DEVMEM

#include <linux/delay.h>
#include <linux/highmem.h>
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
 */
struct page *hh_devmem_backing(struct page *page)
{
	return is_device_coherent_page(page) ? page : hh_page_data(page);
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
	return &page_private(hh_devmem_backing(page));
}

static bool hh_is_live(struct page *page)
{
	return test_bit(HH_PAGE_LIVE, hh_page_state(page));
}

static void hh_push(struct page **list, struct page *page)
{
	hh_set_page_data(page, *list);
	*list = page;
}

static struct page *hh_pop(struct page **list)
{
	struct page *page = *list;

	if (page)
		*list = hh_page_data(page);
	return page;
}

/* Takes back what was lost on purpose once that is over. Under devmem->lock. */
static void hh_recover_lost(struct hh_devmem *devmem)
{
	if (hh_wrong(HH_LEAK_DEVICE_PAGE))
		return;
	for (; devmem->nr_lost; devmem->nr_lost--) {
		hh_push(&devmem->free, hh_pop(&devmem->lost));
		devmem->freed++;
	}
}

static struct page *hh_take_free(struct hh_devmem *devmem)
{
	struct page *page;

	spin_lock_irq(&devmem->lock);
	hh_recover_lost(devmem);
	page = hh_pop(&devmem->free);
	if (page)
		devmem->allocated++;
	spin_unlock_irq(&devmem->lock);
	return page;
}

/* Returns a device page, locked and with one reference, or NULL. */
static struct page *hh_devmem_alloc(struct hh_device *device)
{
	struct hh_devmem *devmem = &device->devmem;
	struct page *backing = NULL, *page;

	if (!devmem->address) {
		backing = alloc_page(GFP_HIGHUSER | __GFP_NOWARN);
		if (!backing) {
			atomic64_inc(&device->refused);
			return NULL;
		}
		set_page_private(backing, 0);
	}

	page = hh_take_free(devmem);
	if (!page) {
		if (backing)
			__free_page(backing);
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
	device->binding->use_page(device, page);
	return page;
}

/**
 * hh_devmem_free() - take a device page back that nobody uses any more
 * @device: the device
 * @page: its page
 *
 * From any context: the last to let go of a coherent page can be a disk.
 */
void hh_devmem_free(struct hh_device *device, struct page *page)
{
	struct hh_devmem *devmem = &device->devmem;
	struct page *backing = hh_devmem_backing(page);
	unsigned long irq;

	if (hh_is_live(page))
		atomic_long_dec(&devmem->live);
	if (backing != page) {
		set_page_private(backing, 0);
		__free_page(backing);
	}
	/* Set by writes of the device, and nobody clears it for us. */
	ClearPageDirty(page);

	spin_lock_irqsave(&devmem->lock, irq);
	if (hh_wrong(HH_LEAK_DEVICE_PAGE)) {
		hh_push(&devmem->lost, page);
		devmem->nr_lost++;
	} else {
		hh_push(&devmem->free, page);
		devmem->freed++;
	}
	spin_unlock_irqrestore(&devmem->lock, irq);
	hh_event_free(device);
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
		to = hh_devmem_alloc(device);
		if (!to)
			continue;
		/*
		 * No page: there was none, or the zero page. The pages of
		 * files will not move, and may even be unreadable.
		 */
		if (from && PageAnon(from) && !hh_wrong(HH_MIGRATE_NO_COPY))
			copy_highpage(hh_devmem_backing(to), from);
		else
			clear_highpage(hh_devmem_backing(to));
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
		    !hh_devmem_owns(device, from) || !hh_is_live(from))
			continue;
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

/**
 * hh_migration_copy() - allocate where pages go, and copy them there
 * @device: the device
 * @move: the migration; the kernel has filled in src, and locked the pages
 */
void hh_migration_copy(struct hh_device *device, struct hh_migration *move)
{
	if (move->to_device)
		hh_copy_in(device, move);
	else
		hh_copy_out(device, move);
}

/**
 * hh_migration_settle() - note what moved
 * @device: the device
 * @move: the migration; all pages are still locked, and those that have
 *        MIGRATE_PFN_MIGRATE in src have moved
 */
void hh_migration_settle(struct hh_device *device, struct hh_migration *move)
{
	unsigned long i, asked = 0;
	struct page *from, *to;

	for (i = 0; i < move->npages; i++) {
		from = migrate_pfn_to_page(move->src[i]);
		to = migrate_pfn_to_page(move->dst[i]);
		if (!to)
			continue;
		asked++;
		if (!(move->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (from && hh_devmem_owns(device, from) &&
		    test_and_clear_bit(HH_PAGE_LIVE, hh_page_state(from)))
			atomic_long_dec(&device->devmem.live);
		if (hh_devmem_owns(device, to) &&
		    !test_and_set_bit(HH_PAGE_LIVE, hh_page_state(to)))
			atomic_long_inc(&device->devmem.live);
		if (move->pages)
			move->pages[i] = HMM_HARNESS_PAGE_MOVED;
		move->moved++;
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
		start = args->addr + (args->done << PAGE_SHIFT);
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
				struct page *page)
{
	unsigned long src = 0, dst = 0;
	struct hh_migration move = {
		.vma = vma,
		.start = addr & PAGE_MASK,
		.npages = 1,
		.src = &src,
		.dst = &dst,
		.fault_page = page,
	};

	if (device->binding->migrate(device, &move))
		return VM_FAULT_SIGBUS;
	return move.failed ? VM_FAULT_OOM : 0;
}

/**
 * hh_devmem_fault() - a CPU touched a device page
 * @device: the device
 * @vma: where it is mapped: of any process that has it, not only a mirror's
 * @addr: the address
 * @page: the page
 *
 * Where each CPU that comes here has a reference to the page, migration fails as
 * long as more than one has. So all but the first turn round at once, to come
 * again until the page is gone, and the first does not give up at once.
 *
 * Return: 0, VM_FAULT_OOM, or VM_FAULT_SIGBUS
 */
vm_fault_t hh_devmem_fault(struct hh_device *device,
			   struct vm_area_struct *vma, unsigned long addr,
			   struct page *page)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long *state;
	vm_fault_t ret = 0;
	int tries = 32;

	spin_lock_irq(&devmem->lock);
	devmem->cpu_faults++;
	spin_unlock_irq(&devmem->lock);
	hh_event_fault(device, addr);

	if (!HH_FAULT_PAGE_HELD)
		return hh_try_to_ram(device, vma, addr, page);

	state = hh_page_state(page);
	if (test_and_set_bit(HH_PAGE_FAULTING, state))
		return 0;
	while (!ret && hh_is_live(page) && tries--)
		ret = hh_try_to_ram(device, vma, addr, page);
	clear_bit(HH_PAGE_FAULTING, state);
	return ret;
}

/* Pages that exist now, whatever the accounts are made to say. */
static unsigned long hh_pages_in_use(struct hh_devmem *devmem)
{
	unsigned long in_use;

	spin_lock_irq(&devmem->lock);
	in_use = devmem->allocated - devmem->freed - devmem->nr_lost;
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

/*
 * Finds who has a page: memory number @nth of those where it may be mapped, and
 * the address there. The page is locked. Returns a memory that has a user now,
 * or NULL when there are no more, or they cannot be looked at.
 *
 * The kernel has migrate_device_range() for this, which looks the processes up
 * by itself. But it looks twice, before and after the copy, and nothing keeps
 * what it finds them by, the page's anon_vma, from being freed in between by
 * the exit of the last process that has the page. mmap_lock does.
 */
static struct mm_struct *hh_find_user(struct page *page, unsigned long nth,
				      unsigned long *addr)
{
	struct mm_struct *mm = NULL;
	struct hh_mapped *mapped = hh_mapped_of(page);
	struct anon_vma *anon_vma, *root;
	struct vm_area_struct *vma;
	unsigned long mapping;
	struct rb_node *node;
	pgoff_t first;

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
		first = hh_vma_anon_pgoff(vma);
		if (mapped->index < first ||
		    mapped->index - first >= vma_pages(vma))
			continue;
		if (nth) {
			nth--;
			continue;
		}
		*addr = vma->vm_start +
			((mapped->index - first) << PAGE_SHIFT);
		if (mmget_not_zero(vma->vm_mm))
			mm = vma->vm_mm;
	}
up:
	up_read(&root->rwsem);
unlock:
	rcu_read_unlock();
	return mm;
}

/* Moves what one memory has of the device, from @addr on. */
static unsigned long hh_evict_from(struct hh_device *device,
				   struct mm_struct *mm, unsigned long addr,
				   struct hh_evict *evict)
{
	struct hh_migration move = {
		.start = addr,
		.src = evict->src,
		.dst = evict->dst,
	};

	if (!evict->killable)
		mmap_read_lock(mm);
	else if (mmap_read_lock_killable(mm))
		return 0;
	move.vma = vma_lookup(mm, addr);
	if (move.vma) {
		move.npages = min_t(unsigned long, HH_EVICT_CHUNK,
				    (move.vma->vm_end - addr) >> PAGE_SHIFT);
		if (device->binding->migrate(device, &move))
			move.moved = 0;
	}
	mmap_read_unlock(mm);
	return move.moved;
}

/* Moves a page, and with it others that are mapped behind it. */
static unsigned long hh_evict_page(struct hh_device *device, struct page *page,
				   struct hh_evict *evict)
{
	unsigned long nth, addr = 0, moved = 0;
	struct mm_struct *mm;
	bool merged = false;

	/* Ordered before all looks at the page, see hh_devmem_alloc(). */
	for (nth = 0; hh_page_get_unless_free(page); nth++) {
		mm = NULL;
		if (trylock_page(page)) {
			merged = hh_is_merged(page);
			if (hh_is_live(page))
				mm = hh_find_user(page, nth, &addr);
			unlock_page(page);
		}
		/* Nothing migrates as long as we hold on to it. */
		put_page(page);
		if (merged)
			return device->binding->evict_merged(device, page);
		if (!mm)
			break;
		moved += hh_evict_from(device, mm, addr, evict);
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
 * hh_evict() - move all pages of a device back to system memory
 * @device: the device
 * @moved: (out) how many moved
 * @left: (out) how many are still there: those that somebody had in hand
 *
 * Return: 0; -EINTR when the caller is being killed; -EOPNOTSUPP without device
 * memory; -ENOMEM
 */
int hh_evict(struct hh_device *device, u64 *moved, u64 *left)
{
	struct hh_evict *evict;
	int ret = 0;

	if (!device->devmem.npages)
		return -EOPNOTSUPP;
	if (hh_wrong(HH_EVICT_NOTHING)) {
		*moved = hh_pages_in_use(&device->devmem);
		*left = 0;
		return 0;
	}

	evict = kmalloc_obj(*evict, GFP_KERNEL);
	if (!evict)
		return -ENOMEM;
	evict->killable = true;
	*moved = hh_evict_pass(device, evict);
	*left = hh_pages_in_use(&device->devmem);
	if (fatal_signal_pending(current))
		ret = -EINTR;
	kfree(evict);
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
	unsigned long i, size;
	int ret;

	spin_lock_init(&devmem->lock);
	/* Struct pages are made and removed 2 MiB at a time. */
	size = (unsigned long)ALIGN(mebibytes, 2) << 20;
	if (!size || !device->binding->add_memory)
		return 0;

	ret = device->binding->add_memory(device, size);
	if (ret)
		return ret;
	for (i = devmem->npages; i > 0; i--)
		hh_push(&devmem->free, pfn_to_page(devmem->first + i - 1));
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
	struct hh_evict *evict;

	if (!devmem->npages)
		return;

	evict = kmalloc_obj(*evict, GFP_KERNEL | __GFP_NOFAIL);
	evict->killable = false;
	for (;;) {
		hh_evict_pass(device, evict);
		if (!hh_pages_in_use(devmem))
			break;
		/* Somebody has a page in hand, or memory is short. */
		msleep(20);
	}
	kfree(evict);

	device->binding->remove_memory(device);
}

#endif /* HH_DEVMEM */
