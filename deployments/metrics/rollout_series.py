"""Series of the rollouts and their evidence: the exact numbers that decide.

The logarithm of 0 is no number: evidence that has sunk to 0 has no sample, and a stream without
observations has neither mean nor interval. Evidence is exposed also after a rollback, where it
shows the cause, but not once the rollout is off.

Reading order: RolloutSeries.series.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from math import log
from typing import NamedTuple

from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor
from penumbra.deployments.evidence.judge import EvidenceBook
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.state import State
from penumbra.deployments.metrics.control_metrics import Series
from penumbra.deployments.metrics.history_counters import HistoryCounters
from penumbra.deployments.metrics.interval_cache import IntervalCache, Name
from penumbra.deployments.rollouts.record import WATCHED, Key, Phase, Rollout
from penumbra.monitoring.stats.guard import StreamView
from penumbra.monitoring.telemetry import control, labels
from penumbra.monitoring.telemetry.metric import Label, Metric

WAIT_SECONDS = 0.5
"""Time for which a scrape waits for intervals that are out of date."""

Labelled = dict[tuple[str, ...], float]

_STATES = (
    control.PHASE, control.VERDICT, control.SLICE_STATE, control.SHARE, control.SINCE, control.HELD,
    control.FROZEN, control.PROOF_STALE,
)  # fmt: skip
_OBSERVED = (
    control.OBSERVATIONS, control.MEAN, control.EXCESS, control.AA_MEAN, control.TOLERANCE,
    control.EVIDENCE, control.PROOF,
)  # fmt: skip


class _Streams(NamedTuple):
    """Streams of one signal of one run, by slice; all slices together are `*`.

    Those of both kinds of pair are put together, as the evidence that acts puts them.
    """

    key: Key
    run: str
    signal: str
    judged: Mapping[str, StreamView]
    """Streams of the candidate; empty while the signal's tolerance is being read."""
    aa: Mapping[str, StreamView]
    """Streams of the baseline against itself; empty for signals that pairs do not carry."""


class RolloutSeries:
    """Makes the series of all rollouts of one control process.

    Args:
        book: The evidence of the rollouts.
        intervals: The cache that intervals come from.
    """

    def __init__(self, book: EvidenceBook, intervals: IntervalCache) -> None:
        self._book = book
        self._intervals = intervals

    async def series(self, state: State, history_counters: HistoryCounters) -> list[Series]:
        """Makes all series, as of now; waits for intervals at most `WAIT_SECONDS`."""
        rollouts = list(state.rollouts.values())
        judged = [
            (rollout, self._book.evidence(rollout))
            for rollout in rollouts
            if rollout.record.phase is not Phase.OFF
        ]
        streams = [
            streams for rollout, evidence in judged for streams in _streams(rollout, evidence)
        ]
        found = [*_states(rollouts), *_history(rollouts, history_counters), *_guardrails(judged)]
        found.extend(_instrument(judged))
        found.extend(_observed(streams))
        # Last: the state may change during the wait, and all of the above is of one moment.
        found.extend(await self._interval_series(streams))
        return found

    async def _interval_series(self, all_streams: Iterable[_Streams]) -> list[Series]:
        streams: dict[Name, StreamView] = {
            (*signal_streams.key, signal_streams.run, signal_streams.signal, name): stream
            for signal_streams in all_streams
            for name, stream in signal_streams.judged.items()
            if stream.count
        }
        await self._intervals.refresh(streams, WAIT_SECONDS)
        lower: Labelled = {}
        upper: Labelled = {}
        for name in streams:
            interval = self._intervals.get(name)
            if interval is not None:
                model, candidate, _, signal, slice_name = name
                labelled = (model, candidate, signal, slice_name)
                lower[labelled], upper[labelled] = interval
        return [(control.LOWER, lower), (control.UPPER, upper)]


def _states(rollouts: Iterable[Rollout]) -> Iterator[Series]:
    values = _columns(_STATES)
    for rollout in rollouts:
        key, record = rollout.key, rollout.record
        verdict = record.verdict.value if record.verdict else "undecided"
        values[control.PHASE.name] |= _state_set(key, labels.PHASE, record.phase.value)
        values[control.VERDICT.name] |= _state_set(key, labels.VERDICT, verdict)
        for name in record.slices:
            state = _slice_state(rollout, name)
            values[control.SLICE_STATE.name] |= _state_set((*key, name), labels.SLICE_STATE, state)
        for name in (*record.slices, labels.AGGREGATE):
            is_stale = record.phase in WATCHED and name in record.stale
            values[control.PROOF_STALE.name][(*key, name)] = float(is_stale)
        values[control.SHARE.name][key] = rollout.share / 100.0
        values[control.SINCE.name][key] = record.since.timestamp()
        values[control.HELD.name][key] = float(record.held is not None)
        values[control.FROZEN.name][key] = float(record.frozen is not None)
    yield from ((metric, values[metric.name]) for metric in _STATES)


