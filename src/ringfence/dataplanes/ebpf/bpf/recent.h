/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Verdicts given a moment ago. A verdict is a function of the question alone, and the question holds the generation:
 * whoever asks the same again in the same generation gets what was answered then. What has been asked already costs
 * one look at a table of the processor's own, whatever the rules; a commit makes all of it void, since it begins another
 * generation. Each question has one place, and the next one to get there takes it over.
 */
#pragma once

#include "judge.h"

#define RECENT_BITS 11

struct recent {
	__u64 now;
	__u32 turn; /* odd while it is written: a program may be interrupted by another, or by itself */
	__u32 sort;
	struct address6 client;
	struct address6 server;
	__u32 passed;
	__u32 unused;
	struct verdict verdict;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << RECENT_BITS);
	__type(key, __u32);
	__type(value, struct recent);
} rf_recent SEC(".maps");

static __always_inline __u32 sort_of(const struct question *question)
{
	return (__u32)question->port << 16 | (__u32)question->protocol << 8 | question->family << 4 |
	       question->by_address << 3 | question->asked;
}

static __always_inline bool same_address(const struct address6 *one, const struct address6 *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1] && one->word[2] == other->word[2] &&
	       one->word[3] == other->word[3];
}

static __always_inline __u32 place_of(const struct question *question, __u32 sort)
{
	const __u32 *client = question->client.word;
	const __u32 *server = question->server.word;
	__u32 mixed = (client[0] ^ client[1] ^ client[2] ^ client[3]) * 0x85ebca6b;

	mixed ^= server[0] ^ server[1] ^ server[2] ^ server[3] ^ sort;
	return mixed * 0x9e3779b1 >> (32 - RECENT_BITS);
}

/* Only this processor gets here, so the compiler alone must keep the order. */
#define in_order() asm volatile("" ::: "memory")

static __always_inline bool recall(const struct recent *recent, const struct question *question, __u32 sort,
				   struct verdict *verdict, bool *passed)
{
	__u32 turn = *(volatile __u32 *)&recent->turn;

	in_order();
	if (turn & 1 || recent->now != question->now || recent->sort != sort ||
	    !same_address(&recent->client, &question->client) || !same_address(&recent->server, &question->server))
		return false;
	*verdict = recent->verdict;
	*passed = recent->passed;
	in_order();
	return *(volatile __u32 *)&recent->turn == turn;
}

static __always_inline void remember(struct recent *recent, const struct question *question, __u32 sort,
				     const struct verdict *verdict, bool passed)
{
	__u32 turn = *(volatile __u32 *)&recent->turn;

	if (turn & 1 || __sync_val_compare_and_swap(&recent->turn, turn, turn + 1) != turn)
		return; /* whoever was interrupted is about to write it */
	in_order();
	recent->now = question->now;
	recent->sort = sort;
	recent->client = question->client;
	recent->server = question->server;
	recent->verdict = *verdict;
	recent->passed = passed;
	in_order();
	*(volatile __u32 *)&recent->turn = turn + 2;
}

/* What judge() says. */
static __always_inline bool judge_or_recall(const struct question *question, struct verdict *verdict)
{
	__u32 sort = sort_of(question);
	__u32 place = place_of(question, sort);
	struct recent *recent = bpf_map_lookup_elem(&rf_recent, &place);
	bool passed;

	if (!recent) /* cannot be: places are within the table */
		return judge(question, verdict);
	if (recall(recent, question, sort, verdict, &passed))
		return passed;
	__builtin_memset(verdict, 0, sizeof(*verdict));
	passed = judge(question, verdict);
	remember(recent, question, sort, verdict, passed);
	return passed;
}
