// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a user's struct to a checked operation and back. Every command is a row
 * of a table; what all have in common is checked here, once.
 */
#include <linux/bitops.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/uaccess.h>

#include "internal.h"

/**
 * union hh_args - the struct of any command
 * @head: what each begins with
 * @head.size: length of the struct, as the caller knows it
 * @head.flags: see the command
 * @info: of HMM_HARNESS_INFO
 * @bind: of HMM_HARNESS_BIND and HMM_HARNESS_UNBIND
 * @range: of all commands on a range
 * @request: of HMM_HARNESS_REQUEST
 * @watch: of HMM_HARNESS_WATCH and HMM_HARNESS_WATCHED
 * @sequence: of HMM_HARNESS_SEQUENCE
 * @dma: of HMM_HARNESS_DMA
 * @refuse: of HMM_HARNESS_REFUSE
 * @move: of HMM_HARNESS_MOVE
 * @refuse_returns: of HMM_HARNESS_RETURNS
 * @evict: of HMM_HARNESS_EVICT
 * @usage: of HMM_HARNESS_USAGE
 * @events: of HMM_HARNESS_EVENTS
 * @gate: of HMM_HARNESS_GATE_ARM, _WAIT and _RELEASE
 */
union hh_args {
	struct {
		__u32 size;
		__u32 flags;
	} head;
	struct hmm_harness_info info;
	struct hmm_harness_bind bind;
	struct hmm_harness_range range;
	struct hmm_harness_request request;
	struct hmm_harness_watch watch;
	struct hmm_harness_sequence sequence;
	struct hmm_harness_dma dma;
	struct hmm_harness_refuse refuse;
	struct hmm_harness_move move;
	struct hmm_harness_returns refuse_returns;
	struct hmm_harness_evict evict;
	struct hmm_harness_usage usage;
	struct hmm_harness_events events;
	struct hmm_harness_gate gate;
};

/**
 * struct hh_shape - what the struct of a command looks like
 * @size: length as this module knows it
 * @min_size: length of its first version
 * @outputs: where its outputs begin, which reach to the end
 */
struct hh_shape {
	u32 size;
	u32 min_size;
	u32 outputs;
};

/**
 * struct hh_command - a row of the table
 * @cmd: the number
 * @shape: of its struct
 * @flags: those that have a meaning
 * @one_flag: whether exactly one must be set
 * @data: whether a range has data
 * @device: what to do; or
 * @range: what to do with a range of bound memory
 * @now: what to do with it instead, with HMM_HARNESS_NOWAIT
 */
struct hh_command {
	unsigned int cmd;
	const struct hh_shape *shape;
	u32 flags;
	bool one_flag;
	bool data;
	int (*device)(struct hh_file *file, union hh_args *args);
	int (*range)(struct hh_work *work, struct hmm_harness_range *args);
	int (*now)(struct hh_mirror *mirror, struct hmm_harness_range *args);
};

static int hh_ioctl_info(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_info *info = &args->info;

	info->abi_version = HMM_HARNESS_ABI_VERSION;
	info->page_size = PAGE_SIZE;
	info->capabilities = HMM_HARNESS_CAP_MIRROR | HMM_HARNESS_CAP_EVENTS |
			     HMM_HARNESS_CAP_GATES;
	if (file->device->devmem.npages)
		info->capabilities |= HMM_HARNESS_CAP_DEVMEM |
				      HMM_HARNESS_CAP_EVICT;
	if (file->device->devmem.npages && file->device->binding->finds_numbers)
		info->capabilities |= HMM_HARNESS_CAP_EVICT_RANGE;
	if (file->device->devmem.address)
		info->capabilities |= HMM_HARNESS_CAP_COHERENT;
	else if (file->device->devmem.npages)
		info->capabilities |= HMM_HARNESS_CAP_RETURNS;
	if (file->device->binding->requests)
		info->capabilities |= HMM_HARNESS_CAP_REQUEST;
	if (file->device->binding->watch)
		info->capabilities |= HMM_HARNESS_CAP_WATCH;
#ifdef HAVE_NOTIFIER_TWO_PASS
	if (file->device->binding->watch)
		info->capabilities |= HMM_HARNESS_CAP_TWO_PASS;
#endif
	if (file->device->binding->dma)
		info->capabilities |= HMM_HARNESS_CAP_DMA;
#ifdef HAVE_RANGE_UNLOCKED
	if (file->device->binding->requests)
		info->capabilities |= HMM_HARNESS_CAP_UNLOCKED;
#endif
	if (file->device->binding->exclude)
		info->capabilities |= HMM_HARNESS_CAP_EXCLUSIVE;
	info->device = file->device->id;
	info->nr_devices = hh_count_devices(file->device->binding);
	info->device_pages = file->device->devmem.npages;
	return 0;
}

