// SPDX-License-Identifier: GPL-2.0-only
/*
 * HMM_HARNESS_REQUEST: one look at the CPU's page table, with every choice that
 * HMM leaves to a driver made by the caller.
 */
#include <linux/bitops.h>
#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/uaccess.h>

#include "internal.h"

#define HH_ASKS (HMM_HARNESS_ASK_FAULT | HMM_HARNESS_ASK_WRITE)

/* What HMM_HARNESS_REQUEST tells of the users of a page */
static u64 hh_count(unsigned long cpu)
{
#ifdef HH_DEVMEM
	struct page *page = pfn_to_page(cpu >> HH_CPU_PFN_SHIFT);

	return hh_page_refs(page) |
	       (u64)hh_page_mapped(page) << HMM_HARNESS_COUNT_MAPPED_SHIFT;
#else
	return 0;
#endif
}

/* What was asked of each page is not needed any more: its place is. */
static int hh_act_tell(struct hh_work *work, unsigned long start,
		       unsigned long npages, u64 *pages, bool unchecked)
{
	unsigned long i;

	for (i = 0; i < npages; i++) {
		pages[i] = hh_describe(work->mirror->device, work->cpu[i]);
		if (!pages[i] && work->src[i])
			pages[i] = HMM_HARNESS_PAGE_RESIDUE;
		work->dst[i] = 0;
		if (pages[i] & (HMM_HARNESS_PAGE_LOCAL |
				HMM_HARNESS_PAGE_REMOTE))
			work->dst[i] = hh_count(work->cpu[i]);
	}
	return 0;
}

static int hh_check_request(struct hh_device *device,
			    const struct hmm_harness_request *args)
{
	u64 end;

	if (!device->binding->requests)
		return -EOPNOTSUPP;
#ifndef HAVE_RANGE_UNLOCKED
	if (args->flags & HMM_HARNESS_REQUEST_UNLOCKED)
		return -EOPNOTSUPP;
#endif
	/* Whoever takes the lock gets a number of their own. */
	if (hweight32(args->flags) > 1)
		return -EINVAL;
	if (args->addr & ~PAGE_MASK || !args->npages || args->reserved)
		return -EINVAL;
	if ((args->default_flags | args->mask) & ~HH_ASKS)
		return -EINVAL;
	if (args->owner > HMM_HARNESS_AS_OTHER)
		return -EINVAL;
	if (args->npages > HMM_HARNESS_REQUEST_MAX_PAGES)
		return -E2BIG;
	if (check_add_overflow(args->addr, args->npages << PAGE_SHIFT, &end))
		return -EINVAL;
	return 0;
}

/**
 * hh_may_see_numbers() - whether the caller may know where in memory pages are
 *
 * As of /proc/PID/pagemap: who may not could aim at what is next to them.
 */
bool hh_may_see_numbers(void)
{
	return capable(CAP_SYS_ADMIN);
}

/* What is asked of each page, into memory that only migration needs. */
static int hh_get_asked(struct hh_work *work, struct hh_request *request)
{
	const struct hmm_harness_request *args = request->args;
	u8 *asked = (u8 *)work->dst;
	unsigned long i;

	if (!args->asked)
		return 0;
	if (copy_from_user(asked, u64_to_user_ptr(args->asked), args->npages))
		return -EFAULT;
	for (i = 0; i < args->npages; i++)
		if (asked[i] & ~HH_ASKS)
			return -EINVAL;
	request->asked = asked;
	return 0;
}

/**
 * hh_put_numbers() - tell the caller a number for each page
 * @to: user pointer, or 0
 * @numbers: as many __u64
 * @npages: as there are pages
 *
 * Return: 0 or -EFAULT
 */
int hh_put_numbers(u64 to, const void *numbers, u64 npages)
{
	if (to && copy_to_user(u64_to_user_ptr(to), numbers,
			       npages * sizeof(u64)))
		return -EFAULT;
	return 0;
}

/**
 * hh_request() - HMM_HARNESS_REQUEST
 * @file: whose memory
 * @args: what the caller asked for
 *
 * Return: 0, those of hh_work_begin(), those of hh_walk(), -EPERM or -EFAULT
 */
int hh_request(struct hh_file *file, struct hmm_harness_request *args)
{
	struct hh_device *device = file->device;
	struct hh_request request = { .args = args };
	const struct hh_pass pass = {
		.request = &request,
		.act = hh_act_tell,
	};
	struct hh_work *work;
	int ret;

	BUILD_BUG_ON(HMM_HARNESS_REQUEST_MAX_PAGES > HH_CHUNK);
	BUILD_BUG_ON(sizeof(unsigned long) != sizeof(u64));

	ret = hh_check_request(device, args);
	if (ret)
		return ret;
	if (args->raw && !hh_may_see_numbers())
		return -EPERM;
	if (args->owner == HMM_HARNESS_AS_OWN)
		request.owner = device;
	else if (args->owner == HMM_HARNESS_AS_OTHER)
		request.owner = hh_other_device(device);

	work = hh_work_begin(file, args->addr, args->npages);
	if (IS_ERR(work))
		return PTR_ERR(work);
	request.raw = work->src;
	ret = hh_get_asked(work, &request);
	if (!ret)
		ret = hh_walk(work, args->addr, args->npages, work->pages,
			      &pass);
	args->retries = work->retries;
	if (!ret)
		ret = hh_put_numbers(args->pages, work->pages, args->npages);
	if (!ret)
		ret = hh_put_numbers(args->raw, work->src, args->npages);
	if (!ret)
		ret = hh_put_numbers(args->counts, work->dst, args->npages);
	hh_work_end(work);
	return ret;
}
