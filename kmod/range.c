// SPDX-License-Identifier: GPL-2.0-only
/*
 * Going over a range of mirrored memory. hh_walk() is the one place that looks
 * at the CPU's page table, and all that is entered into the device's comes
 * from there.
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/**
 * hh_work_begin() - begin an operation on a range
 * @file: the file, which must be bound
 * @addr: first address, page aligned
 * @npages: length; the range does not wrap
 *
 * Return: the operation, to be ended with hh_work_end(); -ENXIO when the file
 * is not bound, -ESRCH when the process has exited, -EINVAL when the range
 * leaves the addresses that a process can have, -ENOMEM
 */
struct hh_work *hh_work_begin(struct hh_file *file, u64 addr, u64 npages)
{
	struct hh_work *work;
	int ret;

	work = kvmalloc(file->device->binding->work_size, GFP_KERNEL);
	if (!work)
		return ERR_PTR(-ENOMEM);

	work->retries = 0;
	work->outdated = false;
	work->parked = 0;
	work->mirror = hh_mirror_get(file);
	if (!work->mirror) {
		ret = -ENXIO;
		goto free;
	}
	work->mm = work->mirror->mm;
	if (!mmget_not_zero(work->mm)) {
		ret = -ESRCH;
		goto put;
	}
	if (addr + (npages << PAGE_SHIFT) <= work->mm->task_size)
		return work;

	ret = -EINVAL;
	mmput(work->mm);
put:
	hh_mirror_put(work->mirror);
free:
	kvfree(work);
	return ERR_PTR(ret);
}

/**
 * hh_work_end() - end an operation
 * @work: the operation
 *
 * May be what tears the memory down, if the process exited meanwhile.
 */
void hh_work_end(struct hh_work *work)
{
	struct hh_mirror *mirror = work->mirror;

	if (READ_ONCE(mirror->late)) {
		mutex_lock(&mirror->lock);
		mirror->late = false;
		hh_table_lay_ghosts(mirror);
		mutex_unlock(&mirror->lock);
	}
	if (hh_wrong(HH_PUT_MM_INSIDE)) {
		mutex_lock(&mirror->lock);
		mmput(work->mm);
		mutex_unlock(&mirror->lock);
	} else {
		mmput(work->mm);
	}
	hh_mirror_put(mirror);
	kvfree(work);
}

/*
 * Lets go of the lock once more, on purpose, before what is known to be true is
 * used. Returns as hh_lock_if_valid().
 */
static int hh_drop_lock(struct hh_mirror *mirror)
{
	u64 invalidations = mirror->invalidations;

	mutex_unlock(&mirror->lock);
	usleep_range(500, 1000);
	if (mutex_lock_killable(&mirror->lock))
		return -EINTR;
	if (!mirror->dead)
		return mirror->invalidations != invalidations;
	mutex_unlock(&mirror->lock);
	return -ENXIO;
}

/*
 * Called between the look at the CPU's page table and the use of what was seen.
 * Returns with the mirror's lock held when that is still true: 0, or 1 when a
 * deliberate mistake lets it pass although it is not. Returns -EAGAIN when all
 * must be done again.
 */
static int hh_lock_if_valid(struct hh_work *work, u64 commits,
			    const struct hh_pass *pass)
{
	bool ignore = !pass->steady && hh_wrong(HH_SKIP_RETRY);
	bool outside = !pass->steady && hh_wrong(HH_RETRY_OUTSIDE_LOCK);
	struct hh_mirror *mirror = work->mirror;
	const struct hh_binding *binding = mirror->device->binding;
	bool changed;

	if (outside && binding->changed(work)) {
		binding->done(work);
		return -EAGAIN;
	}
	/* Time for somebody to win the race */
	if (ignore || outside)
		usleep_range(500, 1000);

	hh_work_gate(HMM_HARNESS_GATE_WALK_LOCK, work);
	if (mutex_lock_killable(&mirror->lock)) {
		binding->done(work);
		return -EINTR;
	}
	changed = binding->done(work);
	if (mirror->dead) {
		mutex_unlock(&mirror->lock);
		return -ENXIO;
	}
	if (changed && (ignore || outside))
		return 1;
	if (pass->steady && mirror->commits != commits)
		changed = true;
	if (changed) {
		mutex_unlock(&mirror->lock);
		return -EAGAIN;
	}
	if (work->outdated)
		return 1;
	if (!pass->steady && hh_wrong(HH_DROP_LOCK))
		return hh_drop_lock(mirror);
	return 0;
}