static int hh_ioctl_bind(struct hh_file *file, union hh_args *args)
{
	return hh_mirror_bind(file);
}

static int hh_ioctl_unbind(struct hh_file *file, union hh_args *args)
{
	return hh_mirror_unbind(file);
}

static int hh_ioctl_request(struct hh_file *file, union hh_args *args)
{
	return hh_request(file, &args->request);
}

static int hh_check_part(u64 addr, u64 npages)
{
	u64 end;

	if (addr & ~PAGE_MASK || !npages)
		return -EINVAL;
	if (npages > HMM_HARNESS_MAX_PAGES)
		return -E2BIG;
	if (check_add_overflow(addr, npages << PAGE_SHIFT, &end))
		return -EINVAL;
	return 0;
}

/* What a file is bound to, if its process can have that range; or an error. */
static struct hh_mirror *hh_mirror_of(struct hh_file *file, u64 addr,
				      u64 npages)
{
	struct hh_mirror *mirror = hh_mirror_get(file);

	if (!mirror)
		return ERR_PTR(-ENXIO);
	if (addr + (npages << PAGE_SHIFT) <= mirror->mm->task_size)
		return mirror;
	hh_mirror_put(mirror);
	return ERR_PTR(-EINVAL);
}

static int hh_ioctl_watch(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_watch *watch = &args->watch;
	struct hh_mirror *mirror;
	int ret;

	if (!file->device->binding->watch)
		return -EOPNOTSUPP;
	ret = hh_check_part(watch->addr, watch->npages);
	if (ret)
		return ret;
	if (watch->pages || (watch->flags & HMM_HARNESS_WATCH_EMPTY &&
			     watch->flags & HMM_HARNESS_WATCH_ENDLESS))
		return -EINVAL;
	mirror = hh_mirror_of(file, watch->addr, watch->npages);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	ret = mirror->device->binding->watch(mirror, watch);
	hh_mirror_put(mirror);
	return ret;
}

static int hh_ioctl_watched(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_watch *watch = &args->watch;
	struct hh_mirror *mirror;
	int ret;

	if (!file->device->binding->watched)
		return -EOPNOTSUPP;
	ret = hh_check_part(watch->addr, watch->npages);
	if (ret)
		return ret;
	mirror = hh_mirror_of(file, watch->addr, watch->npages);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	ret = mirror->device->binding->watched(mirror, watch);
	hh_mirror_put(mirror);
	return ret;
}

static int hh_ioctl_sequence(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_sequence *sequence = &args->sequence;
	struct hh_mirror *mirror;
	int ret;

	if (!file->device->binding->sequence)
		return -EOPNOTSUPP;
	ret = hh_check_part(sequence->addr, sequence->npages);
	if (ret)
		return ret;
	mirror = hh_mirror_of(file, sequence->addr, sequence->npages);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	ret = mirror->device->binding->sequence(mirror, sequence);
	hh_mirror_put(mirror);
	return ret;
}

