"""Evidence of one run: the fold of its reports, in the order in which they were stored. Pure.

The same reports in the same order give the same evidence, bit for bit, also after a restart. That
makes a verdict reproducible.

Reading order: RunEvidence.fold, RunEvidence.findings.
"""

from collections import Counter
from collections.abc import Mapping

from penumbra.deployments.evidence.build_readings import BuildReadings
from penumbra.deployments.evidence.calibration_buffer import record_of
from penumbra.deployments.evidence.coverage import Coverage
from penumbra.deployments.evidence.evidence_clock import StageClocks
from penumbra.deployments.evidence.guardrail_monitor import in_range
from penumbra.deployments.evidence.instrument import Instrument
from penumbra.deployments.evidence.kind_guards import PAIRS, Kind, PairKinds, kind_of
from penumbra.deployments.evidence.known_builds import KnownBuilds
from penumbra.deployments.evidence.latency_floors import LatencyFloors
from penumbra.deployments.evidence.opening import open_calibrations, open_monitors
from penumbra.deployments.evidence.run_proofs import RunProofs
from penumbra.deployments.evidence.run_totals import RunTotals
from penumbra.deployments.evidence.scorer_faults import ScorerFaults
from penumbra.deployments.evidence.seen_clusters import SeenClusters
from penumbra.deployments.rollouts.findings import Findings, HardFailure, Tripped, UnfitScorer
from penumbra.deployments.rollouts.spec import QUALITY, SCORED, RolloutSpec
from penumbra.monitoring.observations import (
    AnsweredBy,
    Arm,
    Counts,
    Pair,
    RunReport,
    Signal,
    Trip,
)


