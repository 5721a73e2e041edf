/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the agent writes and the programs read. dataplanes/ebpf/layout.py has the same layouts in Python's words.
 *
 * Rulesets, atoms, profiles, rules and pods are named by 64-bit digests of what they mean, so an entry of rf_pairs,
 * rf_traffic or rf_ranges is a fact that never changes. All that changes stands in rf_seats, twice: once for even and
 * once for odd generations. The agent writes only what is not being read, then flips rf_now with one store.
 *
 * The sizes here are the smallest; the agent sets those that it needs before it loads.
 */
#pragma once

#include "kernel.h"

/* rf_now: generation << 8 | settings */
#define SETTING_KEEP_ESTABLISHED 1 /* open connections stay open whatever policy says now */
#define SETTING_NODE_PROBES_DENY 2 /* the node's own addresses are judged like any */
#define SETTING_OWN_NODE_ALLOW 4   /* a pod always reaches its own node */
#define SETTING_REPORT_ALLOWS 8    /* events for allowed connections too */

struct now {
	__u64 word;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct now);
} rf_now SEC(".maps");

#define VIEW_OWN_NODE 1

/* What an address (or all addresses of a block) means in one generation. 0 is none, throughout. */
struct view {
	__u64 ingress; /* the ruleset of its pod's ingress, if that is isolated */
	__u64 egress;
	__u64 atom; /* which peer sets cover it */
	__u64 pod;  /* which pod of this node it belongs to */
	__u64 flags;
};

/* Index: slot * 2 + the lowest bit of the generation. Slot 0 is what is known of an unknown address: nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct view);
} rf_seats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} rf_peers4 SEC(".maps");

struct address6 {
	__u32 word[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address6);
	__type(value, __u32);
} rf_peers6 SEC(".maps");

struct block4 {
	__u32 length; /* of the prefix, in bits */
	__u32 word;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct block4);
	__type(value, __u32);
} rf_blocks4 SEC(".maps");

struct block6 {
	__u32 length;
	__u32 word[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct block6);
	__type(value, __u32);
} rf_blocks6 SEC(".maps");

struct pair_key {
	__u64 ruleset;
	__u64 atom;
};

#define PAIR_ALLOWS 1  /* what rf_traffic and rf_ranges have no entry for is allowed */
#define PAIR_TRAFFIC 2 /* the profile has entries in rf_traffic */
#define PAIR_RANGES 4  /* the profile has entries in rf_ranges */
#define PAIR_WHOLE 8   /* the profile has entries in rf_traffic for all ports of a protocol */

#define EVERY_PORT 65536

struct pair {
	__u64 profile;
	__u64 rule; /* which one decides what has no entry; 0: no rule does, and it is denied */
	__u64 flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pair_key);
	__type(value, struct pair);
} rf_pairs SEC(".maps");

struct traffic_key {
	__u64 profile;
	__u32 protocol;
	__u32 port;
};

struct decision {
	__u64 rule; /* 0: no rule matches */
	__u64 allowed;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct traffic_key);
	__type(value, struct decision);
} rf_traffic SEC(".maps");

struct range_key {
	__u32 length; /* of the prefix: 64 bits of profile, 8 of protocol, up to 16 of the port */
	__u64 profile;
	__u8 protocol;
	__u8 port[2];
	__u8 unused;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct range_key);
	__type(value, struct decision);
} rf_ranges SEC(".maps");

/* For people, and for an agent that comes later: what the digests stand for. No program reads these. */

#define TEXT_ROOM 512

struct text {
	char text[TEXT_ROOM];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct text);
} rf_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct text);
} rf_pods SEC(".maps");

/* Reports */

enum reason {
	REASON_RULE = 0,           /* a rule decided */
	REASON_NO_RULE = 1,        /* the pod is isolated and no rule matches */
	REASON_NO_CONNECTION = 2,  /* the connection tracker has none for the packet */
	REASON_MID_CONNECTION = 3, /* it lost the connection's beginning, and the other end may have opened it */
	REASON_UNPARSABLE = 4,
	REASONS = 8,
};

enum direction {
	DIRECTION_NONE = 0,
	DIRECTION_INGRESS = 1,
	DIRECTION_EGRESS = 2,
	DIRECTIONS = 4,
};

struct event {
	__u64 at; /* CLOCK_MONOTONIC, in ns */
	__u64 rule;
	__u64 ruleset;
	__u64 lost; /* events about the same endpoint that were left out since its last one */
	__u32 client[4];
	__u32 server[4];
	__u16 port;
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	__u8 allowed;
	__u8 direction;
	__u8 reason;
	__u8 hook;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} rf_events SEC(".maps");

/* Index: allowed << 5 | direction << 3 | reason; the last one counts events that found the ring full. */
#define COUNTERS 65
#define COUNTER_RING_FULL 64

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} rf_counters SEC(".maps");

/* How much an endpoint may still report, by its slot. */
struct budget {
	__u64 due; /* when its next event would be due at the steady rate */
	__u64 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} rf_budgets SEC(".maps");
