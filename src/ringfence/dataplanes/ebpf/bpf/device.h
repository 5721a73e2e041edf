/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The programs at devices. Where a packet leaves the node all translation is done, and the packet still carries its
 * connection if netfilter saw it; if not, it is judged by what we remember ourselves (flows.h).
 *
 * rf_exit stands beside the programs at netfilter's hooks. rf_exit_alone and rf_entry do without those, on kernels that
 * have no links to them: what a pod sends to its own node leaves through no device, and is judged where it comes in.
 */
#pragma once

#include "flows.h"
#include "recent.h"
#include "report.h"

static __always_inline __u8 family_of(const struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETHERTYPE_IPV4))
		return 4;
	return skb->protocol == bpf_htons(ETHERTYPE_IPV6) ? 6 : 0;
}

static __always_inline unsigned long connection_of(struct __sk_buff *skb)
{
	struct sk_buff *packet = (struct sk_buff *)skb; /* a program's context is where the packet itself is */
	unsigned long nfct = 0;

	bpf_core_read(&nfct, sizeof(nfct), &packet->_nfct);
	return nfct;
}

static __always_inline bool refuse(struct question *question, struct verdict *verdict, __u8 reason)
{
	verdict->reason = reason;
	report(question, verdict);
	return false;
}

static __noinline int pass_unless_isolated(struct question *question, struct verdict *verdict, __u8 reason)
{
	return !isolated(question, ASK_BOTH, ASK_BOTH, verdict) || refuse(question, verdict, reason);
}

/* A packet that netfilter did not see, or that it could make nothing of. */
__noinline int pass_untracked(struct __sk_buff *skb, struct question *question)
{
	struct packet packet = {};
	struct verdict verdict = {};
	struct flow flow = {}, turned;
	__u64 at = bpf_ktime_get_ns();
	struct seen *seen;
	enum part part;
	bool unsure;

	if (!question || !read_from_device(skb, question, &packet))
		return false; /* no address could be read: not an IP packet, whatever the frame says */
	/* "IPv6 neighbour discovery and router messages between pod and node always pass" (SEMANTICS 33) */
	if (packet.discovers)
		return true;
	question->protocol = packet.protocol;
	question->port = packet.port;
	if (!read_flow(skb, question, &packet, &flow, &part, at))
		return pass_unless_isolated(question, &verdict, REASON_UNPARSABLE);
	turn(&flow, &turned);
	seen = known(&flow, at);
	if (!seen && part != PART_FIRST) {
		seen = known(&turned, at);
		if (seen)
			flow = turned;
	}
	if (!seen && part == PART_DEPENDENT)
		return pass_unless_isolated(question, &verdict, REASON_NO_CONNECTION);
	unsure = part != PART_FIRST && (seen ? seen->unsure : part == PART_MIDST);
	question->client = flow.client;
	question->server = flow.server;
	question->protocol = flow.protocol;
	question->port = has_ports(flow.protocol) ? flow.server_port : 0;
	/* As pass_in_midst: the other way round would have to be judged too. */
	if (unsure && isolated(question, ASK_INGRESS, ASK_EGRESS, &verdict))
		return refuse(question, &verdict, REASON_MID_CONNECTION);
	verdict.slot = 0;
	if (!(seen && question->now & SETTING_KEEP_ESTABLISHED) && !judge_or_recall(question, &verdict)) {
		report(question, &verdict);
		return false;
	}
	if (!seen && verdict.slot)
		report(question, &verdict);
	if (!seen && part == PART_FIRST)
		bpf_map_delete_elem(&rf_flows, &turned); /* the ports are used again, the other way round */
	remember_flow(&flow, at, unsure);
	return true;
}

__noinline int pass_connection(struct __sk_buff *skb, struct question *question, unsigned long nfct)
{
	struct source source = { .kind = FROM_DEVICE, .tc = skb };

	if (!question)
		return false;
	if ((nfct & CT_INFO_MASK) != CT_NEW && question->now & SETTING_KEEP_ESTABLISHED)
		return true;
	if (!ask_of_connection((struct nf_conn *)(nfct & ~CT_INFO_MASK), question))
		return pass_stray(&source, question);
	return pass_tracked(nfct, &source, question);
}

