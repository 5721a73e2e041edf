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

struct ip_ct_tcp_state {
	__u8 flags;
};

struct ip_ct_tcp {
	struct ip_ct_tcp_state seen[2];
};

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
};

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
	union nf_conntrack_proto proto;
};

#pragma clang attribute pop

/* linux/netfilter/nf_conntrack_common.h: enum ip_conntrack_info, in the lowest bits of _nfct */
#define CT_INFO_MASK 7UL
#define CT_ESTABLISHED 0 /* and in the original direction, as CT_NEW */
#define CT_NEW 2
#define CT_STATUS_SOURCE_TRANSLATED 16UL /* enum ip_conntrack_status, IPS_SRC_NAT */
#define CT_TCP_LIBERAL 8                 /* nf_conntrack_tcp.h, IP_CT_TCP_FLAG_BE_LIBERAL */

/* linux/netfilter.h */
#define HOOK_LOCAL_IN 1
#define HOOK_FORWARD 2
#define HOOK_LOCAL_OUT 3
#define HOOK_EXIT 16 /* these two are ours, and the devices' */
#define HOOK_ENTRY 17
#define PF_IPV4 2
#define PF_IPV6 10
#define HOOK_DROP 0
#define HOOK_ACCEPT 1

/* linux/if_ether.h */
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd

/* linux/pkt_cls.h: let other programs at the device have their say, or none */
#define DEVICE_NEXT -1
#define DEVICE_DROP 2

/* sys/socket.h */
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10

/* IANA */
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132
