"""What the control process tells Prometheus about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deployments.events import Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class ControlMetrics:
    """The metrics of one control process; every series exists from the start."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.epoch = Gauge(
            "penumbra_control_epoch", "Newest epoch of the store.", registry=self._registry
        )
        self.gateways = Gauge(
            "penumbra_control_gateways", "Connected gateways.", registry=self._registry
        )
        self.outdated_gateways = Gauge(
            "penumbra_control_outdated_gateways",
            "Connected gateways that have not acknowledged the newest epoch.",
            registry=self._registry,
        )
        self.changes = Counter(
            "penumbra_control_changes",
            "Durable changes, by kind.",
            ["kind"],
            registry=self._registry,
        )
        self.store_failures = Counter(
            "penumbra_control_store_failures",
            "Changes that the store did not take.",
            registry=self._registry,
        )
        self.propagation = Histogram(
            "penumbra_control_propagation_seconds",
            "From the durable commit of a change to the last gateway's acknowledgement.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.incomplete = Counter(
            "penumbra_control_incomplete_changes",
            "Changes that a connected gateway did not acknowledge in time.",
            registry=self._registry,
        )
        for kind in Kind:
            self.changes.labels(kind.value)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)
