"""What a gateway process counts. Names, labels and help live here until one registry has them all.

Labels come from closed sets: configured models and variants, routes, outcomes, error codes.
"""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from monitoring.cells import CellCollector, Counter, Histogram
from monitoring.vocabulary import Outcome


class VariantCells:
    """The cells of one variant of one model, bound once."""

    __slots__ = (
        "_failovers",
        "_labels",
        "attempts",
        "duration",
        "post_rollback_starts",
        "requests",
        "time_to_first_byte",
    )

    def __init__(self, metrics: "GatewayMetrics", model: str, variant: str) -> None:
        self._labels = (model, variant)
        self.requests = metrics.requests.cell(model, variant)
        self.attempts: dict[Outcome, Counter] = {
            outcome: metrics.attempts.cell(model, variant, outcome.value) for outcome in Outcome
        }
        self.time_to_first_byte: Histogram = metrics.time_to_first_byte.cell(model, variant)
        self.duration: Histogram = metrics.duration.cell(model, variant)
        self._failovers = metrics.failovers
        self.post_rollback_starts = metrics.post_rollback_starts.cell(model, variant)

    def count_failover(self, outcome: Outcome) -> None:
        """This variant failed and another one took over."""
        self._failovers.cell(*self._labels, outcome.value).value += 1


class GatewayMetrics:
    """All metrics of one gateway process."""

    def __init__(self) -> None:
        cells = CellCollector()
        self.cells = cells
        self.requests = cells.counter(
            "penumbra_requests",
            "Requests answered by a variant, whatever the status.",
            ("model", "variant"),
        )
        self.attempts = cells.counter(
            "penumbra_upstream_attempts",
            "Attempts at a variant by how they ended.",
            ("model", "variant", "outcome"),
        )
        self.failovers = cells.counter(
            "penumbra_failovers",
            "Requests that another attempt had to answer or to continue, by what happened first.",
            ("model", "from_variant", "outcome"),
        )
        self.time_to_first_byte = cells.histogram(
            "penumbra_time_to_first_byte_seconds",
            "From the request read to the first byte of its answer's body.",
            ("model", "variant"),
        )
        self.duration = cells.histogram(
            "penumbra_request_duration_seconds",
            "From the request read to the last byte of its answer.",
            ("model", "variant"),
        )
        self.errors = cells.counter(
            "penumbra_gateway_errors",
            "Requests that the gateway itself answered with an error.",
            ("code",),
        )
        self.disconnects = cells.counter(
            "penumbra_client_disconnects",
            "Clients that went away before their answer was complete.",
            (),
        ).cell()
        self.mirrored = cells.counter(
            "penumbra_mirrored_requests",
            "Answered requests that were handed over to the comparator.",
            ("model", "candidate"),
        )
        self.mirror_sheds = cells.counter(
            "penumbra_mirror_sheds",
            "Requests chosen for mirroring that were not handed over, by the reason.",
            ("model", "candidate", "reason"),
        )
        self.post_rollback_starts = cells.counter(
            "penumbra_post_rollback_candidate_starts",
            "Attempts at a candidate that began although it is out of service; must stay 0.",
            ("model", "variant"),
        )
        self._registry = CollectorRegistry()
        self._registry.register(cells)

    def variant(self, model: str, variant: str) -> VariantCells:
        """The cells of one variant."""
        return VariantCells(self, model, variant)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)
