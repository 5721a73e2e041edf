/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What we remember of packets ourselves, where the connection tracker sees none: frames that are bridged, and packets
 * that a pod sends to its own node on kernels that lend us no hook there. Only what was allowed is remembered, and a
 * packet of a flow is judged by the flow's direction each time: so what is remembered decides who is the client, and never
 * whether it may.
 */
#pragma once

#include "connection.h"
#include "packet.h"

#define SECOND 1000000000ULL
#define LASTS_LONG (7200 * SECOND) /* TCP and SCTP: between two packets; forgotten, their client has to speak first */
#define LASTS (180 * SECOND)       /* all else, as the connection tracker has it for UDP that was answered */
#define FRAGMENTS_LAST (30 * SECOND)

/* As its packets are on the wire, from the one who sent the first of them. */
struct flow {
	struct address6 client;
	struct address6 server;
	__u16 client_port; /* of ICMP the identifier, here and below */
	__u16 server_port;
	__u8 protocol;
	__u8 family;
	__u16 unused;
};

struct seen {
	__u64 at;     /* its last packet, roughly */
	__u64 unsure; /* it began in its midst: its client may be the one who answers */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow);
	__type(value, struct seen);
} rf_flows SEC(".maps");

struct fragment {
	struct address6 source;
	struct address6 destination;
	__u32 identity;
	__u8 protocol;
	__u8 family;
	__u16 unused;
};

struct fragmented {
	__u64 at;
	__u16 source_port;
	__u16 port;
	__u32 unused;
};

/* The first fragments that were seen: the others have no ports. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct fragment);
	__type(value, struct fragmented);
} rf_fragments SEC(".maps");

/* What a packet is in its flow, as far as it tells itself. */
enum part {
	PART_ANY,       /* it may begin a flow, or answer */
	PART_FIRST,     /* it begins one: TCP's SYN, a question of ICMP */
	PART_MIDST,     /* it does not begin one, and may come from either side */
	PART_DEPENDENT, /* it is nothing without what came before: a later fragment, an answer of ICMP, an error */
};

static __always_inline bool has_opening(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_SCTP;
}

static __always_inline void turn(const struct flow *flow, struct flow *turned)
{
	*turned = *flow;
	turned->client = flow->server;
	turned->server = flow->client;
	turned->client_port = flow->server_port;
	turned->server_port = flow->client_port;
}

static __always_inline struct seen *known(const struct flow *flow, __u64 at)
{
	struct seen *seen = bpf_map_lookup_elem(&rf_flows, flow);

	return seen && at - seen->at < (has_opening(flow->protocol) ? LASTS_LONG : LASTS) ? seen : NULL;
}

static __always_inline void remember_flow(const struct flow *flow, __u64 at, bool unsure)
{
	struct seen *seen = bpf_map_lookup_elem(&rf_flows, flow);

	if (!seen || seen->unsure != unsure) {
		struct seen first = { .at = at, .unsure = unsure };

		bpf_map_update_elem(&rf_flows, flow, &first, BPF_ANY);
	} else if (at - seen->at > SECOND) {
		seen->at = at;
	}
}

static __always_inline void flow_of(const struct question *question, const struct packet *packet, struct flow *flow)
{
	flow->client = question->client;
	flow->server = question->server;
	flow->client_port = packet->source_port;
	flow->server_port = packet->port;
	flow->protocol = packet->protocol;
	flow->family = question->family;
}

/* Gives a fragment without ports those of the first one; false if that was not seen. */
static __always_inline bool follow_first(const struct question *question, struct packet *packet, __u64 at)
{
	struct fragment key = { .source = question->client,
				.destination = question->server,
				.identity = packet->identity,
				.protocol = packet->protocol,
				.family = question->family };
	struct fragmented *first = bpf_map_lookup_elem(&rf_fragments, &key);

	if (!first || at - first->at > FRAGMENTS_LAST)
		return false;
	packet->source_port = first->source_port;
	packet->port = first->port;
	packet->readable = true;
	return true;
}

static __always_inline void remember_first(const struct question *question, const struct packet *packet, __u64 at)
{
	struct fragment key = { .source = question->client,
				.destination = question->server,
				.identity = packet->identity,
				.protocol = packet->protocol,
				.family = question->family };
	struct fragmented first = { .at = at, .source_port = packet->source_port, .port = packet->port };

	bpf_map_update_elem(&rf_fragments, &key, &first, BPF_ANY);
}

/* RFC 792, RFC 4443 */
static __always_inline bool asks(__u8 family, __u8 type)
{
	return family == 4 ? type == 8 || type == 13 || type == 15 || type == 17 : type == 128;
}

static __always_inline bool tells_of_another(__u8 family, __u8 type)
{
	return family == 4 ? type == 3 || type == 4 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/* These two are verified each for itself, and not again for every way that leads to them. */

__noinline int read_from_device(struct __sk_buff *skb, struct question *question, struct packet *packet)
{
	struct source source = { .kind = FROM_DEVICE, .tc = skb };

	return question && packet && read_packet(&source, question, packet);
}

/* The flow of the packet that an ICMP error is about: its addresses and ports are in what the error carries of it. */
__noinline int read_carried(struct __sk_buff *skb, const struct packet *packet, struct flow *flow)
{
	struct source carried = { .kind = FROM_DEVICE, .tc = skb };
	struct question ends = {};
	struct packet about = {};
	__u8 start[8];

	if (!packet || !flow)
		return false;
	ends.family = flow->family;
	carried.network += packet->transport + 8;
	if (!(ends.family == 4 ? read_ipv4(&carried, &ends, &about) : read_ipv6(&carried, &ends, &about)))
		return false;
	if (!about.readable || !read(&carried, about.transport, start, sizeof(start)))
		return false;
	if (about.protocol == PROTOCOL_ICMP || about.protocol == PROTOCOL_ICMPV6)
		about.source_port = about.port = start[4] << 8 | start[5];
	else if (has_ports(about.protocol)) {
		about.source_port = start[0] << 8 | start[1];
		about.port = start[2] << 8 | start[3];
	}
	flow_of(&ends, &about, flow);
	return true;
}

/* Reads which flow a packet is of, and its part in that; false if it does not tell. */
static __always_inline bool read_flow(struct __sk_buff *skb, const struct question *question, struct packet *packet,
				      struct flow *flow, enum part *part, __u64 at)
{
	struct source source = { .kind = FROM_DEVICE, .tc = skb };
	__u8 family = question->family;
	__u8 start[8];

	*part = PART_ANY;
	if (packet->fragment == LATER_FRAGMENT) {
		if (!follow_first(question, packet, at))
			return false;
		*part = PART_DEPENDENT;
		flow_of(question, packet, flow);
		return true;
	}
	if (!packet->readable)
		return false;
	if (packet->protocol == (family == 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6)) {
		if (!read(&source, packet->transport, start, sizeof(start)))
			return false;
		packet->source_port = packet->port = start[4] << 8 | start[5];
		*part = asks(family, start[0]) ? PART_FIRST : PART_DEPENDENT;
	} else if (has_opening(packet->protocol)) {
		*part = packet->opens ? PART_FIRST : PART_MIDST;
	}
	flow_of(question, packet, flow);
	if (packet->fragment == FIRST_FRAGMENT)
		remember_first(question, packet, at);
	if (*part == PART_DEPENDENT && tells_of_another(family, start[0]))
		return read_carried(skb, packet, flow);
	return true;
}
