/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a packet says of itself: addresses, protocol, ports, and whether it opens a connection. */
#pragma once

#include "judge.h"

extern int bpf_dynptr_from_skb(struct sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym __weak;

#define IP_OFFSET 0x1fff
#define IP_MORE 0x2000
#define EXTENSIONS 8 /* IPv6 extension headers in a row; more are not looked through */

#define EXT_HOP_BY_HOP 0
#define EXT_ROUTING 43
#define EXT_FRAGMENT 44
#define EXT_AUTHENTICATION 51
#define EXT_DESTINATION 60
#define EXT_MOBILITY 135

#define TCP_FLAGS 13
#define TCP_FIN_SYN_RST_ACK 0x17
#define TCP_SYN 0x02
#define SCTP_FIRST_CHUNK 12
#define SCTP_INIT 1

/* RFC 4861, 4.1 to 4.5: router solicitation and advertisement, neighbour solicitation and advertisement, redirect */
#define ND_FIRST 133
#define ND_LAST 137

struct packet {
	__u32 transport; /* where the header above IP begins */
	__u8 protocol;
	__u8 hop_limit;
	bool readable;  /* protocol, transport and ports are known */
	bool opens;     /* as far as the packet tells, it may be the first of a connection */
	bool discovers; /* IPv6 neighbour discovery from the same link */
	enum { NO_FRAGMENT, FIRST_FRAGMENT, LATER_FRAGMENT } fragment;
	__u32 identity; /* of the packet that a fragment is of */
	__u16 source_port;
	__u16 port; /* of the destination, in host order; 0 if the protocol has none */
};

/* Where a packet is read from. Which one is known when this is compiled: the verifier sees one way only. */
struct source {
	enum { FROM_TC, FROM_DEVICE, FROM_NETFILTER } kind;
	struct __sk_buff *tc;
	struct sk_buff *netfilter;
	struct bpf_dynptr *dynptr; /* on it, once it is open */
	__u32 network;             /* where the IP header begins; from a device, after the one that the kernel knows */
};

static __always_inline bool read(const struct source *source, __u32 offset, void *to, __u32 length)
{
	if (source->kind == FROM_TC)
		return bpf_skb_load_bytes(source->tc, source->network + offset, to, length) == 0;
	if (source->kind == FROM_DEVICE)
		return bpf_skb_load_bytes_relative(source->tc, source->network + offset, to, length,
						   BPF_HDR_START_NET) == 0;
	return bpf_dynptr_read(to, length, source->dynptr, source->network + offset, 0) == 0;
}

static __always_inline bool read_ipv4(const struct source *source, struct question *question, struct packet *packet)
{
	__u8 header[20];
	__u16 fragment;

	if (!read(source, 0, header, sizeof(header)) || header[0] >> 4 != 4)
		return false;
	__builtin_memcpy(&question->client.word[0], header + 12, 4);
	__builtin_memcpy(&question->server.word[0], header + 16, 4);
	fragment = (__u16)header[6] << 8 | header[7];
	packet->protocol = header[9];
	packet->hop_limit = header[8];
	packet->transport = (header[0] & 15) * 4;
	packet->readable = packet->transport >= 20 && !(fragment & IP_OFFSET);
	if (fragment & (IP_OFFSET | IP_MORE)) {
		packet->fragment = fragment & IP_OFFSET ? LATER_FRAGMENT : FIRST_FRAGMENT;
		packet->identity = header[4] << 8 | header[5];
	}
	return true;
}

static __always_inline bool read_ipv6(const struct source *source, struct question *question, struct packet *packet)
{
	__u8 header[40];
	__u8 next;
	__u32 offset = 40;

	if (!read(source, 0, header, sizeof(header)) || header[0] >> 4 != 6)
		return false;
	__builtin_memcpy(question->client.word, header + 8, 16);
	__builtin_memcpy(question->server.word, header + 24, 16);
	next = header[6];
	packet->hop_limit = header[7];
	for (int count = 0; count < EXTENSIONS; count++) {
		__u8 extension[8];

		if (next != EXT_HOP_BY_HOP && next != EXT_ROUTING && next != EXT_FRAGMENT &&
		    next != EXT_AUTHENTICATION && next != EXT_DESTINATION && next != EXT_MOBILITY) {
			packet->protocol = next;
			packet->transport = offset;
			packet->readable = true;
			return true;
		}
		if (!read(source, offset, extension, sizeof(extension)))
			return true;
		if (next == EXT_FRAGMENT) {
			__builtin_memcpy(&packet->identity, extension + 4, 4);
			if (extension[2] || extension[3] & 0xf8) { /* not the first fragment */
				packet->fragment = LATER_FRAGMENT;
				packet->protocol = extension[0];
				return true;
			}
			packet->fragment = extension[3] & 1 ? FIRST_FRAGMENT : NO_FRAGMENT;
			offset += 8;
		} else if (next == EXT_AUTHENTICATION) {
			offset += (extension[1] + 2) * 4;
		} else {
			offset += (extension[1] + 1) * 8;
		}
		next = extension[0];
	}
	return true;
}

static __always_inline void read_transport(const struct source *source, __u8 family, struct packet *packet)
{
	__u8 protocol = packet->protocol;
	__u8 start[14];

	packet->opens = true;
	if (protocol == PROTOCOL_TCP) {
		packet->readable = read(source, packet->transport, start, 14);
		packet->opens = (start[TCP_FLAGS] & TCP_FIN_SYN_RST_ACK) == TCP_SYN;
	} else if (protocol == PROTOCOL_SCTP) {
		packet->readable = read(source, packet->transport, start, 13);
		packet->opens = start[SCTP_FIRST_CHUNK] == SCTP_INIT;
	} else if (protocol == PROTOCOL_UDP) {
		packet->readable = read(source, packet->transport, start, 8);
	} else {
		/* The number means nothing of the kind in IPv4. */
		if (family == 6 && protocol == PROTOCOL_ICMPV6 && packet->hop_limit == 255 &&
		    read(source, packet->transport, start, 1))
			packet->discovers = start[0] >= ND_FIRST && start[0] <= ND_LAST;
		return;
	}
	if (!packet->readable) {
		packet->opens = false;
		return;
	}
	packet->source_port = (__u16)start[0] << 8 | start[1];
	packet->port = (__u16)start[2] << 8 | start[3];
}

/* Reads a packet: its addresses into the question, the rest into packet. False: not even addresses can be read. */
static __always_inline bool read_packet(const struct source *source, struct question *question, struct packet *packet)
{
	struct source opened = *source;
	struct bpf_dynptr dynptr;

	if (source->kind == FROM_NETFILTER) {
		bpf_dynptr_from_skb(source->netfilter, 0, &dynptr);
		opened.dynptr = &dynptr;
	}
	if (!(question->family == 4 ? read_ipv4(&opened, question, packet) : read_ipv6(&opened, question, packet)))
		return false;
	if (packet->readable)
		read_transport(&opened, question->family, packet);
	return true;
}
