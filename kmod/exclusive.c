// SPDX-License-Identifier: GPL-2.0-only
/* HMM_HARNESS_EXCLUSIVE: pages that the device has to itself. */
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "internal.h"

/* Tells of @npages pages that they were granted, of which @done were dealt with. */
static void hh_claim_all(struct hh_work *work, unsigned long done,
			 unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		if (i >= done || !work->pages[i])
			work->pages[i] = HMM_HARNESS_PAGE_VALID |
					 HMM_HARNESS_PAGE_WRITE |
					 HMM_HARNESS_PAGE_EXCLUSIVE;
}

/**
 * hh_exclusive() - HMM_HARNESS_EXCLUSIVE
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: 0; for the page at @args->done the kernel's own error; -EINTR when
 * the caller is being killed, -EBUSY when invalidations left no chance, -ENXIO
 * when the file was unbound, -ENOMEM, -EOPNOTSUPP
 */
int hh_exclusive(struct hh_work *work, struct hmm_harness_range *args)
{
	const struct hh_binding *binding = work->mirror->device->binding;
	unsigned long start, n, done;
	int ret, told;

	if (!binding->exclude)
		return -EOPNOTSUPP;

	while (args->done < args->npages) {
		if (fatal_signal_pending(current))
			return -EINTR;
		start = args->addr + (args->done << PAGE_SHIFT);
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = binding->exclude(work, start, n, &done);
		if (hh_wrong(HH_EXCLUSIVE_CLAIMS_ALL)) {
			hh_claim_all(work, done, n);
			done = n;
			ret = 0;
		}
		told = hh_tell_pages(work, args, done);
		if (ret || told)
			return ret ? ret : told;
	}
	return 0;
}
