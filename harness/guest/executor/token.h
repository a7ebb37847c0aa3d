/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a page holds: word i of the 512 is token | i << 48, so that a page that
 * was assembled from parts of others, or shifted, is told from a whole one. The
 * token 0 is a page of zeros, as the kernel hands it out.
 */
#ifndef TOKEN_H
#define TOKEN_H

#include <stdint.h>

#include "wire.h"

#define PAGE_BYTES 4096
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define TOKEN_BITS 48

static inline uint64_t token_word(uint64_t token, uint64_t index)
{
	return token ? token | index << TOKEN_BITS : 0;
}

/* Volatile: each word is loaded exactly once, whatever else maps the page. */
static inline uint64_t token_load(const volatile uint64_t *page)
{
	uint64_t token = page[0];
	uint64_t wrong = token >> TOKEN_BITS;

	for (uint64_t i = 1; i < PAGE_WORDS; i++)
		wrong |= page[i] ^ token_word(token, i);
	return wrong ? WIRE_TORN : token;
}

static inline void token_store(volatile uint64_t *page, uint64_t token)
{
	for (uint64_t i = 0; i < PAGE_WORDS; i++)
		page[i] = token_word(token, i);
}

#endif /* TOKEN_H */
