// SPDX-License-Identifier: GPL-2.0-only
/*
 * HMM_HARNESS_EVICT_REMOVE: the memory of a device goes, and comes back.
 *
 * While the kernel takes memory away it waits for its last page, and nobody else
 * may be going over the pages: from when the last one is free, there are none.
 * So everything goes back to system memory first but a page that the driver has,
 * of which only it decides when it is free.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "compat.h"

#ifdef HH_DEVMEM

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "internal.h"

/* The kernel waits if it is not done after so long. */
#define HH_REMOVAL_WAITS (HZ / 10)

/**
 * struct hh_removal - memory that is being taken away
 * @device: whose
 * @gone: when there is none any more
 */
struct hh_removal {
	struct hh_device *device;
	struct completion gone;
};

static int hh_remove(void *data)
{
	struct hh_removal *removal = data;
	struct hh_device *device = removal->device;

	device->binding->remove_memory(device);
	complete(&removal->gone);
	/* Until hh_take_away() knows: this code may go with the module. */
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static void hh_set_leaving(struct hh_devmem *devmem, bool leaving)
{
	/* Whoever takes a page into use just now has done so afterwards. */
	down_write(&devmem->reuse);
	spin_lock_irq(&devmem->lock);
	devmem->leaving = leaving;
	spin_unlock_irq(&devmem->lock);
	up_write(&devmem->reuse);
}

static void hh_free_last(struct page *last)
{
	unlock_page(last);
	put_page(last);
}

/* Moves all back but the driver's own page: 0, -EINTR, -EBUSY or -ENOMEM. */
static int hh_clear_out(struct hh_device *device, u64 *moved)
{
	unsigned long deadline = jiffies + HH_PATIENCE;
	u64 some;
	int ret;

	for (;;) {
		some = 0;
		ret = hh_evict_all(device, &some);
		*moved += some;
		if (ret || hh_pages_in_use(&device->devmem) == 1)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline))
			return -EBUSY;
		/* Somebody has a page in hand, or memory is short. */
		msleep(20);
	}
}

/* Takes the memory away. @last is all of it that is in use. */
static int hh_take_away(struct hh_device *device, struct page *last)
{
	struct hh_devmem *devmem = &device->devmem;
	struct hh_removal removal = { .device = device };
	struct task_struct *task;
	bool waited;

	init_completion(&removal.gone);
	task = kthread_run(hh_remove, &removal, "%s", device->name);
	if (IS_ERR(task)) {
		hh_free_last(last);
		return PTR_ERR(task);
	}
	waited = !wait_for_completion_timeout(&removal.gone, HH_REMOVAL_WAITS);
	if (waited) {
		hh_free_last(last);
		wait_for_completion(&removal.gone);
	}
	kthread_stop(task);
	devmem->npages = 0;
	devmem->pgmap = NULL;
	return waited ? 0 : -EPROTO;
}

/* Moves all back and takes the memory away. No page is taken into use any more. */
static int hh_remove_all(struct hh_device *device, u64 *moved)
{
	struct page *last;
	int ret;

	/* So that there is room for one more */
	ret = hh_evict_all(device, moved);
	if (ret)
		return ret;
	last = hh_devmem_alloc(device, 0);
	if (!last)
		return -ENOMEM;
	hh_set_leaving(&device->devmem, true);
	ret = hh_clear_out(device, moved);
	if (!ret)
		return hh_take_away(device, last);
	hh_free_last(last);
	return ret;
}

static int hh_replace(struct hh_device *device, u64 *moved)
{
	struct hh_devmem *devmem = &device->devmem;
	int ret = 0, added = 0;

	/* There is none if there was no new memory the last time. */
	if (devmem->npages)
		ret = hh_remove_all(device, moved);
	if (!devmem->npages)
		added = device->binding->add_memory(device, devmem->size);
	if (added)
		pr_err("%s: no new memory: error %d\n", device->name, added);
	hh_set_leaving(devmem, !devmem->npages);
	return ret ? ret : added;
}

/**
 * hh_evict_by_removal() - HMM_HARNESS_EVICT with HMM_HARNESS_EVICT_REMOVE
 * @device: the device
 * @args: what the caller asked for
 *
 * Return: 0, -EINVAL with any other flag, -EINTR, -EBUSY, -ENOMEM, -EPROTO,
 * -EOPNOTSUPP, or the kernel's own error
 */
int hh_evict_by_removal(struct hh_device *device,
			struct hmm_harness_evict *args)
{
	struct hh_devmem *devmem = &device->devmem;
	int ret;

	if (args->flags != HMM_HARNESS_EVICT_REMOVE)
		return -EINVAL;
	/* What is pinned or exclusive does not leave coherent memory. */
	if (!device->binding->waits_for_pages || devmem->address ||
	    !devmem->size)
		return -EOPNOTSUPP;
	if (down_write_killable(&devmem->there))
		return -EINTR;
	ret = hh_replace(device, &args->moved);
	args->left = hh_pages_in_use(devmem);
	up_write(&devmem->there);
	return ret;
}

#endif /* HH_DEVMEM */
