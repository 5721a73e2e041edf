# SPDX-License-Identifier: Apache-2.0
"""What an agent says of a pod that is denied, in a lab: from a manifest that kubectl applied to a line of its log."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.labs import Lab, brought_up
from tests.lab.test_pods import created, pod

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

HERE, ELSEWHERE = "aks-nodepool1-000000", "aks-nodepool1-000001"
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


@pytest.fixture(scope="module")
def telling() -> Iterator[Lab]:
    """Bring up a lab whose engine tells of its verdicts."""
    yield from brought_up("telling", "--network-policy", "ebpf")


def test_denial_is_told_by_the_agent_of_the_denied_pods_node(telling: Lab) -> None:
    """With the names of both pods, one of them on another node, and of the policy, which has no rule."""
    telling.must("apply", "-f", "-", stdin=POLICY)
    created(telling, "default", pod("server", "sleep", "1000", nodeName=HERE))
    created(telling, "default", pod("client", "sleep", "1000", nodeName=ELSEWHERE))
    address = telling.get("pod", "server")["status"]["podIP"]

    done = telling.exec("client", "timeout", "1", "bash", "-c", f"echo > /dev/tcp/{address}/8080")
    assert done.code != 0
    log = telling.directory / f"agent-{HERE}.log"
    telling.until(lambda: "msg=denied" in log.read_text(), "the line")

    line = next(line for line in log.read_text().splitlines() if "msg=denied" in line)
    facts = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', line)}
    assert facts["source_pod"] == "default/client"
    assert facts["destination_pod"] == "default/server"
    assert facts["destination_address"] == address
    assert (facts["protocol"], facts["port"], facts["direction"]) == ("TCP", "8080", "ingress")
    assert (facts["reason"], facts["policies"]) == ("no_rule", "NetworkPolicy default/nobody")
    assert "msg=denied" not in (telling.directory / f"agent-{ELSEWHERE}.log").read_text()
