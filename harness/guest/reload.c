// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kills who uses hmm_harness at any moment, unloads the module, and loads it
 * again, many times.
 *
 *   reload -m MODULE [-n rounds] [-s seed] [-x EXECUTOR -q REQUEST]
 *
 *   -m  the module's file, with which it is loaded again
 *   -x  an executor, which is run as well, with the request in the file of -q
 *
 * In each round there are
 *
 *  - subjects: processes of two threads and sometimes a child, each bound to one
 *    or two devices, that write, fault, migrate and evict as fast as they can;
 *  - a listener, which hears all events;
 *  - an executor: its front, its worker, and its subjects;
 *  - a survivor, whose memory lives in a device that it has closed.
 *
 * All but the survivor are killed, one after the other, after a while that is
 * different each time. Meanwhile an unload is tried, which must be refused, since
 * a node is open. Then
 *
 *  - nobody uses the module, and it goes;
 *  - with it go its nodes, its debugfs directory and its addresses in
 *    /proc/iomem;
 *  - the survivor's memory holds what it wrote;
 *  - the module can be loaded, and no page of any device is in use.
 *
 * Where failures can be injected, the module is loaded once before, with
 * something failing in that, which must leave nothing behind either. In the end
 * the kernel has as much memory available as after the first rounds, nearly; for
 * what is smaller there is kmemleak.
 *
 * Exit status: 0 if all of that held; 1 otherwise, with the reason; 2 for a wrong
 * command line or a missing device. Whether the kernel had something to say is
 * for the caller to look up in its log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "devices.h"
#include "family.h"
#include "fault_injection.h"
#include "hmm_harness.h"

#define PAGE 4096UL
#define PAGES 64UL
#define REGION ((char *)0x100000000000UL)
#define SUBJECTS 4
#define NAME "hmm_harness"
/* What was killed is gone after so many seconds, and what it had is closed. */
#define PATIENCE 60
/*
 * What the kernel may have less in the end, in KiB: free pages that each CPU
 * keeps for itself come and go, among them some of 2 MiB, and do not count as
 * available.
 */
#define TOLERANCE 16384L

static struct device devices[MAX_DEVICES];
static unsigned int device_count;
static uint64_t random_state;
static unsigned int round_number;

