# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy (networking.k8s.io/v1): validation in the API server's words, and lowering to the model."""

from ringfence.apis.cidrs import CidrForm
from ringfence.apis.networkpolicy.lowering import DEFAULT_NAMESPACE, Lowered, decode_network_policy, lower, policy_set
from ringfence.apis.networkpolicy.validation import KIND, SHAPE, validate

__all__ = [
    "DEFAULT_NAMESPACE",
    "KIND",
    "SHAPE",
    "CidrForm",
    "Lowered",
    "decode_network_policy",
    "lower",
    "policy_set",
    "validate",
]
