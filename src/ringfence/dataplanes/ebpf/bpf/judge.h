/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The verdict: who asks whom on which port, looked up. Knows no packet and no hook. */
#pragma once

#include "maps.h"

#define ASK_INGRESS 1
#define ASK_EGRESS 2
#define ASK_BOTH 3

struct question {
	__u64 now;
	struct address6 client; /* an IPv4 address in the first word, the others 0 */
	struct address6 server;
	__u16 port; /* the server's, in host order; 0 if the protocol has none */
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	__u8 asked;  /* whose rules: ASK_... */
	__u8 hook;
	bool by_address; /* whether an address of the node is told by its seat (else the hook knows) */
};

struct verdict {
	__u64 rule;
	__u64 ruleset;
	__u32 slot; /* of the endpoint whose rules decided */
	__u8 allowed;
	__u8 direction;
	__u8 reason;
};

static __always_inline __u32 slot_of_address(const struct address6 *address, __u8 family)
{
	__u32 *slot;

	if (family == 4)
		slot = bpf_map_lookup_elem(&rf_peers4, &address->word[0]);
	else
		slot = bpf_map_lookup_elem(&rf_peers6, address);
	return slot ? *slot : 0;
}

static __always_inline __u32 slot_of_block(const struct address6 *address, __u8 family)
{
	__u32 *slot;

	if (family == 4) {
		struct block4 key = { .length = 32, .word = address->word[0] };

		slot = bpf_map_lookup_elem(&rf_blocks4, &key);
	} else {
		struct block6 key = { .length = 128 };

		__builtin_memcpy(key.word, address->word, sizeof(key.word));
		slot = bpf_map_lookup_elem(&rf_blocks6, &key);
	}
	return slot ? *slot : 0;
}

static __always_inline const struct view *view_of(__u32 slot, __u64 now)
{
	__u32 index = slot * 2 + (now >> 8 & 1);

	return bpf_map_lookup_elem(&rf_seats, &index);
}

static __always_inline __u64 atom_of(const struct address6 *address, __u8 family, __u32 slot, const struct view *view,
				     __u64 now)
{
	const struct view *block;

	if (slot)
		return view->atom;
	slot = slot_of_block(address, family);
	if (!slot)
		return 0;
	block = view_of(slot, now);
	return block ? block->atom : 0;
}

/* What a ruleset decides of a peer and a port. Where nothing is found it is a denial: that must not be, and is closed. */
static __always_inline void decide(const struct question *question, __u64 ruleset, __u64 atom, struct verdict *verdict)
{
	struct pair_key key = { .ruleset = ruleset, .atom = atom };
	struct pair *pair = bpf_map_lookup_elem(&rf_pairs, &key);
	struct decision *decision = NULL;

	verdict->ruleset = ruleset;
	verdict->rule = 0;
	verdict->allowed = 0;
	verdict->reason = REASON_NO_RULE;
	if (!pair && atom) {
		key.atom = 0;
		pair = bpf_map_lookup_elem(&rf_pairs, &key);
	}
	if (!pair)
		return;
	if (pair->flags & PAIR_TRAFFIC) {
		struct traffic_key exact = { .profile = pair->profile,
					     .protocol = question->protocol,
					     .port = question->port };

		decision = bpf_map_lookup_elem(&rf_traffic, &exact);
	}
	if (!decision && pair->flags & PAIR_WHOLE) {
		struct traffic_key whole = { .profile = pair->profile,
					     .protocol = question->protocol,
					     .port = EVERY_PORT };

		decision = bpf_map_lookup_elem(&rf_traffic, &whole);
	}
	if (!decision && pair->flags & PAIR_RANGES) {
		struct range_key range = {
			.length = 88,
			.profile = pair->profile,
			.protocol = question->protocol,
			.port = { question->port >> 8, question->port & 255 },
		};

		decision = bpf_map_lookup_elem(&rf_ranges, &range);
	}
	if (decision) {
		verdict->rule = decision->rule;
		verdict->allowed = decision->allowed;
	} else {
		verdict->rule = pair->rule;
		verdict->allowed = pair->flags & PAIR_ALLOWS;
	}
	if (verdict->rule)
		verdict->reason = REASON_RULE;
}

/* Returns whether a connection may be; verdict is set if anybody's rules were asked (slot is not 0). */
static __always_inline bool judge(const struct question *question, struct verdict *verdict)
{
	__u64 now = question->now;
	__u8 family = question->family;
	__u32 client_slot = slot_of_address(&question->client, family);
	__u32 server_slot = slot_of_address(&question->server, family);
	const struct view *client = view_of(client_slot, now);
	const struct view *server = view_of(server_slot, now);
	bool egress, ingress;

	if (!client || !server) /* cannot be: slots are within the seats */
		return false;
	egress = question->asked & ASK_EGRESS && client->egress;
	ingress = question->asked & ASK_INGRESS && server->ingress;
	if (!egress && !ingress)
		return true;
	if (client->pod && client->pod == server->pod) /* "A pod reaches itself always" (SEMANTICS 22) */
		return true;
	if (question->by_address) {
		if (server->flags & VIEW_OWN_NODE && now & SETTING_OWN_NODE_ALLOW)
			egress = false;
		if (client->flags & VIEW_OWN_NODE && !(now & SETTING_NODE_PROBES_DENY))
			ingress = false;
	}
	if (egress) {
		verdict->slot = client_slot;
		verdict->direction = DIRECTION_EGRESS;
		decide(question, client->egress, atom_of(&question->server, family, server_slot, server, now), verdict);
		if (!verdict->allowed)
			return false;
	}
	if (ingress) {
		verdict->slot = server_slot;
		verdict->direction = DIRECTION_INGRESS;
		decide(question, server->ingress, atom_of(&question->client, family, client_slot, client, now),
		       verdict);
		if (!verdict->allowed)
			return false;
	}
	return true;
}

/* Whether a packet that no connection says how to judge must be dropped: one of its ends has rules that are asked. */
static __always_inline bool isolated(const struct question *question, __u8 of_client, __u8 of_server,
				     struct verdict *verdict)
{
	__u32 client_slot = slot_of_address(&question->client, question->family);
	__u32 server_slot = slot_of_address(&question->server, question->family);
	const struct view *client = view_of(client_slot, question->now);
	const struct view *server = view_of(server_slot, question->now);

	of_client &= question->asked;
	of_server &= question->asked;
	if (!client || !server)
		return true;
	if ((of_client & ASK_EGRESS && client->egress) || (of_client & ASK_INGRESS && client->ingress)) {
		verdict->slot = client_slot;
		verdict->direction = of_client & ASK_EGRESS && client->egress ? DIRECTION_EGRESS : DIRECTION_INGRESS;
		verdict->ruleset = verdict->direction == DIRECTION_EGRESS ? client->egress : client->ingress;
		return true;
	}
	if ((of_server & ASK_INGRESS && server->ingress) || (of_server & ASK_EGRESS && server->egress)) {
		verdict->slot = server_slot;
		verdict->direction = of_server & ASK_INGRESS && server->ingress ? DIRECTION_INGRESS : DIRECTION_EGRESS;
		verdict->ruleset = verdict->direction == DIRECTION_INGRESS ? server->ingress : server->egress;
		return true;
	}
	return false;
}
