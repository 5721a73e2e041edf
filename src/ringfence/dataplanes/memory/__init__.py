# SPDX-License-Identifier: Apache-2.0
"""The dataplane without a kernel: holds a program and answers what it would do with a flow. Filters no packet.

For tests, for labs on machines without privileges, and for anyone who wants verdicts from Python.
"""

from ringfence.dataplanes.memory.apply import MemoryDataplane
from ringfence.dataplanes.memory.observe import probe
from ringfence.dataplanes.memory.render import Table, render

__all__ = ["MemoryDataplane", "Table", "probe", "render"]
