# SPDX-License-Identifier: Apache-2.0
"""Cases: a cluster, steps that change it, and the verdicts expected after each; run against any engine."""
