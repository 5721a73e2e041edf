/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The few fields of kernel structures that we read. Offsets are the running kernel's own: libbpf relocates each access
 * (CO-RE), so the order and the size of what is here need not be true, only names and types.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff {
	unsigned long _nfct; /* the connection's address, and in the lowest three bits this packet's part in it */
};

struct nf_hook_state {
	__u8 hook;
	__u8 pf;
};

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

union nf_inet_addr {
	__u32 all[4];
};

union nf_conntrack_man_proto {
	__be16 all;
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
	__u16 l3num;
};

struct nf_conntrack_tuple_dst {
	__u8 protonum;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct nf_conntrack_tuple_dst dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
};

#pragma clang attribute pop

/* linux/netfilter/nf_conntrack_common.h: enum ip_conntrack_info, in the lowest bits of _nfct */
#define CT_INFO_MASK 7UL
#define CT_NEW 2

/* linux/netfilter.h */
#define HOOK_LOCAL_IN 1
#define HOOK_FORWARD 2
#define HOOK_LOCAL_OUT 3
#define PF_IPV4 2
#define PF_IPV6 10
#define HOOK_DROP 0
#define HOOK_ACCEPT 1

/* IANA */
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132
