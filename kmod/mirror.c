// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mirror ties an open file to the memory of a process. It lives as long as
 * the file is bound or an operation is under way; operations that come late
 * find it dead.
 */
#include <linux/delay.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

/* How many there have been */
static atomic64_t hh_mirrors = ATOMIC64_INIT(0);

/* Takes the lock without waiting, unless that is to be refused. */
static bool hh_mirror_trylock(struct hh_mirror *mirror,
			      const struct hh_change *change)
{
	if (!mutex_trylock(&mirror->lock))
		return false;
	if (change->start >= mirror->refuse_end ||
	    change->end <= mirror->refuse_start)
		return true;
	mutex_unlock(&mirror->lock);
	return false;
}

/**
 * hh_mirror_lock() - take the lock for an invalidation
 * @mirror: the mirror
 * @change: what the CPU is about to change
 *
 * Return: false when that would take waiting, which the CPU cannot do
 */
bool hh_mirror_lock(struct hh_mirror *mirror, const struct hh_change *change)
{
	/* What a real driver has not set up yet, or has freed, is not there. */
	WARN(READ_ONCE(mirror->unready),
	     "hmm_harness: wrong on purpose: a callback of a mirror that is not bound\n");
	if (change->blockable || hh_wrong(HH_SLEEP_NONBLOCKABLE)) {
		mutex_lock(&mirror->lock);
	} else if (!hh_mirror_trylock(mirror, change)) {
		hh_event_change(mirror, change, true);
		return false;
	}
	WRITE_ONCE(mirror->invalidations, mirror->invalidations + 1);
	return true;
}

/**
 * hh_mirror_refuse() - refuse to forget some memory to whoever cannot wait
 * @mirror: the mirror
 * @start: first address
 * @end: address behind the last, 0 for none
 *
 * Return: 0 or -EINTR
 */
int hh_mirror_refuse(struct hh_mirror *mirror, unsigned long start,
		     unsigned long end)
{
	if (mutex_lock_killable(&mirror->lock))
		return -EINTR;
	mirror->refuse_start = start;
	mirror->refuse_end = end;
	mutex_unlock(&mirror->lock);
	return 0;
}

static void hh_mirror_free(struct kref *refs)
{
	struct hh_mirror *mirror = container_of(refs, struct hh_mirror, refs);

	mutex_destroy(&mirror->lock);
	xa_destroy(&mirror->table);
	mmdrop(mirror->mm);
	kfree(mirror);
}

/**
 * hh_mirror_put() - drop a reference
 * @mirror: the mirror
 */
void hh_mirror_put(struct hh_mirror *mirror)
{
	kref_put(&mirror->refs, hh_mirror_free);
}

/**
 * hh_mirror_get() - what a file is bound to
 * @file: the file
 *
 * Return: a new reference, or NULL when it is not bound
 */
struct hh_mirror *hh_mirror_get(struct hh_file *file)
{
	struct hh_mirror *mirror;

	spin_lock(&file->lock);
	mirror = file->mirror;
	if (mirror)
		kref_get(&mirror->refs);
	spin_unlock(&file->lock);
	return mirror;
}

/* The table is emptied first: from then on nobody relies on callbacks. */
static void hh_mirror_silence(struct hh_mirror *mirror)
{
	hh_gate(HMM_HARNESS_GATE_UNBIND_BEGIN, mirror->device);
	mutex_lock(&mirror->lock);
	mirror->dead = true;
	hh_table_clear(mirror);
	mutex_unlock(&mirror->lock);
	hh_refuse_nothing(mirror);
	hh_gate(HMM_HARNESS_GATE_UNBIND_DEAD, mirror->device);

	mutex_lock(&mirror->device->mirrors_lock);
	list_del(&mirror->link);
	mutex_unlock(&mirror->device->mirrors_lock);
}

static void hh_mirror_end(struct hh_mirror *mirror)
{
	mirror->device->binding->detach(mirror);
	hh_gate(HMM_HARNESS_GATE_UNBIND_END, mirror->device);
	hh_mirror_put(mirror);
}

/* Begins to hear. On purpose, before the rest is there. */
static int hh_mirror_attach(struct hh_mirror *mirror)
{
	int ret;

	mirror->unready = hh_wrong(HH_BIND_HALF);
	ret = mirror->device->binding->attach(mirror);
	if (mirror->unready)
		usleep_range(500, 1000);
	WRITE_ONCE(mirror->unready, false);
	return ret;
}

/**
 * hh_mirror_bind() - mirror the memory of the calling process
 * @file: the file to bind
 *
 * Return: 0; -EBUSY when the file is bound; -EINTR or -ENOMEM
 */
int hh_mirror_bind(struct hh_file *file)
{
	struct hh_mirror *mirror;
	bool late;
	int ret;

	if (READ_ONCE(file->mirror))
		return -EBUSY;

	mirror = kzalloc(file->device->binding->mirror_size,
			 GFP_KERNEL_ACCOUNT);
	if (!mirror)
		return -ENOMEM;
	mirror->device = file->device;
	mirror->id = atomic64_inc_return(&hh_mirrors);
	mirror->process = task_tgid_nr(current);
	mirror->since = hh_event_last();
	mirror->mm = current->mm;
	kref_init(&mirror->refs);
	mutex_init(&mirror->lock);
	xa_init_flags(&mirror->table, XA_FLAGS_ACCOUNT);
	mmgrab(mirror->mm);

	ret = hh_mirror_attach(mirror);
	if (ret) {
		hh_mirror_put(mirror);
		return ret;
	}
	mutex_lock(&mirror->device->mirrors_lock);
	list_add_tail(&mirror->link, &mirror->device->mirrors);
	mutex_unlock(&mirror->device->mirrors_lock);

	spin_lock(&file->lock);
	late = file->mirror;
	if (!late)
		file->mirror = mirror;
	spin_unlock(&file->lock);
	if (late) {
		hh_mirror_silence(mirror);
		hh_mirror_end(mirror);
		return -EBUSY;
	}
	return 0;
}

/**
 * hh_mirror_unbind() - stop mirroring
 * @file: a file
 *
 * No callback runs after it returned, and operations under way fail.
 *
 * Return: 0, or -ENXIO when the file is not bound
 */
int hh_mirror_unbind(struct hh_file *file)
{
	struct hh_mirror *mirror;

	spin_lock(&file->lock);
	mirror = file->mirror;
	file->mirror = NULL;
	spin_unlock(&file->lock);
	if (!mirror)
		return -ENXIO;

	hh_mirror_silence(mirror);
	if (hh_wrong(HH_UNBIND_LATE)) {
		WRITE_ONCE(mirror->unready, true);
		spin_lock(&file->lock);
		swap(mirror, file->gone);
		spin_unlock(&file->lock);
	}
	if (mirror)
		hh_mirror_end(mirror);
	return 0;
}

/**
 * hh_mirror_forget() - end what UNBIND did not, on purpose
 * @file: a file that nobody has any more
 */
void hh_mirror_forget(struct hh_file *file)
{
	if (file->gone)
		hh_mirror_end(file->gone);
}
