"""Metrics of a comparator process, as `penumbra.monitoring.telemetry.comparator` defines them."""

import math

from prometheus_client import CollectorRegistry

from penumbra.monitoring.metrics.build_info import build_labels
from penumbra.monitoring.metrics.cells import CellCollector
from penumbra.monitoring.metrics.exposition import Exposed, expose
from penumbra.monitoring.observations import Arm, Pair, SelfTest
from penumbra.monitoring.telemetry import comparator as of
from penumbra.router.mirror.shed_reason import ShedReason

_DIRECTIONS = {-1: "better", 0: "same", 1: "worse"}


class ShadowMetrics:
    """All metrics of one comparator process."""

    def __init__(self) -> None:
        self.cells = cells = CellCollector()
        self.received = cells.counter(of.RECEIVED).cell()
        self.malformed = cells.counter(of.MALFORMED).cell()
        self.faults = cells.counter(of.FAULTS)
        self._pairs = cells.counter(of.PAIRS)
        self._missing = cells.counter(of.MISSING)
        self._displacement = cells.histogram(of.DISPLACEMENT)
        self._harm = cells.counter(of.HARM)
        self._failed_checks = cells.counter(of.FAILED_CHECKS)
        self._sheds = cells.counter(of.SHEDS)
        self._seconds = cells.histogram(of.ENGINE_SECONDS)
        self._lag = cells.histogram(of.LAG)
        self._self_tests: dict[str, SelfTest] = {}
        self._healthy: dict[tuple[str, ...], bool] = {}
        cells.read_by(of.SELF_TEST_OK, self._tests_ok)
        cells.read_by(of.SELF_TEST_GAP, self._test_gaps)
        cells.read_by(of.HEALTHY, lambda: self._healthy)
        cells.read_by(of.BUILD, lambda: {build_labels(): 1})
        self._registry = CollectorRegistry()
        self._registry.register(cells)

    def count_pair(self, model: str, candidate: str, pair: Pair) -> None:
        """Count a compared request."""
        labels = (model, candidate, pair.slice, pair.arm.value)
        self._pairs.cell(*labels).value += 1
        if pair.missing is not None:
            self._missing.cell(*labels).value += 1
        if pair.displacement is not None:
            self._displacement.cell(*labels).observe(pair.displacement)
        if pair.harm is not None:
            self._harm.cell(*labels, _DIRECTIONS[pair.harm]).value += 1
        self._seconds.cell(model, candidate).observe(pair.engine_seconds)
        if pair.arm is Arm.CANDIDATE:
            for side, failed in (("candidate", pair.failed), ("baseline", pair.failed_baseline)):
                for check in failed:
                    self._failed_checks.cell(model, candidate, check, side).value += 1

    def took(self, model: str, seconds: float) -> None:
        """Observe the time from the client's answer to the end of a comparison."""
        self._lag.cell(model).observe(seconds)

    def shed(self, model: str, reason: ShedReason) -> None:
        """Count a request that was not compared."""
        self._sheds.cell(model, reason.value).value += 1

    def tested(self, model: str, test: SelfTest) -> None:
        """Take the last self-test of a model's baseline."""
        self._self_tests[model] = test

    def saw_health(self, healthy: dict[tuple[str, ...], bool]) -> None:
        """Take the health of all watched candidates: (model, candidate) -> whether it is well."""
        self._healthy = healthy

    def expose(self, accept: str | None) -> Exposed:
        """Return the exposition in the form that a scraper accepts."""
        return expose(self._registry, accept)

    def _tests_ok(self) -> dict[tuple[str, ...], float]:
        return {(model,): test.is_ok for model, test in self._self_tests.items()}

    def _test_gaps(self) -> dict[tuple[str, ...], float]:
        gaps = ((model, test.largest_gap) for model, test in self._self_tests.items())
        return {(model,): gap for model, gap in gaps if math.isfinite(gap)}
