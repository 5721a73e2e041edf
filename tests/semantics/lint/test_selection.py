# SPDX-License-Identifier: Apache-2.0
"""Policies that select nobody, peers that match nobody, pods on the host network."""

from __future__ import annotations

import pytest

from tests.semantics.lint.linted import findings, found, namespace, pod, policy, workload

WEB = workload("shop/web", "{app: web}")
SELECTS = "{podSelector: {matchLabels: {app: website}}}"
FROM = "{podSelector: {}, ingress: [{from: [%s]}]}"


def test_a_selector_that_no_pod_has_is_found_with_the_nearest_pod() -> None:
    """The message says what the namespace has instead."""
    (finding,) = findings(policy(SELECTS), WEB)

    assert (finding.rule.name, finding.path) == ("selects-nothing", "spec.podSelector")
    assert finding.message == "no pod of namespace shop has app=website; nearest: Deployment shop/web has app=web"


def test_a_selector_whose_pods_are_in_another_namespace_is_found_with_them() -> None:
    """The namespace was forgotten."""
    (finding,) = findings(policy(SELECTS), WEB, workload("default/site", "{app: website}"))

    assert "Deployment default/site would match, in another namespace" in finding.message


def test_nothing_is_called_near_that_has_nothing_in_common() -> None:
    """Of several requirements, one must be met."""
    (finding,) = findings(policy("{podSelector: {matchLabels: {app: x, tier: y}}}"), WEB)

    assert "nearest" not in finding.message


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param([], id="no pods at all"),
        pytest.param([workload("other/web", "{app: web}")], id="pods of another namespace only"),
        pytest.param([WEB, {"apiVersion": "acid.zalan.do/v1", "kind": "postgresql",
                            "metadata": {"name": "db", "namespace": "shop"}}], id="an operator may make pods"),
        pytest.param([WEB, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "_", "namespace": "shop"}}],
                     id="a pod is broken"),
    ],
)  # fmt: skip
def test_files_that_may_not_hold_all_pods_leave_it_open(beside: list[dict[str, object]]) -> None:
    """What nobody told of is not judged."""
    assert findings(policy(SELECTS), *beside, rule="selects-nothing") == []


def test_custom_resources_that_make_no_pods_leave_nothing_open() -> None:
    """A ServiceMonitor stands for no pod."""
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "m", "namespace": "shop"},
    }

    assert findings(policy(SELECTS), WEB, monitor, rule="selects-nothing")


def test_a_live_cluster_is_all_that_there_is() -> None:
    """Even without a single pod; but a default deny for a namespace that is still empty is fine."""
    assert found(policy(SELECTS), whole=True) == [("selects-nothing", "spec.podSelector")]
    assert found(policy("{podSelector: {}}"), whole=True) == []


def test_negative_selectors_may_select_nobody() -> None:
    """Everybody but the web pods: nobody at the moment, and no mistake."""
    spec = "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}"

    assert found(policy(spec), WEB) == []


@pytest.mark.parametrize(
    "labels", ["{acme.cert-manager.io/http01-solver: 'true'}", "{app: ci, job-name: build}", "{spark-role: executor}"]
)
def test_pods_of_tasks_need_not_be_there(labels: str) -> None:
    """They come and go with the task, as those who select them know."""
    assert found(policy(f"{{podSelector: {{matchLabels: {labels}}}}}"), WEB, whole=True) == []
    assert found(policy(FROM % f"{{podSelector: {{matchLabels: {labels}}}}}"), WEB, whole=True) == []


def test_completed_pods_count() -> None:
    """The policy of a Job is no mistake because the Job is done."""
    done = pod("shop/job-1", "{app: website}", ip="10.0.0.1", phase="Succeeded")

    assert found(policy(SELECTS), done, whole=True) == []


def test_a_workload_without_replicas_counts() -> None:
    """It is scaled down, not gone."""
    site = workload("shop/site", "{app: website}")
    site["spec"]["replicas"] = 0

    assert found(policy(SELECTS), WEB, site) == []


PEER = "{podSelector: {matchLabels: %s}}"
PODS = [("peer-matches-nothing", "spec.ingress[0].from[0].podSelector")]
FRONTEND = workload("shop/front", "{app: frontend, tier: x}")


@pytest.mark.parametrize(
    ("labels", "has"),
    [
        pytest.param("{app: fronted}", "app=frontend", id="a letter is missing"),
        pytest.param("{app: frontends}", "app=frontend", id="a letter too many"),
        pytest.param("{app: forntend}", "app=frontend", id="two letters changed places"),
        pytest.param("{app: Front-End}", "app=frontend", id="case and separators"),
        pytest.param("{name: frontend}", "no name", id="another key"),
        pytest.param("{app: fronted, tier: x}", "app=frontend", id="one of two"),
    ],
)
def test_a_peer_that_is_nearly_a_pod_is_found_in_files(labels: str, has: str) -> None:
    """It was meant for the pod that is there, which the message names."""
    (finding,) = findings(policy(FROM % (PEER % labels)), WEB, FRONTEND)

    assert (finding.rule.name, finding.path) == PODS[0]
    assert finding.message.endswith(f"; nearest: Deployment shop/front has {has}")


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param("{app: prometheus}", id="another application"),
        pytest.param("{app: frontend-db}", id="a name of the same family"),
        pytest.param("{app: frontend2}", id="another number"),
        pytest.param("{app: wet}", id="a short word"),
        pytest.param("{app: frontier}", id="another word"),
        pytest.param("{app: fronted, tier: y}", id="one of two is far off"),
        pytest.param("{app: fronted, zone: a}", id="one of two is nowhere"),
    ],
)
def test_a_peer_that_may_be_in_other_files_is_found_only_in_a_live_cluster(labels: str) -> None:
    """A chart holds one application of a namespace, and lets in its neighbours."""
    given = policy(FROM % (PEER % labels))

    assert found(given, WEB, FRONTEND) == []
    assert found(given, WEB, FRONTEND, whole=True) == PODS