/* splitmix64 */
static uint64_t rnd(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static uint64_t below(uint64_t n)
{
	return rnd() % n;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void wait_a_while(unsigned int most_us)
{
	usleep(below(most_us));
}

#define fail(format, ...)                                                                               \
	do {                                                                                            \
		printf("reload: round %u: " format "\n", round_number, ##__VA_ARGS__);                  \
		exit(1);                                                                                \
	} while (0)

/* -- who is killed ------------------------------------------------------------------------------------------- */

static void range(int fd, unsigned long command, uint32_t flags, void *data)
{
	struct hmm_harness_range args = {
		.size = sizeof(args),
		.flags = flags,
		.addr = (uintptr_t)REGION,
		.npages = PAGES,
		.data = (uintptr_t)data,
	};

	/* Whatever comes of it: others are at the same memory. */
	ioctl(fd, command, &args);
}

static void write_region(void)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		*(volatile uint64_t *)(REGION + i * PAGE) = i + 1;
}

static void map_region(void)
{
	if (mmap(REGION, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	    MAP_FAILED)
		_exit(3);
	write_region();
}

static int bound_file(const struct device *device)
{
	struct hmm_harness_bind bind = { .size = sizeof(bind) };
	int fd = open(device->node, O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, HMM_HARNESS_BIND, &bind))
		_exit(3);
	return fd;
}

/* A thread that works for the others */
static void *touch_for_ever(void *argument)
{
	(void)argument;
	for (;;)
		write_region();
	return NULL;
}

static void use_device(int fd)
{
	static char data[PAGES * PAGE];
	struct hmm_harness_evict evict = { .size = sizeof(evict) };
	struct hmm_harness_watch watch = {
		.size = sizeof(watch), .addr = (uintptr_t)REGION, .npages = 1 + below(PAGES),
	};

	switch (below(10)) {
	case 0:
	case 1:
	case 2:
		range(fd, HMM_HARNESS_MIGRATE, HMM_HARNESS_MIGRATE_TO_DEVICE, NULL);
		break;
	case 3:
		range(fd, HMM_HARNESS_MIGRATE, HMM_HARNESS_MIGRATE_TO_SYSTEM, NULL);
		break;
	case 4:
	case 5:
		range(fd, HMM_HARNESS_FAULT, HMM_HARNESS_FAULT_WRITE, NULL);
		break;
	case 6:
		range(fd, HMM_HARNESS_READ, 0, data);
		break;
	case 7:
		range(fd, HMM_HARNESS_WRITE, 0, data);
		break;
	case 8:
		ioctl(fd, HMM_HARNESS_WATCH, &watch);
		break;
	case 9:
		ioctl(fd, HMM_HARNESS_EVICT, &evict);
		break;
	}
}

_Noreturn static void subject(void)
{
	int files[2];
	pthread_t thread;

	map_region();
	files[0] = bound_file(&devices[below(device_count)]);
	files[1] = below(2) ? bound_file(&devices[below(device_count)]) : files[0];
	if (pthread_create(&thread, NULL, touch_for_ever, NULL))
		_exit(3);
	for (;;) {
		use_device(files[below(2)]);
		if (!below(16))
			madvise(REGION + below(PAGES) * PAGE, PAGE, MADV_DONTNEED);
		if (!below(16) && fork() == 0) {
			/* Has the device's pages, and its file; the next to be killed, or by then gone. */
			prctl(PR_SET_PDEATHSIG, below(2) ? SIGKILL : 0);
			write_region();
			usleep(below(20000));
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

_Noreturn static void listener(void)
{
	int fd = listen_to(find_family());

	if (fd < 0)
		_exit(3);
	for (;;) {
		hear(fd);
		usleep(1000);
	}
}

/* -- who is not: its memory lives on in a device that nobody has open --------------------------------------- */

static struct {
	pid_t pid;
	int said;	/* a byte when it is in place */
	int go;		/* closed when the module is gone */
} survivor;

static void survive(int said, int go)
{
	char byte = 0;
	unsigned long i;
	int fd;

	map_region();
	fd = bound_file(&devices[below(device_count)]);
	range(fd, HMM_HARNESS_MIGRATE, HMM_HARNESS_MIGRATE_TO_DEVICE, NULL);
	close(fd);
	if (write(said, &byte, 1) != 1 || read(go, &byte, 1))
		_exit(3);
	for (i = 0; i < PAGES; i++)
		if (*(volatile uint64_t *)(REGION + i * PAGE) != i + 1)
			_exit(4);
	_exit(0);
}

static void start_survivor(void)
{
	int said[2], go[2];
	char byte;

	if (pipe2(said, O_CLOEXEC) || pipe2(go, O_CLOEXEC))
		fail("pipe: %s", strerror(errno));
	survivor.pid = fork();
	if (!survivor.pid) {
		setpgid(0, 0);
		close(go[1]);
		survive(said[1], go[0]);
	}
	close(said[1]);
	close(go[0]);
	survivor.said = said[0];
	survivor.go = go[1];
	if (survivor.pid < 0 || read(survivor.said, &byte, 1) != 1)
		fail("the survivor did not begin");
}

static void end_survivor(void)
{
	int status;

	close(survivor.go);
	close(survivor.said);
	if (waitpid(survivor.pid, &status, 0) != survivor.pid)
		fail("the survivor is gone");
	if (WIFSIGNALED(status))
		fail("the survivor died of %s", strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status))
		fail("the survivor's memory is not what it wrote");
}

/* -- the executor -------------------------------------------------------------------------------------------- */

static pid_t start_executor(const char *program, const char *request)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (dup2(open(request, O_RDONLY), STDIN_FILENO) < 0 || dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO) < 0)
		_exit(3);
	execl(program, program, NULL);
	_exit(3);
}

/* The last child of @pid that there is now, or @pid */
static pid_t some_child(pid_t pid)
{
	char path[64], text[256] = "";
	pid_t child = pid;
	char *at = text, *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pid;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	for (;;) {
		long number = strtol(at, &end, 10);

		if (end == at)
			return child;
		child = number;
		at = end;
	}
}

/* The front, the worker, or a subject. What is asked for may end in between: then nothing is killed. */
static void kill_of_executor(pid_t front)
{
	pid_t victim = front;
	unsigned int depth;

	for (depth = below(3); depth; depth--)
		victim = some_child(victim);
	kill(victim, SIGKILL);
}

/* -- the module ---------------------------------------------------------------------------------------------- */

/* Returns the size, and makes it a string. */
static size_t slurp(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t part;

	text[0] = '\0';
	if (fd < 0)
		return 0;
	while (length < room - 1 && (part = read(fd, text + length, room - 1 - length)) > 0)
		length += part;
	text[length] = '\0';
	close(fd);
	return length;
}

static long users(void)
{
	char text[32];

	return slurp("/sys/module/" NAME "/refcnt", text, sizeof(text)) ? strtol(text, NULL, 10) : -1;
}

/* MemAvailable in KiB, when all that can be dropped is */
static long available(void)
{
	char text[4096];
	const char *at;

	put("/proc/sys/vm/drop_caches", "3");
	slurp("/proc/meminfo", text, sizeof(text));
	at = strstr(text, "MemAvailable:");
	return at ? strtol(at + strlen("MemAvailable:"), NULL, 10) : 0;
}

static char coherent[128];	/* the parameter that makes devices with coherent memory, if there are any */

/* Before it goes the first time */
static void keep_coherent(void)
{
	char addresses[64];

	if (slurp("/sys/module/" NAME "/parameters/coherent_addr", addresses, sizeof(addresses)) > 1)
		snprintf(coherent, sizeof(coherent), " coherent_addr=%.*s", (int)strcspn(addresses, "\n"), addresses);
}

static int load(const char *module, const char *some)
{
	int fd = open(module, O_RDONLY | O_CLOEXEC);
	char parameters[256];
	int error;

	if (fd < 0)
		fail("%s: %s", module, strerror(errno));
	snprintf(parameters, sizeof(parameters), "%s%s", some, coherent);
	error = syscall(SYS_finit_module, fd, parameters, 0) ? errno : 0;
	close(fd);
	return error;
}

static int unload(void)
{
	return syscall(SYS_delete_module, NAME, O_NONBLOCK) ? errno : 0;
}

static char iomem[16384];	/* as it is without the module */

static void check_gone(const char *when)
{
	static char text[sizeof(iomem)];

	if (!access("/sys/module/" NAME, F_OK))
		fail("%s: the module is still there", when);
	if (!access("/sys/kernel/debug/" NAME, F_OK))
		fail("%s: its debugfs directory is still there", when);
	if (find_devices(devices))
		fail("%s: %s is still there", when, devices[0].node);
	slurp("/proc/iomem", text, sizeof(text));
	if (strcmp(text, iomem))
		fail("%s: /proc/iomem is\n%snot as it was before\n%s", when, text, iomem);
}

/* Returns how long it had to be tried: what was killed closes its files, but who waits for it need not see that. */
static double unload_soon(void)
{
	double begin = now();
	int error;

	while ((error = unload())) {
		if (error != EWOULDBLOCK)
			fail("the kernel does not unload the module: %s", strerror(error));
		if (now() - begin > PATIENCE)
			fail("the module is in use by %ld when all files are closed", users());
		usleep(1000);
	}
	return now() - begin;
}

/* One load in which something fails. Returns whether something did. */
static bool load_badly(const char *module, unsigned int nth)
{
	int fd = open(module, O_RDONLY | O_CLOEXEC);
	int fail_nth = failures_open();
	char parameters[256];
	bool failed, loaded;

	snprintf(parameters, sizeof(parameters), "devmem_mb=2%s", coherent);
	if (fd < 0 || fail_nth < 0 || !failure_arm(fail_nth, nth))
		fail("fail-nth: %s", strerror(errno));
	loaded = !syscall(SYS_finit_module, fd, parameters, 0);
	failed = failure_disarm(fail_nth);
	close(fail_nth);
	close(fd);
	if (loaded)
		unload_soon();
	check_gone("after a load that failed");
	return failed;
}

/* -- rounds -------------------------------------------------------------------------------------------------- */

/* Waits for all but the survivor, which is in a group of its own: children of those that were killed come to us. */
static void wait_for_all(void)
{
	double begin = now();
	pid_t pid;

	for (;;) {
		pid = waitpid(0, NULL, WNOHANG);
		if (pid < 0 && errno == ECHILD)
			return;
		if (now() - begin > PATIENCE)
			fail("a process does not end");
		if (!pid)
			usleep(500);
	}
}

static pid_t start(void (*run)(void))
{
	uint64_t seed = rnd();
	pid_t pid = fork();

	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	random_state = seed;
	run();
	_exit(0);
}

static void kill_all(pid_t *pids, unsigned int count)
{
	while (count) {
		unsigned int i = below(count);

		wait_a_while(4000);
		kill(pids[i], SIGKILL);
		pids[i] = pids[--count];
	}
}

static void check_refused(void)
{
	int fd = open(devices[below(device_count)].node, O_RDWR | O_CLOEXEC);
	int error;

	if (fd < 0)
		fail("a node cannot be opened: %s", strerror(errno));
	error = unload();
	if (!error)
		fail("the module was unloaded while a node was open");
	if (error != EWOULDBLOCK && error != EBUSY)
		fail("the unload of a module in use was refused with %s", strerror(error));
	if (users() < 1)
		fail("a node is open, and the module has %ld users", users());
	close(fd);
}

static void one_round(const char *module, const char *executor, const char *request)
{
	static const char *const parameters[] = { "devmem_mb=2", "devmem_mb=2", "", "devmem_mb=4 event_slots=8" };
	static unsigned int most = 8192; /* of the things that can fail while it is loaded */
	pid_t pids[SUBJECTS + 2];
	unsigned int count = 0, i;
	pid_t front = 0;
	int error;

	device_count = find_devices(devices);
	if (!device_count)
		fail("there are no devices");
	start_survivor();
	for (i = 0; i < SUBJECTS; i++)
		pids[count++] = start(subject);
	pids[count++] = start(listener);
	if (executor) {
		front = start_executor(executor, request);
		pids[count++] = front;
	}
	wait_a_while(20000);
	check_refused();
	if (front) {
		kill_of_executor(front);
		wait_a_while(10000);
	}
	kill_all(pids, count);
	wait_for_all();
	unload_soon();
	end_survivor();
	check_gone("after the unload");
	if (!access(FAIL_NTH, W_OK)) {
		unsigned int nth = 1 + below(most);

		if (!load_badly(module, nth))
			most = nth;
	}
	error = load(module, parameters[below(sizeof(parameters) / sizeof(parameters[0]))]);
	if (error)
		fail("the module does not load: %s", strerror(error));
	device_count = find_devices(devices);
	for (i = 0; i < device_count; i++)
		if (pages_in_use(&devices[i]))
			fail("%s: %lu pages in use by nobody", devices[i].node, pages_in_use(&devices[i]));
}

int main(int argc, char **argv)
{
	const char *module = NULL, *executor = NULL, *request = NULL;
	unsigned long rounds = 200, seed = time(NULL);
	long before = 0, after;
	unsigned int warm;
	int option, error;

	while ((option = getopt(argc, argv, "m:n:s:x:q:")) != -1) {
		switch (option) {
		case 'm':
			module = optarg;
			break;
		case 'n':
			rounds = strtoul(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoul(optarg, NULL, 0);
			break;
		case 'x':
			executor = optarg;
			break;
		case 'q':
			request = optarg;
			break;
		default:
			module = NULL;
			optind = argc + 1;
			break;
		}
	}
	if (optind != argc || !module || !executor != !request) {
		fprintf(stderr, "usage: reload -m MODULE [-n rounds] [-s seed] [-x EXECUTOR -q REQUEST]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("reload: %lu rounds, seed %lu\n", rounds, seed);
	if (!find_devices(devices)) {
		fprintf(stderr, "reload: no device: is " NAME " loaded?\n");
		return 2;
	}
	failures_prepare();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	random_state = seed;
	keep_coherent();
	unload_soon();
	slurp("/proc/iomem", iomem, sizeof(iomem));
	error = load(module, "devmem_mb=2");
	if (error)
		fail("the module does not load: %s", strerror(error));

	/* What the kernel sets aside for this in the first rounds it keeps. */
	warm = rounds < 20 ? rounds / 2 : 10;
	for (round_number = 1; round_number <= rounds; round_number++) {
		one_round(module, executor, request);
		if (round_number == warm)
			before = available();
	}
	after = available();
	printf("reload: %ld KiB available after round %u, %ld in the end\n", before, warm, after);
	if (before - after > TOLERANCE) {
		printf("reload: memory is missing\n");
		return 1;
	}
	printf("reload: passed\n");
	return 0;
}