/*
 * hh_binding.look with what is wrong around it, on purpose: the mirror's lock
 * held, or with what it makes the CPU invalidate kept if it fails.
 */
static int hh_look_wrongly(struct hh_work *work, unsigned long start,
			   unsigned long npages, const struct hh_pass *pass)
{
	struct hh_mirror *mirror = work->mirror;
	bool inside = hh_wrong(HH_FAULT_INSIDE);
	int ret;

	if (mutex_lock_killable(&mirror->lock))
		return -EINTR;
	mirror->faults += !inside;
	if (!inside)
		mutex_unlock(&mirror->lock);
	ret = mirror->device->binding->look(work, start, npages, pass);
	if (!inside)
		mutex_lock(&mirror->lock);
	mirror->faults -= !inside;
	if (!inside && !ret && !mirror->faults)
		hh_table_lay_ghosts(mirror);
	mutex_unlock(&mirror->lock);
	return ret;
}

static int hh_look(struct hh_work *work, unsigned long start,
		   unsigned long npages, const struct hh_pass *pass)
{
	if (!pass->steady &&
	    (hh_wrong(HH_FAULT_INSIDE) || hh_wrong(HH_FAILURE_LOSES)))
		return hh_look_wrongly(work, start, npages, pass);
	return work->mirror->device->binding->look(work, start, npages, pass);
}

/**
 * hh_walk() - look at, or fault, at most HH_CHUNK pages, and act on them
 * @work: the operation
 * @start: first address
 * @npages: how many
 * @pages: for @pass to tell of each page
 * @pass: what to ask for, and what to do
 *
 * Return: what @pass->act returns, or the error that kept it from being called:
 * those of HMM, -EINTR when the caller is being killed, -EBUSY when
 * invalidations left no chance, -ENXIO when the file was unbound
 */
int hh_walk(struct hh_work *work, unsigned long start, unsigned long npages,
	    u64 *pages, const struct hh_pass *pass)
{
	struct hh_mirror *mirror = work->mirror;
	unsigned long deadline = jiffies + HH_PATIENCE;
	u64 commits;
	int ret;

	for (;; work->retries++) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline + work->parked) &&
		    !hh_wrong(HH_RETRY_FOREVER))
			return -EBUSY;

		hh_work_gate(HMM_HARNESS_GATE_WALK_BEGIN, work);
		if (mutex_lock_killable(&mirror->lock))
			return -EINTR;
		commits = mirror->commits;
		mutex_unlock(&mirror->lock);

		ret = hh_look(work, start, npages, pass);
		if (!ret) {
			hh_work_gate(HMM_HARNESS_GATE_WALK_SEEN, work);
			ret = hh_lock_if_valid(work, commits, pass);
		}
		if (ret == -EAGAIN)
			continue;
		if (ret < 0)
			return ret;
		hh_work_gate(HMM_HARNESS_GATE_WALK_VALID, work);
		ret = pass->act(work, start, npages, pages, ret);
		hh_work_gate(HMM_HARNESS_GATE_WALK_ENTERED, work);
		mutex_unlock(&mirror->lock);
		hh_work_gate(HMM_HARNESS_GATE_WALK_END, work);
		return ret;
	}
}

/**
 * hh_tell_pages() - give the caller what is known of the chunk in hand
 * @work: the operation
 * @args: what the caller asked for; pages count as done afterwards
 * @npages: how many of @work->pages
 *
 * Return: 0 or -EFAULT
 */
int hh_tell_pages(struct hh_work *work, struct hmm_harness_range *args,
		  unsigned long npages)
{
	u64 __user *to = u64_to_user_ptr(args->pages);

	if (to && copy_to_user(to + args->done, work->pages,
			       npages * sizeof(work->pages[0])))
		return -EFAULT;
	args->done += npages;
	return 0;
}

static int hh_act_describe(struct hh_work *work, unsigned long start,
			   unsigned long npages, u64 *pages, bool unchecked)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		pages[i] = hh_describe(work->mirror->device, work->cpu[i]);
	return 0;
}

