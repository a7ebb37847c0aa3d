// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device reads and writes memory, a page at a time, through its own page
 * table. What the table has not is faulted in first.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "internal.h"

/**
 * struct hh_access - an access to one page
 * @addr: its address
 * @ahead: how many pages may be faulted in from there on
 * @buffer: a page of data, to or from
 * @write: which of both
 * @pass: how to fault in what there is no entry for
 * @flags: (out) the entry that was used
 */
struct hh_access {
	unsigned long addr;
	unsigned long ahead;
	void *buffer;
	bool write;
	const struct hh_pass *pass;
	u64 flags;
};

static bool hh_may_write(struct hh_entry *entry)
{
	if (entry->flags & HMM_HARNESS_PAGE_WRITE)
		return true;
	return hh_wrong(HH_IGNORE_PERMISSION) && entry->page &&
	       hh_may_break(entry->page);
}

/*
 * The kernel takes the pages of some mappings (memfd_secret()) out of its own
 * page table; HMM reports them like all others.
 */
static bool hh_reachable(void *data)
{
	char byte;

	return !copy_from_kernel_nofault(&byte, data, sizeof(byte));
}

/*
 * Locks the page with the mirror's lock held, on purpose: whoever migrates it has
 * its lock and waits for the mirror's.
 */
static int hh_lock_inside(struct page *page)
{
	int ret;

	if (!page || !hh_wrong(HH_LOCK_PAGE_INSIDE))
		return 0;
	ret = hh_page_lock_killable(page);
	if (!ret)
		unlock_page(page);
	return ret;
}

/* Called with the mirror's lock held: the page stays where it is. */
static int hh_transfer(struct hh_access *access, struct hh_entry *entry)
{
	int ret = hh_lock_inside(entry->page);
	void *data;

	if (ret)
		return ret;
	data = kmap_local_page(entry->data);

	if (!hh_reachable(data))
		ret = -EFAULT;
	else if (access->write)
		memcpy(data, access->buffer, PAGE_SIZE);
	else
		memcpy(access->buffer, data, PAGE_SIZE);
	kunmap_local(data);

	/*
	 * A CPU that writes leaves a mark in its page table, the device has
	 * only this one. Of a page in device memory it moves on with the page.
	 */
	if (!ret && access->write && entry->page && !hh_wrong(HH_SKIP_DIRTY))
		set_page_dirty(entry->page);
	access->flags = entry->flags;
	return ret;
}

static int hh_access_page(struct hh_work *work, struct hh_access *access)
{
	struct hh_mirror *mirror = work->mirror;
	unsigned long deadline = jiffies + HH_PATIENCE;
	struct hh_entry entry;
	unsigned long done;
	bool faulted;
	int ret;

	for (faulted = false;; faulted = true) {
		hh_work_gate(HMM_HARNESS_GATE_ACCESS_BEGIN, work);
		if (mutex_lock_killable(&mirror->lock))
			return -EINTR;
		if (hh_table_load(mirror, access->addr >> PAGE_SHIFT, &entry) &&
		    (!access->write || hh_may_write(&entry))) {
			hh_work_gate(HMM_HARNESS_GATE_ACCESS_FOUND, work);
			ret = hh_transfer(access, &entry);
			mutex_unlock(&mirror->lock);
			return ret;
		}
		mutex_unlock(&mirror->lock);

		/* What was faulted in can be gone again: a retry. */
		if (faulted) {
			if (fatal_signal_pending(current))
				return -EINTR;
			if (time_after(jiffies, deadline + work->parked))
				return -EBUSY;
			work->retries++;
		}
		ret = hh_fault_chunk(work, access->addr, access->ahead,
				     access->pass, &done);
		if (!done)
			return ret;
		/* Faulting again would not make HMM more generous. */
		if (access->write &&
		    !(work->pages[0] & HMM_HARNESS_PAGE_WRITE))
			return -EACCES;
	}
}

static int hh_access_range(struct hh_work *work,
			   struct hmm_harness_range *args, bool write,
			   const struct hh_pass *pass)
{
	u64 __user *pages = u64_to_user_ptr(args->pages);
	struct hh_access access = { .write = write, .pass = pass };
	void __user *data;
	int ret = 0;

	access.buffer = (void *)__get_free_page(GFP_KERNEL);
	if (!access.buffer)
		return -ENOMEM;

	for (; args->done < args->npages; args->done++) {
		access.addr = args->addr + (args->done << PAGE_SHIFT);
		access.ahead = min_t(u64, args->npages - args->done, HH_CHUNK);
		data = u64_to_user_ptr(args->data + (args->done << PAGE_SHIFT));

		/* Where nothing has to be faulted in, nobody else asks. */
		ret = -EINTR;
		if (fatal_signal_pending(current))
			break;
		ret = -EFAULT;
		if (write && copy_from_user(access.buffer, data, PAGE_SIZE))
			break;
		ret = hh_access_page(work, &access);
		if (ret)
			break;
		ret = -EFAULT;
		if (!write && copy_to_user(data, access.buffer, PAGE_SIZE))
			break;
		if (pages && put_user(access.flags, pages + args->done))
			break;
		ret = 0;
	}

	free_page((unsigned long)access.buffer);
	return ret;
}

/**
 * hh_read() - HMM_HARNESS_READ
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: 0; those of hh_walk() for the page at @args->done; -EFAULT as well
 * when the caller's memory cannot be accessed; -EOPNOTSUPP
 */
int hh_read(struct hh_work *work, struct hmm_harness_range *args)
{
	const struct hh_pass *pass = &hh_pass_read;

	if (args->flags & HMM_HARNESS_READ_UNLOCKED) {
		pass = &hh_pass_unlocked;
		if (!hh_can_unlocked(work->mirror->device))
			return -EOPNOTSUPP;
	}
	return hh_access_range(work, args, false, pass);
}

/**
 * hh_write() - HMM_HARNESS_WRITE
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: as hh_read(); -EACCES when HMM granted the page, but read only,
 * although it was asked for a writable one
 */
int hh_write(struct hh_work *work, struct hmm_harness_range *args)
{
	return hh_access_range(work, args, true, &hh_pass_write);
}
