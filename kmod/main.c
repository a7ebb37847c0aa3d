// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module, its devices, and their open files.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cdev.h>
#include <linux/device.h>
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

/* The nodes of all devices, and what opens them: a number for each, in turn */
static struct class *hh_class;
static dev_t hh_first_number;
static struct cdev *hh_nodes;

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
	file->device = &hh_devices[iminor(inode) - MINOR(hh_first_number)];
	spin_lock_init(&file->lock);
	filp->private_data = file;
	return nonseekable_open(inode, filp);
}

static int hh_release(struct inode *inode, struct file *filp)
{
	struct hh_file *file = filp->private_data;

	hh_gates_close(file);
	/* -ENXIO: it was not bound. */
	hh_mirror_unbind(file);
	hh_mirror_forget(file);
	kfree(file);
	return 0;
}

static const struct file_operations hh_fops = {
	.owner = THIS_MODULE,
	.open = hh_open,
	.release = hh_release,
	.unlocked_ioctl = hh_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = hh_mmap,
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

static dev_t hh_number(const struct hh_device *device)
{
	return hh_first_number + (device - hh_devices);
}

static void hh_remove_node(struct hh_device *device)
{
	device_destroy(hh_class, hh_number(device));
}

/* The node cannot be opened yet: -ENXIO. */
static int __init hh_add_node(struct hh_device *device)
{
	int ret;

	device->node = device_create(hh_class, NULL, hh_number(device), device,
				     "%s", device->name);
	if (IS_ERR(device->node))
		return PTR_ERR(device->node);
	if (!device->binding->dma)
		return 0;
	ret = hh_dma_init(device);
	if (ret)
		hh_remove_node(device);
	return ret;
}

static void hh_remove_nodes(void)
{
	unsigned int id;

	cdev_del(hh_nodes);
	for (id = hh_nr_devices; id--;)
		hh_remove_node(&hh_devices[id]);
	unregister_chrdev_region(hh_first_number, hh_nr_devices);
	class_destroy(hh_class);
}

/*
 * What is open cannot be undone, and the kernel waits for nobody when a module
 * does not begin. So all nodes can be opened at once, when nothing can fail any
 * more.
 */
static int __init hh_add_nodes(void)
{
	unsigned int added = 0;
	int ret;

	hh_class = hh_class_create(KBUILD_MODNAME);
	if (IS_ERR(hh_class))
		return PTR_ERR(hh_class);
	ret = alloc_chrdev_region(&hh_first_number, 0, hh_nr_devices,
				  KBUILD_MODNAME);
	if (ret)
		goto destroy;
	for (; added < hh_nr_devices; added++) {
		ret = hh_add_node(&hh_devices[added]);
		if (ret)
			goto remove;
	}
	ret = -ENOMEM;
	hh_nodes = cdev_alloc();
	if (!hh_nodes)
		goto remove;
	hh_nodes->owner = THIS_MODULE;
	hh_nodes->ops = &hh_fops;
	ret = cdev_add(hh_nodes, hh_first_number, hh_nr_devices);
	if (!ret)
		return 0;
	kobject_put(&hh_nodes->kobj);

remove:
	while (added--)
		hh_remove_node(&hh_devices[added]);
	unregister_chrdev_region(hh_first_number, hh_nr_devices);
destroy:
	class_destroy(hh_class);
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
	unsigned int with_memory, id;
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
		spin_lock_init(&device->devmem.lock);
		init_rwsem(&device->devmem.reuse);
		init_rwsem(&device->devmem.there);
		INIT_LIST_HEAD(&device->mirrors);
		ret = hh_devmem_init(device, devmem_mb);
		if (ret) {
			pr_err("no %u MiB of device memory: error %d\n",
			       devmem_mb, ret);
			goto undo;
		}
	}

	/* Last, and only when all memory is there: now they can be opened. */
	ret = hh_add_nodes();
	if (ret) {
		pr_err("no nodes: error %d\n", ret);
		goto undo;
	}

	hh_debugfs_init();
	for (id = 0; id < hh_nr_devices; id++)
		hh_debugfs_add(&hh_devices[id]);
	return 0;

undo:
	while (with_memory--)
		hh_devmem_exit(&hh_devices[with_memory]);
	hh_events_exit();
	return ret;
}

static void __exit hh_exit(void)
{
	unsigned int id;

	hh_debugfs_exit();
	hh_remove_nodes();
	for (id = hh_nr_devices; id--;)
		hh_devmem_exit(&hh_devices[id]);
	hh_events_exit();
	hh_plain_exit();
}

module_init(hh_init);
module_exit(hh_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("hmm-harness developers");
MODULE_DESCRIPTION("Software device that mirrors the memory of processes, to test HMM");
