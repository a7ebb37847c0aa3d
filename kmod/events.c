// SPDX-License-Identifier: GPL-2.0-only
/*
 * What devices hear and do is told over generic netlink, to sockets that have
 * subscribed: netlink/hmm-harness.yaml describes the family.
 *
 * It is not a multicast group, which any process could join on kernels before
 * 6.7: addresses of other processes are told. Subscribing takes CAP_NET_ADMIN
 * of the initial user namespace, and a socket of the initial network namespace.
 *
 * Events come up where nothing may sleep and, since memory may be what is being
 * freed, nothing should be allocated: in invalidations, and when the last user
 * of a page lets go. So an event takes a slot of a ring that was allocated with
 * the module, and a number; a work packs what is there into messages. When the
 * ring is full the event is lost, but not its number: the gap is seen. While
 * nobody listens an event costs a look at a variable, and no number.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>

#include "internal.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* Sockets that can listen at a time */
#define HH_MAX_LISTENERS 16

static unsigned int event_slots = 16384;
module_param(event_slots, uint, 0444);
MODULE_PARM_DESC(event_slots,
		 "events that wait for delivery at most, rounded up to a power of two (default 16384)");

/**
 * struct hh_ring - events on their way
 * @lock: protects all that follows
 * @slots: as many as there can be
 * @mask: how many that are, minus 1
 * @head: how many were put in
 * @tail: how many were taken out
 * @number: of the last event
 * @lost: events that there was no room for
 */
struct hh_ring {
	spinlock_t lock; /* protects all that follows */
	struct hh_event *slots;
	unsigned long mask;
	unsigned long head;
	unsigned long tail;
	u64 number;
	u64 lost;
};

static struct hh_ring hh_ring = {
	.lock = __SPIN_LOCK_UNLOCKED(hh_ring.lock),
};

/**
 * struct hh_listener - a socket that gets events
 * @port: its address
 * @missed: events that it had no room for
 */
struct hh_listener {
	u32 port;
	u64 missed;
};

/* Protects the listeners, and keeps deliveries in order. */
static DEFINE_MUTEX(hh_delivery);
static struct hh_listener hh_listeners[HH_MAX_LISTENERS];
static unsigned int hh_nr_listeners;

static struct workqueue_struct *hh_event_queue;
static struct genl_family hh_family;

static bool hh_take(struct hh_event *event)
{
	bool there;

	spin_lock_irq(&hh_ring.lock);
	there = hh_ring.tail != hh_ring.head;
	if (there)
		*event = hh_ring.slots[hh_ring.tail++ & hh_ring.mask];
	spin_unlock_irq(&hh_ring.lock);
	return there;
}

static void hh_count_lost(unsigned int count)
{
	spin_lock_irq(&hh_ring.lock);
	hh_ring.lost += count;
	spin_unlock_irq(&hh_ring.lock);
}

/* The number up to which events have been delivered, or were lost */
static u64 hh_delivered(void)
{
	u64 number;

	spin_lock_irq(&hh_ring.lock);
	number = hh_ring.number;
	if (hh_ring.tail != hh_ring.head)
		number = hh_ring.slots[hh_ring.tail & hh_ring.mask].number - 1;
	spin_unlock_irq(&hh_ring.lock);
	return number;
}

/**
 * hh_event_last() - the number of the last event
 *
 * Return: 0 when there has been none
 */
u64 hh_event_last(void)
{
	u64 number;

	spin_lock_irq(&hh_ring.lock);
	number = hh_ring.number;
	spin_unlock_irq(&hh_ring.lock);
	return number;
}

static int hh_put_u64(struct sk_buff *skb, int attribute, u64 value)
{
	/* 0 is never used: there is no padding where the kernel needs none. */
	return nla_put_u64_64bit(skb, attribute, value, 0);
}

static int hh_put_range(struct sk_buff *skb, const struct hh_event *event)
{
	if (hh_put_u64(skb, HMM_HARNESS_A_EVENT_START, event->start))
		return -EMSGSIZE;
	return hh_put_u64(skb, HMM_HARNESS_A_EVENT_END, event->end);
}