static int hh_ioctl_dma(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_dma *dma = &args->dma;
	bool unmap = dma->flags & HMM_HARNESS_DMA_UNMAP;
	bool show = dma->flags & HMM_HARNESS_DMA_SHOW;
	struct hh_mirror *mirror;
	int ret;

	if (!file->device->binding->dma)
		return -EOPNOTSUPP;
	ret = hh_check_part(dma->addr, dma->npages);
	if (ret)
		return ret;
	if (dma->npages > HMM_HARNESS_DMA_MAX_PAGES)
		return -E2BIG;
	if (dma->owner > (unmap || show ? 0 : HMM_HARNESS_AS_OTHER))
		return -EINVAL;
	if (dma->reserved || (unmap && dma->pages))
		return -EINVAL;
	mirror = hh_mirror_of(file, dma->addr, dma->npages);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	ret = mirror->device->binding->dma(mirror, dma);
	hh_mirror_put(mirror);
	return ret;
}

static int hh_ioctl_refuse(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_refuse *refuse = &args->refuse;
	struct hh_mirror *mirror;
	int ret = 0;

	if (refuse->addr || refuse->npages)
		ret = hh_check_part(refuse->addr, refuse->npages);
	if (ret)
		return ret;
	mirror = hh_mirror_of(file, refuse->addr, refuse->npages);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	ret = hh_mirror_refuse(mirror, refuse->addr,
			       refuse->addr + (refuse->npages << PAGE_SHIFT));
	hh_mirror_put(mirror);
	return ret;
}

static int hh_ioctl_move(struct hh_file *file, union hh_args *args)
{
	return hh_move(file, &args->move);
}

static int hh_ioctl_returns(struct hh_file *file, union hh_args *args)
{
	return hh_refuse_returns(file, &args->refuse_returns);
}

static int hh_ioctl_evict(struct hh_file *file, union hh_args *args)
{
	return hh_evict(file->device, &args->evict);
}

static int hh_ioctl_usage(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_usage *usage = &args->usage;
	struct hh_mirror *mirror;
	int ret = 0;

	hh_devmem_usage(file->device, usage);
	usage->refused = atomic64_read(&file->device->refused);

	mirror = hh_mirror_get(file);
	if (!mirror)
		return 0;
	if (mutex_lock_killable(&mirror->lock)) {
		ret = -EINTR;
	} else {
		usage->invalidations = mirror->invalidations;
		usage->entries = mirror->entries;
		mutex_unlock(&mirror->lock);
	}
	hh_mirror_put(mirror);
	return ret;
}

static int hh_ioctl_events(struct hh_file *file, union hh_args *args)
{
	struct hmm_harness_events *events = &args->events;
	struct hh_mirror *mirror;

	events->last = hh_event_last();
	mirror = hh_mirror_get(file);
	if (mirror) {
		events->mirror = mirror->id;
		events->since = mirror->since;
		hh_mirror_put(mirror);
	}
	return hh_event_flush();
}

static int hh_ioctl_gate_arm(struct hh_file *file, union hh_args *args)
{
	return hh_gate_arm(file, &args->gate);
}

static int hh_ioctl_gate_wait(struct hh_file *file, union hh_args *args)
{
	return hh_gate_wait(file, &args->gate);
}

static int hh_ioctl_gate_release(struct hh_file *file, union hh_args *args)
{
	return hh_gate_release(file, &args->gate);
}

static const struct hh_shape hh_info_shape = {
	.size = sizeof(struct hmm_harness_info),
	.min_size = offsetofend(struct hmm_harness_info, device_pages),
	.outputs = offsetof(struct hmm_harness_info, abi_version),
};

static const struct hh_shape hh_bind_shape = {
	.size = sizeof(struct hmm_harness_bind),
	.min_size = offsetofend(struct hmm_harness_bind, flags),
	.outputs = sizeof(struct hmm_harness_bind),
};

