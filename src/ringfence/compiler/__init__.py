# SPDX-License-Identifier: Apache-2.0
"""Cluster and policies and node in, program out; and the interpreter that runs a flow through a program. Pure."""