static int hh_put_heard(struct sk_buff *skb, const struct hh_event *event)
{
	if (hh_put_u64(skb, HMM_HARNESS_A_EVENT_MIRROR, event->mirror) ||
	    nla_put_u32(skb, HMM_HARNESS_A_EVENT_PROCESS, event->process) ||
	    hh_put_range(skb, event) ||
	    nla_put_u32(skb, HMM_HARNESS_A_EVENT_REASON, event->reason) ||
	    nla_put_u32(skb, HMM_HARNESS_A_EVENT_OWNER, event->owner))
		return -EMSGSIZE;
	if (event->sequence &&
	    hh_put_u64(skb, HMM_HARNESS_A_EVENT_SEQUENCE, event->sequence))
		return -EMSGSIZE;
	if (event->blockable &&
	    nla_put_flag(skb, HMM_HARNESS_A_EVENT_BLOCKABLE))
		return -EMSGSIZE;
	if (event->refused && nla_put_flag(skb, HMM_HARNESS_A_EVENT_REFUSED))
		return -EMSGSIZE;
	return 0;
}

static int hh_put_migration(struct sk_buff *skb, const struct hh_event *event)
{
	if (hh_put_range(skb, event) ||
	    nla_put_u32(skb, HMM_HARNESS_A_EVENT_DIRECTION, event->direction) ||
	    hh_put_u64(skb, HMM_HARNESS_A_EVENT_ASKED, event->asked))
		return -EMSGSIZE;
	return hh_put_u64(skb, HMM_HARNESS_A_EVENT_MOVED, event->moved);
}

static int hh_put_attributes(struct sk_buff *skb, const struct hh_event *event)
{
	if (hh_put_u64(skb, HMM_HARNESS_A_EVENT_NUMBER, event->number) ||
	    hh_put_u64(skb, HMM_HARNESS_A_EVENT_TIME, event->time) ||
	    nla_put_u32(skb, HMM_HARNESS_A_EVENT_THREAD, event->thread) ||
	    nla_put_string(skb, HMM_HARNESS_A_EVENT_DEVICE,
			   event->device->name))
		return -EMSGSIZE;

	switch (event->kind) {
	case HMM_HARNESS_CMD_INVALIDATION:
	case HMM_HARNESS_CMD_RELEASE:
		return hh_put_heard(skb, event);
	case HMM_HARNESS_CMD_MIGRATION:
		return hh_put_migration(skb, event);
	case HMM_HARNESS_CMD_CPU_FAULT:
		if (nla_put_u32(skb, HMM_HARNESS_A_EVENT_PROCESS,
				event->process))
			return -EMSGSIZE;
		return hh_put_range(skb, event);
	default:
		return 0;
	}
}

/* Adds an event's message to @skb: 0, or -EMSGSIZE when there is no room. */
static int hh_put_event(struct sk_buff *skb, const struct hh_event *event)
{
	void *head = genlmsg_put(skb, 0, 0, &hh_family, 0, event->kind);

	if (!head)
		return -EMSGSIZE;
	if (hh_put_attributes(skb, event)) {
		genlmsg_cancel(skb, head);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return 0;
}

/* Sends @count events to all who listen. Under hh_delivery. */
static void hh_send(struct sk_buff *skb, unsigned int count)
{
	struct hh_listener *listener;
	struct sk_buff *copy;
	unsigned int i;

	for (i = 0; i < hh_nr_listeners; i++) {
		listener = &hh_listeners[i];
		copy = skb_clone(skb, GFP_KERNEL);
		if (!copy || genlmsg_unicast(&init_net, copy, listener->port))
			listener->missed += count;
	}
	kfree_skb(skb);
}

/* Messages that begin with @event, or NULL when there is no memory for it. */
static struct sk_buff *hh_begin(const struct hh_event *event)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);

	if (skb && !WARN_ON_ONCE(hh_put_event(skb, event)))
		return skb;
	kfree_skb(skb);
	hh_count_lost(1);
	return NULL;
}

