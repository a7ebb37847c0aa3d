// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of the deterministic machine (harness/target/clockwork.py), which has no disk, no network and
 * nobody to talk to: all that it does is in the initramfs, and all that it has to say goes out over a serial port.
 *
 *   /hmm_harness.ko   the module
 *   /wrong            names of mistakes for it to make, or nothing
 *   /executor         runs requests
 *   /rounds           requests, each behind its length, a uint32_t
 *
 * Runs one request after the other, and powers off. What goes out are frames: four letters, the length, a uint32_t,
 * and the data.
 *
 *   HAVE   names of what the kernel, the module and the executor have
 *   CPUS   how many there are, as text
 *   SECT   where the module is, as `head -n 1` prints the files of its sections
 *   LOGS   records of /dev/kmsg, each ending with a newline
 *   LOST   records are missing here
 *   RESP   of a round: the executor's response
 *   SAID   of a round: what the executor printed
 *   EVNT   of a round: the module's netlink messages, from the answer to subscribing to the answer to unsubscribing
 *   TNTD   the taint, as text, before the first round, and after each, which ends with this
 *   FAIL   why nothing more comes
 *   DONE   all is done
 *
 * Nothing here may depend on anything that is not the same the next time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "family.h"
#include "wire.h"

#define PORT "/dev/ttyS1"
#define PARAMETERS "/sys/module/hmm_harness/parameters"
#define SECTIONS "/sys/module/hmm_harness/sections"
#define RECORD_BYTES 8192	/* kernel/printk, PRINTKRB_RECORD_MAX and its prefix */
#define TEXT_BYTES 65536
#define EVENTS_BYTES (8 << 20)	/* of a round; what is more is missing among the numbers */
#define ROOM_BYTES (16 << 20)	/* in the kernel, until we read */

static int port = -1;
static int kernel_log = -1;

static void put(const void *data, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t count = write(port, (const char *)data + done, length - done);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return; /* nobody is left to be told */
		done += count;
	}
}

static void tell(const char *what, const void *data, uint32_t length)
{
	put(what, 4);
	put(&length, sizeof(length));
	put(data, length);
}

_Noreturn static void power_off(void)
{
	if (port >= 0)
		tcdrain(port);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

_Noreturn __attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	char text[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	dprintf(STDERR_FILENO, "hmm-init: fatal: %s\n", text);
	if (port >= 0)
		tell("FAIL", text, strlen(text));
	power_off();
}

static void fail_at(const char *what)
{
	fail("%s: %s", what, strerror(errno));
}

/* A small file as text; an empty one where there is none */
static size_t load(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[length < 0 ? 0 : length] = '\0';
	return length < 0 ? 0 : length;
}

static void tell_log(void)
{
	static char text[TEXT_BYTES];
	size_t length = 0;

	for (;;) {
		ssize_t count = read(kernel_log, text + length, RECORD_BYTES);

		if (count < 0 && errno == EPIPE) {
			tell("LOST", "", 0);
			continue;
		}
		if (count <= 0)
			break;
		length += count;
		if (length > sizeof(text) - RECORD_BYTES) {
			tell("LOGS", text, length);
			length = 0;
		}
	}
	if (length)
		tell("LOGS", text, length);
}

static void mount_all(void)
{
	static const struct {
		const char *type;
		const char *target;
	} mounts[] = {
		{ "devtmpfs", "/dev" }, { "proc", "/proc" }, { "sysfs", "/sys" },
		{ "tmpfs", "/dev/shm" }, { "tmpfs", "/run" }, { "tmpfs", "/tmp" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].target, 0755);
		if (mount(mounts[i].type, mounts[i].target, mounts[i].type, 0, NULL) && errno != EBUSY)
			fail_at(mounts[i].target);
	}
}

