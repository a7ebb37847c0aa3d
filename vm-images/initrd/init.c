// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of a kernel that has its drivers as modules: loads those
 * that the root file system needs, in the order of /order, mounts it, and hands
 * over to its /sbin/init. It speaks on the console only, each line starting with
 * "hmm-init: ", as the guest's own init does; what it cannot do without is said
 * there before the machine is powered off.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DISK "/dev/vda"
#define ROOT "/root"
#define PATIENCE 3000	/* times 10 ms for the disk to appear */

static void fatal(const char *what)
{
	dprintf(STDERR_FILENO, "hmm-init: fatal: %s: %s\n", what, strerror(errno));
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fatal(path);
	/* a driver without its device may say ENODEV */
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST && errno != ENODEV)
		fatal(path);
	close(fd);
}

static void load_all(void)
{
	FILE *order = fopen("/order", "r");
	char path[256];

	if (!order)
		fatal("/order");
	while (fgets(path, sizeof(path), order)) {
		path[strcspn(path, "\n")] = '\0';
		load(path);
	}
	fclose(order);
}

static bool await(const char *path)
{
	const struct timespec moment = { .tv_nsec = 10 * 1000 * 1000 };

	for (int i = 0; i < PATIENCE; i++) {
		if (!access(path, F_OK))
			return true;
		nanosleep(&moment, NULL);
	}
	return false;
}

int main(void)
{
	char *const command[] = { "/sbin/init", NULL };
	char *const environment[] = { NULL };

	if (getpid() != 1) {
		fputs("hmm-init: this is for pid 1 of the guest\n", stderr);
		return 2;
	}
	mkdir("/dev", 0755);
	/* EBUSY: the kernel has mounted it already */
	if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL) && errno != EBUSY)
		fatal("/dev");
	load_all();
	if (!await(DISK))
		fatal(DISK);
	mkdir(ROOT, 0755);
	if (mount(DISK, ROOT, "erofs", MS_RDONLY, NULL))
		fatal(ROOT);
	if (mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL))
		fatal("moving /dev");
	if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fatal("changing the root");
	execve(command[0], command, environment);
	fatal(command[0]);
}
