# SPDX-License-Identifier: Apache-2.0
"""ringfence decides which pods of a Kubernetes cluster may talk to each other, and makes the kernel keep to it."""

__version__ = "0.1.0"
