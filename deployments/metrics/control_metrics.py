"""Metrics of the control process: its own counters, and the sources that a scrape asks.

The owner of a figure exposes it (`ControlMetrics.expose`) as series of the registry's metrics. They
are made on the event loop, so each source's are of one moment, and cheap to make. A thread turns
them into text.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from prometheus_client import Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.history.changes import Arrival
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.metrics.history_counters import HistoryCounters
from penumbra.deployments.store.observation_tables import RollbackTimes
from penumbra.monitoring.metrics.build_info import build_labels
from penumbra.monitoring.metrics.exposition import samples
from penumbra.monitoring.telemetry import control, labels
from penumbra.monitoring.telemetry.metric import Metric as Definition

Series = tuple[Definition, Mapping[tuple[str, ...], float]]
"""A metric, and its values by the values of its labels."""
Source = Callable[[], Awaitable[Iterable[Series]]]
"""Returns the series to expose now; called on the event loop."""

_PAUSE_SECONDS = 0.0001
"""Pause after the text of each metric. It hands the interpreter to a waiting thread at once instead
of after the switch interval: a decision must not wait for text."""

FeedbackKey = tuple[str, str, str, bool]
"""(model, variant, slice, whether the user was content)."""


class ControlMetrics:
    """The metrics of one control process."""

    def __init__(self) -> None:
        self.history_counters = HistoryCounters()
        """Counts of the history; must be given every event once."""
        self.store_failures = 0
        """Number of changes that the store did not take."""
        self.feedback: Counter[FeedbackKey] = Counter()
        """User judgements that this process has stored."""
        self._incomplete = 0
        self.alerts = dict.fromkeys(labels.RESULT.values, 0)
        """Result -> alerts of the webhook with that result."""
        self._registry = CollectorRegistry()
        self._propagation = _histogram(control.PROPAGATION, self._registry)
        self._rollback_seconds = _histogram(control.ROLLBACK_SECONDS, self._registry)
        for part in labels.PART.values:
            self._rollback_seconds.labels(part)
        self._sources: dict[str, Source] = {}

    def expose(self, owner: str, source: Source) -> None:
        """Asks this source at every scrape; it replaces an earlier one of the same owner."""
        self._sources[owner] = source

    def count_alert(self, result: str) -> None:
        """Counts an alert of Alertmanager's webhook.

        Raises:
            ValueError: The result is no value of the label `result`.
        """
        if result not in self.alerts:
            raise ValueError(f"found the result {result!r}, wanted one of {[*self.alerts]}")
        self.alerts[result] += 1

    def count_judgement(self, judgement: UserFeedback) -> None:
        """Counts a user's judgement that was stored."""
        place = judgement.model, judgement.variant, judgement.slice
        self.feedback[(*place, not judgement.is_negative)] += 1

    def watch(self, delivery: Delivery, seconds: float) -> None:
        """Measures the time that an epoch takes to reach every gateway; needs a running loop.

        Args:
            delivery: The epoch's delivery, just handed over.
            seconds: Time after which it is late.
        """
        delivery.when_over(self._count_arrival)
        if not delivery.is_over:
            asyncio.get_running_loop().call_later(seconds, self._check_late, delivery)

    def time_rollback(self, times: RollbackTimes) -> None:
        """Records the times of a rollback or a quarantine."""
        observed, durable, acknowledged = (
            times.observed_at,
            times.durable_at,
            times.acknowledged_at,
        )
        for part, begun, done in (
            ("observed_to_durable", observed, durable),
            ("durable_to_acknowledged", durable, acknowledged),
            ("observed_to_acknowledged", observed, acknowledged),
        ):
            if begun is not None and done is not None:
                # The clocks of two machines may differ; nothing is done before it began.
                self._rollback_seconds.labels(part).observe(max(0.0, done - begun))

    async def scrape(self, accept: str | None) -> tuple[bytes, str]:
        """Returns the exposition and its content type: OpenMetrics if accepted, else plain text.

        Args:
            accept: The request's `accept` header.
        """
        series = [*self._own_series()]
        for source in self._sources.values():
            series.extend(await source())
        encode, content_type = choose_encoder(accept or "")
        return await asyncio.to_thread(encode, _Scrape(self._registry, series)), content_type

    def _count_arrival(self, arrival: Arrival) -> None:
        if arrival.seconds is not None:
            self._propagation.observe(arrival.seconds)
        elif arrival.connected:
            self._incomplete += 1

    def _count_late_arrival(self, arrival: Arrival) -> None:
        if arrival.seconds is not None:
            self._propagation.observe(arrival.seconds)

    def _check_late(self, delivery: Delivery) -> None:
        if not delivery.is_over:
            self._incomplete += 1
            delivery.when_over(self._count_late_arrival)

    def _own_series(self) -> Iterator[Series]:
        kinds = self.history_counters.kinds
        yield control.CONTROL_CHANGES, {(kind,): kinds[kind] for kind in labels.KIND.values}
        yield control.STORE_FAILURES, {(): self.store_failures}
        yield control.INCOMPLETE, {(): self._incomplete}
        yield control.ALERTS, {(result,): count for result, count in self.alerts.items()}
        yield control.BUILD, {build_labels(): 1.0}


class _Scrape(Collector):
    """Series and histograms of one scrape."""

    def __init__(self, registry: CollectorRegistry, series: Iterable[Series]) -> None:
        self._registry = registry
        self._series = series

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics, as prometheus_client's `Collector`; to be called in a thread."""
        for metric, values in self._series:
            time.sleep(_PAUSE_SECONDS)
            yield samples(metric, values)
        for family in self._registry.collect():
            # A histogram's time of creation is no metric of Penumbra's registry.
            family.samples = [
                sample for sample in family.samples if not sample.name.endswith("_created")
            ]
            yield family


def _histogram(metric: Definition, registry: CollectorRegistry) -> Histogram:
    return Histogram(
        metric.name,
        metric.help,
        metric.label_names,
        buckets=metric.buckets,
        registry=registry,
    )