def _columns(metrics: Iterable[Metric]) -> dict[str, Labelled]:
    # By name: the hash of a definition costs more than all the rest.
    return {metric.name: {} for metric in metrics}


def _state_set(labelled: tuple[str, ...], label: Label, now: str) -> Labelled:
    return {(*labelled, value): float(value == now) for value in label.values}


def _slice_state(rollout: Rollout, name: str) -> str:
    if name in rollout.record.quarantined:
        return "quarantined"
    return "proven" if name in rollout.record.proven else "undecided"


def _history(rollouts: Iterable[Rollout], history_counters: HistoryCounters) -> Iterator[Series]:
    keys = [rollout.key for rollout in rollouts]
    changes, rollbacks = history_counters.changes, history_counters.rollbacks
    yield (
        control.CHANGES,
        {(*key, change): changes[*key, change] for key in keys for change in labels.CHANGE.values},
    )
    yield (
        control.ROLLBACKS,
        {(*key, actor): rollbacks[*key, actor] for key in keys for actor in labels.ACTOR.values},
    )
    yield control.LAST_ROLLBACK, dict(history_counters.last_rollback)


def _guardrails(judged: Iterable[tuple[Rollout, RunEvidence]]) -> Iterator[Series]:
    evidences: Labelled = {}
    boundaries: Labelled = {}
    tripped: Labelled = {}
    for rollout, evidence in judged:
        for guardrail in rollout.spec.guardrails:
            labelled = (*rollout.key, guardrail.signal.value)
            monitor = evidence.monitors[guardrail.signal]
            tripped[labelled] = float(monitor.tripped is not None)
            boundaries[labelled] = log(monitor.boundary)
            if evidence.is_watching(guardrail.signal):
                _put_log(evidences, labelled, monitor.evidence)
    yield control.GUARDRAIL_EVIDENCE, evidences
    yield control.GUARDRAIL_BOUNDARY, boundaries
    yield control.GUARDRAIL_TRIPPED, tripped


def _instrument(judged: Iterable[tuple[Rollout, RunEvidence]]) -> Iterator[Series]:
    judged = list(judged)
    yield (
        control.RUN_PAIRS,
        {
            (*rollout.key, name): evidence.pairs.get(name, 0)
            for rollout, evidence in judged
            for name in rollout.record.slices
        },
    )
    yield (
        control.PROOF_BOUNDARY,
        {rollout.key: -log(evidence.proofs.alpha) for rollout, evidence in judged},
    )
    # A rollout that is not watched any more is not measured: no statement about its instrument.
    yield (
        control.INSTRUMENT_OK,
        {
            rollout.key: float(evidence.mistrust is None)
            for rollout, evidence in judged
            if rollout.record.phase in WATCHED
        },
    )


def _streams(rollout: Rollout, evidence: RunEvidence) -> Iterator[_Streams]:
    for guardrail in rollout.spec.guardrails:
        signal = guardrail.signal
        monitor, aa = evidence.monitors[signal], evidence.instrument.aa.get(signal)
        awaited = [set(evidence.awaited(signal, kind)) for kind in monitor.kinds]
        judged = _views(monitor, set.intersection(*awaited))
        yield _Streams(rollout.key, evidence.run, signal.value, judged, _views(aa) if aa else {})


def _views(monitor: GuardrailMonitor, awaited: Container[str] = ()) -> dict[str, StreamView]:
    """The streams of a monitor, without the slices whose tolerance is still being read."""
    known = [name for name in monitor.spec.tolerances if name not in awaited]
    if not known:
        return {}
    views = {name: monitor.guard.slice(name) for name in known}
    return views | {labels.AGGREGATE: monitor.guard.aggregate()}


def _observed(all_streams: Iterable[_Streams]) -> Iterator[Series]:
    values = _columns(_OBSERVED)
    for streams in all_streams:
        labelled = (*streams.key, streams.signal)
        for name, aa in streams.aa.items():
            if aa.mean is not None:
                values[control.AA_MEAN.name][(*labelled, name)] = aa.mean
        for name, stream in streams.judged.items():
            _put(values, (*labelled, name), stream, streams.aa.get(name))
    yield from ((metric, values[metric.name]) for metric in _OBSERVED)


def _put(
    values: Mapping[str, Labelled],
    labelled: tuple[str, ...],
    stream: StreamView,
    aa: StreamView | None,
) -> None:
    values[control.OBSERVATIONS.name][labelled] = stream.count
    values[control.TOLERANCE.name][labelled] = stream.tolerance
    _put_log(values[control.EVIDENCE.name], labelled, stream.evidence)
    _put_log(values[control.PROOF.name], labelled, stream.proof)
    if stream.mean is None:
        return
    values[control.MEAN.name][labelled] = stream.mean
    if aa is not None and aa.mean is not None:
        values[control.EXCESS.name][labelled] = stream.mean - aa.mean


def _put_log(values: Labelled, labelled: tuple[str, ...], evidence: float) -> None:
    if evidence > 0:
        values[labelled] = log(evidence)
