# SPDX-License-Identifier: Apache-2.0
"""What the agent measures of itself: names as Prometheus wants them (one prefix, base units), few labels, no pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ringfence import __version__
from ringfence.dataplanes.verdicts import VerdictKind

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Verdicts(Collector):
    """The dataplane's own counts, asked for whenever somebody asks for the metrics. ``counts``: None if it has none."""

    def __init__(self) -> None:
        self.counts: Callable[[], Mapping[VerdictKind, int]] | None = None

    def collect(self) -> Iterator[Metric]:
        """Return one number for each kind of verdict."""
        family = CounterMetricFamily(
            "ringfence_verdicts",
            "Connections that were allowed and packets that were denied, of pods that policies isolate.",
            labels=("verdict", "direction", "reason"),
        )
        for kind, count in self.counts().items() if self.counts is not None else ():
            direction = "none" if kind.direction is None else kind.direction.value
            family.add_metric(("allowed" if kind.allowed else "denied", direction, kind.reason.value), count)
        yield family


class Metrics:
    """The agent's metrics, in a registry of their own."""

    def __init__(self, dataplane: str, node: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which nobody asks for
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.programs_applied = Counter(
            "ringfence_programs_applied_total", "Programs that were committed to the dataplane.", registry=self.registry
        )
        self.apply_seconds = Histogram(
            "ringfence_apply_seconds", "How long the dataplane took.", registry=self.registry, buckets=_FAST
        )
        self.policy_realized_seconds = Histogram(
            "ringfence_policy_realized_seconds",
            "From hearing of a change to having committed what it means.",
            registry=self.registry,
            buckets=_FAST,
        )
        self.pod_gate_seconds = Histogram(
            "ringfence_pod_gate_seconds",
            "From hearing of a local pod's address to having its policy in force.",
            registry=self.registry,
            buckets=_FAST,
        )
        self.pod_starts = Counter(
            "ringfence_pod_starts_total",
            "Answers of the gate, by ground: in_force, unselected (no policy could select the pod), setting"
            " (--pod-start open), refused (not yet; who asked will ask again).",
            ["ground"],
            registry=self.registry,
        )
        for ground in ("in_force", "unselected", "setting", "refused"):
            self.pod_starts.labels(ground=ground)
        self.pod_start_wait_seconds = Histogram(
            "ringfence_pod_start_wait_seconds",
            "How long a pod that may start waited at the gate, from its last question.",
            registry=self.registry,
            buckets=_FAST,
        )
        self.watches_behind = Counter(
            "ringfence_watches_behind_total",
            "Watches that were followed anew because a list had what they did not tell.",
            registry=self.registry,
        )
        self.ruleset_rules = Gauge(
            "ringfence_ruleset_rules", "Rules of the rulesets that are in force.", registry=self.registry
        )
        self.drift_repaired = Counter(
            "ringfence_drift_repaired_total",
            "How often somebody else's change to our rules was undone.",
            registry=self.registry,
        )
        self.sync_errors = Counter(
            "ringfence_sync_errors_total",
            "What failed, by stage: follow (the API server), compile, apply, switch (from another dataplane), observe,"
            " report.",
            ["stage"],
            registry=self.registry,
        )
        for stage in ("follow", "compile", "apply", "switch", "observe", "report"):
            self.sync_errors.labels(stage=stage)
        self.policy_problems = Gauge(
            "ringfence_policy_problems",
            "Mistakes in stored objects; each keeps something closed.",
            registry=self.registry,
        )
        self.verdicts = Verdicts()
        self.registry.register(self.verdicts)
        self.verdict_events_lost = Counter(
            "ringfence_verdict_events_lost_total",
            "Verdicts that were counted and not logged, because there were too many.",
            registry=self.registry,
        )
        build = Gauge("ringfence_build_info", "Always 1.", ["version", "dataplane", "node"], registry=self.registry)
        build.labels(version=__version__, dataplane=dataplane, node=node).set(1)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
