// SPDX-License-Identifier: GPL-2.0-only
/*
 * The binding `mirror`: a driver of v4.20, in the pattern that its hmm.h and
 * Documentation/vm/hmm.rst describe. Where the kernel does not have that API any
 * more, compat/ has it.
 */
#include <linux/completion.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "compat/hmm.h"
#include "seed.h"

/**
 * struct hh_space - a process that devices mirror
 * @hmm: one for all of our devices, as hmm.h lets a group of devices have it.
 *       v4.20 does not survive that one of several is unregistered and another
 *       registered (mm/hmm.c hmm_mirror_unregister(), hmm->mm)
 * @mm: its memory
 * @list: of all of these
 * @released: the process exited, and all of @mirrors know
 * @sem: protects @mirrors
 * @mirrors: the devices' mirrors
 */
struct hh_space {
	struct hmm_mirror hmm;
	struct mm_struct *mm;
	struct list_head list;
	struct completion released;
	struct rw_semaphore sem; /* protects mirrors */
	struct list_head mirrors;
};

/**
 * struct hh_seed_mirror - a mirror of a device
 * @mirror: what all mirrors are
 * @space: the process
 * @list: of all mirrors of the process
 */
struct hh_seed_mirror {
	struct hh_mirror mirror;
	struct hh_space *space;
	struct list_head list;
};

/* Looks at parts of mappings that one look may take: each page can be a mapping */
#define HH_PIECES HH_CHUNK

/**
 * struct hh_seed_work - an operation that looks mapping by mapping
 * @work: what all operations are
 * @pfns: entries in the device's own form
 * @npieces: how many of @pieces are under way; each has to be done once
 * @pieces: a look at a part of a mapping each
 */
struct hh_seed_work {
	struct hh_work work;
	u64 pfns[HH_CHUNK];
	unsigned int npieces;
	struct hmm_range pieces[HH_PIECES];
};

/**
 * struct hh_form - how a device writes an entry
 * @flags: see hmm_range.flags
 * @values: see hmm_range.values
 * @shift: see hmm_range.pfn_shift
 */
struct hh_form {
	u64 flags[HMM_PFN_FLAG_MAX];
	u64 values[HMM_PFN_VALUE_MAX];
	u8 shift;
};

/*
 * It is the driver's choice. Each part of memory has one of these. Flags are
 * below the page's number: hmm_pfn_to_pfn() shifts them out, and masks nothing.
 */
static const struct hh_form hh_forms[] = {
	{
		.flags = { 0x1, 0x2, 0x4 },
		.values = { ~0ULL << 12, 0, ~0ULL << 13 },
		.shift = PAGE_SHIFT,
	}, {	/* No bit to spare; error and special are the same. */
		.flags = { 0x4, 0x2, 0x1 },
		.values = { ~0ULL << 3, 0, ~0ULL << 3 },
		.shift = 3,
	}, {	/* None is not 0. */
		.flags = { 0x100, 0x080, 0x040 },
		.values = { 0x1, 0x2, 0x4 },
		.shift = 10,
	},
};

/*
 * Protects the list alone: the spaces of a process come and go, and are looked
 * for, with its mmap_lock held for writing.
 */
static DEFINE_SPINLOCK(hh_spaces_lock);
static LIST_HEAD(hh_spaces);

static struct hh_seed_mirror *hh_of_mirror(struct hh_mirror *mirror)
{
	return container_of(mirror, struct hh_seed_mirror, mirror);
}

static struct hh_seed_work *hh_of_work(struct hh_work *work)
{
	return container_of(work, struct hh_seed_work, work);
}

/* What v4.20 says of an update: that it is one, with "no indication as to why" */
static enum hmm_harness_reason hh_reason(const struct hmm_update *update)
{
	switch (update->event) {
	case HMM_UPDATE_INVALIDATE:
		return HMM_HARNESS_REASON_UNKNOWN;
	}
	/* None that there is: the program that listens turns red. */
	return HMM_HARNESS_REASON_EXCLUSIVE;
}

