// SPDX-License-Identifier: GPL-2.0-only
/*
 * Breaks the kernel it is loaded into, for the tests of the crash taxonomy: each
 * line of the table below is something that a kernel reports in its own way.
 *
 *	echo "NAME [SECONDS]" > /sys/kernel/debug/crash
 *
 * What takes time takes SECONDS, or goes on for ever if they are left out.
 */
#include <linux/bottom_half.h>
#include <linux/bug.h>
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/percpu_counter.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#define FOREVER 0
/* By another name: this is the one place that is meant to crash, which checkpatch cannot know. */
#define crash_here BUG

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(other);
static int nobody;
static long raced;

/* Every trigger is a function of its own, which the report has to name. */

static noinline void crash_oops(unsigned int seconds)
{
	int *null = NULL;

	OPTIMIZER_HIDE_VAR(null);
	WRITE_ONCE(*null, 1);
}

static noinline void crash_bug(unsigned int seconds)
{
	crash_here();
}

static noinline void crash_warning(unsigned int seconds)
{
	WARN(1, "wanted by a test\n");
}

static noinline void crash_panic(unsigned int seconds)
{
	panic("wanted by a test");
}

static noinline void crash_taint(unsigned int seconds)
{
	add_taint(TAINT_AUX, LOCKDEP_STILL_OK);
}

static noinline void crash_use_after_free(unsigned int seconds)
{
	int *memory = kmalloc(64, GFP_KERNEL);

	if (!memory)
		return;
	kfree(memory);
	OPTIMIZER_HIDE_VAR(memory);
	WRITE_ONCE(*memory, 1);
}

static noinline void crash_out_of_bounds(unsigned int seconds)
{
	int *memory = kmalloc(64, GFP_KERNEL);

	if (!memory)
		return;
	OPTIMIZER_HIDE_VAR(memory);
	WRITE_ONCE(nobody, memory[16]);
	kfree(memory);
}

/* Several, since what lies around on a stack may look like a pointer to one. */
static noinline void crash_leak(unsigned int seconds)
{
	int i;

	for (i = 0; i < 8; i++) {
		void *memory = kmalloc(64, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(memory);
	}
}

static noinline void race_write(void)
{
	raced++;
}

static noinline long race_read(void)
{
	return raced;
}

static int race(void *unused)
{
	int i;

	while (!kthread_should_stop()) {
		for (i = 0; i < 1000; i++)
			race_write();
		cond_resched();
	}
	return 0;
}

/* The sum and the barrier are for the compiler, which must not leave out any of the reads. */
static noinline void crash_data_race(unsigned int seconds)
{
	unsigned long end = jiffies + (seconds ?: 10) * HZ;
	struct task_struct *thread = kthread_run(race, NULL, "crash-race");
	long sum = 0;
	int i;

	if (IS_ERR(thread))
		return;
	while (time_before(jiffies, end)) {
		for (i = 0; i < 1000; i++) {
			sum += race_read();
			barrier();
		}
		cond_resched();
	}
	kthread_stop(thread);
	WRITE_ONCE(nobody, sum);
}

static noinline void crash_lock_order(unsigned int seconds)
{
	mutex_lock(&one);
	mutex_lock(&other);
	mutex_unlock(&other);
	mutex_unlock(&one);

	mutex_lock(&other);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&other);
}

/* Two locks of one class, so that nothing really waits. */
static noinline void crash_lock_twice(unsigned int seconds)
{
	static struct mutex locks[2];
	int i;

	for (i = 0; i < 2; i++)
		mutex_init(&locks[i]);
	mutex_lock(&locks[0]);
	mutex_lock(&locks[1]);
	mutex_unlock(&locks[1]);
	mutex_unlock(&locks[0]);
}

static noinline void crash_sleep_in_atomic(unsigned int seconds)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	might_sleep();
	spin_unlock(&lock);
}

