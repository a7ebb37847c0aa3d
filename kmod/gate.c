// SPDX-License-Identifier: GPL-2.0-only
/*
 * Gates: named points where a thread that somebody chose stops until it is let
 * go, so that what another thread does meanwhile is no matter of luck.
 *
 * A thread that is under control, a struct hh_actor, is parked by itself: it
 * finds, on its way through a gate, that it is the one that is meant, and sleeps.
 * Nobody waits for it with a lock of this file held. It sleeps with whatever
 * locks the gate is inside of, which is what makes others wait that have to; so
 * it goes on by itself after a while, or when it is killed, and that is counted:
 * what came of it then proves nothing.
 *
 * No gate is where one must not sleep: under a spinlock, or in an invalidation
 * that must not block.
 */
#include <linux/jiffies.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "internal.h"

/**
 * struct hh_actor - a thread that is under control
 * @link: in hh_actors, until its file is closed
 * @refs: one of the list, one of the thread while it is parked, one of each call
 *        that is under way
 * @wait: the thread sleeps here, and who waits for it to park
 * @file: who controls it; never followed
 * @pid: the thread
 * @device: where it shall park; NULL for any device
 * @patience: how long it stays parked, in jiffies
 * @armed: where it parks next, 0 for nowhere
 * @skip: how often it passes there first
 * @parked: where it is parked, or 0
 * @go: it may go on
 * @expired: how often it went on by itself
 * @passed: gates that it came by
 * @trace: the last of these, at @passed modulo its length
 *
 * All but the first four and @pid is protected by hh_gates_lock.
 */
struct hh_actor {
	struct list_head link;
	struct kref refs;
	wait_queue_head_t wait;
	const struct hh_file *file;
	struct pid *pid;
	const struct hh_device *device;
	unsigned long patience;
	u32 armed;
	u32 skip;
	u32 parked;
	bool go;
	u64 expired;
	u64 passed;
	u64 trace[HMM_HARNESS_GATE_TRACE];
};

atomic_t hh_actors_count = ATOMIC_INIT(0);

static DEFINE_SPINLOCK(hh_gates_lock); /* protects hh_actors and hh_gates_clock */
static LIST_HEAD(hh_actors);
static u64 hh_gates_clock; /* when an actor came by a gate last */

static void hh_actor_free(struct kref *refs)
{
	struct hh_actor *actor = container_of(refs, struct hh_actor, refs);

	put_pid(actor->pid);
	kfree(actor);
}

static void hh_actor_put(struct hh_actor *actor)
{
	kref_put(&actor->refs, hh_actor_free);
}

static void hh_actor_note(struct hh_actor *actor, u32 gate,
			  const struct hh_device *device)
{
	lockdep_assert_held(&hh_gates_lock);
	hh_gates_clock = max(hh_gates_clock + 1, ktime_get_ns());
	actor->trace[actor->passed++ % HMM_HARNESS_GATE_TRACE] =
		hh_gates_clock << HMM_HARNESS_GATE_CLOCK_SHIFT |
		(u64)device->id << HMM_HARNESS_GATE_DEVICE_SHIFT | gate;
}

/* Whether the actor stops here, which it is told of in that case. */
static bool hh_actor_stops(struct hh_actor *actor, u32 gate,
			   const struct hh_device *device)
{
	lockdep_assert_held(&hh_gates_lock);
	if (actor->armed != gate || (actor->device && actor->device != device))
		return false;
	if (actor->skip) {
		actor->skip--;
		return false;
	}
	actor->armed = 0;
	actor->parked = gate;
	actor->go = false;
	return true;
}

/* Returns the actor as which the current thread has to stop, referenced. */
static struct hh_actor *hh_gate_enter(u32 gate, const struct hh_device *device)
{
	struct hh_actor *actor, *stops = NULL;

	spin_lock(&hh_gates_lock);
	list_for_each_entry(actor, &hh_actors, link) {
		if (actor->pid != task_pid(current))
			continue;
		hh_actor_note(actor, gate, device);
		if (!stops && hh_actor_stops(actor, gate, device)) {
			kref_get(&actor->refs);
			stops = actor;
		}
	}
	spin_unlock(&hh_gates_lock);
	return stops;
}

/**
 * hh_gate_pass() - hh_gate() while there are actors
 * @gate: HMM_HARNESS_GATE_*
 * @device: of the device
 *
 * Return: as hh_gate()
 */