/* Returns false if that would take waiting, which is not to be. */
static bool hh_seed_forget(struct hh_mirror *mirror,
			   const struct hh_change *change)
{
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_BEGIN, mirror, change);
	if (!hh_mirror_lock(mirror, change))
		return false;
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_LOCKED, mirror, change);
	hh_table_invalidate(mirror, change);
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_REMOVED, mirror, change);
	hh_event_change(mirror, change, false);
	mutex_unlock(&mirror->lock);
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_END, mirror, change);
	return true;
}

static int hh_seed_sync(struct hmm_mirror *hmm,
			const struct hmm_update *update)
{
	struct hh_space *space = container_of(hmm, struct hh_space, hmm);
	struct hh_change change = {
		.start = update->start,
		.end = update->end,
		.blockable = update->blockable,
		.reason = hh_reason(update),
	};
	struct hh_seed_mirror *each;
	int ret = 0;

	if (change.blockable)
		down_read(&space->sem);
	else if (!down_read_trylock(&space->sem))
		return -EAGAIN;
	list_for_each_entry(each, &space->mirrors, list) {
		if (!hh_seed_forget(&each->mirror, &change)) {
			ret = -EAGAIN;
			break;
		}
	}
	up_read(&space->sem);
	return ret;
}

static void hh_seed_release(struct hmm_mirror *hmm)
{
	struct hh_space *space = container_of(hmm, struct hh_space, hmm);
	struct hh_change change = {
		.end = ULONG_MAX,
		.blockable = true,
		.release = true,
		.reason = HMM_HARNESS_REASON_RELEASE,
	};
	struct hh_seed_mirror *each;

	down_read(&space->sem);
	list_for_each_entry(each, &space->mirrors, list)
		hh_seed_forget(&each->mirror, &change);
	up_read(&space->sem);
	complete_all(&space->released);
}

static const struct hmm_mirror_ops hh_mirror_ops = {
	.release = hh_seed_release,
	.sync_cpu_device_pagetables = hh_seed_sync,
};

static struct hh_space *hh_space_find(struct mm_struct *mm)
{
	struct hh_space *space, *found = NULL;

	spin_lock(&hh_spaces_lock);
	list_for_each_entry(space, &hh_spaces, list)
		if (space->mm == mm)
			found = space;
	spin_unlock(&hh_spaces_lock);
	return found;
}

static struct hh_space *hh_space_get(struct mm_struct *mm)
{
	struct hh_space *space = hh_space_find(mm);
	int ret;

	if (space)
		return space;
	space = kzalloc_obj(*space, GFP_KERNEL_ACCOUNT);
	if (!space)
		return ERR_PTR(-ENOMEM);
	space->mm = mm;
	init_completion(&space->released);
	init_rwsem(&space->sem);
	INIT_LIST_HEAD(&space->mirrors);
	space->hmm.ops = &hh_mirror_ops;
	ret = hmm_mirror_register(&space->hmm, mm);
	if (ret) {
		kfree(space);
		return ERR_PTR(ret);
	}
	spin_lock(&hh_spaces_lock);
	list_add(&space->list, &hh_spaces);
	spin_unlock(&hh_spaces_lock);
	return space;
}

static int hh_seed_attach(struct hh_mirror *mirror)
{
	struct hh_seed_mirror *mine = hh_of_mirror(mirror);
	struct hh_space *space;

	if (mmap_write_lock_killable(mirror->mm))
		return -EINTR;
	space = hh_space_get(mirror->mm);
	if (!IS_ERR(space)) {
		mine->space = space;
		down_write(&space->sem);
		list_add(&mine->list, &space->mirrors);
		up_write(&space->sem);
	}
	mmap_write_unlock(mirror->mm);
	return PTR_ERR_OR_ZERO(space);
}

/*
 * HMM keeps ranges that are under way in what goes with the last mirror. They
 * hold mmap_lock, and none begins once the mirror is dead.
 *
 * It lets go of a mirror before it calls release(), and waits for nobody who
 * unregisters meanwhile. So the process either cannot exit, or did: whoever waits
 * for that has no lock, exit_mmap() may be behind some.
 */
