# SPDX-License-Identifier: Apache-2.0
"""The lab's nodes: what a kubelet, its container runtime and kube-proxy do on a real node.

Charter: learns what should run from the API server only, and tells it what does. Knows nothing of policy: it asks the
node's agent whether a pod may have traffic, and opens the pod's network when the agent says so, never before.

::

    kubelet    one per node: registers it, and gives every pod bound to it a task of its own
    worker     one pod's life: network, gate, containers, probes, restarts, end
    runtime    speaks to the runner             simulated   the same words without processes, for labs without root
    runner     a process of its own, parent of all containers, so that they outlive a kubelet that crashes
"""