unsigned long hh_gate_pass(u32 gate, const struct hh_device *device)
{
	struct hh_actor *actor = hh_gate_enter(gate, device);
	unsigned long since = jiffies;

	if (!actor)
		return 0;
	wake_up_all(&actor->wait);
	wait_event_killable_timeout(actor->wait, READ_ONCE(actor->go),
				    actor->patience);
	spin_lock(&hh_gates_lock);
	if (!actor->go)
		actor->expired++;
	actor->parked = 0;
	spin_unlock(&hh_gates_lock);
	wake_up_all(&actor->wait);
	hh_actor_put(actor);
	return jiffies - since;
}

static void hh_actor_let_go(struct hh_actor *actor)
{
	lockdep_assert_held(&hh_gates_lock);
	if (actor->parked)
		WRITE_ONCE(actor->go, true);
	wake_up_all(&actor->wait);
}

/* The actor that the file has for a thread. */
static struct hh_actor *hh_actor_find(const struct hh_file *file,
				      const struct pid *pid)
{
	struct hh_actor *actor;

	lockdep_assert_held(&hh_gates_lock);
	list_for_each_entry(actor, &hh_actors, link)
		if (actor->file == file && actor->pid == pid)
			return actor;
	return NULL;
}

/* The same, referenced, for a thread by its number as the caller knows it. */
static struct hh_actor *hh_actor_get(const struct hh_file *file, u32 thread)
{
	struct pid *pid = find_get_pid(thread);
	struct hh_actor *actor;

	spin_lock(&hh_gates_lock);
	actor = hh_actor_find(file, pid);
	if (actor)
		kref_get(&actor->refs);
	spin_unlock(&hh_gates_lock);
	put_pid(pid);
	return actor;
}

static bool hh_is_thread(struct pid *pid)
{
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);

	if (!task)
		return false;
	put_task_struct(task);
	return true;
}

static unsigned int hh_count_actors(const struct hh_file *file)
{
	struct hh_actor *actor;
	unsigned int count = 0;

	lockdep_assert_held(&hh_gates_lock);
	list_for_each_entry(actor, &hh_actors, link)
		if (actor->file == file)
			count++;
	return count;
}

/* Takes @fresh over as the actor of its thread, or says that there is one. */
static int hh_actor_add(struct hh_actor *fresh)
{
	lockdep_assert_held(&hh_gates_lock);
	if (hh_actor_find(fresh->file, fresh->pid))
		return -EEXIST;
	if (hh_count_actors(fresh->file) == HMM_HARNESS_MAX_ACTORS)
		return -ENOSPC;
	list_add_tail(&fresh->link, &hh_actors);
	atomic_inc(&hh_actors_count);
	return 0;
}

static struct hh_actor *hh_actor_new(const struct hh_file *file, u32 thread)
{
	struct hh_actor *actor = kzalloc_obj(*actor, GFP_KERNEL_ACCOUNT);

	if (!actor)
		return NULL;
	kref_init(&actor->refs);
	init_waitqueue_head(&actor->wait);
	actor->file = file;
	actor->pid = find_get_pid(thread);
	return actor;
}

static int hh_check_arm(const struct hmm_harness_gate *args)
{
	if (args->gate > HMM_HARNESS_GATE_LAST || args->trace)
		return -EINVAL;
	if (!args->time || args->time > HMM_HARNESS_GATE_MAX_TIME)
		return -EINVAL;
	return 0;
}

/**
 * hh_gate_arm() - HMM_HARNESS_GATE_ARM
 * @file: who wants that
 * @args: what the caller asked for
 *
 * Return: 0, -EINVAL, -ESRCH, -ENOSPC or -ENOMEM
 */
int hh_gate_arm(struct hh_file *file, struct hmm_harness_gate *args)
{
	struct hh_actor *fresh, *actor;
	int ret;

	ret = hh_check_arm(args);
	if (ret)
		return ret;
	fresh = hh_actor_new(file, args->thread);
	if (!fresh)
		return -ENOMEM;
	if (!fresh->pid || !hh_is_thread(fresh->pid)) {
		hh_actor_put(fresh);
		return -ESRCH;
	}

	spin_lock(&hh_gates_lock);
	ret = hh_actor_add(fresh);
	actor = ret ? hh_actor_find(file, fresh->pid) : fresh;
	if (actor) {
		actor->armed = args->gate;
		actor->skip = args->skip;
		actor->patience = msecs_to_jiffies(args->time);
		actor->device = args->flags & HMM_HARNESS_GATE_ANY_DEVICE ?
				NULL : file->device;
	}
	spin_unlock(&hh_gates_lock);
	if (actor != fresh)
		hh_actor_put(fresh);
	return actor ? 0 : ret;
}