SEC("tc")
int rf_exit(struct __sk_buff *skb)
{
	struct question question = { .now = read_now(), .hook = HOOK_EXIT, .asked = ASK_BOTH };
	unsigned long nfct;
	bool passed;

	question.family = family_of(skb);
	if (!question.family)
		return DEVICE_NEXT;
	/* What comes from no device is the node's own. If that is wrong of a fragment that was cut anew, the hook FORWARD
	 * has judged it.
	 */
	if (!skb->ingress_ifindex)
		question.asked = asked_of_node(question.now);
	if (!question.asked)
		return DEVICE_NEXT;
	nfct = connection_of(skb);
	if (nfct & ~CT_INFO_MASK)
		passed = pass_connection(skb, &question, nfct);
	else
		passed = pass_untracked(skb, &question);
	return passed ? DEVICE_NEXT : DEVICE_DROP;
}

enum where { ELSEWHERE, OWN_NODE, UNKNOWN_WHERE };

/* Whether an address is the node's own, by its seat or by the node's routes. */
static __always_inline enum where whereabouts(struct __sk_buff *skb, const struct question *question,
					      const struct address6 *address)
{
	const struct view *view = view_of(slot_of_address(address, question->family), question->now);
	struct bpf_fib_lookup ask = { .ifindex = skb->ifindex };
	long answer;

	if (view && view->flags & VIEW_OWN_NODE)
		return OWN_NODE;
	if (view && view->pod)
		return ELSEWHERE;
	if (question->family == 4) {
		ask.family = FAMILY_IPV4;
		ask.ipv4_dst = address->word[0];
	} else {
		ask.family = FAMILY_IPV6;
		__builtin_memcpy(ask.ipv6_dst, address->word, sizeof(ask.ipv6_dst));
	}
	answer = bpf_fib_lookup(skb, &ask, sizeof(ask), 0);
	if (answer == BPF_FIB_LKUP_RET_NOT_FWDED)
		return OWN_NODE;
	return answer < 0 || answer == BPF_FIB_LKUP_RET_FWD_DISABLED ? UNKNOWN_WHERE : ELSEWHERE;
}

/* Answers to the node's own addresses are judged at rf_entry, which sees no connection. So what leaves from one of them is
 * remembered as it is on the wire: the node's own flows, and those that the node lends its address.
 */
__noinline int note_own(struct __sk_buff *skb, const struct question *question)
{
	struct question seen = {};
	struct packet packet = {};
	struct verdict verdict = {};
	struct flow flow = {}, turned;
	__u64 at = bpf_ktime_get_ns();
	enum part part;

	if (!question)
		return 0;
	seen.now = question->now;
	seen.family = question->family;
	seen.asked = ASK_BOTH;
	if (!read_from_device(skb, &seen, &packet) || !isolated(&seen, ASK_BOTH, ASK_BOTH, &verdict))
		return 0;
	if (!read_flow(skb, &seen, &packet, &flow, &part, at) || part == PART_DEPENDENT)
		return 0;
	turn(&flow, &turned);
	if (!known(&turned, at) || part == PART_FIRST)
		remember_flow(&flow, at, false);
	return 0;
}

static __always_inline void flow_of_connection(struct nf_conn *connection, const struct question *question,
					       struct flow *flow)
{
	struct nf_conntrack_man client = {};

	bpf_core_read(&client.u, 2, &connection->tuplehash[0].tuple.src.u);
	flow->client = question->client;
	flow->server = question->server;
	flow->client_port = bpf_ntohs(client.u.all);
	flow->server_port = question->port;
	flow->protocol = question->protocol;
	flow->family = question->family;
}

/* Whether the tracker took a connection up in its midst: then it is lenient with it. */
static __always_inline bool is_picked_up(struct nf_conn *connection)
{
	__u8 flags = 0;

	bpf_core_read(&flags, sizeof(flags), &connection->proto.tcp.seen[0].flags);
	return flags & CT_TCP_LIBERAL;
}

/* Here the connection tracker confirms a connection before it is judged. So that there is one does not say that it was
 * ever allowed, nor that the packet that began it was a first one: its client may be the one who answers. What is to stay
 * open is remembered when it is allowed; who may be the wrong client is dropped as by pass_in_midst, each time.
 */
