"""Series of rollouts: what is left out, and that intervals hold up no scrape."""

import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from math import inf, isfinite, log
from typing import Any

from penumbra.deployments.evidence.judge import EvidenceBook
from penumbra.deployments.history.state import State
from penumbra.deployments.metrics.control_metrics import Series
from penumbra.deployments.metrics.history_counters import HistoryCounters
from penumbra.deployments.metrics.interval_cache import Interval, IntervalCache, interval_of
from penumbra.deployments.metrics.rollout_series import RolloutSeries
from penumbra.deployments.rollouts.record import Hold, Phase, Rollout, RolloutRecord
from penumbra.deployments.rollouts.spec import Guardrail
from penumbra.monitoring.observations import Counts, Pair, Run, RunReport, SelfTest, Signal
from penumbra.monitoring.stats.guard import StreamView
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.labels import AGGREGATE
from penumbra.monitoring.telemetry.metric import Metric
from tests.support.rollouts import NOW, pair, pairs, rollout_spec

KEY = ("demo", "int8")
SLICES = ("json", "other")
RUN = Run("demo", "int8", "r-1")


class Exposing:
    """One rollout, its evidence, and its series."""

    def __init__(
        self, intervals: IntervalCache | None = None, spec: Any = None, **record: Any
    ) -> None:
        fields = {"phase": Phase.SHADOW, "since": NOW, "run": "r-1", "slices": SLICES, "cause": "c"}
        given = RolloutRecord.model_validate(fields | record)
        self.rollout = Rollout(spec=spec or rollout_spec(), record=given)
        self.state = State(rollouts={KEY: self.rollout})
        self.book = EvidenceBook(lambda: NOW)
        self.intervals = intervals or IntervalCache()
        self.exported = RolloutSeries(self.book, self.intervals)

    def observe(self, some: Iterable[Pair] = (), **more: Any) -> None:
        report = RunReport(RUN, pairs=tuple(some), **more)
        self.book.evidence(self.rollout).fold("c", report)

    async def scrape(self) -> dict[str, Mapping[tuple[str, ...], float]]:
        found: list[Series] = await self.exported.series(self.state, HistoryCounters())
        return {metric.name: values for metric, values in found}


def of(found: dict[str, Mapping[tuple[str, ...], float]], metric: Metric) -> dict[Any, float]:
    """The values of int8, without its key."""
    own = {key[2:]: value for key, value in found[metric.name].items() if key[:2] == KEY}
    return {key[0] if len(key) == 1 else key: value for key, value in own.items()}


async def test_a_stream_without_observations_has_evidence_but_no_mean_and_no_interval() -> None:
    it = Exposing()
    found = await it.scrape()
    stream = ("displacement", "json")
    assert of(found, control.OBSERVATIONS)[stream] == 0
    assert of(found, control.TOLERANCE)[stream] == 0.2
    assert of(found, control.EVIDENCE)[stream] == log(0.5)
    assert of(found, control.PROOF)[stream] == 0.0
    for metric in (control.MEAN, control.EXCESS, control.AA_MEAN, control.LOWER, control.UPPER):
        assert of(found, metric) == {}


async def test_evidence_that_has_sunk_to_zero_has_no_sample() -> None:
    it = Exposing()
    it.observe(pairs(5, 0.0))
    monitor = it.book.evidence(it.rollout).monitors[Signal.DISPLACEMENT]
    guards = [monitor.guard.of(kind) for kind in monitor.kinds]
    for stream in (stream for guard in guards for stream in guard._streams.values()):
        stream.evidence.wealth = [0.0] * len(stream.evidence.wealth)
        stream.proof.logs = [-inf] * len(stream.proof.logs)
        stream.proof.logs[0] = -1e6
    found = await it.scrape()
    assert ("displacement", "other") not in of(found, control.EVIDENCE)
    assert ("displacement", "other") not in of(found, control.PROOF)
    assert ("displacement", AGGREGATE) in of(found, control.EVIDENCE)
    assert all(isfinite(value) for values in found.values() for value in values.values())


async def test_an_extreme_run_is_exposed_in_finite_numbers() -> None:
    it = Exposing()
    it.observe(pairs(3000, 1.0), counts=(Counts("json", Signal.FAILURE, 100_000, 0),))
    found = await it.scrape()
    assert all(isfinite(value) for values in found.values() for value in values.values())
    assert of(found, control.EVIDENCE)["displacement", "other"] > log(1e100)