static void hh_seed_detach(struct hh_mirror *mirror)
{
	struct hh_seed_mirror *mine = hh_of_mirror(mirror);
	struct hh_space *space = mine->space;
	bool alive = mmget_not_zero(mirror->mm);

	if (!alive) {
		wait_for_completion(&space->released);
		hmm_mirror_settle();
	}
	mmap_write_lock(mirror->mm);
	down_write(&space->sem);
	list_del(&mine->list);
	up_write(&space->sem);
	if (list_empty(&space->mirrors)) {
		spin_lock(&hh_spaces_lock);
		list_del(&space->list);
		spin_unlock(&hh_spaces_lock);
		hmm_mirror_unregister(&space->hmm);
		kfree(space);
	}
	mmap_write_unlock(mirror->mm);
	if (alive)
		mmput(mirror->mm);
}

static const struct hh_form *hh_form_of(unsigned long addr)
{
	return &hh_forms[(addr >> PAGE_SHIFT) % ARRAY_SIZE(hh_forms)];
}

/* Begins a look at [start, end) of @vma; it is not under way yet. */
static struct hmm_range *hh_piece(struct hh_seed_work *mine,
				  struct vm_area_struct *vma, unsigned long at,
				  unsigned long start, unsigned long end)
{
	struct hmm_range *range = &mine->pieces[mine->npieces];
	const struct hh_form *form = hh_form_of(start);

	*range = (struct hmm_range) {
		.vma = vma,
		.start = start,
		.end = end,
		.pfns = mine->pfns + at,
		.flags = form->flags,
		.values = form->values,
		.pfn_shift = form->shift,
	};
	return range;
}

static unsigned long hh_npages(const struct hmm_range *range)
{
	return (range->end - range->start) >> PAGE_SHIFT;
}

/* Whether a page in device memory has to come back for what is asked. */
static bool hh_must_return(struct hh_device *device,
			   const struct hmm_range *range, u64 pfn,
			   const struct hh_pass *pass)
{
	struct page *page = hmm_pfn_to_page(range, pfn);

	if (!page || !(pfn & range->flags[HMM_PFN_DEVICE_PRIVATE]))
		return false;
	if (!hh_devmem_owns(device, page))
		return true;
	return pass->write && !(pfn & range->flags[HMM_PFN_WRITE]);
}

static bool hh_some_must_return(struct hh_device *device,
				const struct hmm_range *range,
				const struct hh_pass *pass)
{
	unsigned long i;

	for (i = 0; i < hh_npages(range); i++)
		if (hh_must_return(device, range, range->pfns[i], pass))
			return true;
	return false;
}

/* Turns entries into requests; @back: pages in device memory may have to return. */
static void hh_ask(struct hh_device *device, struct hmm_range *range,
		   const struct hh_pass *pass, bool back)
{
	/* Where nothing may be written, HMM of v4.20 would try for ever. */
	bool garbage = hh_wrong(HH_ASK_GARBAGE) &&
		       range->vma->vm_flags & VM_WRITE;
	unsigned long i;
	u64 request;

	for (i = 0; i < hh_npages(range); i++) {
		request = range->flags[HMM_PFN_VALID];
		if (pass->write || (i & 1 && garbage))
			request |= range->flags[HMM_PFN_WRITE];
		if (back &&
		    hh_must_return(device, range, range->pfns[i], pass))
			request |= range->flags[HMM_PFN_DEVICE_PRIVATE];
		range->pfns[i] = request;
	}
}

/*
 * Faults a piece, and puts it under way. The pages of other devices are not
 * there for this one, nor own ones that cannot be written where they must: they
 * have to come back first.
 */
