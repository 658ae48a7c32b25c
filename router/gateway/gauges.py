"""Gauges of a gateway process: states that are read when it is scraped, not counted."""

from penumbra.monitoring.telemetry import gateway as of
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.gateway.build_pools import connections
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.link.client import ControlLink


def declare_gauges(gateway: Gateway, link: ControlLink | None) -> None:
    """Add the gauges of one gateway to its metrics.

    Args:
        gateway: The gateway.
        link: Its link to the control process, if it has one.
    """
    _declare_traffic(gateway)
    _declare_evidence(gateway)
    cells = gateway.metrics.cells
    cells.read(of.CONTROL_CONNECTED, lambda: link is not None and link.is_connected)


def _declare_traffic(gateway: Gateway) -> None:
    cells = gateway.metrics.cells
    cells.read(of.SNAPSHOT_EPOCH, lambda: gateway.snapshot.epoch)
    cells.read(
        of.IN_FLIGHT,
        lambda: sum(isinstance(item, Dispatch) for item in gateway.timed),
    )
    cells.read_by(of.UPSTREAM_CONNECTIONS, lambda: connections(gateway.builds))


def _declare_evidence(gateway: Gateway) -> None:
    cells = gateway.metrics.cells
    comparator_client = gateway.mirroring.comparator_client
    cells.read(of.COMPARATOR_CONNECTED, lambda: comparator_client.is_connected)
    cells.read(of.MIRROR_BUFFER, lambda: comparator_client.buffered_bytes)
    cells.read(of.MIRROR_LOST, lambda: comparator_client.lost)
    cells.read_by(
        of.LEASE, lambda: {(model,): left for model, left in gateway.lease_seconds.items()}
    )
    cells.read(of.OBSERVATIONS_DROPPED, lambda: gateway.observations.dropped)
    cells.read_by(of.LOCAL_TRIPS, lambda: gateway.local_guard.trips)
