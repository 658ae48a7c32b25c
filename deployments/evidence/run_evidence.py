"""Evidence of one run: the fold of its reports, in the order in which they were stored. Pure.

The same reports in the same order give the same evidence, bit for bit, also after a restart. That
makes a verdict reproducible.

Reading order: RunEvidence.fold, RunEvidence.findings.
"""

from collections.abc import Mapping

from penumbra.deployments.evidence.calibration_buffer import CalibrationBuffer
from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor, alpha_of, guard_spec
from penumbra.deployments.evidence.known_builds import KnownBuilds
from penumbra.deployments.evidence.run_totals import RunTotals
from penumbra.deployments.evidence.seen_clusters import SeenClusters
from penumbra.deployments.rollouts.findings import Findings, HardFailure, Tripped
from penumbra.deployments.rollouts.spec import QUALITY, Calibrate, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Arm, Counts, Pair, RunReport, SelfTest, Signal, Trip
from penumbra.monitoring.signals.calibration import MOST

AA_ALPHA = 0.01
"""Bound on the probability that a working instrument is called broken."""


class RunEvidence:
    """Everything that was observed about a candidate in one run.

    Args:
        spec: The rollout's specification.
        run: Id of the run.
        slices: Every slice of the model.
    """

    def __init__(self, spec: RolloutSpec, run: str, slices: tuple[str, ...]) -> None:
        self.spec = spec
        self.run = run
        self.slices = slices
        self.monitors: dict[Signal, GuardrailMonitor] = {}
        """Monitors by signal."""
        self.aa: dict[Signal, GuardrailMonitor] = {}
        """Monitors of the baseline against itself."""
        self.totals = RunTotals()
        self.builds = KnownBuilds()
        self.changed: str | None = None
        self.hard: HardFailure | None = None
        self.self_tests: dict[str, SelfTest] = {}
        """Source -> its last self-test."""
        self.observed_at = 0.0
        """Unix seconds of the latest observation that has a time."""
        self.pairs: dict[str, int] = {}
        """Slice -> candidate pairs that were bet on."""
        self.calibration: CalibrationBuffer | None = None
        """Tolerances of displacement, where they are read from the first pairs of each slice."""
        self._clusters = {arm: SeenClusters() for arm in Arm}
        for guardrail in spec.guardrails:
            if isinstance(guardrail.tolerance, Calibrate):
                self._open_calibrated(guardrail, guardrail.tolerance)
            else:
                self._open(guardrail, guardrail.tolerance, guardrail.slices)
        self._open_aa()

    # Folding reports

    def fold(self, source: str, report: RunReport) -> None:
        """Folds one report of this run.

        Args:
            source: The process that sent the report.
            report: Its observations; none counts after a build has changed.
        """
        if self.changed is None:
            self.changed = self.builds.change(report)
        if self.changed is None:
            self._take(source, report)

    def _take(self, source: str, report: RunReport) -> None:
        for test in report.self_tests:
            self.self_tests[source] = test
            self._note_time(test.at)
        for trip in report.trips:
            self._trip(trip)
        for pair in report.pairs:
            self._pair(pair)
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

    def _pair(self, pair: Pair) -> None:
        self._note_time(pair.at)
        is_fresh = self._clusters[pair.arm].take(pair.cluster, pair.session)
        if pair.arm is Arm.BASELINE:
            if is_fresh:
                self._pair_aa(pair)
            return
        self.totals.add(pair)
        if pair.not_finite and self.hard is None:
            self.hard = HardFailure("not_finite", f"a log-probability in {pair.request_id}")
        if not is_fresh:
            self.totals.repeats += 1
            return
        self._observe(Signal.FAILURE, pair.slice, float(pair.missing is not None))
        if self.broken is not None:
            return
        self.pairs[pair.slice] = self.pairs.get(pair.slice, 0) + 1
        self._take_displacement(pair)
        # An answer that never came counts as harm; a pair without a harm value wanted no answer.
        self._observe(Signal.HARM, pair.slice, pair.harm)

    def _take_displacement(self, pair: Pair) -> None:
        calibration = self.calibration
        if calibration is None or not calibration.awaits(pair.slice):
            self._observe(Signal.DISPLACEMENT, pair.slice, self._displacement(pair))
        elif pair.displacement is not None:
            reading = calibration.add(pair.slice, pair.displacement)
            if reading is not None:
                monitor = self.monitors[Signal.DISPLACEMENT]
                monitor.set_tolerance(pair.slice, reading.tolerance)

    def _displacement(self, pair: Pair) -> float | None:
        guardrail = self.spec.guardrail(Signal.DISPLACEMENT)
        is_worst = guardrail is not None and guardrail.missing == "worst"
        is_missing = pair.displacement is None and pair.missing is not None
        return 1.0 if is_missing and is_worst else pair.displacement

    def _pair_aa(self, pair: Pair) -> None:
        if pair.displacement is not None and self.calibration is not None:
            self.calibration.add_aa(pair.slice, pair.displacement)
        for signal, value in (
            (Signal.DISPLACEMENT, pair.displacement),
            (Signal.HARM, pair.harm),
        ):
            if value is not None:
                self.aa[signal].observe(pair.slice, float(value))

    def _observe(self, signal: Signal, slice_name: str, value: float | None) -> None:
        monitor = self.monitors.get(signal)
        if monitor is not None and value is not None:
            monitor.observe(slice_name, float(value))

    def _count(self, counts: Counts) -> None:
        monitor = self.monitors.get(counts.signal)
        # Quality signals come as pairs, one bet each; counts of them are ignored.
        if monitor is not None and counts.signal not in QUALITY:
            monitor.count_up(counts.slice, counts.zeros, counts.ones)

    def _note_time(self, at: float) -> None:
        self.observed_at = max(self.observed_at, at)

    # Results

    @property
    def aa_pairs(self) -> dict[str, dict[str, int]]:
        """Signal -> slice -> pairs of the baseline with itself."""
        return {
            signal.value: {name: monitor.guard.slice(name).count for name in self.slices}
            for signal, monitor in self.aa.items()
        }

    @property
    def wanted_pairs(self) -> int:
        """Pairs of a slice from which its tolerance is read; 0 if none is read."""
        return self.calibration.wanted if self.calibration is not None else 0

    def awaited(self, signal: Signal) -> Mapping[str, int]:
        """Slice -> pairs so far, of the slices whose tolerance of a signal is still being read."""
        if self.calibration is None or signal is not Signal.DISPLACEMENT:
            return {}
        return self.calibration.counts

    def is_watching(self, signal: Signal) -> bool:
        """Whether a guardrail bets: not before the tolerance of its first slice is read."""
        return len(self.awaited(signal)) < len(self.monitors[signal].spec.tolerances)

    @property
    def aa_alarm(self) -> str | None:
        """The alarm of the A/A arm, in words; None: the baseline agrees with itself so far."""
        for monitor in self.aa.values():
            if monitor.tripped is not None:
                return f"the baseline differs from itself in {monitor.signal.value}"
        return None

    @property
    def broken(self) -> str | None:
        """Reason why the measurement cannot be trusted; None if it can."""
        if self.aa_alarm is not None:
            return self.aa_alarm
        for source, test in self.self_tests.items():
            if not test.is_ok:
                return f"the self-test of {source} failed: {test.detail}"
        return None

    def findings(self) -> Findings:
        """Summarizes the evidence for `decide`."""
        quarantined: dict[str, Tripped] = {}
        for monitor in self.monitors.values():
            quarantined |= monitor.quarantined
        proving = [monitor for signal, monitor in self.monitors.items() if signal in QUALITY]
        calibration = self.calibration
        tripped = tuple(each.tripped for each in self.monitors.values() if each.tripped is not None)
        return Findings(
            run=self.run,
            pairs=sum(self.pairs.values()),
            seen=tuple(name for name in self.slices if self.pairs.get(name)),
            proven=tuple(
                name
                for name in self.slices
                if all(self._is_proven(monitor, name) for monitor in proving)
            ),
            is_aggregate_proven=all(monitor.guard.aggregate().is_proven for monitor in proving),
            hard=self.hard,
            tripped=tripped,
            quarantined=quarantined,
            broken=self.broken,
            aa_alarm=self.aa_alarm,
            missing_ratio=self.totals.missing_ratio,
            fingerprints=dict(self.builds.fingerprints),
            # Asked for once a guardrail has tripped, and costs as much as all the rest.
            aa_proven={signal.value: each.proven for signal, each in self.aa.items() if tripped},
            aa_pairs=self.aa_pairs if tripped else {},
            changed=self.changed,
            calibration=calibration.record() if calibration and calibration.readings else None,
        )

    def _is_proven(self, monitor: GuardrailMonitor, slice_name: str) -> bool:
        if self.pairs.get(slice_name, 0) < self.spec.gates.slice_pairs:
            return False
        return monitor.guard.slice(slice_name).is_proven

    # Opening monitors

    def _open_calibrated(self, guardrail: Guardrail, wish: Calibrate) -> None:
        """Open a guardrail whose tolerances are still to be read, slice by slice.

        Half of its alpha is for a mean that exceeds its tolerance, half for the guard.
        """
        alpha = alpha_of(self.spec, guardrail) / 2
        to_read = [name for name in self.slices if name not in guardrail.slices]
        self.calibration = CalibrationBuffer(wish.calibrate, alpha, to_read)
        self._open(guardrail, MOST, guardrail.slices, alpha)

    def _open(
        self,
        guardrail: Guardrail,
        default: float,
        slices: Mapping[str, float],
        alpha: float | None = None,
    ) -> None:
        tolerances = {name: slices.get(name, default) for name in self.slices}
        if alpha is None:
            alpha = alpha_of(self.spec, guardrail)
        spec = guard_spec(self.spec, guardrail.signal, tolerances, default, alpha)
        self.monitors[guardrail.signal] = GuardrailMonitor(guardrail.signal, guardrail.action, spec)

    def _open_aa(self) -> None:
        harm = self.spec.guardrail(Signal.HARM)
        tolerances = {
            Signal.DISPLACEMENT: self.spec.mirror.aa_tolerance,
            Signal.HARM: harm.tolerance if harm and isinstance(harm.tolerance, float) else 0.02,
        }
        for signal, tolerance in tolerances.items():
            own = dict.fromkeys(self.slices, tolerance)
            # An alpha of its own: a tripped A/A monitor takes no traffic away.
            spec = guard_spec(self.spec, signal, own, tolerance, AA_ALPHA / len(tolerances))
            self.aa[signal] = GuardrailMonitor(signal, "hold", spec)
