"""Reads a gateway's cells, over all slices."""

from penumbra.monitoring.vocabulary import Outcome, role_of
from penumbra.router.metrics import GatewayMetrics, VariantCells


def cells_of(metrics: GatewayMetrics, name: str) -> VariantCells:
    """The cells of a variant of the model `demo`, whose baseline is `full`."""
    return metrics.variant("demo", name, role_of(name, "full"))


def attempts_of(metrics: GatewayMetrics, variant: str, outcome: Outcome) -> int:
    """Attempts at a variant that ended so, over all slices."""
    return sum(
        cell.value
        for labels, cell in metrics.attempts.cells.items()
        if labels[1] == variant and labels[-1] == outcome.value
    )
