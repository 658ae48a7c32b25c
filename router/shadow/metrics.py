"""What a comparator counts. Labels come from closed sets: models, variants, reasons, arms."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from monitoring.cells import CellCollector
from monitoring.evidence import Pair
from router.shadow.intake import ShedReason


class ShadowMetrics:
    """All metrics of one comparator process."""

    def __init__(self) -> None:
        cells = CellCollector()
        self.cells = cells
        self.received = cells.counter(
            "penumbra_shadow_received", "Mirrored requests that gateways handed over.", ()
        ).cell()
        self.malformed = cells.counter(
            "penumbra_shadow_malformed_frames", "What gateways sent that was no frame.", ()
        ).cell()
        self.faults = cells.counter(
            "penumbra_shadow_faults",
            "Background work of the comparator that failed; its log says where.",
            ("work",),
        )
        self._pairs = cells.counter(
            "penumbra_shadow_pairs",
            "Compared requests.",
            ("model", "candidate", "arm"),
        )
        self._missing = cells.counter(
            "penumbra_shadow_missing",
            "Compared requests for which the candidate gave no usable score or answer.",
            ("model", "candidate", "arm"),
        )
        self._sheds = cells.counter(
            "penumbra_shadow_sheds",
            "Mirrored requests that were not compared, for each rollout that chose them.",
            ("model", "reason"),
        )
        self._seconds = cells.histogram(
            "penumbra_shadow_engine_seconds",
            "Time that engines worked for one pair, as seen from outside.",
            ("model", "candidate"),
        )
        self._registry = CollectorRegistry()
        self._registry.register(cells)

    def count_pair(self, model: str, candidate: str, pair: Pair) -> None:
        """A request was compared."""
        self._pairs.cell(model, candidate, pair.arm.value).value += 1
        if pair.missing is not None:
            self._missing.cell(model, candidate, pair.arm.value).value += 1
        self._seconds.cell(model, candidate).observe(pair.engine_seconds)

    def shed(self, model: str, reason: ShedReason) -> None:
        """A request was not compared."""
        self._sheds.cell(model, reason.value).value += 1

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)
