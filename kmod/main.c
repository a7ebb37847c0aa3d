// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module, its devices, and their open files.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "internal.h"

static unsigned int devmem_mb = 16;
module_param(devmem_mb, uint, 0444);
MODULE_PARM_DESC(devmem_mb,
		 "memory of each device in MiB, rounded up to even, 0 for none (default 16)");

static ulong coherent_addr[HMM_HARNESS_NR_COHERENT];
static unsigned int hh_nr_coherent;
module_param_array(coherent_addr, ulong, &hh_nr_coherent, 0444);
MODULE_PARM_DESC(coherent_addr,
		 "physical addresses of memory that nobody uses, of devmem_mb each, a multiple of 2 MiB: one for each of the devices with coherent memory, which are there only then");

static const struct hh_binding * const hh_bindings[] = {
#ifdef HH_INTERVAL
	&hh_interval,
#endif
	&hh_seed,
};

#define HH_NR_FIXED (ARRAY_SIZE(hh_bindings) * HMM_HARNESS_NR_DEVICES)

/* First those of each binding in turn, then those with coherent memory */
static struct hh_device hh_devices[HH_NR_FIXED + HMM_HARNESS_NR_COHERENT];
static unsigned int hh_nr_devices;

#ifdef HH_PRIVATE
#define HH_HAS_PRIVATE "DEVMEM,"
#else
#define HH_HAS_PRIVATE ""
#endif

#ifdef HH_COHERENT
#define HH_HAS_COHERENT "COHERENT,"
#else
#define HH_HAS_COHERENT ""
#endif

/*
 * What the module was built for: the names of the probes that compiled, and
 * whether there can be private and coherent memory of a device. For who has to
 * know what a kernel can and cannot do.
 */
static int hh_features_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n",
			  HH_HAS_PRIVATE HH_HAS_COHERENT HH_PROBED);
}

static int hh_features_set(const char *value, const struct kernel_param *kp)
{
	return -EPERM;
}

static const struct kernel_param_ops hh_features_ops = {
	.set = hh_features_set,
	.get = hh_features_get,
};
module_param_cb(features, &hh_features_ops, NULL, 0444);
MODULE_PARM_DESC(features, "what the kernel was found to have (read only)");

