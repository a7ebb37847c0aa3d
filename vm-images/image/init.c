// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of the guest. It makes the read-only root usable, brings the
 * network up, starts the SSH server and the agent, collects the dead, and powers
 * off on SIGTERM. It speaks on the console only, each line starting with
 * "hmm-init: "; the host knows these lines. It never ends silently: what it
 * cannot do without is said there before the machine is powered off.
 *
 * In C and static, since a shell script of the same effect costs tenths of a
 * second of process starts on an emulated CPU.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What QEMU's user-mode network gives the first guest; see qemu(1), -netdev user. */
#define ADDRESS "10.0.2.15"
#define NETMASK "255.255.255.0"

static void say(const char *format, ...)
{
	char line[256];
	va_list arguments;
	int length;

	length = snprintf(line, sizeof(line), "hmm-init: ");
	va_start(arguments, format);
	length += vsnprintf(line + length, sizeof(line) - length, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	/* one write, so that the kernel's own lines cannot fall into this one */
	if (write(STDERR_FILENO, line, length) < 0)
		return;	/* no console: nobody is left to be told */
}

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	say("power off failed: %s", strerror(errno));
	for (;;)
		pause();
}

static void fatal(const char *what)
{
	say("fatal: %s: %s", what, strerror(errno));
	power_off();
}

static const struct {
	const char *type;
	const char *source;
	const char *target;
	const char *options;
	unsigned long flags;
	bool required;
} mounts[] = {
	{ "proc", "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true },
	{ "sysfs", "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true },
	{ "devpts", "devpts", "/dev/pts", "ptmxmode=0666", MS_NOSUID | MS_NOEXEC, true },
	{ "tmpfs", "shm", "/dev/shm", NULL, MS_NOSUID | MS_NODEV, true },
	{ "tmpfs", "run", "/run", "mode=0755", MS_NOSUID | MS_NODEV, true },
	{ "tmpfs", "tmp", "/tmp", NULL, MS_NOSUID | MS_NODEV, true },
	{ "tmpfs", "var", "/var", "mode=0755", MS_NOSUID | MS_NODEV, true },
	{ "erofs", "/dev/vdb", "/payload", NULL, MS_RDONLY | MS_NOSUID | MS_NODEV, true },
	/* not in every kernel */
	{ "debugfs", "debugfs", "/sys/kernel/debug", NULL, 0, false },
	{ "tracefs", "tracefs", "/sys/kernel/tracing", NULL, 0, false },
	{ "cgroup2", "cgroup2", "/sys/fs/cgroup", NULL, 0, false },
	{ "hugetlbfs", "hugetlbfs", "/dev/hugepages", NULL, 0, false },
};

static void mount_all(void)
{
	/* a kernel without DEVTMPFS_MOUNT leaves this to us */
	if (access("/dev/vda", F_OK) && mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL))
		fatal("/dev");
	mkdir("/dev/pts", 0755);
	mkdir("/dev/shm", 0755);
	mkdir("/dev/hugepages", 0755);
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		if (mount(mounts[i].source, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].options) &&
		    mounts[i].required)
			fatal(mounts[i].target);
	}
	/* the directories that /var has elsewhere */
	mkdir("/var/tmp", 01777);
	mkdir("/var/log", 0755);
	if (symlink("/run", "/var/run") || symlink("/proc/self/fd", "/dev/fd"))
		fatal("links");
}

static void set_interface(int fd, const char *name, const char *address, const char *mask)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *where = (struct sockaddr_in *)&request.ifr_addr;

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	where->sin_family = AF_INET;
	if (inet_pton(AF_INET, address, &where->sin_addr) != 1 || ioctl(fd, SIOCSIFADDR, &request))
		fatal(name);
	if (inet_pton(AF_INET, mask, &where->sin_addr) != 1 || ioctl(fd, SIOCSIFNETMASK, &request))
		fatal(name);
	if (ioctl(fd, SIOCGIFFLAGS, &request))
		fatal(name);
	request.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		fatal(name);
}

static void network_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fatal("socket");
	set_interface(fd, "lo", "127.0.0.1", "255.0.0.0");
	set_interface(fd, "eth0", ADDRESS, NETMASK);
	close(fd);
}

/* Nothing changes page tables on its own: khugepaged collapses when a program asks for it, not in between. */
static void hush_khugepaged(void)
{
	int fd = open("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return; /* a kernel without it */
	if (dprintf(fd, "%u", UINT_MAX) < 0)
		fatal("khugepaged");
	close(fd);
}

/*
 * Booting shows warnings only, since each line costs time; from now on all but
 * debugging is shown, the stack traces of blocked tasks among it.
 */
static void show_more(void)
{
	int fd = open("/proc/sys/kernel/printk", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "7", 1) != 1)
		say("the console's log level stays: %s", strerror(errno));
	close(fd);
}

static char *const environment[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root",
	"LANG=C.UTF-8",
	"PYTHONPATH=/payload",
	NULL,
};

/*
 * Starts a service; its output goes to the console, or to @log if there is one.
 */
static pid_t start(const char *program, char *const command[], const char *log)
{
	pid_t pid = fork();

	if (pid < 0)
		fatal(program);
	if (pid)
		return pid;
	setsid();
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (log) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);

		if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
			say("no log of %s: %s", program, strerror(errno));
	}
	execve(program, command, environment);
	say("cannot start %s: %s", program, strerror(errno));
	_exit(127);
}

int main(void)
{
	/*
	 * -F: stay in the foreground; -E: log to standard error; -s: no passwords.
	 * Its name is not its path: it then cannot execute itself anew for each
	 * connection, which costs more than all the rest of a connection.
	 */
	char *const dropbear[] = { "dropbear", "-F", "-E", "-s", "-r", "/etc/dropbear/host_key", NULL };
	/* -B: a read-only place for .pyc files is not worth trying */
	char *const agent[] = { "python3", "-B", "-m", "harness.guest.agent", NULL };
	struct { const char *name; pid_t pid; } services[2] = { { "dropbear", 0 }, { "agent", 0 } };
	sigset_t signals;

	if (getpid() != 1) {
		say("this is for pid 1 of the guest");
		return 2;
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	umask(022);
	mount_all();
	if (sethostname("hmm-guest", strlen("hmm-guest")))
		fatal("host name");
	hush_khugepaged();
	network_up();
	show_more();
	services[0].pid = start("/usr/sbin/dropbear", dropbear, "/run/dropbear.log");
	services[1].pid = start("/usr/bin/python3", agent, NULL);

	for (;;) {
		int signal, status;
		pid_t pid;

		if (sigwait(&signals, &signal))
			fatal("sigwait");
		if (signal == SIGTERM)
			power_off();
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			for (int i = 0; i < 2; i++) {
				if (pid != services[i].pid)
					continue;
				/* the host reads this line and takes the VM for lost */
				if (WIFSIGNALED(status))
					say("%s was killed by signal %d", services[i].name, WTERMSIG(status));
				else
					say("%s ended with status %d", services[i].name, WEXITSTATUS(status));
			}
		}
	}
}
