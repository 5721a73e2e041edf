# SPDX-License-Identifier: Apache-2.0
"""The client side of the Kubernetes API: find a cluster, talk to it, list and watch. No policy is known here."""
