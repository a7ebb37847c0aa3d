// SPDX-License-Identifier: GPL-2.0-only
/*
 * Deliberate mistakes, switched on by name: what a driver of real hardware may
 * get wrong, so that the harness can prove that it notices. They break promises
 * of this driver, never the kernel: where a real driver would go on with a page
 * that is no longer its own, the table holds a ghost instead (table.c). Some are
 * fatal all the same: the kernel, or this module in place of freed memory, warns
 * or has a BUG, or a task waits for itself for ever.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "internal.h"

/**
 * struct hh_mistake_name - a mistake and what it breaks
 * @name: as user space says it
 * @breaks: what is wrong then, and how it shows
 * @fatal: whether the kernel, or a task, may not be whole any more afterwards
 */
struct hh_mistake_name {
	const char *name;
	const char *breaks;
	bool fatal;
};

static const struct hh_mistake_name hh_mistake_names[HH_NR_MISTAKES] = {
	[HH_SKIP_INVALIDATE] = { "skip-invalidate",
		"entries outlive their invalidation: STALE, old data" },
	[HH_INVALIDATE_SHORT] = { "invalidate-short",
		"the last page of an invalidated range stays: STALE" },
	[HH_SKIP_OWN_MIGRATE] = { "skip-own-migrate",
		"entries outlive migrations that this device started: STALE, old data" },
	[HH_SKIP_RETRY] = { "skip-retry",
		"pages are entered without a look at the sequence: a race, STALE" },
	[HH_RETRY_OUTSIDE_LOCK] = { "retry-outside-lock",
		"the sequence is checked before the lock is taken: a race, STALE" },
	[HH_IGNORE_PERMISSION] = { "ignore-permission",
		"the device writes through read-only entries: no error, shared data changes" },
	[HH_WRITE_ENTRY_ALWAYS] = { "write-entry-always",
		"entries are writable where the CPU's are not: WRITE and STALE" },
	[HH_FAULT_FORGETS_WRITE] = { "fault-forgets-write",
		"entries are never writable: a fault for writing yields no WRITE, WRITE fails" },
	[HH_FAULT_REPORTS_SUCCESS] = { "fault-reports-success",
		"FAULT returns 0 and VALID for pages that it could not get" },
	[HH_SNAPSHOT_FAULTS] = { "snapshot-faults",
		"SNAPSHOT brings in pages that nobody touched" },
	[HH_OWNER_UNSET] = { "owner-unset",
		"the device does not say who it is: its own pages go back when it faults" },
	[HH_SKIP_DIRTY] = { "skip-dirty",
		"the device writes without marking pages dirty: data lost in reclaim" },
	[HH_MIGRATE_NO_COPY] = { "migrate-no-copy",
		"pages arrive in device memory as zeros" },
	[HH_MIGRATE_CLAIMS_ALL] = { "migrate-claims-all",
		"MIGRATE says MOVED of every page" },
	[HH_MIGRATE_BACK_SHORT] = { "migrate-back-short",
		"the second half of a page that goes back is zeros" },
	[HH_MIGRATE_BACK_SHIFTED] = { "migrate-back-shifted",
		"of pages that go back together, each has the data of the one before" },
	[HH_LEAK_DEVICE_PAGE] = { "leak-device-page",
		"freed device pages count as in use" },
	[HH_EVICT_NOTHING] = { "evict-nothing",
		"EVICT says that all went back and does nothing" },
	[HH_LOSE_EVENTS] = { "lose-events",
		"every second event is lost, as if there was no room" },
	[HH_HIDE_EVENTS] = { "hide-events",
		"invalidations are not told of" },
	[HH_DMA_SKIP_UNMAP] = { "dma-skip-unmap",
		"DMA addresses outlive the invalidation of their pages: STALE" },
	[HH_WATCH_SKIP_SEQUENCE] = { "watch-skip-sequence",
		"watches keep their sequence number: who reads it need not retry" },
	[HH_SKIP_NONBLOCKABLE] = { "skip-nonblockable",
		"entries outlive an invalidation that must not sleep: STALE" },
	[HH_KEEP_EXCLUSIVE] = { "keep-exclusive",
		"what the device has to itself outlives a CPU's touch: STALE" },
	[HH_EXCLUSIVE_CLAIMS_ALL] = { "exclusive-claims-all",
		"EXCLUSIVE returns 0 and says of every page that it was granted" },
	[HH_SPLIT_WHOLE] = { "split-whole",
		"huge pages that MOVE takes whole move in pieces" },
	[HH_INVALIDATE_LATER] = { "invalidate-later",
		"entries outlive their invalidation by one operation: STALE, old data" },
	[HH_SKIP_PROTECT] = { "skip-protect",
		"entries outlive what the kernel says is a change of permission: STALE" },
	[HH_FAILURE_LOSES] = { "failure-loses",
		"what a fault invalidates that fails stays in the table: STALE" },
	[HH_ASK_GARBAGE] = { "ask-garbage",
		"every second page is asked for writing, whatever is wanted" },
	[HH_RETRY_FOREVER] = { "retry-forever",
		"what invalidations give no chance is tried without end" },
	[HH_DROP_LOCK] = { "drop-lock",
		"the lock is let go between check and entry: a race, STALE" },
	[HH_LAST_SEQUENCE] = { "last-sequence",
		"of what is looked at in two parts, the second is checked: a race, STALE" },
	[HH_MIGRATE_FIRST] = { "migrate-first",
		"of many pages, only the first 512 migrate" },
	[HH_FREE_TWICE] = { "free-twice",
		"device pages count as freed twice" },
	[HH_TOUCH_SOURCES] = { "touch-sources",
		"the last page to move is taken out of the sources: it stays", true },
	[HH_TOUCH_TARGETS] = { "touch-targets",
		"the last page that moved is taken out of the targets: it comes back", true },
	[HH_UNLOCKED_TARGET] = { "unlocked-target",
		"pages are migrated to that nobody has locked", true },
	[HH_WATCH_NOBODY] = { "watch-nobody",
		"a watch begins on memory that has no users", true },
	[HH_WATCH_ENDS_ITSELF] = { "watch-ends-itself",
		"a watch is removed by its own callback, and waits for it", true },
	[HH_MEMORY_UNOWNED] = { "memory-unowned",
		"device memory that comes back has no owner: there is none", true },
	[HH_SLEEP_NONBLOCKABLE] = { "sleep-nonblockable",
		"an invalidation that must not sleep waits, and is never refused", true },
	[HH_KEEP_LOCKED] = { "keep-locked",
		"exclusive pages stay locked until UNBIND: who touches them waits", true },
	[HH_FAULT_INSIDE] = { "fault-inside",
		"the device faults with its lock held: deadlock with invalidations", true },
	[HH_LOCK_PAGE_INSIDE] = { "lock-page-inside",
		"the device locks a page with its lock held: a race, deadlock", true },
	[HH_PUT_MM_INSIDE] = { "put-mm-inside",
		"the memory's last user goes with the device's lock held: a race, deadlock", true },
	[HH_BIND_HALF] = { "bind-half",
		"callbacks come before BIND is done: a race, a warning", true },
	[HH_UNBIND_LATE] = { "unbind-late",
		"callbacks come after UNBIND: a warning", true },
};