class RunEvidence:
    """Everything that was observed about a candidate in one run.

    Args:
        spec: The rollout's specification.
        run: Id of the run.
        slices: Every slice of the model.
        runs: Builds -> earlier runs of them that could prove a slice; None: none.
        kinds: Kinds of pairs that are told apart.
        has_floors: Whether latencies are judged beside shadow answers too, as older versions did
            not.
    """

    def __init__(
        self,
        spec: RolloutSpec,
        run: str,
        slices: tuple[str, ...],
        runs: Mapping[str, int] | None = None,
        kinds: PairKinds = PAIRS,
        *,
        has_floors: bool = True,
    ) -> None:
        self.spec = spec
        self.run = run
        self.slices = slices
        self.monitors = open_monitors(spec, slices, kinds, has_floors=has_floors)
        """Monitors by signal."""
        self.latency = LatencyFloors(spec, slices if has_floors else ())
        """Latencies of live answers that have none of the baseline beside them."""
        self.instrument = Instrument(spec, slices, kinds)
        """State of the measurement itself."""
        self.totals = RunTotals()
        self.builds = KnownBuilds()
        self.readings = BuildReadings()
        self.changed: str | None = None
        self.hard: HardFailure | None = None
        self.observed_at = 0.0
        """Unix seconds of the latest observation that has a time."""
        self.pairs_by: dict[AnsweredBy, dict[str, int]] = {kind: {} for kind in kinds}
        """Kind of pair -> slice -> candidate pairs that were bet on."""
        self.clocks = StageClocks(spec)
        """Time for which candidate pairs came."""
        self.calibrations = open_calibrations(spec, slices, kinds)
        """Tolerances of displacement, where they are read from the first pairs of each slice and
        kind; empty where none is."""
        self.scorer = ScorerFaults()
        """Faults that were found in the candidate's scorer."""
        self.proofs = RunProofs(spec, slices, self.monitors, runs, kinds)
        """Proofs of the slices by all quality signals together."""
        guarded = frozenset(guardrail.signal for guardrail in spec.guardrails)
        self.coverage = Coverage(guarded, spec.gates.slice_pairs)
        """Channels of each slice that were compared where the baseline answered."""
        self._clusters = {arm: SeenClusters() for arm in Arm}

    # Folding reports

    def fold(self, source: str, report: RunReport, process_start_id: str = "") -> None:
        """Folds one report of this run.

        Args:
            source: The process that sent the report.
            report: Its observations; none counts after a build has changed.
            process_start_id: Random id of that process's start.
        """
        self.readings.take(f"{source} ({process_start_id[:8]})", report)
        if self.changed is None:
            self.changed = self.builds.change(report)
        if self.changed is None:
            self._take(source, report, process_start_id)
            self.proofs.note(report, self.builds.fingerprints, self.pairs_by)

    def _take(self, source: str, report: RunReport, process_start_id: str) -> None:
        for test in report.self_tests:
            self.instrument.self_tests.take(source, process_start_id, test)
            self._note_time(test.at)
        for scorer_test in report.scorer_tests:
            self.scorer.take_test(source, scorer_test)
            self._note_time(scorer_test.at)
        for trip in report.trips:
            self._trip(trip)
        for pair in report.pairs:
            if self.spec.has_slice(pair.slice):
                self._pair(source, pair)
            else:
                self.totals.outside += 1  # gateways mirror none of these
        for counts in report.counts:
            self._count(counts)
        for shed in report.sheds:
            self.totals.shed(shed)

    def _trip(self, trip: Trip) -> None:
        self._note_time(trip.at)
        if trip.signal == "fingerprint":
            self.changed = self.changed or trip.detail
        elif self.hard is None:
            self.hard = HardFailure(trip.signal, trip.detail)

    def _pair(self, source: str, pair: Pair) -> None:
        self._note_time(pair.at)
        self.instrument.self_tests.note_pair(source, pair.at)
        is_fresh = self._clusters[pair.arm].take(pair.cluster, pair.session)
        if pair.arm is Arm.BASELINE:
            if is_fresh:
                self._pair_aa(pair)
            return
        self.totals.add(pair)
        kind = kind_of(pair, self.spec.candidate, self.pairs_by)
        self.proofs.workload.take(pair, self.observed_at)
        if pair.not_finite and self.hard is None:
            self.hard = HardFailure("not_finite", f"a log-probability in {pair.request_id}")
        if not is_fresh:
            self.totals.repeats += 1
            return
        self._observe(Signal.FAILURE, pair.slice, float(pair.missing is not None), None)
        for latency, is_late in self.latency.take(pair):
            self._observe(latency, pair.slice, float(is_late), None)
        if self.instrument.broken is not None:
            return
        self._count_pair(source, pair, kind)
        if self.scorer.tested is None:
            self._take_displacement(pair, kind)
            self.scorer.take_pair(pair)
            self._observe(Signal.DECODE_GAP, pair.slice, pair.decode_gap, kind)
        # An answer that never came counts as harm; a pair without a harm value wanted no answer.
        self._observe_proved(Signal.HARM, pair, pair.harm, kind)

    def _count_pair(self, source: str, pair: Pair, kind: AnsweredBy) -> None:
        self.clocks.take(source, pair)
        counts = self.pairs_by[kind]
        counts[pair.slice] = counts.get(pair.slice, 0) + 1
        if kind is AnsweredBy.BASELINE:
            self.coverage.count(pair)

    def _take_displacement(self, pair: Pair, kind: AnsweredBy) -> None:
        calibration = self.calibrations.get(kind)
        if calibration is None or not calibration.awaits(pair.slice):
            self._observe_proved(Signal.DISPLACEMENT, pair, self._displacement(pair), kind)
        elif pair.displacement is not None:
            reading = calibration.add(pair.slice, pair.displacement)
            if reading is not None:
                monitor = self.monitors[Signal.DISPLACEMENT]
                monitor.set_tolerance(pair.slice, reading.tolerance, kind)

    def _displacement(self, pair: Pair) -> float | None:
        guardrail = self.spec.guardrail(Signal.DISPLACEMENT)
        is_worst = guardrail is not None and guardrail.missing == "worst"
        is_missing = pair.displacement is None and pair.missing is not None and pair.tokens
        return 1.0 if is_missing and is_worst else pair.displacement

    def _pair_aa(self, pair: Pair) -> None:
        kind = kind_of(pair, self.spec.candidate, self.pairs_by)
        calibration = self.calibrations.get(kind)
        if pair.displacement is not None and calibration is not None:
            calibration.add_aa(pair.slice, pair.displacement)
        self.instrument.take_pair(pair, kind)

    def _observe_proved(
        self, signal: Signal, pair: Pair, value: float | None, kind: AnsweredBy
    ) -> None:
        self._observe(signal, pair.slice, value, kind)
        monitor = self.monitors.get(signal)
        if monitor is not None and kind is AnsweredBy.BASELINE:
            spec = monitor.guard.of(kind).spec
            tolerance = spec.tolerances.get(pair.slice, spec.default_tolerance)
            self.coverage.observe(pair, signal, value, tolerance)

    def _observe(self, signal: Signal, slice_name: str, value: float | None, kind: Kind) -> None:
        monitor = self.monitors.get(signal)
        if monitor is not None and value is not None:
            monitor.observe(slice_name, in_range(signal, value), kind)

    def _count(self, counts: Counts) -> None:
        monitor = self.monitors.get(counts.signal)
        # Quality signals come as pairs, one bet each; counts of them are ignored.
        if monitor is not None and counts.signal not in QUALITY:
            monitor.count_up(counts.slice, counts.zeros, counts.ones)

    def _note_time(self, at: float) -> None:
        self.observed_at = max(self.observed_at, at)

    # Results

    @property
    def pairs(self) -> dict[str, int]:
        """Slice -> candidate pairs that were bet on, of all kinds."""
        return dict(sum(map(Counter, self.pairs_by.values()), Counter[str]()))

    @property
    def wanted_pairs(self) -> int:
        """Pairs of a slice and kind from which its tolerance is read; 0 if none is read."""
        return max((each.wanted for each in self.calibrations.values()), default=0)

    def awaited(self, signal: Signal, kind: Kind) -> Mapping[str, int]:
        """Slice -> pairs so far, of the slices whose tolerance of a signal is still being read.

        Args:
            signal: The signal.
            kind: The kind of pair; None for a signal that is not of pairs.
        """
        if signal is not Signal.DISPLACEMENT or kind not in self.calibrations:
            return {}
        return self.calibrations[kind].counts

    def is_watching(self, signal: Signal) -> bool:
        """Whether a guardrail bets: not before the tolerance of its first slice is read."""
        monitor = self.monitors[signal]
        slices = len(monitor.spec.tolerances)
        return any(len(self.awaited(signal, kind)) < slices for kind in monitor.kinds)

    @property
    def unfit(self) -> UnfitScorer | None:
        """Reason why the candidate's scores say nothing; None: they do."""
        monitor = self.monitors.get(Signal.DECODE_GAP)
        has_gap = monitor is not None and bool(monitor.tripped or monitor.quarantined)
        return self.scorer.unfit(has_gap=has_gap)

    @property
    def mistrust(self) -> str | None:
        """Reason why promotion is frozen: a broken instrument, or an unfit scorer; None: none."""
        unfit = self.unfit
        return self.instrument.broken or (None if unfit is None else unfit.detail)

    def findings(self) -> Findings:
        """Summarizes the evidence for `decide`."""
        unfit, instrument = self.unfit, self.instrument
        shadowed = self.pairs_by[AnsweredBy.BASELINE]
        quarantined: dict[str, Tripped] = {}
        for signal, monitor in self.monitors.items():
            if unfit is None or signal not in SCORED:
                quarantined |= monitor.quarantined
        tripped = tuple(each.tripped for each in self.monitors.values() if each.tripped is not None)
        return Findings(
            run=self.run,
            pairs=sum(self.pairs.values()),
            flow=self.clocks.all.flow,
            live_by_epoch=dict(self.clocks.live_by_epoch),
            seen=tuple(name for name in self.slices if shadowed.get(name)),
            proven=self.proofs.of[AnsweredBy.BASELINE].proven,
            proven_live=self.proofs.proven_live,
            covered=self.coverage.proven(self.proofs.alpha),
            stale=dict(self.proofs.renewals.stale),
            revalidations=self.proofs.renewals.count,
            is_aggregate_proven=self.proofs.is_aggregate_proven,
            is_live_aggregate_proven=self.proofs.is_live_aggregate_proven,
            hard=self.hard,
            tripped=tripped,
            quarantined=quarantined,
            broken=instrument.broken,
            aa_alarm=instrument.aa_alarm,
            unfit=unfit,
            noise=instrument.noise,
            suspects=self.proofs.suspects,
            missing_ratio=self.totals.missing_ratio,
            fingerprints=dict(self.builds.fingerprints),
            # Asked for once a guardrail has tripped, and costs as much as all the rest.
            aa_proven=instrument.proven() if tripped else {},
            aa_pairs=instrument.pairs if tripped else {},
            changed=self.changed,
            dispute=self.readings.dispute if self.changed else None,
            calibration=record_of(self.calibrations),
        )
