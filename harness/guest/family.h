/* SPDX-License-Identifier: GPL-2.0-only */
/* The netlink family of the module, and a listener of it. */
#ifndef HMM_HARNESS_FAMILY_H
#define HMM_HARNESS_FAMILY_H

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hmm_harness_netlink.h"

static inline const struct nlattr *find_attribute(const void *first, size_t size, unsigned int type)
{
	const struct nlattr *at = first;

	while (size >= NLA_HDRLEN && at->nla_len >= NLA_HDRLEN &&
	       at->nla_len <= size) {
		size_t step = NLA_ALIGN(at->nla_len);

		if ((at->nla_type & NLA_TYPE_MASK) == type)
			return at;
		if (step >= size)
			break;
		size -= step;
		at = (const void *)((const char *)at + step);
	}
	return NULL;
}

/* The number of the family; 0 if there is none */
static inline uint16_t find_family(void)
{
	struct {
		struct nlmsghdr head;
		struct genlmsghdr genl;
		struct nlattr name;
		char text[NLA_ALIGN(sizeof(HMM_HARNESS_FAMILY_NAME))];
	} ask = {
		.head = {
			.nlmsg_len = sizeof(ask),
			.nlmsg_type = GENL_ID_CTRL,
			.nlmsg_flags = NLM_F_REQUEST,
		},
		.genl = { .cmd = CTRL_CMD_GETFAMILY, .version = 1 },
		.name = {
			.nla_len = NLA_HDRLEN + sizeof(HMM_HARNESS_FAMILY_NAME),
			.nla_type = CTRL_ATTR_FAMILY_NAME,
		},
		.text = HMM_HARNESS_FAMILY_NAME,
	};
	char answer[4096];
	const char *first = answer + NLMSG_LENGTH(GENL_HDRLEN);
	const struct nlattr *at;
	uint16_t family;
	ssize_t size;
	int fd;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (fd < 0)
		return 0;
	size = send(fd, &ask, sizeof(ask), 0);
	if (size > 0)
		size = recv(fd, answer, sizeof(answer), 0);
	close(fd);
	size -= first - answer;
	if (size <= 0)
		return 0;
	at = find_attribute(first, size, CTRL_ATTR_FAMILY_ID);
	if (!at)
		return 0;
	memcpy(&family, at + 1, sizeof(family));
	return family;
}

/* A socket that hears all events from now on; -1 if that is not to be had */
static inline int listen_to(uint16_t family)
{
	struct {
		struct nlmsghdr head;
		struct genlmsghdr genl;
	} ask = {
		.head = {
			.nlmsg_len = sizeof(ask),
			.nlmsg_type = family,
			.nlmsg_flags = NLM_F_REQUEST,
		},
		.genl = {
			.cmd = HMM_HARNESS_CMD_SUBSCRIBE,
			.version = HMM_HARNESS_FAMILY_VERSION,
		},
	};
	char answer[4096] __attribute__((aligned(4)));
	const struct nlmsghdr *head = (const void *)answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

	if (fd < 0)
		return -1;
	if (send(fd, &ask, sizeof(ask), 0) == sizeof(ask) &&
	    recv(fd, answer, sizeof(answer), 0) >= NLMSG_LENGTH(0) &&
	    head->nlmsg_type == family)
		return fd;
	close(fd);
	return -1;
}

/* Takes what has come so far and throws it away. Returns how many messages that was. */
static inline unsigned long hear(int fd)
{
	char message[8192];
	unsigned long count = 0;

	/* ENOBUFS: some did not fit; what did can be read all the same. */
	while (recv(fd, message, sizeof(message), MSG_DONTWAIT) >= 0 || errno == ENOBUFS)
		count++;
	return count;
}

#endif /* HMM_HARNESS_FAMILY_H */