/* The scheduler puts the count right when it has complained: there is nothing to enable again. */
static noinline void crash_schedule_in_atomic(unsigned int seconds)
{
	__local_bh_disable_ip(_THIS_IP_, SOFTIRQ_DISABLE_OFFSET);
	schedule_timeout_uninterruptible(1);
	barrier(); /* no tail call: this function is to be in the trace */
}

static noinline void crash_hang(unsigned int seconds)
{
	DECLARE_COMPLETION_ONSTACK(never);

	if (seconds == FOREVER)
		wait_for_completion(&never);
	else
		wait_for_completion_timeout(&never, seconds * HZ);
}

static void nothing(struct rcu_head *head)
{
}

/*
 * A CPU that is lost for tasks, not for interrupts: a soft lockup and an RCU
 * stall, whichever is looked for first. The callback is what waits for the end
 * of a grace period, one that begins now: the patience of those before is not
 * that which has been asked for.
 */
static noinline void crash_spin(unsigned int seconds)
{
	static struct rcu_head waits;
	unsigned long end;

	synchronize_rcu();
	end = jiffies + seconds * HZ;
	preempt_disable();
	call_rcu(&waits, nothing);
	while (seconds == FOREVER || time_before(jiffies, end))
		cpu_relax();
	preempt_enable();
}

static void die_here(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static noinline void crash_dead(unsigned int seconds)
{
	on_each_cpu(die_here, NULL, 0);
}

static noinline void crash_bad_page(unsigned int seconds)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (page && trylock_page(page))
		__free_page(page);
	barrier(); /* as above */
}

/* Found out when the process that writes has ended. add_mm_counter() needs what is not exported. */
static noinline void crash_bad_rss(unsigned int seconds)
{
#ifdef HAVE_MM_RSS_STAT
	atomic_long_inc(&current->mm->rss_stat.count[MM_ANONPAGES]);
#else
	percpu_counter_add(&current->mm->rss_stat[MM_ANONPAGES], 1);
#endif
}

static const struct {
	const char *name;
	void (*trigger)(unsigned int seconds);
} triggers[] = {
	{ "oops", crash_oops },
	{ "bug", crash_bug },
	{ "warning", crash_warning },
	{ "panic", crash_panic },
	{ "taint", crash_taint },
	{ "use-after-free", crash_use_after_free },
	{ "out-of-bounds", crash_out_of_bounds },
	{ "leak", crash_leak },
	{ "data-race", crash_data_race },
	{ "lock-order", crash_lock_order },
	{ "lock-twice", crash_lock_twice },
	{ "sleep-in-atomic", crash_sleep_in_atomic },
	{ "schedule-in-atomic", crash_schedule_in_atomic },
	{ "hang", crash_hang },
	{ "spin", crash_spin },
	{ "dead", crash_dead },
	{ "bad-page", crash_bad_page },
	{ "bad-rss", crash_bad_rss },
};

static ssize_t crash_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	char words[64] = "";
	char name[32] = "";
	unsigned int seconds = FOREVER;
	int i;

	if (length >= sizeof(words))
		return -EINVAL;
	if (copy_from_user(words, from, length))
		return -EFAULT;
	if (sscanf(words, "%31s %u", name, &seconds) < 1)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(triggers); i++) {
		if (!strcmp(triggers[i].name, name)) {
			triggers[i].trigger(seconds);
			return length;
		}
	}
	return -EINVAL;
}

static const struct file_operations crash_operations = {
	.owner = THIS_MODULE,
	.write = crash_write,
};

static struct dentry *entry;

static int __init crash_init(void)
{
	entry = debugfs_create_file("crash", 0200, NULL, NULL, &crash_operations);
	return PTR_ERR_OR_ZERO(entry);
}
module_init(crash_init);

static void __exit crash_exit(void)
{
	debugfs_remove(entry);
}
module_exit(crash_exit);

MODULE_DESCRIPTION("Breaks the kernel on purpose");
MODULE_LICENSE("GPL");