static int hh_fault_piece(struct hh_seed_work *mine, struct hmm_range *range,
			  const struct hh_pass *pass)
{
	struct hh_device *device = mine->work.mirror->device;
	int ret;

	/* HMM of v4.20 would try for ever. */
	if (pass->write && (range->vma->vm_flags & VM_READ) &&
	    !(range->vma->vm_flags & VM_WRITE))
		return -EPERM;
	/* All starts over if HMM lets go of mmap_lock. */
	hh_ask(device, range, pass, false);
	ret = hmm_vma_fault(range, false);
	if (ret || !hh_some_must_return(device, range, pass))
		return ret;
	hmm_vma_range_done(range);
	hh_ask(device, range, pass, true);
	return hmm_vma_fault(range, true);
}

/* Whether what hmm.h makes of an entry, and the other way round, is the same. */
static bool hh_consistent(const struct hmm_range *range, u64 pfn)
{
	const u64 more = range->flags[HMM_PFN_WRITE] |
			 range->flags[HMM_PFN_DEVICE_PRIVATE];
	unsigned long number = hmm_pfn_to_pfn(range, pfn);
	struct page *page = hmm_pfn_to_page(range, pfn);

	if (!page || number == -1UL)
		return !page && number == -1UL &&
		       pfn == range->values[HMM_PFN_NONE];
	return hmm_pfn_from_pfn(range, number) == (pfn & ~more) &&
	       hmm_pfn_from_page(range, page) == (pfn & ~more);
}

/* From the device's form to that of hh_work.cpu. */
static unsigned long hh_decode(const struct hmm_range *range, u64 pfn)
{
	unsigned long cpu;

	if (pfn == range->values[HMM_PFN_ERROR] ||
	    pfn == range->values[HMM_PFN_SPECIAL] ||
	    !hh_consistent(range, pfn))
		return HH_CPU_ERROR;
	if (pfn == range->values[HMM_PFN_NONE])
		return 0;
	cpu = hmm_pfn_to_pfn(range, pfn) << HH_CPU_PFN_SHIFT | HH_CPU_VALID;
	return cpu | (pfn & range->flags[HMM_PFN_WRITE] ? HH_CPU_WRITE : 0);
}

static void hh_decode_piece(struct hh_seed_work *mine,
			    const struct hmm_range *range)
{
	unsigned long *cpu = mine->work.cpu + (range->pfns - mine->pfns);
	unsigned long i;

	for (i = 0; i < hh_npages(range); i++)
		cpu[i] = hh_decode(range, range->pfns[i]);
}

static bool hh_pieces_done(struct hh_seed_work *mine)
{
	bool valid = true;

	while (mine->npieces)
		valid &= hmm_vma_range_done(&mine->pieces[--mine->npieces]);
	return valid;
}

/* Whether what the looks saw is all that the pass asks for, and all where it must. */
static bool hh_fulfilled(struct hh_seed_work *mine, unsigned long npages,
			 const struct hh_pass *pass)
{
	const unsigned long wanted = HH_CPU_VALID |
				     (pass->write ? HH_CPU_WRITE : 0);
	struct hh_device *device = mine->work.mirror->device;
	unsigned long i;

	for (i = 0; i < npages; i++)
		if ((mine->work.cpu[i] & wanted) != wanted)
			return false;
	for (i = 0; i < mine->npieces; i++)
		if (hh_some_must_return(device, &mine->pieces[i], pass))
			return false;
	return true;
}

/*
 * HMM of v4.20 ends its walk at an entry that can never be accessed, succeeds,
 * and leaves what is behind as it was.
 */
static int hh_snapshot_piece(struct hmm_range *range)
{
	unsigned long i;

	for (i = 0; i < hh_npages(range); i++)
		range->pfns[i] = range->values[HMM_PFN_NONE];
	return hmm_vma_get_pfns(range);
}

/* How many pages of a piece HMM looked at: see hh_snapshot_piece(). */
static unsigned long hh_seen(const struct hmm_range *range)
{
	unsigned long i;

	for (i = 0; i < hh_npages(range); i++)
		if (range->pfns[i] == range->values[HMM_PFN_ERROR])
			return i + 1;
	return i;
}

/*
 * Goes over the mappings of a range. With @hold each piece stays under way;
 * without, it is done at once, since the fault of the next may let go of
 * mmap_lock, after which nothing may be known of this mapping.
 */
