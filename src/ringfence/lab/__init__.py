# SPDX-License-Identifier: Apache-2.0
"""The lab: a cluster on one machine, whose pods are network namespaces and whose API server kubectl works against.

Charter: everything here copies what a real cluster does around ringfence; nothing of ringfence's enforcement knows
that it runs in a lab. Nothing of the lab touches the machine's own network.
"""