__noinline int pass_connection_alone(struct __sk_buff *skb, struct question *question, unsigned long nfct)
{
	struct source source = { .kind = FROM_DEVICE, .tc = skb };
	struct nf_conn *connection = (struct nf_conn *)(nfct & ~CT_INFO_MASK);
	bool keeps = question && question->now & SETTING_KEEP_ESTABLISHED;
	bool begins = (nfct & CT_INFO_MASK) == CT_NEW;
	struct verdict verdict = {};
	struct flow flow = {};
	__u64 at = 0;
	bool opened = false, unsure;

	if (!question)
		return false;
	if (!ask_of_connection(connection, question))
		return pass_stray(&source, question);
	if (keeps || question->protocol == PROTOCOL_SCTP) {
		at = bpf_ktime_get_ns();
		flow_of_connection(connection, question, &flow);
		opened = !begins && known(&flow, at);
	}
	unsure = question->protocol == PROTOCOL_TCP ? is_picked_up(connection)
						    : question->protocol == PROTOCOL_SCTP && !begins && !opened;
	if (unsure && isolated(question, ASK_INGRESS, ASK_EGRESS, &verdict))
		return refuse(question, &verdict, REASON_MID_CONNECTION);
	if (!(keeps && opened) && !pass_tracked(nfct, &source, question))
		return false;
	if (at)
		remember_flow(&flow, at, false);
	return true;
}

static __always_inline bool has_other_source(unsigned long nfct)
{
	struct nf_conn *connection = (struct nf_conn *)(nfct & ~CT_INFO_MASK);
	unsigned long status = 0;

	bpf_core_read(&status, sizeof(status), &connection->status);
	return status & CT_STATUS_SOURCE_TRANSLATED;
}

static __always_inline bool read_ends(struct __sk_buff *skb, struct question *question)
{
	const struct source source = { .kind = FROM_DEVICE, .tc = skb };

	if (question->family == 4)
		return read(&source, 12, question->client.word, 4) && read(&source, 16, question->server.word, 4);
	return read(&source, 8, question->client.word, 16) && read(&source, 24, question->server.word, 16);
}

__noinline int leaves_own_address(struct __sk_buff *skb, const struct question *question)
{
	struct question seen = {};

	if (!question)
		return false;
	seen.now = question->now;
	seen.family = question->family;
	return read_ends(skb, &seen) && whereabouts(skb, &seen, &seen.client) == OWN_NODE;
}

/* What goes elsewhere is judged where it leaves, after its translation. */
__noinline int is_for_own_node(struct __sk_buff *skb, const struct question *question)
{
	struct question seen = {};
	struct verdict verdict = {};

	if (!question)
		return true;
	seen.now = question->now;
	seen.family = question->family;
	seen.asked = question->asked;
	if (!read_ends(skb, &seen))
		return true;
	return isolated(&seen, ASK_BOTH, ASK_BOTH, &verdict) && whereabouts(skb, &seen, &seen.server) != ELSEWHERE;
}

SEC("tc")
int rf_exit_alone(struct __sk_buff *skb)
{
	struct question question = { .now = read_now(), .hook = HOOK_EXIT, .asked = ASK_BOTH };
	unsigned long nfct;
	__u8 part;
	bool own, passed;

	question.family = family_of(skb);
	if (!question.family)
		return DEVICE_NEXT;
	/* A fragment that was cut anew comes from no device either, so its source has to tell too. */
	own = !skb->ingress_ifindex && leaves_own_address(skb, &question);
	if (own)
		question.asked = asked_of_node(question.now);
	nfct = connection_of(skb);
	part = nfct & CT_INFO_MASK;
	if (nfct & ~CT_INFO_MASK) {
		passed = !question.asked || pass_connection_alone(skb, &question, nfct);
		if (passed && (part == CT_ESTABLISHED || part == CT_NEW) && (own || has_other_source(nfct)))
			note_own(skb, &question);
	} else {
		passed = pass_untracked(skb, &question);
	}
	return passed ? DEVICE_NEXT : DEVICE_DROP;
}

SEC("tc")
int rf_entry(struct __sk_buff *skb)
{
	struct question question = { .now = read_now(), .hook = HOOK_ENTRY };

	question.family = family_of(skb);
	question.asked = asked_of_node(question.now);
	if (!question.family || !question.asked || !is_for_own_node(skb, &question))
		return DEVICE_NEXT;
	return pass_untracked(skb, &question) ? DEVICE_NEXT : DEVICE_DROP;
}