/* Whether there is nothing to wait for: it is parked, or will not be. */
static bool hh_actor_settled(struct hh_actor *actor)
{
	bool settled;

	spin_lock(&hh_gates_lock);
	settled = actor->parked ? !actor->go : !actor->armed;
	spin_unlock(&hh_gates_lock);
	return settled;
}

/* Takes what an actor came by, the oldest that is known first. */
static u32 hh_copy_trace(const struct hh_actor *actor, u64 *to)
{
	u64 n = min_t(u64, actor->passed, HMM_HARNESS_GATE_TRACE);
	u64 i;

	lockdep_assert_held(&hh_gates_lock);
	for (i = 0; i < n; i++)
		to[i] = actor->trace[(actor->passed - n + i) %
				     HMM_HARNESS_GATE_TRACE];
	return n;
}

/**
 * hh_gate_wait() - HMM_HARNESS_GATE_WAIT
 * @file: who wants that
 * @args: what the caller asked for
 *
 * Return: 0, -EINVAL, -ENOENT, -EINTR, -EFAULT or -ENOMEM
 */
int hh_gate_wait(struct hh_file *file, struct hmm_harness_gate *args)
{
	struct hh_actor *actor;
	u64 *trace = NULL;
	int ret = -ENOMEM;
	u32 n = 0;

	if (args->gate || args->skip || args->time > HMM_HARNESS_GATE_MAX_TIME)
		return -EINVAL;
	actor = hh_actor_get(file, args->thread);
	if (!actor)
		return -ENOENT;
	if (args->trace) {
		trace = kcalloc(HMM_HARNESS_GATE_TRACE, sizeof(*trace),
				GFP_KERNEL);
		if (!trace)
			goto put;
	}
	ret = -EINTR;
	if (args->time &&
	    wait_event_killable_timeout(actor->wait, hh_actor_settled(actor),
					msecs_to_jiffies(args->time)) < 0)
		goto put;
	ret = 0;
	spin_lock(&hh_gates_lock);
	args->parked = actor->go ? 0 : actor->parked;
	args->armed = actor->armed;
	args->passed = actor->passed;
	args->expired = actor->expired;
	if (trace)
		n = hh_copy_trace(actor, trace);
	spin_unlock(&hh_gates_lock);
	if (n && copy_to_user(u64_to_user_ptr(args->trace), trace,
			      n * sizeof(*trace)))
		ret = -EFAULT;
put:
	kfree(trace);
	hh_actor_put(actor);
	return ret;
}

/**
 * hh_gate_release() - HMM_HARNESS_GATE_RELEASE
 * @file: who wants that
 * @args: what the caller asked for
 *
 * Return: 0, -EINVAL or -ENOENT
 */
int hh_gate_release(struct hh_file *file, struct hmm_harness_gate *args)
{
	struct hh_actor *actor;

	if (args->gate || args->skip || args->time || args->trace)
		return -EINVAL;
	actor = hh_actor_get(file, args->thread);
	if (!actor)
		return -ENOENT;
	spin_lock(&hh_gates_lock);
	hh_actor_let_go(actor);
	spin_unlock(&hh_gates_lock);
	hh_actor_put(actor);
	return 0;
}

/**
 * hh_gates_close() - let go of all threads that a file has under control
 * @file: the file, which nobody uses any more
 */
void hh_gates_close(const struct hh_file *file)
{
	struct hh_actor *actor, *next;
	LIST_HEAD(gone);

	spin_lock(&hh_gates_lock);
	list_for_each_entry_safe(actor, next, &hh_actors, link) {
		if (actor->file != file)
			continue;
		actor->armed = 0;
		hh_actor_let_go(actor);
		list_move(&actor->link, &gone);
		atomic_dec(&hh_actors_count);
	}
	spin_unlock(&hh_gates_lock);
	list_for_each_entry_safe(actor, next, &gone, link)
		hh_actor_put(actor);
}