/* Delivers all events that there are now. Under hh_delivery. */
static void hh_deliver(void)
{
	u64 last = hh_event_last();
	struct sk_buff *skb = NULL;
	struct hh_event event;
	unsigned int count = 0;

	while (hh_take(&event)) {
		if (skb && hh_put_event(skb, &event)) {
			hh_send(skb, count);
			skb = NULL;
		}
		if (!skb) {
			skb = hh_begin(&event);
			count = 0;
		}
		count++;
		if (event.number >= last)
			break;
		cond_resched();
	}
	if (skb)
		hh_send(skb, count);
}

static void hh_deliver_later(struct work_struct *work)
{
	mutex_lock(&hh_delivery);
	hh_deliver();
	mutex_unlock(&hh_delivery);
	if (hh_delivered() != hh_event_last())
		queue_work(hh_event_queue, work);
}

static DECLARE_WORK(hh_delivery_work, hh_deliver_later);

/**
 * hh_event_tell() - tell whoever listens
 * @event: what has happened; its number is not used
 *
 * From any context. What the caller does next happens after it, by number.
 */
void hh_event_tell(const struct hh_event *event)
{
	struct hh_event *slot;
	unsigned long flags;

	if (!READ_ONCE(hh_nr_listeners))
		return;

	spin_lock_irqsave(&hh_ring.lock, flags);
	hh_ring.number++;
	if (hh_ring.head - hh_ring.tail > hh_ring.mask ||
	    (hh_wrong(HH_LOSE_EVENTS) && hh_ring.number % 2)) {
		hh_ring.lost++;
	} else {
		slot = &hh_ring.slots[hh_ring.head++ & hh_ring.mask];
		*slot = *event;
		slot->number = hh_ring.number;
		slot->time = ktime_get_ns();
		slot->thread = current->pid;
	}
	spin_unlock_irqrestore(&hh_ring.lock, flags);
	queue_work(hh_event_queue, &hh_delivery_work);
}

/**
 * hh_event_change() - tell of an invalidation
 * @mirror: who has heard of it
 * @change: what it is
 * @refused: whether that could not be dealt with
 */
void hh_event_change(struct hh_mirror *mirror, const struct hh_change *change,
		     bool refused)
{
	struct hh_event event = {
		.kind = change->release ? HMM_HARNESS_CMD_RELEASE :
					  HMM_HARNESS_CMD_INVALIDATION,
		.device = mirror->device,
		.mirror = mirror->id,
		.process = mirror->process,
		.start = change->start,
		.end = change->end,
		.reason = change->reason,
		.owner = change->owner,
		.sequence = change->sequence,
		.blockable = change->blockable,
		.refused = refused,
	};

	trace_invalidation(&event);
	if (!hh_wrong(HH_HIDE_EVENTS))
		hh_event_tell(&event);
}

/**
 * hh_event_migration() - tell of a migration
 * @device: the device
 * @move: what moved
 * @asked: pages that there was a place for
 */
void hh_event_migration(struct hh_device *device,
			const struct hh_migration *move, unsigned long asked)
{
	struct hh_event event = {
		.kind = HMM_HARNESS_CMD_MIGRATION,
		.device = device,
		.start = move->start,
		.end = move->start,
		.direction = move->to_device ? HMM_HARNESS_DIRECTION_TO_DEVICE :
					       HMM_HARNESS_DIRECTION_TO_SYSTEM,
		.asked = asked,
		.moved = move->moved,
	};

	if (move->vma) /* else the pages were found by their numbers */
		event.end += move->npages << PAGE_SHIFT;
	trace_migration(&event);
	hh_event_tell(&event);
}

/**
 * hh_event_free() - tell that a device page has no user any more
 * @device: the device
 */
