# SPDX-License-Identifier: Apache-2.0
"""All rules: what each is called, how grave it is, the sentence that it rests on, and what to do.

Sentences are quoted to the letter; ``stands_in`` says where they stand. Tests hold those of the API and of
docs/semantics.md against their sources.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Severity(enum.IntEnum):
    """How grave a finding is."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """What people read and type."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class LintRule:
    """One rule. ``title`` says what is found, ``remedy`` what to do about it."""

    name: str
    severity: Severity
    title: str
    sentence: str
    stands_in: str
    remedy: str


_API = "Kubernetes API, networking.k8s.io/v1"
_DOCS = "https://kubernetes.io/docs/concepts/services-networking/network-policies/"
_SEMANTICS = "docs/semantics.md"
_EPHEMERAL = "These should be cluster-external IPs, since Pod IPs are ephemeral and unpredictable."
_NODES = (
    "Node specific policies (you can use CIDR notation for these, but you cannot target nodes by their Kubernetes"
    " identities specifically)."
)
_OR = "Items in this list are combined using a logical OR operation."
_ADDITIVE = (
    "OR if the traffic matches at least one egress rule across all of the NetworkPolicy objects whose podSelector"
    " matches the pod."
)

_TABLE = (
    LintRule(
        "invalid",
        Severity.ERROR,
        "the API server refuses the object; of a stored one, what is broken matches nothing",
        "The API server refuses invalid objects, with the field and the reason; one may be stored all the same, by an"
        " older server. Then the broken **rule** matches nothing, the pods stay isolated",
        f"{_SEMANTICS} 37",
        "mend the field",
    ),
    LintRule(
        "unknown-field",
        Severity.ERROR,
        "a field that the API does not have: kubectl refuses it, other clients drop it without a word",
        "The API server refuses invalid objects, with the field and the reason",
        f"{_SEMANTICS} 37",
        "mend the name of the field, or its indentation",
    ),
    LintRule(
        "selects-nothing",
        Severity.WARNING,
        "the podSelector matches no pod of the policy's namespace",
        "podSelector selects the pods to which this NetworkPolicy object applies.",
        f"{_API}, NetworkPolicySpec.podSelector",
        "mend the labels of the podSelector, or the namespace of the policy",
    ),
    LintRule(
        "host-network",
        Severity.WARNING,
        "the policy means pods on their node's network, to which no policy applies",
        "Pods with `hostNetwork: true` are never selected, neither by a policy's `podSelector` nor as a peer.",
        f"{_SEMANTICS} 25",
        "take the pods off the host network, or guard the node itself; as a peer, name the nodes by ipBlock",
    ),
    LintRule(
        "peer-matches-nothing",
        Severity.WARNING,
        "a peer matches no pod, so that the rule admits nobody by it",
        "If namespaceSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching podSelector"
        " in the Namespaces selected by NamespaceSelector. Otherwise it selects the pods matching podSelector in the"
        " policy's own namespace.",
        f"{_API}, NetworkPolicyPeer.podSelector",
        "mend the labels, or add the namespaceSelector of the namespace that is meant",
    ),
    LintRule(
        "and-or",
        Severity.WARNING,
        "two list items that mean either, where one item that means both was probably meant; or the reverse",
        _OR,
        f"{_API}, NetworkPolicyIngressRule.from",
        "for both at once, write podSelector and namespaceSelector in one item (one dash); for either, in two",
    ),
    LintRule(
        "either-or",
        Severity.INFO,
        "a namespaceSelector, then a podSelector, in two items: they admit all pods of those namespaces",
        _OR,
        f"{_API}, NetworkPolicyIngressRule.from",
        "if those pods in those namespaces are meant, write both in one item (one dash); if either, put the podSelector"
        " first",
    ),
    LintRule(
        "split-rule",
        Severity.INFO,
        "peers in one rule and ports in the next: the one admits every port, the other everybody",
        "If this field is empty or missing, this rule matches all sources (traffic not restricted by source).",
        f"{_API}, NetworkPolicyIngressRule.from",
        "if they belong together, write both in one rule (one dash)",
    ),
    LintRule(
        "empty-means-any",
        Severity.INFO,
        "an empty or null list of peers or ports in a rule admits everything, not nothing",
        "`from` or `to` missing or `[]` means everybody, inside and outside of the cluster.",
        f"{_SEMANTICS} 5; of ports, 6",
        "leave the field out if everything is meant; leave the rule out if nothing is",
    ),
    LintRule(
        "opposite-of-name",
        Severity.WARNING,
        "the policy's name says that it allows or denies, and its rules do the opposite",
        "`ingress` missing or `[]` allows nothing; `ingress: [{}]` allows everything.",
        f"{_SEMANTICS} 4",
        "write `[{}]` to allow everything, `[]` to allow nothing; or mend the name",
    ),
    LintRule(
        "void-rule",
        Severity.WARNING,
        "a rule that admits everything stands beside rules that then have no effect",
        "`ingress` missing or `[]` allows nothing; `ingress: [{}]` allows everything.",
        f"{_SEMANTICS} 4",
        "take out the rule that admits everything, or the others",
    ),
    LintRule(
        "ignored-rules",
        Severity.WARNING,
        "policyTypes leaves out a direction for which rules are written, so that they have no effect",
        "`policyTypes: [Egress]` says nothing about ingress, even if the policy has an `ingress` section.",
        f"{_SEMANTICS} 2",
        "add the direction to policyTypes, or take its rules out",
    ),
    LintRule(
        "no-dns-egress",
        Severity.WARNING,
        "pods may reach somebody by name, but not the cluster's DNS",
        _ADDITIVE,
        f"{_API}, NetworkPolicySpec.egress",
        "add an egress rule for UDP and TCP port 53 to the pods of the cluster's DNS",
    ),
    LintRule(
        "dns-without-tcp",
        Severity.INFO,
        "DNS is allowed by UDP alone: answers that do not fit a packet are then asked for by TCP in vain",
        "All general-purpose DNS implementations MUST support both UDP and TCP transport.",
        "RFC 7766, section 5",
        "add TCP port 53 beside UDP port 53",
    ),
    LintRule(
        "service-port",
        Severity.WARNING,
        "a port is the Service's, where policy sees the pod's",
        "Policy sees the pod's own address and target port, never the Service's",
        f"{_SEMANTICS} 31",
        "write the port that the pod listens on: the Service's targetPort",
    ),
    LintRule(
        "named-port-missing",
        Severity.WARNING,
        "no pod that the rule can lead to has a port of this name and protocol",
        "A named port is looked up on the **destination** pod, by name and protocol",
        f"{_SEMANTICS} 9",
        "name the port in the pod's containers, or write its number",
    ),
    LintRule(
        "named-port-outside",
        Severity.WARNING,
        "a named port to an ipBlock: it matches no address that is not a pod's",
        "A named port in an egress rule matches no address that is not a pod's: nothing says what number it would be.",
        f"{_SEMANTICS} 10",
        "write the number of the port",
    ),
    LintRule(
        "pod-address",
        Severity.WARNING,
        "an ipBlock for addresses of pods, which change",
        _EPHEMERAL,
        f"{_DOCS}#behavior-of-ipblock-selectors",
        "select the pods by podSelector and namespaceSelector",
    ),
    LintRule(
        "service-address",
        Severity.WARNING,
        "an ipBlock for addresses of Services, which policy never sees",
        "Policy sees the pod's own address and target port, never the Service's",
        f"{_SEMANTICS} 31",
        "select the pods behind the Service, or name the addresses that it leads to",
    ),
    LintRule(
        "node-address",
        Severity.INFO,
        "an ipBlock for the address of one node: nodes come and go",
        _NODES,
        f"{_DOCS}#what-you-can-t-do-with-network-policies-at-least-not-yet",
        "name the nodes' whole subnet, if it is the nodes that are meant",
    ),
    LintRule(
        "old-cidr",
        Severity.WARNING,
        "a stored block in a form that API servers no longer take",
        "They are read, the host bits are masked, and `ringfence lint` reports them.",
        f"{_SEMANTICS} 17",
        "write the block without host bits and leading zeros",
    ),
    LintRule(
        "equal-priority",
        Severity.WARNING,
        "two policies of one priority disagree about the same connections",
        "If two (or more) policies with the same priority could both match a connection, then the implementation can"
        " apply any of the matching policies to the connection, and there is no way for the user to reliably determine"
        " which one it will choose.",
        "policy.networking.k8s.io/v1alpha1, AdminNetworkPolicySpec.priority",
        "give them priorities of their own",
    ),
)

RULES: Mapping[str, LintRule] = {rule.name: rule for rule in _TABLE}
UNDENIABLE = frozenset({"invalid"})
"""Rules that cannot be silenced: the object does not work whatever anybody thinks of it."""
