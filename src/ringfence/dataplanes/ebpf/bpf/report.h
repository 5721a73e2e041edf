/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counting verdicts, and telling of them: so many a second for each endpoint, with a count of what was left out. */
#pragma once

#include "judge.h"

#define EVENT_INTERVAL_NS 100000000ULL /* ten a second ... */
#define EVENT_BURST 20                 /* ... and so many at once */

static __always_inline void count(__u32 counter)
{
	__u64 *counted = bpf_map_lookup_elem(&rf_counters, &counter);

	if (counted)
		*counted += 1;
}

/* A bucket that leaks at the steady rate, kept as one time. (In the first two seconds of a machine it is empty.) */
static __always_inline bool within_budget(struct budget *budget, __u64 at)
{
	__u64 earliest = at - EVENT_BURST * EVENT_INTERVAL_NS;
	__u64 due = budget->due < earliest ? earliest : budget->due;

	if (due > at)
		return false;
	budget->due = due + EVENT_INTERVAL_NS;
	return true;
}

/* Counts a verdict, and reports it unless its endpoint has done so too often. Two processors may both take the last
 * of a budget: an event more is no harm.
 */
static __noinline int report(const struct question *question, const struct verdict *verdict)
{
	__u32 slot;
	struct budget *budget;
	struct event *event;
	__u64 at;

	if (!question || !verdict)
		return 0;
	count((verdict->allowed & 1) << 5 | (verdict->direction & 3) << 3 | (verdict->reason & 7));
	if (verdict->allowed && !(question->now & SETTING_REPORT_ALLOWS))
		return 0;
	slot = verdict->slot;
	budget = bpf_map_lookup_elem(&rf_budgets, &slot);
	if (!budget)
		return 0;
	at = bpf_ktime_get_ns();
	if (!within_budget(budget, at)) {
		__sync_fetch_and_add(&budget->lost, 1);
		return 0;
	}
	event = bpf_ringbuf_reserve(&rf_events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&budget->lost, 1);
		count(COUNTER_RING_FULL);
		return 0;
	}
	event->at = at;
	event->rule = verdict->rule;
	event->ruleset = verdict->ruleset;
	event->lost = __sync_lock_test_and_set(&budget->lost, 0);
	__builtin_memcpy(event->client, question->client.word, sizeof(event->client));
	__builtin_memcpy(event->server, question->server.word, sizeof(event->server));
	event->port = question->port;
	event->protocol = question->protocol;
	event->family = question->family;
	event->allowed = verdict->allowed;
	event->direction = verdict->direction;
	event->reason = verdict->reason;
	event->hook = question->hook;
	bpf_ringbuf_submit(event, 0);
	return 0;
}
