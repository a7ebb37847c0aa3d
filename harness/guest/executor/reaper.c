// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes the memory of a process that is being killed, as the OOM reaper does
 * (mm/oom_kill.c __oom_reap_task_mm()), at a moment of our own choosing: the
 * process is traced, and stops on its way out while it still has its memory.
 *
 * Nothing stays stopped: what is traced is killed and let go when the worker,
 * the tracer, ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

#define STOPPED_AT_EXIT (SIGTRAP | PTRACE_EVENT_EXIT << 8)

/* As often the OOM reaper tries when it is refused: MAX_OOM_REAP_RETRIES */
#define ATTEMPTS 10
#define BETWEEN_NS 1000000

/* Whether this kernel can. */
bool reaper_works(void)
{
	return syscall(SYS_process_mrelease, -1, 0) && errno == EBADF;
}

/* Kills @pid, a child. Returns when it has stopped on its way out. */
int reaper_kill(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)(PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL)))
		return errno;
	if (kill(pid, SIGKILL))
		return errno;
	while (waitpid(pid, &status, __WALL) < 0) {
		if (errno != EINTR)
			return errno;
	}
	return WIFSTOPPED(status) && status >> 8 == STOPPED_AT_EXIT ? 0 : EPROTO;
}

/* Takes the memory of @pid, which has stopped. EAGAIN: not all of it. */
int reaper_reap(pid_t pid)
{
	const struct timespec between = { .tv_nsec = BETWEEN_NS };
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int error = 0;

	if (pidfd < 0)
		return errno;
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		error = syscall(SYS_process_mrelease, pidfd, 0) ? errno : 0;
		if (error != EAGAIN)
			break;
		nanosleep(&between, NULL);
	}
	close(pidfd);
	return error;
}

/* Lets @pid, which has stopped, go on and end. */
void reaper_release(pid_t pid)
{
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
}
