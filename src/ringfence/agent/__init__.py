# SPDX-License-Identifier: Apache-2.0
"""The agent of one node: learn from the API server, compile, commit, and say when a pod's policy is in force."""