static const struct hh_shape hh_range_shape = {
	.size = sizeof(struct hmm_harness_range),
	.min_size = offsetofend(struct hmm_harness_range, retries),
	.outputs = offsetof(struct hmm_harness_range, done),
};

static const struct hh_shape hh_request_shape = {
	.size = sizeof(struct hmm_harness_request),
	.min_size = offsetofend(struct hmm_harness_request, raw_pfn),
	.outputs = offsetof(struct hmm_harness_request, retries),
};

static const struct hh_shape hh_watch_shape = {
	.size = sizeof(struct hmm_harness_watch),
	.min_size = offsetofend(struct hmm_harness_watch, strays),
	.outputs = offsetof(struct hmm_harness_watch, calls),
};

static const struct hh_shape hh_sequence_shape = {
	.size = sizeof(struct hmm_harness_sequence),
	.min_size = offsetofend(struct hmm_harness_sequence, reserved),
	.outputs = offsetof(struct hmm_harness_sequence, sequence),
};

static const struct hh_shape hh_dma_shape = {
	.size = sizeof(struct hmm_harness_dma),
	.min_size = offsetofend(struct hmm_harness_dma, retries),
	.outputs = offsetof(struct hmm_harness_dma, mapped),
};

static const struct hh_shape hh_refuse_shape = {
	.size = sizeof(struct hmm_harness_refuse),
	.min_size = offsetofend(struct hmm_harness_refuse, npages),
	.outputs = sizeof(struct hmm_harness_refuse),
};

static const struct hh_shape hh_move_shape = {
	.size = sizeof(struct hmm_harness_move),
	.min_size = offsetofend(struct hmm_harness_move, raw_compound),
	.outputs = offsetof(struct hmm_harness_move, collected),
};

static const struct hh_shape hh_returns_shape = {
	.size = sizeof(struct hmm_harness_returns),
	.min_size = offsetofend(struct hmm_harness_returns, refused),
	.outputs = offsetof(struct hmm_harness_returns, refused),
};

static const struct hh_shape hh_evict_shape = {
	.size = sizeof(struct hmm_harness_evict),
	.min_size = offsetofend(struct hmm_harness_evict, left),
	.outputs = offsetof(struct hmm_harness_evict, moved),
};

static const struct hh_shape hh_usage_shape = {
	.size = sizeof(struct hmm_harness_usage),
	.min_size = offsetofend(struct hmm_harness_usage, entries),
	.outputs = offsetof(struct hmm_harness_usage, in_use),
};

static const struct hh_shape hh_events_shape = {
	.size = sizeof(struct hmm_harness_events),
	.min_size = offsetofend(struct hmm_harness_events, last),
	.outputs = offsetof(struct hmm_harness_events, mirror),
};

static const struct hh_shape hh_gate_shape = {
	.size = sizeof(struct hmm_harness_gate),
	.min_size = offsetofend(struct hmm_harness_gate, expired),
	.outputs = offsetof(struct hmm_harness_gate, parked),
};