/* Nothing changes page tables on its own: as the other init does. */
static void hush_khugepaged(void)
{
	int fd = open("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return; /* a kernel without it */
	dprintf(fd, "%u", UINT_MAX);
	close(fd);
}

static void open_port(void)
{
	struct termios settings;

	port = open(PORT, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (port < 0 || tcgetattr(port, &settings))
		fail_at(PORT);
	cfmakeraw(&settings);
	cfsetspeed(&settings, B115200);
	if (tcsetattr(port, TCSANOW, &settings))
		fail_at(PORT);
}

static void load_module(void)
{
	int fd = open("/hmm_harness.ko", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		fail_at("the kernel does not load the module");
	close(fd);
}

static void make_mistakes(void)
{
	char names[4096];
	size_t length = load("/wrong", names, sizeof(names));
	int fd;

	if (!length)
		return;
	fd = open(PARAMETERS "/wrong", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, names, length) != (ssize_t)length)
		fail_at("the module refuses the mistakes");
	close(fd);
}

/* Starts the executor; its standard streams are what there is of @files */
static pid_t start(const int files[3], char *const command[])
{
	pid_t pid = fork();

	if (pid < 0)
		fail_at("fork");
	if (pid)
		return pid;
	for (int i = 0; i < 3; i++)
		if (files[i] >= 0)
			dup2(files[i], i);
	execv(command[0], command);
	_exit(127);
}

static void tell_features(void)
{
	char *const command[] = { "/executor", "features", NULL };
	static char text[TEXT_BYTES];
	size_t length = load(PARAMETERS "/features", text, sizeof(text));
	int out = memfd_create("features", 0);
	int status;
	ssize_t count;

	if (out < 0 || waitpid(start((int[]){ -1, out, -1 }, command), &status, 0) < 0 || status)
		fail("`executor features` failed");
	text[length++] = ' ';
	count = pread(out, text + length, sizeof(text) - length, 0);
	close(out);
	tell("HAVE", text, length + (count < 0 ? 0 : count));
}

static void tell_cpus(void)
{
	char text[32];

	tell("CPUS", text, snprintf(text, sizeof(text), "%ld", sysconf(_SC_NPROCESSORS_ONLN)));
}

static void tell_sections(void)
{
	static const char *const names[] = { ".text", ".data", ".bss" };
	char text[1024], path[64], address[64];
	int length = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), SECTIONS "/%s", names[i]);
		if (load(path, address, sizeof(address)))
			length += snprintf(text + length, sizeof(text) - length, "==> %s <==\n%s\n", names[i], address);
	}
	tell("SECT", text, length);
}

/* The module's events: a socket, the family, and what came */
static struct {
	int fd;
	uint16_t family;
	uint32_t sequence;
	size_t length;
	char heard[EVENTS_BYTES];
} events;

