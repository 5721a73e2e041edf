// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The programs, and where they stand. A packet is judged by its connection: the connection tracker says who opened it,
 * who answers and on which port, for replies, ICMP errors and translated addresses too.
 */
#include "connection.h"
#include "judge.h"
#include "packet.h"
#include "recent.h"
#include "report.h"

/* The kernel lends some of its functions only to programs under its own licence. */
char LICENSE[] SEC("license") = "GPL";

static __always_inline __u64 read_now(void)
{
	__u32 zero = 0;
	struct now *now = bpf_map_lookup_elem(&rf_now, &zero);

	return now ? *(volatile __u64 *)&now->word : 0;
}

/* A packet that the tracker has no connection for: closed for what is isolated, and nobody's business otherwise. */
static __always_inline bool pass_stray(const struct source *source, struct question *question)
{
	struct packet packet = {};
	struct verdict verdict = {};

	if (!read_packet(source, question, &packet))
		return false; /* no address could be read: not an IP packet, whatever the hook says */
	/* "IPv6 neighbour discovery and router messages between pod and node always pass" (SEMANTICS 33) */
	if (packet.discovers)
		return true;
	if (!isolated(question, ASK_BOTH, ASK_BOTH, &verdict))
		return true;
	question->protocol = packet.protocol;
	question->port = packet.port;
	verdict.reason = packet.readable ? REASON_NO_CONNECTION : REASON_UNPARSABLE;
	report(question, &verdict);
	return false;
}

/* A new connection whose first packet opens none: the tracker lost its beginning and takes the sender for the client.
 * That may be the wrong way round. It is dropped if the other way round would have to be judged too: the sender has
 * ingress rules, or the receiver egress rules.
 */
static __always_inline bool pass_in_midst(const struct source *source, struct question *question)
{
	struct question seen = *question;
	struct packet packet = {};
	struct verdict verdict = {};

	if (read_packet(source, &seen, &packet) && packet.readable && packet.opens)
		return true;
	if (!isolated(question, ASK_INGRESS, ASK_EGRESS, &verdict))
		return true;
	verdict.reason = packet.readable ? REASON_MID_CONNECTION : REASON_UNPARSABLE;
	report(question, &verdict);
	return false;
}

/* A packet whose connection is in the question. */
static __always_inline bool pass_tracked(unsigned long nfct, const struct source *source, struct question *question)
{
	bool begins = (nfct & CT_INFO_MASK) == CT_NEW;
	struct verdict verdict = {};

	if (begins && (question->protocol == PROTOCOL_TCP || question->protocol == PROTOCOL_SCTP) &&
	    !pass_in_midst(source, question))
		return false;
	if (!judge_or_recall(question, &verdict)) {
		report(question, &verdict);
		return false;
	}
	if (begins && verdict.slot)
		report(question, &verdict);
	return true;
}

static __always_inline bool pass(unsigned long nfct, const struct source *source, struct question *question)
{
	struct nf_conn *connection = (struct nf_conn *)(nfct & ~CT_INFO_MASK);
	bool begins = (nfct & CT_INFO_MASK) == CT_NEW;

	if (!question->asked)
		return true;
	if (connection && !begins && question->now & SETTING_KEEP_ESTABLISHED)
		return true;
	if (!connection || !ask_of_connection(connection, question))
		return pass_stray(source, question);
	return pass_tracked(nfct, source, question);
}

/* Between the node itself and its pods (SEMANTICS 23, 24). */
static __always_inline __u8 asked_of_node(__u64 now)
{
	return (now & SETTING_OWN_NODE_ALLOW ? 0 : ASK_EGRESS) | (now & SETTING_NODE_PROBES_DENY ? ASK_INGRESS : 0);
}

SEC("netfilter")
int rf_filter(struct bpf_nf_ctx *ctx)
{
	const struct nf_hook_state *state = ctx->state;
	struct question question = { .now = read_now() };
	struct source source = { .kind = FROM_NETFILTER, .netfilter = ctx->skb };
	bool passed;

	question.hook = state->hook;
	question.family = state->pf == PF_IPV4 ? 4 : 6;
	question.asked = ASK_BOTH;
	if (question.hook != HOOK_FORWARD)
		question.asked = asked_of_node(question.now);
	passed = pass(ctx->skb->_nfct, &source, &question);
	return passed ? HOOK_ACCEPT : HOOK_DROP;
}

#include "device.h"

/* Asks without a packet of anybody's: the agent runs it on packets of its own making (BPF_PROG_TEST_RUN), which no
 * connection belongs to. Each is judged as the first of its connection, by the same maps and the same code. Returns 1
 * if it may pass; mark is the reason << 8 | direction << 4 | 1 if anybody's rules were asked, cb[0] and cb[1] the rule's
 * id, cb[2] and cb[3] the ruleset's (the lower half first).
 */
SEC("tc")
int rf_ask(struct __sk_buff *skb)
{
	struct question question = { .now = read_now(), .asked = ASK_BOTH, .by_address = true };
	struct source source = { .kind = FROM_TC, .tc = skb, .network = 14 };
	struct verdict verdict = {};
	struct packet packet = {};
	bool passed;

	question.family = skb->protocol == bpf_htons(0x0800) ? 4 : 6;
	if (!read_packet(&source, &question, &packet))
		return 0;
	question.protocol = packet.protocol;
	question.port = packet.port;
	if (packet.discovers) {
		passed = true;
	} else if (!packet.readable) {
		passed = !isolated(&question, ASK_BOTH, ASK_BOTH, &verdict);
		verdict.reason = REASON_UNPARSABLE;
	} else if (!packet.opens && isolated(&question, ASK_INGRESS, ASK_EGRESS, &verdict)) {
		passed = false;
		verdict.reason = REASON_MID_CONNECTION;
	} else {
		passed = judge_or_recall(&question, &verdict);
	}
	skb->mark = verdict.slot ? verdict.reason << 8 | verdict.direction << 4 | 1 : 0;
	skb->cb[0] = verdict.rule;
	skb->cb[1] = verdict.rule >> 32;
	skb->cb[2] = verdict.ruleset;
	skb->cb[3] = verdict.ruleset >> 32;
	return passed;
}