static const struct hh_pass hh_pass_snapshot = {
	.act = hh_act_describe,
};

static const struct hh_pass hh_pass_snapshot_faults = {
	.fault = true,
	.act = hh_act_describe,
};

/**
 * hh_snapshot() - HMM_HARNESS_SNAPSHOT
 * @work: the operation
 * @args: what the caller asked for
 *
 * Each chunk of HH_CHUNK pages is one consistent look.
 *
 * Return: 0 or those of hh_walk()
 */
int hh_snapshot(struct hh_work *work, struct hmm_harness_range *args)
{
	unsigned long start, n;
	int ret;

	while (args->done < args->npages) {
		start = args->addr + (args->done << PAGE_SHIFT);
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = -EFAULT;
		if (hh_wrong(HH_SNAPSHOT_FAULTS))
			ret = hh_walk(work, start, n, work->pages,
				      &hh_pass_snapshot_faults);
		if (ret)
			ret = hh_walk(work, start, n, work->pages,
				      &hh_pass_snapshot);
		if (!ret)
			ret = hh_tell_pages(work, args, n);
		if (ret)
			return ret;
	}
	return 0;
}

static int hh_enter(struct hh_work *work, unsigned long start, unsigned long i,
		    u64 *flags, bool unchecked)
{
	struct hh_mirror *mirror = work->mirror;
	unsigned long index = (start >> PAGE_SHIFT) + i;
	unsigned long cpu = work->cpu[i];

	if (!unchecked)
		return hh_table_store(mirror, index, cpu, flags);
	*flags = hh_describe(mirror->device, cpu);
	return hh_table_store_unchecked(mirror, index, cpu);
}

static int hh_act_enter(struct hh_work *work, unsigned long start,
			unsigned long npages, u64 *pages, bool unchecked)
{
	unsigned long i;
	int ret = 0;

	for (i = 0; i < npages && !ret; i++)
		ret = hh_enter(work, start, i, &pages[i], unchecked);
	return ret;
}

/* Every page shall be readable */
const struct hh_pass hh_pass_read = {
	.fault = true,
	.act = hh_act_enter,
};

/* ... and writable */
const struct hh_pass hh_pass_write = {
	.fault = true,
	.write = true,
	.act = hh_act_enter,
};

/* Every page shall be readable, by a fault that takes the mmap lock itself */
const struct hh_pass hh_pass_unlocked = {
	.fault = true,
	.unlocked = true,
	.act = hh_act_enter,
};

/**
 * hh_fault_chunk() - fault at most HH_CHUNK pages and enter them
 * @work: the operation; @work->pages tells of those done
 * @start: first address
 * @npages: how many
 * @pass: hh_pass_read and its like
 * @done: (out) how many were done: on failure, those before the one that failed
 *
 * HMM does not say which page failed. So the chunk is then gone through again
 * page by page.
 *
 * Return: 0 or those of hh_walk() for the page that failed
 */
int hh_fault_chunk(struct hh_work *work, unsigned long start,
		   unsigned long npages, const struct hh_pass *pass,
		   unsigned long *done)
{
	int ret;

	*done = 0;
	ret = hh_walk(work, start, npages, work->pages, pass);
	if (!ret)
		*done = npages;
	if (!ret || npages == 1 || ret == -EINTR || ret == -EBUSY ||
	    ret == -ENXIO)
		return ret;

	for (; *done < npages; ++*done) {
		ret = hh_walk(work, start + (*done << PAGE_SHIFT), 1,
			      work->pages + *done, pass);
		if (ret)
			return ret;
	}
	return 0;
}

/**
 * hh_fault() - HMM_HARNESS_FAULT
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: 0 or those of hh_walk() for the page that failed, the one at
 * @args->done
 */
int hh_fault(struct hh_work *work, struct hmm_harness_range *args)
{
	bool write = args->flags & HMM_HARNESS_FAULT_WRITE;
	unsigned long start, n, done;
	int ret, told;

	while (args->done < args->npages) {
		start = args->addr + (args->done << PAGE_SHIFT);
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = hh_fault_chunk(work, start, n, write ? &hh_pass_write :
							     &hh_pass_read,
				     &done);
		if (ret && hh_wrong(HH_FAULT_REPORTS_SUCCESS)) {
			for (; done < n; done++)
				work->pages[done] = HMM_HARNESS_PAGE_VALID |
					(write ? HMM_HARNESS_PAGE_WRITE : 0);
			ret = 0;
		}
		told = hh_tell_pages(work, args, done);
		if (ret || told)
			return ret ? ret : told;
	}
	return 0;
}

