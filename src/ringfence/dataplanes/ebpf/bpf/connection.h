/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the connection tracker knows of a packet's connection: who opened it, who answers, and on which port. */
#pragma once

#include "judge.h"

extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

/* Whether the kernel's memory can be read in place, without a call (kernels from 6.17 on). Set before loading. */
const volatile bool reads_in_place = true;

/* From the tuple of the one direction to the port in that of the other: 72 bytes, since long ago. */
#define TUPLES_ROOM 96

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP;
}

static __always_inline void ask_of_tuples(const __u8 *tuples, const struct nf_conn *connection,
					  struct question *question)
{
	const __u32 begin = bpf_core_field_offset(connection->tuplehash[0].tuple);
	const __u32 client = bpf_core_field_offset(connection->tuplehash[0].tuple.src.u3) - begin;
	const __u32 server = bpf_core_field_offset(connection->tuplehash[1].tuple.src.u3) - begin;
	const __u32 port = bpf_core_field_offset(connection->tuplehash[1].tuple.src.u) - begin;
	const __u32 protocol = bpf_core_field_offset(connection->tuplehash[0].tuple.dst.protonum) - begin;

	question->client.word[0] = *(const __u32 *)(tuples + client);
	question->server.word[0] = *(const __u32 *)(tuples + server);
	if (question->family == 6) {
		for (int word = 1; word < 4; word++) {
			question->client.word[word] = *(const __u32 *)(tuples + client + 4 * word);
			question->server.word[word] = *(const __u32 *)(tuples + server + 4 * word);
		}
	}
	question->protocol = tuples[protocol];
	if (has_ports(question->protocol))
		question->port = bpf_ntohs(*(const __be16 *)(tuples + port));
}

static __always_inline bool ask_of_connection(const struct nf_conn *connection, struct question *question)
{
	const __u32 begin = bpf_core_field_offset(connection->tuplehash[0].tuple);
	const __u32 end = bpf_core_field_offset(connection->tuplehash[1].tuple.src.u) + sizeof(__be16);
	const void *first = (const void *)connection + begin;
	__u8 copy[TUPLES_ROOM];

	if (reads_in_place) {
		ask_of_tuples(bpf_rdonly_cast(first, 0), connection, question);
		return true;
	}
	if (end - begin > sizeof(copy) || bpf_probe_read_kernel(copy, end - begin, first) != 0)
		return false;
	ask_of_tuples(copy, connection, question);
	return true;
}