def test_requirements_other_than_values_are_no_slips() -> None:
    """What it was meant to be, nobody can tell."""
    not_there = "{key: team, operator: NotIn, values: [a]}"
    spec = FROM % f"{{podSelector: {{matchLabels: {{app: frontend}}, matchExpressions: [{not_there}]}}}}"

    assert found(policy(spec), workload("shop/front", "{app: frontend, team: a}")) == []


def test_a_peer_whose_pods_are_in_another_namespace_is_found_in_files() -> None:
    """The namespaceSelector was forgotten."""
    given = policy(FROM % (PEER % "{app: prometheus}"))
    (finding,) = findings(given, WEB, workload("monitoring/prometheus", "{app: prometheus}"))

    assert finding.message.endswith("; Deployment monitoring/prometheus would match, in another namespace")


@pytest.mark.parametrize("whole", [False, True], ids=["files", "live"])
@pytest.mark.parametrize(
    "selector",
    ["{matchLabels: {db-client: 'true'}}", "{matchLabels: {app: web, quarantine: 'Yes'}}",
     "{matchExpressions: [{key: db-client, operator: Exists}]}"],
)  # fmt: skip
def test_labels_to_opt_in_need_not_be_in_use(selector: str, *, whole: bool) -> None:
    """They are there for whoever wants them."""
    assert found(policy(f"{{podSelector: {selector}}}"), WEB, whole=whole) == []
    assert found(policy(FROM % f"{{podSelector: {selector}}}"), WEB, whole=whole) == []


def test_labels_to_opt_in_are_judged_where_they_are_in_use() -> None:
    """Then the rest of the selector finds nobody."""
    client = workload("shop/client", "{app: client, db-client: 'true'}")
    given = policy("{podSelector: {matchLabels: {app: clients, db-client: 'true'}}}")

    assert found(given, WEB, client) == [("selects-nothing", "spec.podSelector")]


def test_a_peer_of_a_namespace_that_is_named_is_judged_by_its_pods() -> None:
    """Files know all about a namespace only if its name is asked for and they hold pods of it."""
    one = "kubernetes.io/metadata.name: bank"
    named = f"{{namespaceSelector: {{matchLabels: {{{one}}}}}, podSelector: {{matchLabels: {{a: tills}}}}}}"
    labelled = named.replace(one, "team: bank")
    bank = [namespace("bank", "{team: bank}"), workload("bank/till", "{a: till}")]

    assert found(policy(FROM % named), WEB) == []
    assert found(policy(FROM % named), WEB, *bank) == PODS
    assert found(policy(FROM % labelled), WEB, *bank) == []
    assert [name for name, _ in found(policy(FROM % labelled), WEB, *bank, whole=True)] == ["peer-matches-nothing"]


def test_a_namespace_asked_for_by_a_label_that_it_lacks_is_found_in_files() -> None:
    """Namespaces have no label "name"; they have one that is always there."""
    given = policy(FROM % "{namespaceSelector: {matchLabels: {name: monitoring}}}")
    (finding,) = findings(given, namespace("monitoring"))

    assert finding.path == "spec.ingress[0].from[0].namespaceSelector"
    assert finding.message.endswith(
        "namespace monitoring has no label name, but always kubernetes.io/metadata.name=monitoring"
    )
    assert found(given) == []
    assert found(given, namespace("monitoring", "{name: monitoring}")) == []
    assert found(given, pod("monitoring/prometheus")) == []  # its labels are not known


def test_a_namespace_that_is_not_in_a_live_cluster_is_found() -> None:
    """There, what is not there does not exist."""
    named = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bank}}}"
    but = "{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}"

    assert [name for name, _ in found(policy(FROM % named), whole=True)] == ["peer-matches-nothing"]
    assert found(policy(FROM % but), namespace("shop", "{team: a}"), whole=True) == []


def test_selected_pods_on_the_host_network_are_found() -> None:
    """No policy applies to them, whether others are selected or not."""
    host = workload("shop/agent", "{app: web}", hostNetwork=True)
    given = policy("{podSelector: {matchLabels: {app: web}}}")
    (alone,) = findings(given, host)
    (beside,) = findings(given, host, WEB)

    assert (alone.rule.name, alone.path) == ("host-network", "spec.podSelector")
    assert alone.message.endswith("and it isolates nobody")
    assert beside.message == "Deployment shop/agent: on the host network, so that no policy applies, and they stay open"


def test_a_default_deny_beside_host_network_pods_is_no_finding() -> None:
    """Nobody meant those; if there are no others, it does nothing."""
    host = workload("shop/agent", "{app: agent}", hostNetwork=True)

    assert found(policy("{podSelector: {}}"), host, WEB) == []
    assert found(policy("{podSelector: {}}"), host) == [("host-network", "spec.podSelector")]


def test_a_peer_on_the_host_network_is_found() -> None:
    """Its traffic has the node's address."""
    host = workload("shop/agent", "{app: agent}", hostNetwork=True)

    assert found(policy(FROM % "{podSelector: {matchLabels: {app: agent}}}"), host, WEB) == [
        ("host-network", "spec.ingress[0].from[0]")
    ]


def test_many_workloads_are_not_all_named() -> None:
    """Three, and how many more."""
    hosts = [workload(f"shop/agent{n}", "{app: web}", hostNetwork=True) for n in range(5)]
    (finding,) = findings(policy("{podSelector: {matchLabels: {app: web}}}"), *hosts, rule="host-network")

    assert "Deployment shop/agent2 and 2 more: on the host" in finding.message
