# SPDX-License-Identifier: Apache-2.0
"""The only doors to the machine: processes, network namespaces, nftables, BPF, facts. No policy is known here."""