async def test_a_guardrail_after_a_quarantine_is_that_of_the_other_slices() -> None:
    guardrail = Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.1, action="quarantine", share=1.0)
    it = Exposing(spec=rollout_spec(guardrails=(guardrail,)))
    for number in range(1, 200):
        name = SLICES[number % 2]
        it.observe([pair(number, 0.9 if name == "json" else 0.0, slice=name)])
    monitor = it.book.evidence(it.rollout).monitors[Signal.DISPLACEMENT]
    assert [*monitor.quarantined] == ["json"]
    found = await it.scrape()
    assert of(found, control.GUARDRAIL_EVIDENCE) == {"displacement": log(monitor.evidence)}
    assert of(found, control.GUARDRAIL_TRIPPED) == {"displacement": 0.0}
    assert monitor.evidence < monitor.boundary < monitor.guard.evidence


async def test_a_rollout_that_is_off_has_a_state_and_no_evidence() -> None:
    it = Exposing(phase=Phase.OFF)
    found = await it.scrape()
    assert of(found, control.PHASE)["off"] == 1.0
    assert of(found, control.SINCE) == {(): NOW.timestamp()}
    for metric in (control.GUARDRAIL_EVIDENCE, control.OBSERVATIONS, control.INSTRUMENT_OK):
        assert of(found, metric) == {}


async def test_after_a_rollback_the_evidence_stays_and_the_instrument_says_nothing() -> None:
    it = Exposing(phase=Phase.ROLLED_BACK)
    it.observe(pairs(30, 0.9))
    found = await it.scrape()
    assert of(found, control.GUARDRAIL_TRIPPED) == {"displacement": 1.0, "failure": 0.0}
    assert of(found, control.INSTRUMENT_OK) == {}


async def test_a_stale_proof_is_exposed_while_the_rollout_is_watched() -> None:
    stale = {"json": "script: han"}
    found = await Exposing(phase=Phase.PROMOTED, stale=stale).scrape()
    assert of(found, control.PROOF_STALE) == {"json": 1.0, "other": 0.0, AGGREGATE: 0.0}
    found = await Exposing(phase=Phase.ROLLED_BACK, stale=stale).scrape()
    assert set(of(found, control.PROOF_STALE).values()) == {0.0}


async def test_hold_freeze_and_a_broken_instrument_are_exposed() -> None:
    held = Hold(by="guard", cause="ttft")
    since = NOW + timedelta(hours=1)
    it = Exposing(held=held, frozen="broken", since=since, quarantined=("json",))
    test = SelfTest(is_ok=False, largest_gap=1.0, detail="far off", at=1.0)
    it.observe(self_tests=(test,))
    found = await it.scrape()
    for metric, value in (
        (control.HELD, 1.0),
        (control.FROZEN, 1.0),
        (control.INSTRUMENT_OK, 0.0),
        (control.SHARE, 0.0),
        (control.SINCE, since.timestamp()),
    ):
        assert of(found, metric) == {(): value}
    assert of(found, control.SLICE_STATE)["json", "quarantined"] == 1.0


async def test_intervals_are_of_the_same_moment_as_the_means_and_converge() -> None:
    may_go_on, threads = threading.Event(), set()

    def compute(stream: StreamView) -> Interval:
        assert may_go_on.wait(10)
        threads.add(threading.get_ident())
        return interval_of(stream)

    it = Exposing(IntervalCache(compute))
    it.observe(pairs(10, 0.1))
    # Nothing is known yet, and the scrape waits no longer than it may take.
    assert of(await it.scrape(), control.LOWER) == {}
    may_go_on.set()
    while it.intervals.is_behind:
        await it.scrape()
    lower = of(await it.scrape(), control.LOWER)
    guard = it.book.evidence(it.rollout).monitors[Signal.DISPLACEMENT].guard
    assert lower["displacement", "other"] == guard.slice("other").lower
    assert lower["displacement", AGGREGATE] == guard.aggregate().lower
    assert set(lower) == set(of(await it.scrape(), control.MEAN))
    assert threading.get_ident() not in threads