unsigned long hh_mistakes;

static int hh_mistake_find(const char *name)
{
	int i;

	for (i = 0; i < HH_NR_MISTAKES; i++)
		if (!strcmp(hh_mistake_names[i].name, name))
			return i;
	return -EINVAL;
}

static int hh_wrong_set(const char *value, const struct kernel_param *kp)
{
	unsigned long mistakes = 0;
	char *copy, *rest, *name;
	int i, mistake = 0;

	copy = kstrndup(value, PAGE_SIZE, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;

	rest = strim(copy);
	if (!*rest)
		rest = NULL;
	while ((name = strsep(&rest, ","))) {
		mistake = hh_mistake_find(strim(name));
		if (mistake < 0) {
			pr_err("wrong: there is no mistake '%s'\n", name);
			goto out;
		}
		mistakes |= BIT(mistake);
	}

	for (i = 0; i < HH_NR_MISTAKES; i++)
		if (mistakes & ~hh_mistakes & BIT(i))
			pr_info("wrong on purpose: %s: %s\n",
				hh_mistake_names[i].name,
				hh_mistake_names[i].breaks);
	WRITE_ONCE(hh_mistakes, mistakes);
out:
	kfree(copy);
	return min(mistake, 0);
}

static int hh_list_mistakes(char *buffer, unsigned long mistakes)
{
	const char *separator = "";
	int i, at = 0;

	for (i = 0; i < HH_NR_MISTAKES; i++) {
		if (!(mistakes & BIT(i)))
			continue;
		at += sysfs_emit_at(buffer, at, "%s%s", separator,
				    hh_mistake_names[i].name);
		separator = ",";
	}
	return at + sysfs_emit_at(buffer, at, "\n");
}

static int hh_wrong_get(char *buffer, const struct kernel_param *kp)
{
	return hh_list_mistakes(buffer, READ_ONCE(hh_mistakes));
}

static int hh_wrong_names_get(char *buffer, const struct kernel_param *kp)
{
	return hh_list_mistakes(buffer, GENMASK(HH_NR_MISTAKES - 1, 0));
}

static int hh_wrong_fatal_get(char *buffer, const struct kernel_param *kp)
{
	unsigned long fatal = 0;
	int i;

	for (i = 0; i < HH_NR_MISTAKES; i++)
		if (hh_mistake_names[i].fatal)
			fatal |= BIT(i);
	return hh_list_mistakes(buffer, fatal);
}

static const struct kernel_param_ops hh_wrong_ops = {
	.set = hh_wrong_set,
	.get = hh_wrong_get,
};
module_param_cb(wrong, &hh_wrong_ops, NULL, 0644);
MODULE_PARM_DESC(wrong, "mistakes to make on purpose, separated by commas");

static int hh_wrong_names_set(const char *value, const struct kernel_param *kp)
{
	return -EPERM;
}

static const struct kernel_param_ops hh_wrong_names_ops = {
	.set = hh_wrong_names_set,
	.get = hh_wrong_names_get,
};
module_param_cb(wrong_names, &hh_wrong_names_ops, NULL, 0444);
MODULE_PARM_DESC(wrong_names, "mistakes that there are (read only)");

static const struct kernel_param_ops hh_wrong_fatal_ops = {
	.set = hh_wrong_names_set,
	.get = hh_wrong_fatal_get,
};
module_param_cb(wrong_fatal, &hh_wrong_fatal_ops, NULL, 0444);
MODULE_PARM_DESC(wrong_fatal,
		 "those of them that the kernel does not stand: it warns, or hangs (read only)");
