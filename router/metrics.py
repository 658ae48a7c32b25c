"""Counters and histograms of a gateway process, one cell for each label set.

`penumbra.monitoring.telemetry.gateway` describes each metric.
"""

from prometheus_client import CollectorRegistry

from penumbra.monitoring.answers import AnswerCode, code_of
from penumbra.monitoring.metrics.build_info import build_labels
from penumbra.monitoring.metrics.cells import CellCollector, Counter, Family, Histogram
from penumbra.monitoring.metrics.exposition import Exposed, expose
from penumbra.monitoring.telemetry import gateway as of
from penumbra.monitoring.vocabulary import Outcome, Reason, Role


class SliceCells:
    """The cells of one variant's answers in one slice."""

    __slots__ = (
        "attempts",
        "duration",
        "pieces",
        "requests",
        "time_per_output_token",
        "time_to_first_byte",
    )

    def __init__(self, metrics: "GatewayMetrics", *labels: str) -> None:
        self.requests = metrics.requests.cell(*labels)
        self.attempts: dict[Outcome, Counter] = {
            outcome: metrics.attempts.cell(*labels, outcome.value) for outcome in Outcome
        }
        self.time_to_first_byte: Histogram = metrics.time_to_first_byte.cell(*labels)
        self.time_per_output_token: Histogram = metrics.time_per_output_token.cell(*labels)
        self.duration: Histogram = metrics.duration.cell(*labels)
        self.pieces = metrics.pieces.cell(*labels)


class VariantCells:
    """The cells of one variant of one model, each looked up once."""

    __slots__ = (
        "_by_status", "_decisions", "_labels", "_metrics", "_slices", "answers",
        "post_rollback_starts",
    )  # fmt: skip

    def __init__(self, metrics: "GatewayMetrics", model: str, variant: str, role: str) -> None:
        self._metrics = metrics
        self._labels = (model, variant, role)
        self._slices: dict[str, SliceCells] = {}
        self._decisions: dict[Reason, Counter] = {}
        # All at once: a series that is born with its first event has no increase to alert on.
        self.answers: dict[AnswerCode, Counter] = {
            code: metrics.answers.cell(*self._labels, code.value) for code in AnswerCode
        }
        """Answers as clients got them."""
        self._by_status: dict[int, Counter] = {}
        self.post_rollback_starts = metrics.post_rollback_starts.cell(model, variant)

    def of(self, slice_name: str) -> SliceCells:
        """The cells of one slice."""
        cells = self._slices.get(slice_name)
        if cells is None:
            cells = self._slices[slice_name] = SliceCells(self._metrics, *self._labels, slice_name)
        return cells

    def count_decision(self, reason: Reason) -> None:
        """Count a decision for this variant."""
        cell = self._decisions.get(reason)
        if cell is None:
            labels = (*self._labels, reason.value)
            cell = self._decisions[reason] = self._metrics.decisions.cell(*labels)
        cell.value += 1

    def count_answer(self, status: int) -> None:
        """Count the head of an answer of this variant that a client gets."""
        cell = self._by_status.get(status)
        if cell is None:
            cell = self._by_status[status] = self.answers[code_of(status)]
        cell.value += 1

    def count_broken_off(self) -> None:
        """Count that an answer which was counted by its status is no whole answer."""
        self.answers[AnswerCode.BROKEN_OFF].value += 1

    def count_failover(self, outcome: Outcome) -> None:
        """Count a failure of this variant after which another one took over."""
        model, variant, _ = self._labels
        self._metrics.failovers.cell(model, variant, outcome.value).value += 1


class GatewayMetrics:
    """All metrics of one gateway process."""

    def __init__(self) -> None:
        self.cells = cells = CellCollector()
        self.requests = cells.counter(of.REQUESTS)
        self.answers = cells.counter(of.ANSWERS)
        self.decisions = cells.counter(of.DECISIONS)
        self.attempts = cells.counter(of.ATTEMPTS)
        self.failovers = cells.counter(of.FAILOVERS)
        self.time_to_first_byte = cells.histogram(of.TIME_TO_FIRST_BYTE)
        self.time_per_output_token = cells.histogram(of.TIME_PER_OUTPUT_TOKEN)
        self.duration = cells.histogram(of.DURATION)
        self.pieces: Family[Counter] = cells.counter(of.STREAM_PIECES)
        self.errors = cells.counter(of.ERRORS)
        self.disconnects = cells.counter(of.DISCONNECTS).cell()
        self.mirrored = cells.counter(of.MIRRORED)
        self.mirror_sheds = cells.counter(of.MIRROR_SHEDS)
        self.post_rollback_starts = cells.counter(of.POST_ROLLBACK_STARTS)
        cells.read_by(of.BUILD, lambda: {build_labels(): 1})
        self._registry = CollectorRegistry()
        self._registry.register(cells)

    def variant(self, model: str, variant: str, role: Role) -> VariantCells:
        """The cells of one variant."""
        return VariantCells(self, model, variant, role.value)

    def expose(self, accept: str | None) -> Exposed:
        """Render all metrics in the form that the scraper accepts."""
        return expose(self._registry, accept)
