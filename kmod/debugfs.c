// SPDX-License-Identifier: GPL-2.0-only
/*
 * What there is, for people: /sys/kernel/debug/hmm_harness/ has a file for each
 * device, and one for events. They may be open while mirrors come and go, and
 * when the module is unloaded: removing them waits for who reads.
 */
#include <linux/debugfs.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "internal.h"

static struct dentry *hh_debugfs;

static void hh_show_memory(struct seq_file *file, struct hh_device *device)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long live, in_use, lost;
	u64 allocated, freed, faults;

	spin_lock_irq(&devmem->lock);
	lost = devmem->nr_lost;
	allocated = devmem->allocated;
	freed = devmem->freed;
	faults = devmem->cpu_faults;
	in_use = allocated - freed - lost + devmem->nr_twice;
	/* Pages come to life and die with other locks held. */
	live = min_t(unsigned long, atomic_long_read(&devmem->live), in_use);
	spin_unlock_irq(&devmem->lock);

	if (devmem->address)
		seq_printf(file, "coherent memory at %pap\n", &devmem->address);
	seq_printf(file, "pages: %lu, of these free %lu, live %lu, on their way %lu, lost on purpose %lu\n",
		   devmem->npages, devmem->npages - in_use - lost, live,
		   in_use - live, lost);
	seq_printf(file, "ever: allocated %llu, freed %llu, touched by a CPU %llu\n",
		   allocated, freed, faults);
}

static int hh_device_show(struct seq_file *file, void *data)
{
	struct hh_device *device = file->private;
	struct hh_mirror *mirror;

	seq_printf(file, "binding: %s\n", device->binding->name);
	hh_show_memory(file, device);
	seq_printf(file, "refused memory: %lld times\n",
		   (long long)atomic64_read(&device->refused));

	if (mutex_lock_killable(&device->mirrors_lock))
		return -EINTR;
	list_for_each_entry(mirror, &device->mirrors, link) {
		/* Somebody may be stopped with it: nobody waits for that here. */
		if (!mutex_trylock(&mirror->lock)) {
			seq_printf(file, "mirror %llu: process %d, busy\n",
				   mirror->id, mirror->process);
			continue;
		}
		seq_printf(file, "mirror %llu: process %d, entries %llu, ghosts %llu, entered %llu, invalidations %llu%s\n",
			   mirror->id, mirror->process, mirror->entries,
			   mirror->ghosts, mirror->commits,
			   mirror->invalidations, mirror->dead ? ", dead" : "");
		mutex_unlock(&mirror->lock);
	}
	mutex_unlock(&device->mirrors_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(hh_device);

static int hh_events_show(struct seq_file *file, void *data)
{
	hh_event_describe(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(hh_events);

/**
 * hh_debugfs_init() - make the directory
 *
 * Nobody minds when there is none.
 */
void __init hh_debugfs_init(void)
{
	hh_debugfs = debugfs_create_dir("hmm_harness", NULL);
	debugfs_create_file("events", 0400, hh_debugfs, NULL, &hh_events_fops);
}

/**
 * hh_debugfs_add() - make the file of a device
 * @device: the device
 */
void __init hh_debugfs_add(struct hh_device *device)
{
	debugfs_create_file(device->name, 0400, hh_debugfs, device,
			    &hh_device_fops);
}

/**
 * hh_debugfs_exit() - remove all that; nobody reads any more afterwards
 */
void hh_debugfs_exit(void)
{
	debugfs_remove_recursive(hh_debugfs);
}