static int hh_open(struct inode *inode, struct file *filp)
{
	struct hh_file *file;

	file = kzalloc_obj(*file, GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	file->device = container_of(filp->private_data, struct hh_device, misc);
	spin_lock_init(&file->lock);
	filp->private_data = file;
	return nonseekable_open(inode, filp);
}

static int hh_release(struct inode *inode, struct file *filp)
{
	struct hh_file *file = filp->private_data;

	/* -ENXIO: it was not bound. */
	hh_mirror_unbind(file);
	kfree(file);
	return 0;
}

static const struct file_operations hh_fops = {
	.owner = THIS_MODULE,
	.open = hh_open,
	.release = hh_release,
	.unlocked_ioctl = hh_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/**
 * hh_other_device() - the other device of the same binding and kind of memory
 * @device: one
 *
 * Return: the other one
 */
struct hh_device *hh_other_device(struct hh_device *device)
{
	BUILD_BUG_ON(HMM_HARNESS_NR_DEVICES != 2);
	BUILD_BUG_ON(HMM_HARNESS_NR_COHERENT != 2);
	return &hh_devices[(device - hh_devices) ^ 1];
}

/**
 * hh_count_devices() - how many devices a binding has
 * @binding: the binding
 *
 * Return: as many as there are, numbered from 0
 */
unsigned int hh_count_devices(const struct hh_binding *binding)
{
	unsigned int id, count = 0;

	for (id = 0; id < hh_nr_devices; id++)
		if (hh_devices[id].binding == binding)
			count++;
	return count;
}

static int __init hh_register(struct hh_device *device)
{
	int ret;

	device->misc.minor = MISC_DYNAMIC_MINOR;
	device->misc.name = device->name;
	device->misc.fops = &hh_fops;
	device->misc.mode = 0600;
	ret = misc_register(&device->misc);
	if (ret || !device->binding->dma)
		return ret;
	ret = hh_dma_init(device);
	if (ret)
		misc_deregister(&device->misc);
	return ret;
}

static int __init hh_check_parameters(void)
{
	unsigned int i;

	if (devmem_mb > 4096) {
		pr_err("devmem_mb is more than 4096\n");
		return -EINVAL;
	}
	if (hh_nr_coherent && hh_nr_coherent != HMM_HARNESS_NR_COHERENT) {
		pr_err("coherent_addr has %u addresses, not %u\n",
		       hh_nr_coherent, HMM_HARNESS_NR_COHERENT);
		return -EINVAL;
	}
	for (i = 0; i < hh_nr_coherent; i++) {
		if (!coherent_addr[i] ||
		    !IS_ALIGNED(coherent_addr[i], 2UL << 20)) {
			pr_err("coherent_addr has %#lx, no multiple of 2 MiB\n",
			       coherent_addr[i]);
			return -EINVAL;
		}
	}
	return 0;
}

/* Says of each device what it is: so many are there. */
static unsigned int __init hh_lay_out(void)
{
	struct hh_device *device = hh_devices;
	unsigned int i;

	for (i = 0; i < HH_NR_FIXED; i++, device++) {
		device->binding = hh_bindings[i / HMM_HARNESS_NR_DEVICES];
		device->id = i % HMM_HARNESS_NR_DEVICES;
	}
#ifdef HH_COHERENT
	for (i = 0; devmem_mb && i < hh_nr_coherent; i++, device++) {
		device->binding = &hh_interval;
		device->id = HMM_HARNESS_NR_DEVICES + i;
		device->devmem.address = coherent_addr[i];
	}
#else
	if (hh_nr_coherent)
		pr_notice("this kernel cannot have coherent device memory\n");
#endif
	return device - hh_devices;
}

static int __init hh_init(void)
{
	unsigned int with_memory, registered = 0, id;
	int ret;

	ret = hh_check_parameters();
	if (ret)
		return ret;
	hh_nr_devices = hh_lay_out();

	ret = hh_events_init();
	if (ret) {
		pr_err("no events: error %d\n", ret);
		return ret;
	}

	for (with_memory = 0; with_memory < hh_nr_devices; with_memory++) {
		struct hh_device *device = &hh_devices[with_memory];

		snprintf(device->name, sizeof(device->name),
			 device->binding->node, device->id);
		mutex_init(&device->mirrors_lock);
		INIT_LIST_HEAD(&device->mirrors);
		ret = hh_devmem_init(device, devmem_mb);
		if (ret) {
			pr_err("no %u MiB of device memory: error %d\n",
			       devmem_mb, ret);
			goto undo;
		}
	}

	/*
	 * Last, and only when all memory is there: they can be opened from now
	 * on, and what is open cannot be undone.
	 */
	for (; registered < hh_nr_devices; registered++) {
		ret = hh_register(&hh_devices[registered]);
		if (ret)
			goto undo;
	}

	hh_debugfs_init();
	for (id = 0; id < hh_nr_devices; id++)
		hh_debugfs_add(&hh_devices[id]);
	return 0;

undo:
	while (registered--)
		misc_deregister(&hh_devices[registered].misc);
	while (with_memory--)
		hh_devmem_exit(&hh_devices[with_memory]);
	hh_events_exit();
	return ret;
}

static void __exit hh_exit(void)
{
	unsigned int id;

	hh_debugfs_exit();
	for (id = hh_nr_devices; id--;)
		misc_deregister(&hh_devices[id].misc);
	for (id = hh_nr_devices; id--;)
		hh_devmem_exit(&hh_devices[id]);
	hh_events_exit();
}

module_init(hh_init);
module_exit(hh_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("hmm-harness developers");
MODULE_DESCRIPTION("Software device that mirrors the memory of processes, to test HMM");