void hh_event_free(struct hh_device *device)
{
	struct hh_event event = {
		.kind = HMM_HARNESS_CMD_PAGE_FREE,
		.device = device,
	};

	trace_page_free(&event);
	hh_event_tell(&event);
}

/**
 * hh_event_fault() - tell that a CPU touched memory of a device
 * @device: the device
 * @addr: what the current process touched
 */
void hh_event_fault(struct hh_device *device, unsigned long addr)
{
	struct hh_event event = {
		.kind = HMM_HARNESS_CMD_CPU_FAULT,
		.device = device,
		.process = task_tgid_nr(current),
		.start = addr & PAGE_MASK,
		.end = (addr & PAGE_MASK) + PAGE_SIZE,
	};

	trace_cpu_fault(&event);
	hh_event_tell(&event);
}

/**
 * hh_event_flush() - deliver what is on its way
 *
 * Return: 0, or -EINTR when the caller is being killed
 */
int hh_event_flush(void)
{
	if (mutex_lock_killable(&hh_delivery))
		return -EINTR;
	hh_deliver();
	mutex_unlock(&hh_delivery);
	return 0;
}

/**
 * hh_event_describe() - say how many events there were, and who listens
 * @file: where to
 */
void hh_event_describe(struct seq_file *file)
{
	unsigned long waiting;
	u64 number, lost;
	unsigned int i;

	spin_lock_irq(&hh_ring.lock);
	number = hh_ring.number;
	lost = hh_ring.lost;
	waiting = hh_ring.head - hh_ring.tail;
	spin_unlock_irq(&hh_ring.lock);
	seq_printf(file, "last number: %llu, lost: %llu, waiting: %lu of %lu\n",
		   number, lost, waiting, hh_ring.mask + 1);

	mutex_lock(&hh_delivery);
	for (i = 0; i < hh_nr_listeners; i++)
		seq_printf(file, "port %u: missed %llu\n",
			   hh_listeners[i].port, hh_listeners[i].missed);
	mutex_unlock(&hh_delivery);
}

static struct hh_listener *hh_find_listener(u32 port)
{
	unsigned int i;

	for (i = 0; i < hh_nr_listeners; i++)
		if (hh_listeners[i].port == port)
			return &hh_listeners[i];
	return NULL;
}

static void hh_forget_listener(u32 port)
{
	struct hh_listener *listener = hh_find_listener(port);

	if (!listener)
		return;
	*listener = hh_listeners[hh_nr_listeners - 1];
	WRITE_ONCE(hh_nr_listeners, hh_nr_listeners - 1);
}

static int hh_reply(struct genl_info *info, u64 missed)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	u64 number = hh_delivered();
	void *head;
	u64 lost;

	if (!skb)
		return -ENOMEM;
	spin_lock_irq(&hh_ring.lock);
	lost = hh_ring.lost;
	spin_unlock_irq(&hh_ring.lock);

	head = genlmsg_put_reply(skb, info, &hh_family, 0,
				 info->genlhdr->cmd);
	if (!head || hh_put_u64(skb, HMM_HARNESS_A_EVENT_NUMBER, number) ||
	    hh_put_u64(skb, HMM_HARNESS_A_EVENT_LOST, lost) ||
	    hh_put_u64(skb, HMM_HARNESS_A_EVENT_MISSED, missed)) {
		kfree_skb(skb);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, head);
	return genlmsg_reply(skb, info);
}

static int hh_do_state(struct sk_buff *skb, struct genl_info *info)
{
	struct hh_listener *listener;
	int ret;

	mutex_lock(&hh_delivery);
	hh_deliver();
	listener = hh_find_listener(info->snd_portid);
	ret = hh_reply(info, listener ? listener->missed : 0);
	mutex_unlock(&hh_delivery);
	return ret;
}