static const struct hh_command hh_commands[] = {
	{
		.cmd = HMM_HARNESS_INFO,
		.shape = &hh_info_shape,
		.device = hh_ioctl_info,
	}, {
		.cmd = HMM_HARNESS_BIND,
		.shape = &hh_bind_shape,
		.device = hh_ioctl_bind,
	}, {
		.cmd = HMM_HARNESS_UNBIND,
		.shape = &hh_bind_shape,
		.device = hh_ioctl_unbind,
	}, {
		.cmd = HMM_HARNESS_SNAPSHOT,
		.shape = &hh_range_shape,
		.flags = HMM_HARNESS_NOWAIT,
		.range = hh_snapshot,
		.now = hh_snapshot_now,
	}, {
		.cmd = HMM_HARNESS_FAULT,
		.shape = &hh_range_shape,
		.flags = HMM_HARNESS_FAULT_WRITE,
		.range = hh_fault,
	}, {
		.cmd = HMM_HARNESS_READ,
		.shape = &hh_range_shape,
		.flags = HMM_HARNESS_READ_UNLOCKED,
		.data = true,
		.range = hh_read,
	}, {
		.cmd = HMM_HARNESS_WRITE,
		.shape = &hh_range_shape,
		.data = true,
		.range = hh_write,
	}, {
		.cmd = HMM_HARNESS_MIGRATE,
		.shape = &hh_range_shape,
		.flags = HMM_HARNESS_MIGRATE_TO_DEVICE |
			 HMM_HARNESS_MIGRATE_TO_SYSTEM,
		.one_flag = true,
		.range = hh_migrate,
	}, {
		.cmd = HMM_HARNESS_MIGRATE_SHORT,
		.shape = &hh_range_shape,
		.range = hh_migrate_short,
	}, {
		.cmd = HMM_HARNESS_EXCLUSIVE,
		.shape = &hh_range_shape,
		.range = hh_exclusive,
	}, {
		.cmd = HMM_HARNESS_MOVE,
		.shape = &hh_move_shape,
		.flags = HMM_HARNESS_MOVE_TO_DEVICE |
			 HMM_HARNESS_MOVE_TO_SYSTEM |
			 HMM_HARNESS_MOVE_COMPOUND |
			 HMM_HARNESS_MOVE_STRANGE_FAULT |
			 HMM_HARNESS_MOVE_LOCKED |
			 HMM_HARNESS_MOVE_EMPTY |
			 HMM_HARNESS_MOVE_BEFORE |
			 HMM_HARNESS_MOVE_BEHIND |
			 HMM_HARNESS_MOVE_BEYOND |
			 HMM_HARNESS_MOVE_NO_SOURCES |
			 HMM_HARNESS_MOVE_NO_PLACES |
			 HMM_HARNESS_MOVE_NO_MAPPING,
		.device = hh_ioctl_move,
	}, {
		.cmd = HMM_HARNESS_RETURNS,
		.shape = &hh_returns_shape,
		.device = hh_ioctl_returns,
	}, {
		.cmd = HMM_HARNESS_EVICT,
		.shape = &hh_evict_shape,
		.flags = HMM_HARNESS_EVICT_RANGE | HMM_HARNESS_EVICT_NUMBERS |
			 HMM_HARNESS_EVICT_REMOVE,
		.device = hh_ioctl_evict,
	}, {
		.cmd = HMM_HARNESS_TABLE,
		.shape = &hh_range_shape,
		.flags = HMM_HARNESS_NOWAIT,
		.range = hh_table,
		.now = hh_table_now,
	}, {
		.cmd = HMM_HARNESS_REQUEST,
		.shape = &hh_request_shape,
		.flags = HMM_HARNESS_REQUEST_STALE |
			 HMM_HARNESS_REQUEST_UNLOCKED |
			 HMM_HARNESS_REQUEST_EMPTY,
		.device = hh_ioctl_request,
	}, {
		.cmd = HMM_HARNESS_WATCH,
		.shape = &hh_watch_shape,
		.flags = HMM_HARNESS_WATCH_TWO_PASS |
			 HMM_HARNESS_WATCH_EMPTY | HMM_HARNESS_WATCH_ENDLESS |
			 HMM_HARNESS_WATCH_PLAIN | HMM_HARNESS_WATCH_SHARED |
			 HMM_HARNESS_WATCH_TLB,
		.device = hh_ioctl_watch,
	}, {
		.cmd = HMM_HARNESS_WATCHED,
		.shape = &hh_watch_shape,
		.device = hh_ioctl_watched,
	}, {
		.cmd = HMM_HARNESS_SEQUENCE,
		.shape = &hh_sequence_shape,
		.device = hh_ioctl_sequence,
	}, {
		.cmd = HMM_HARNESS_DMA,
		.shape = &hh_dma_shape,
		.flags = HMM_HARNESS_DMA_MAP | HMM_HARNESS_DMA_MAP_WRITE |
			 HMM_HARNESS_DMA_SHOW | HMM_HARNESS_DMA_UNMAP,
		.one_flag = true,
		.device = hh_ioctl_dma,
	}, {
		.cmd = HMM_HARNESS_REFUSE,
		.shape = &hh_refuse_shape,
		.device = hh_ioctl_refuse,
	}, {
		.cmd = HMM_HARNESS_USAGE,
		.shape = &hh_usage_shape,
		.device = hh_ioctl_usage,
	}, {
		.cmd = HMM_HARNESS_EVENTS,
		.shape = &hh_events_shape,
		.device = hh_ioctl_events,
	}, {
		.cmd = HMM_HARNESS_GATE_ARM,
		.shape = &hh_gate_shape,
		.flags = HMM_HARNESS_GATE_ANY_DEVICE,
		.device = hh_ioctl_gate_arm,
	}, {
		.cmd = HMM_HARNESS_GATE_WAIT,
		.shape = &hh_gate_shape,
		.device = hh_ioctl_gate_wait,
	}, {
		.cmd = HMM_HARNESS_GATE_RELEASE,
		.shape = &hh_gate_shape,
		.device = hh_ioctl_gate_release,
	},
};

