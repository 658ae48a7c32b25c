"""What a gateway tells about itself when it is scraped, beside what it counts."""

from typing import TYPE_CHECKING

from router.dispatch import Dispatch

if TYPE_CHECKING:
    from router.gateway import Gateway


def declare_gauges(gateway: "Gateway") -> None:
    """Add the gauges of one gateway to its metrics."""
    _declare_traffic(gateway)
    _declare_evidence(gateway)


def _declare_traffic(gateway: "Gateway") -> None:
    gauge = gateway.metrics.cells.gauge
    gauge(
        "penumbra_snapshot_epoch",
        "Epoch of the routing table in force.",
        lambda: gateway.snapshot.epoch,
    )
    gauge(
        "penumbra_requests_in_flight",
        "Requests with an upstream attempt under way.",
        lambda: sum(isinstance(item, Dispatch) for item in gateway.timed),
    )
    gauge(
        "penumbra_upstream_connections",
        "Open connections to variants, idle ones included.",
        lambda: gateway.upstream_connections,
    )


def _declare_evidence(gateway: "Gateway") -> None:
    cells = gateway.metrics.cells
    cells.gauge(
        "penumbra_comparator_connected",
        "1 while mirrored requests can be handed over to a comparator.",
        lambda: gateway.mirroring.handover.is_connected,
    )
    cells.gauge(
        "penumbra_mirror_buffer_bytes",
        "Mirrored requests that wait to be taken by the comparator.",
        lambda: gateway.mirroring.handover.buffered_bytes,
    )
    cells.counted(
        "penumbra_mirror_lost",
        "Mirrored requests that waited for a comparator when it went away.",
        lambda: gateway.mirroring.handover.lost,
    )
    cells.gauge_by(
        "penumbra_lease_seconds",
        "For how much longer candidates may get live traffic without a sign of life of the guard.",
        "model",
        lambda: gateway.lease_seconds,
    )
    cells.counted(
        "penumbra_observations_dropped",
        "Observations that were lost because too many waited for the control process.",
        lambda: gateway.reporter.dropped,
    )
