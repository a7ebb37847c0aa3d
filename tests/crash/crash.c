// SPDX-License-Identifier: GPL-2.0-only
/*
 * Breaks the kernel it is loaded into, for the tests of the watchdog:
 * `insmod crash.ko how=oops`. See break_kernel() for what there is.
 */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/string.h>

static char *how = "";
module_param(how, charp, 0400);
MODULE_PARM_DESC(how, "oops, bug, warning, panic, spin, sleep or dead");

static void die_here(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static int __init break_kernel(void)
{
	if (!strcmp(how, "oops"))
		WRITE_ONCE(*(int *)NULL, 1);
	else if (!strcmp(how, "bug"))
		BUG();
	else if (!strcmp(how, "warning"))
		WARN(1, "wanted by a test\n");
	else if (!strcmp(how, "panic"))
		panic("wanted by a test");
	else if (!strcmp(how, "spin")) {
		preempt_disable();
		for (;;)
			cpu_relax();
	} else if (!strcmp(how, "sleep")) {
		__set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	} else if (!strcmp(how, "dead")) {
		on_each_cpu(die_here, NULL, 0);
	} else {
		return -EINVAL;
	}
	return 0;
}
module_init(break_kernel);

MODULE_DESCRIPTION("Breaks the kernel on purpose");
MODULE_LICENSE("GPL");
