# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the eBPF engine: tried, in a network namespace that is gone afterwards."""

from __future__ import annotations

from ringfence.compiler.program import empty_program
from ringfence.dataplanes.base import Answer, Hook, Probe
from ringfence.dataplanes.ebpf import folders
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.build import object_path
from ringfence.dataplanes.ebpf.hooks import AUTO
from ringfence.dataplanes.ebpf.place import Place
from ringfence.errors import HostLacks, HostRefused, ProgramRefused
from ringfence.host import netns
from ringfence.host.fact import Fact


def probe(hooks: str = AUTO) -> Probe:
    """Put an empty program in force where nobody is, and take it out again."""

    def tried() -> Hook:
        with folders.for_a_try() as folder:
            dataplane = EbpfDataplane(Place(folder, hooks=hooks))
            try:
                dataplane.apply(empty_program("probe"))
                return dataplane.hook
            finally:
                dataplane.remove()
                dataplane.close()

    try:
        hook = netns.in_fresh(tried)
    except HostLacks as error:
        return Probe(Answer.NO, error.what, error.remedy)
    except ProgramRefused as error:
        return Probe(Answer.NO, error.fact, error.advice)
    except HostRefused as error:
        return Probe(Answer.NO, str(error))
    except OSError as error:
        return Probe(Answer.UNKNOWN, f"could not be tried: {error}")
    return Probe(Answer.YES, "the kernel takes its programs and runs them", hook=hook)


def compiled() -> Fact:
    """Whether the C program is compiled, or can be: tried, and kept for the engine's first use."""
    name, use = "eBPF object", "the ebpf engine"
    try:
        return Fact(name, use, True, str(object_path()))
    except HostLacks as error:
        return Fact(name, use, False, error.what, error.remedy)