static void open_events(void)
{
	int room = ROOM_BYTES;

	events.family = find_family();
	events.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (!events.family || events.fd < 0)
		fail("no events can be heard: is the module loaded?");
	setsockopt(events.fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
}

/* Sends a command, and keeps all that comes up to its acknowledgement */
static void ask(uint8_t command)
{
	struct {
		struct nlmsghdr head;
		struct genlmsghdr genl;
	} message = {
		.head = {
			.nlmsg_len = sizeof(message),
			.nlmsg_type = events.family,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
			.nlmsg_seq = ++events.sequence,
		},
		.genl = { .cmd = command, .version = HMM_HARNESS_FAMILY_VERSION },
	};
	static char datagram[TEXT_BYTES] __attribute__((aligned(4)));
	const struct nlmsghdr *head = (const void *)datagram;

	if (send(events.fd, &message, sizeof(message), 0) != sizeof(message))
		fail_at("the module's events");
	for (;;) {
		ssize_t size = recv(events.fd, datagram, sizeof(datagram), 0);

		if (size < 0 && (errno == ENOBUFS || errno == EINTR))
			continue; /* a gap in the numbers */
		if (size < (ssize_t)sizeof(*head))
			fail_at("the module's events");
		if (head->nlmsg_type == NLMSG_ERROR && head->nlmsg_seq == events.sequence)
			return;
		if (events.length + size > sizeof(events.heard))
			continue;
		memcpy(events.heard + events.length, datagram, size);
		events.length += size;
	}
}

static struct {
	pid_t pid;
	int input;
	int output;
	int errors;
	off_t said;
} executor;

static void start_executor(void)
{
	char *const command[] = { "/executor", NULL };
	int requests[2], responses[2];

	executor.errors = memfd_create("errors", MFD_CLOEXEC);
	if (executor.errors < 0 || pipe2(requests, O_CLOEXEC) || pipe2(responses, O_CLOEXEC))
		fail_at("a pipe");
	executor.pid = start((int[]){ requests[0], responses[1], executor.errors }, command);
	close(requests[0]);
	close(responses[1]);
	executor.input = requests[1];
	executor.output = responses[0];
}

static void tell_remarks(void)
{
	char text[4096];
	ssize_t count = pread(executor.errors, text, sizeof(text), executor.said);

	if (count <= 0)
		return;
	executor.said += count;
	tell("SAID", text, count);
}

_Noreturn static void executor_died(void)
{
	int status = 0;

	waitpid(executor.pid, &status, 0);
	tell_remarks();
	tell_log();
	fail("the executor ended with wait status %#x instead of answering", status);
}

static void receive(void *data, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t count = read(executor.output, (char *)data + done, length - done);

		if (count <= 0 && !(count < 0 && errno == EINTR))
			executor_died();
		done += count < 0 ? 0 : count;
	}
}

static void run(const char *request, uint32_t size)
{
	static char response[WIRE_MAX_RESPONSE];
	struct wire_outcome *outcome = (void *)response;

	for (uint32_t done = 0; done < size;) {
		ssize_t count = write(executor.input, request + done, size - done);

		if (count < 0 && errno != EINTR)
			executor_died();
		done += count < 0 ? 0 : count;
	}
	receive(outcome, sizeof(*outcome));
	if (outcome->length < sizeof(*outcome) || outcome->length > sizeof(response))
		fail("the executor's response makes no sense");
	receive(outcome + 1, outcome->length - sizeof(*outcome));
	tell("RESP", response, outcome->length);
}

static void tell_taint(void)
{
	char taint[64];

	tell("TNTD", taint, load("/proc/sys/kernel/tainted", taint, sizeof(taint)));
}

static void run_all(void)
{
	uint32_t number = 0, size;
	char mark[64]; /* dprintf() would look for its position in the file first, which this one has not */
	FILE *file = fopen("/rounds", "re");

	if (!file)
		fail_at("/rounds");
	while (fread(&size, sizeof(size), 1, file) == 1) {
		char *request = malloc(size);

		if (!request || fread(request, size, 1, file) != 1)
			fail("/rounds ends in the middle of a request");
		events.length = 0;
		ask(HMM_HARNESS_CMD_SUBSCRIBE);
		/* A debugger may stop here: harness/target/clockwork.py */
		if (write(kernel_log, mark, snprintf(mark, sizeof(mark), "<6>hmm-init: round %u", ++number)) < 0)
			fail_at("/dev/kmsg");
		run(request, size);
		ask(HMM_HARNESS_CMD_UNSUBSCRIBE);
		tell("EVNT", events.heard, events.length);
		tell_remarks();
		tell_log();
		tell_taint();
		free(request);
	}
	fclose(file);
}

int main(void)
{
	if (getpid() != 1) {
		fputs("hmm-init: this is for pid 1 of the guest\n", stderr);
		return 2;
	}
	mount_all();
	hush_khugepaged();
	open_port();
	kernel_log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (kernel_log < 0)
		fail_at("/dev/kmsg");
	tell_cpus();
	load_module();
	tell_features();
	tell_sections();
	make_mistakes();
	open_events();
	start_executor();
	tell_log();
	tell_taint();
	run_all();
	tell("DONE", "", 0);
	power_off();
}