static int hh_do_subscribe(struct sk_buff *skb, struct genl_info *info)
{
	struct hh_listener *listener;
	int ret = -ENOSPC;

	mutex_lock(&hh_delivery);
	hh_deliver();
	if (hh_find_listener(info->snd_portid)) {
		ret = -EEXIST;
	} else if (hh_nr_listeners < HH_MAX_LISTENERS) {
		/* Before anything more happens that has a number */
		ret = hh_reply(info, 0);
		if (!ret) {
			listener = &hh_listeners[hh_nr_listeners];
			listener->port = info->snd_portid;
			listener->missed = 0;
			WRITE_ONCE(hh_nr_listeners, hh_nr_listeners + 1);
		}
	}
	mutex_unlock(&hh_delivery);
	return ret;
}

static int hh_do_unsubscribe(struct sk_buff *skb, struct genl_info *info)
{
	struct hh_listener *listener;
	int ret = -ENOENT;

	mutex_lock(&hh_delivery);
	hh_deliver();
	listener = hh_find_listener(info->snd_portid);
	if (listener) {
		ret = hh_reply(info, listener->missed);
		hh_forget_listener(info->snd_portid);
	}
	mutex_unlock(&hh_delivery);
	return ret;
}

static const struct genl_ops hh_family_ops[] = {
	{
		.cmd = HMM_HARNESS_CMD_STATE,
		.flags = GENL_ADMIN_PERM,
		.doit = hh_do_state,
	}, {
		.cmd = HMM_HARNESS_CMD_SUBSCRIBE,
		.flags = GENL_ADMIN_PERM,
		.doit = hh_do_subscribe,
	}, {
		.cmd = HMM_HARNESS_CMD_UNSUBSCRIBE,
		.flags = GENL_ADMIN_PERM,
		.doit = hh_do_unsubscribe,
	},
};

static struct genl_family hh_family __ro_after_init = {
	.name = HMM_HARNESS_FAMILY_NAME,
	.version = HMM_HARNESS_FAMILY_VERSION,
	.module = THIS_MODULE,
	.ops = hh_family_ops,
	.n_ops = ARRAY_SIZE(hh_family_ops),
};

/* A socket that was closed: its address may be given to another one. */
static int hh_on_release(struct notifier_block *block, unsigned long event,
			 void *data)
{
	struct netlink_notify *notify = data;

	if (event != NETLINK_URELEASE ||
	    notify->protocol != NETLINK_GENERIC ||
	    !net_eq(notify->net, &init_net))
		return NOTIFY_DONE;
	mutex_lock(&hh_delivery);
	hh_forget_listener(notify->portid);
	mutex_unlock(&hh_delivery);
	return NOTIFY_DONE;
}

static struct notifier_block hh_release_block = {
	.notifier_call = hh_on_release,
};

/**
 * hh_events_init() - make events known
 *
 * Return: 0 or a negative error
 */
int __init hh_events_init(void)
{
	int ret = -ENOMEM;

	if (!event_slots || event_slots > 1 << 20) {
		pr_err("event_slots is not 1 to 1048576\n");
		return -EINVAL;
	}
	hh_ring.mask = roundup_pow_of_two(event_slots) - 1;
	hh_ring.slots = kvcalloc(hh_ring.mask + 1, sizeof(*hh_ring.slots),
				 GFP_KERNEL);
	if (!hh_ring.slots)
		return ret;
	hh_event_queue = alloc_workqueue("hmm_harness",
					 WQ_UNBOUND | WQ_HIGHPRI, 1);
	if (!hh_event_queue)
		goto free;
	ret = netlink_register_notifier(&hh_release_block);
	if (ret)
		goto destroy;
	ret = genl_register_family(&hh_family);
	if (!ret)
		return 0;

	netlink_unregister_notifier(&hh_release_block);
destroy:
	destroy_workqueue(hh_event_queue);
free:
	kvfree(hh_ring.slots);
	return ret;
}

/**
 * hh_events_exit() - undo hh_events_init(); no device is left
 */
void hh_events_exit(void)
{
	genl_unregister_family(&hh_family);
	netlink_unregister_notifier(&hh_release_block);
	destroy_workqueue(hh_event_queue);
	kvfree(hh_ring.slots);
}