static int hh_over_pieces(struct hh_seed_work *mine, unsigned long start,
			  unsigned long npages, const struct hh_pass *pass,
			  bool fault, bool hold)
{
	struct mm_struct *mm = mine->work.mm;
	unsigned long at, n, addr;
	struct vm_area_struct *vma;
	struct hmm_range *range;
	int ret;

	for (at = 0; at < npages; at += n) {
		addr = start + (at << PAGE_SHIFT);
		vma = find_vma(mm, addr);
		n = npages - at;
		if (!vma || vma->vm_start > addr) {
			if (pass->fault)
				return -EFAULT;
			if (vma)
				n = min(n, (vma->vm_start - addr) >> PAGE_SHIFT);
			memset_l(mine->work.cpu + at, HH_CPU_ERROR, n);
			continue;
		}
		n = min(n, (vma->vm_end - addr) >> PAGE_SHIFT);
		range = hh_piece(mine, vma, at, addr,
				 addr + (n << PAGE_SHIFT));
		if (fault)
			ret = hh_fault_piece(mine, range, pass);
		else
			ret = hh_snapshot_piece(range);
		/* A look at what is not for devices says so of each page. */
		if (ret && (fault || (ret != -EPERM && ret != -EINVAL)))
			return ret;
		hh_decode_piece(mine, range);
		if (ret)
			continue;
		mine->npieces++;
		/* Whoever compares has to know of the others as well. */
		if (pass->steady)
			n = hh_seen(range);
		if (!hold)
			hh_pieces_done(mine);
	}
	return 0;
}

static int hh_seed_look(struct hh_work *work, unsigned long start,
			unsigned long npages, const struct hh_pass *pass)
{
	struct hh_seed_work *mine = hh_of_work(work);
	struct vm_area_struct *vma;
	bool one;
	int ret;

	mine->npieces = 0;
	if (mmap_read_lock_killable(work->mm))
		return -EINTR;
	if (READ_ONCE(work->mirror->dead)) {
		mmap_read_unlock(work->mm);
		return -ENXIO;
	}
	hh_work_gate(HMM_HARNESS_GATE_WALK_LOCKED, work);
	vma = vma_lookup(work->mm, start);
	one = vma && vma->vm_end - start >= npages << PAGE_SHIFT;
	ret = hh_over_pieces(mine, start, npages, pass, pass->fault,
			     one || !pass->fault);
	/* HMM says so when it let go of mmap_lock. */
	if (ret == -EAGAIN || ret == -EBUSY)
		return -EAGAIN;
	if (!ret && pass->fault && !one) {
		ret = hh_over_pieces(mine, start, npages, pass, false, true);
		if (!ret && !hh_fulfilled(mine, npages, pass))
			ret = -EAGAIN;
	}
	if (!ret)
		return 0;
	hh_pieces_done(mine);
	mmap_read_unlock(work->mm);
	return ret;
}

static bool hh_seed_changed(struct hh_work *work)
{
	struct hh_seed_work *mine = hh_of_work(work);
	unsigned int i;

	for (i = 0; i < mine->npieces; i++)
		if (!READ_ONCE(mine->pieces[i].valid))
			return true;
	return false;
}

static bool hh_seed_done(struct hh_work *work)
{
	bool valid = hh_pieces_done(hh_of_work(work));

	mmap_read_unlock(work->mm);
	return !valid;
}

const struct hh_binding hh_seed = {
	.name = "mirror",
	.node = "hmm_mirror%u",
	.mirror_size = sizeof(struct hh_seed_mirror),
	.work_size = sizeof(struct hh_seed_work),
	.attach = hh_seed_attach,
	.detach = hh_seed_detach,
	.look = hh_seed_look,
	.changed = hh_seed_changed,
	.done = hh_seed_done,
#ifdef HH_PRIVATE
	.add_memory = hh_seed_add_memory,
	.remove_memory = hh_seed_remove_memory,
	.use_page = hh_seed_use_page,
	.target_page = hh_seed_target_page,
	.migrate = hh_seed_migrate,
#endif
};