static int hh_run_range(const struct hh_command *command, struct hh_file *file,
			struct hmm_harness_range *args)
{
	struct hh_work *work;
	int ret;

	work = hh_work_begin(file, args->addr, args->npages);
	if (IS_ERR(work))
		return PTR_ERR(work);
	ret = command->range(work, args);
	args->retries = work->retries;
	hh_work_end(work);
	return ret;
}

static int hh_run_now(const struct hh_command *command, struct hh_file *file,
		      struct hmm_harness_range *args)
{
	struct hh_mirror *mirror;
	int ret;

	mirror = hh_mirror_of(file, args->addr, args->npages);
	if (IS_ERR(mirror))
		return PTR_ERR(mirror);
	ret = command->now(mirror, args);
	hh_mirror_put(mirror);
	return ret;
}

static int hh_run(const struct hh_command *command, struct hh_file *file,
		  union hh_args *args)
{
	u32 flags = args->head.flags;
	int ret;

	if (flags & ~command->flags)
		return -EINVAL;
	if (command->one_flag && hweight32(flags) != 1)
		return -EINVAL;
	if (!command->range)
		return command->device(file, args);

	if (!command->data && args->range.data)
		return -EINVAL;
	ret = hh_check_part(args->range.addr, args->range.npages);
	if (ret)
		return ret;
	if (command->now && flags & HMM_HARNESS_NOWAIT)
		return hh_run_now(command, file, &args->range);
	return hh_run_range(command, file, &args->range);
}

static const struct hh_command *hh_find_command(unsigned int cmd)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hh_commands); i++)
		if (hh_commands[i].cmd == cmd)
			return &hh_commands[i];
	return NULL;
}

/**
 * hh_ioctl() - any command
 * @filp: an open device
 * @cmd: number of the command
 * @arg: user pointer to its struct
 *
 * Return: see the header for user space
 */
long hh_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	const struct hh_command *command = hh_find_command(cmd);
	void __user *to = (void __user *)arg;
	union hh_args args = {};
	u32 size, known;
	int ret;

	if (!command)
		return -ENOTTY;
	known = command->shape->size;

	if (get_user(size, (u32 __user *)to))
		return -EFAULT;
	if (size < command->shape->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	ret = copy_struct_from_user(&args, known, to, size);
	if (ret)
		return ret;
	/* The caller may have changed it in between. */
	args.head.size = size;
	/* Whatever comes of it, nothing of the caller's is taken for a result. */
	memset((void *)&args + command->shape->outputs, 0,
	       known - command->shape->outputs);

	ret = hh_run(command, filp->private_data, &args);
	if (copy_to_user(to, &args, min(size, known)) && !ret)
		ret = -EFAULT;
	return ret;
}