static int hh_act_note_local(struct hh_work *work, unsigned long start,
			     unsigned long npages, u64 *pages, bool unchecked)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		pages[i] |= hh_describe(work->mirror->device, work->cpu[i]) &
			    HMM_HARNESS_PAGE_LOCAL;
	return 0;
}

static int hh_act_enter_local(struct hh_work *work, unsigned long start,
			      unsigned long npages, u64 *pages, bool unchecked)
{
	struct hh_device *device = work->mirror->device;
	unsigned long i;
	u64 flags;
	int ret = 0;

	for (i = 0; i < npages && !ret; i++) {
		flags = hh_describe(device, work->cpu[i]);
		if (!(flags & HMM_HARNESS_PAGE_LOCAL))
			continue;
		pages[i] |= HMM_HARNESS_PAGE_LOCAL;
		ret = hh_enter(work, start, i, &flags, unchecked);
	}
	return ret;
}

static const struct hh_pass hh_pass_note_local = {
	.act = hh_act_note_local,
};

static const struct hh_pass hh_pass_enter_local = {
	.act = hh_act_enter_local,
};

/**
 * hh_note_local() - note which pages of a chunk live in the device's memory
 * @work: the operation; @work->pages gets HMM_HARNESS_PAGE_LOCAL added
 * @start: first address
 * @npages: how many
 * @enter: whether to enter these pages into the device's page table
 *
 * Return: 0 or those of hh_walk()
 */
int hh_note_local(struct hh_work *work, unsigned long start,
		  unsigned long npages, bool enter)
{
	return hh_walk(work, start, npages, work->pages,
		       enter ? &hh_pass_enter_local : &hh_pass_note_local);
}

/**
 * hh_is_stale() - whether an entry of the device contradicts the CPU's
 * @entry: the device's
 * @cpu: what the CPU's page table says, HH_CPU_*
 *
 * Return: whether it does
 */
bool hh_is_stale(const struct hh_entry *entry, unsigned long cpu)
{
	if (cpu >> HH_CPU_PFN_SHIFT != entry->pfn)
		return true;
	if (entry->flags & HMM_HARNESS_PAGE_EXCLUSIVE)
		return !(cpu & HH_CPU_EXCLUSIVE);
	return !(cpu & HH_CPU_VALID) ||
	       ((entry->flags & HMM_HARNESS_PAGE_WRITE) &&
		!(cpu & HH_CPU_WRITE));
}

/*
 * Compares the device's table with the CPU's. Nothing was invalidated since
 * the look at the CPU's table began, and all entries are older than that. So
 * each must have been true during the look; the CPU may only have gained
 * permission on the same page, which is not announced.
 */
static int hh_act_compare(struct hh_work *work, unsigned long start,
			  unsigned long npages, u64 *pages, bool unchecked)
{
	unsigned long index = start >> PAGE_SHIFT;
	struct hh_entry entry;
	unsigned long i;

	for (i = 0; i < npages; i++) {
		pages[i] = 0;
		if (!hh_table_load(work->mirror, index + i, &entry))
			continue;
		pages[i] = entry.flags;
		if (hh_is_stale(&entry, work->cpu[i]))
			pages[i] |= HMM_HARNESS_PAGE_STALE;
	}
	return 0;
}

static const struct hh_pass hh_pass_compare = {
	.steady = true,
	.exclusive = true,
	.act = hh_act_compare,
};

/**
 * hh_table() - HMM_HARNESS_TABLE
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: 0 or those of hh_walk()
 */
int hh_table(struct hh_work *work, struct hmm_harness_range *args)
{
	unsigned long start, n;
	int ret;

	while (args->done < args->npages) {
		start = args->addr + (args->done << PAGE_SHIFT);
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = hh_walk(work, start, n, work->pages, &hh_pass_compare);
		if (!ret)
			ret = hh_tell_pages(work, args, n);
		if (ret)
			return ret;
	}
	return 0;
}
