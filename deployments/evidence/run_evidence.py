"""The evidence of one run: the fold of its reports, in the order in which they were stored. Pure.

The same reports in the same order give the same evidence, bit for bit, whatever was restarted in
between. That is what makes a verdict reproducible.

Reading order: RunEvidence.fold, RunEvidence.findings.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from penumbra.deployments.evidence.calibration_buffer import Calibrating, from_record, recorded
from penumbra.deployments.evidence.guardrail_monitor import Course, alpha_of, guard_spec
from penumbra.deployments.evidence.run_totals import Tally
from penumbra.deployments.evidence.seen_clusters import Bets
from penumbra.deployments.rollouts.findings import Findings, Hard, Tripped
from penumbra.deployments.rollouts.spec import QUALITY, Calibrate, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Arm, Counts, Pair, RunReport, SelfTest, Signal, Trip
from penumbra.monitoring.signals.calibration import Calibration

AA_ALPHA = 0.01
"""Bound on the probability that a working instrument is called broken."""


class RunEvidence:
    """Everything that was observed of a candidate in one run.

    Args:
        spec: The rollout.
        run: Id of the run.
        slices: Every slice of the model.
    """

    def __init__(self, spec: RolloutSpec, run: str, slices: tuple[str, ...]) -> None:
        self.spec = spec
        self.run = run
        self.slices = slices
        self.courses: dict[Signal, Course] = {}
        """By signal; displacement's is missing while its tolerance is being read."""
        self.aa: dict[Signal, Course] = {}
        """The baseline against itself."""
        self.tally = Tally()
        self.fingerprints: dict[str, str] = {}
        self.changed: str | None = None
        self.hard: Hard | None = None
        self.self_tests: dict[str, SelfTest] = {}
        """Who tested -> the last one."""
        self.observed_at = 0.0
        """Unix seconds of the last thing observed that has a time."""
        self.pairs: dict[str, int] = {}
        """Slice -> candidate pairs that were bet on."""
        self.calibration: Calibrating | None = None
        self.calibrated: dict[str, Any] | None = None
        self._bets = {arm: Bets() for arm in Arm}
        for guardrail in spec.guardrails:
            if isinstance(guardrail.tolerance, Calibrate):
                self.calibration = Calibrating(guardrail.tolerance.calibrate)
            else:
                self._open(guardrail, guardrail.tolerance, guardrail.slices)
        self._open_aa()

    # What is observed

    def fold(self, source: str, report: RunReport) -> None:
        """Take what one report says of this run.

        Args:
            source: Whose report it is.
            report: What it says; nothing counts after a build has changed.
        """
        if self.changed is None:
            self.changed = self._change(report.fingerprints)
        if self.changed is None:
            self._take(source, report)

    def _take(self, source: str, report: RunReport) -> None:
        for test in report.self_tests:
            self.self_tests[source] = test
            self._saw(test.at)
        for trip in report.trips:
            self._trip(trip)
        for pair in report.pairs:
            self._pair(pair)
        for counts in report.counts:
            self._count(counts)
        for shed in report.sheds:
            self.tally.shed(shed)

    def _change(self, fingerprints: Mapping[str, str]) -> str | None:
        for variant, digest in sorted(fingerprints.items()):
            known = self.fingerprints.setdefault(variant, digest)
            if known != digest:
                return f"{variant} is {digest[:16]} now, was {known[:16]}"
        return None

    def _trip(self, trip: Trip) -> None:
        self._saw(trip.at)
        if trip.signal == "fingerprint":
            self.changed = self.changed or trip.detail
        elif self.hard is None:
            self.hard = Hard(trip.signal, trip.detail)

    def _pair(self, pair: Pair) -> None:
        self._saw(pair.at)
        is_fresh = self._bets[pair.arm].take(pair.cluster, pair.session)
        if pair.arm is Arm.BASELINE:
            if is_fresh:
                self._pair_aa(pair)
            return
        self.tally.add(pair)
        if pair.not_finite and self.hard is None:
            self.hard = Hard("not_finite", f"a log-probability in {pair.request_id}")
        if not is_fresh:
            self.tally.repeats += 1
            return
        self._observe(Signal.FAILURE, pair.slice, float(pair.missing is not None))
        if self.broken is not None:
            return
        self.pairs[pair.slice] = self.pairs.get(pair.slice, 0) + 1
        self._displaced(pair)
        # An answer that never came is harm already; without harm none was wanted of this pair.
        self._observe(Signal.HARM, pair.slice, pair.harm)

    def _displaced(self, pair: Pair) -> None:
        if self.calibration is None:
            self._observe(Signal.DISPLACEMENT, pair.slice, self._displacement(pair))
        elif pair.displacement is not None:
            self.calibration.add(pair.slice, pair.displacement)
            if self.calibration.count >= self.calibration.wanted:
                self._calibrated(self.calibration.result())

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
        course = self.courses.get(signal)
        if course is not None and value is not None:
            course.observe(slice_name, float(value))

    def _count(self, counts: Counts) -> None:
        course = self.courses.get(counts.signal)
        # A pair's signals come as pairs: each is one bet.
        if course is not None and counts.signal not in QUALITY:
            course.count_up(counts.slice, counts.zeros, counts.ones)

    def _saw(self, at: float) -> None:
        self.observed_at = max(self.observed_at, at)

    # What it comes to

    @property
    def broken(self) -> str | None:
        """Why the instrument cannot be trusted; None: it can."""
        for course in self.aa.values():
            if course.tripped is not None:
                return f"the baseline differs from itself in {course.signal.value}"
        for source, test in self.self_tests.items():
            if not test.is_ok:
                return f"the self-test of {source} failed: {test.detail}"
        return None

    def findings(self) -> Findings:
        """All that `decide` needs to know."""
        quarantined: dict[str, Tripped] = {}
        for course in self.courses.values():
            quarantined |= course.quarantined
        proving = [course for signal, course in self.courses.items() if signal in QUALITY]
        is_complete = self.calibration is None
        return Findings(
            run=self.run,
            pairs=sum(self.pairs.values()),
            seen=tuple(name for name in self.slices if self.pairs.get(name)),
            proven=tuple(
                name
                for name in self.slices
                if is_complete and all(self._is_proven(course, name) for course in proving)
            ),
            is_aggregate_proven=is_complete
            and all(course.guard.aggregate().is_proven for course in proving),
            hard=self.hard,
            tripped=tuple(
                course.tripped for course in self.courses.values() if course.tripped is not None
            ),
            quarantined=quarantined,
            broken=self.broken,
            missing_ratio=self.tally.missing_ratio,
            fingerprints=dict(self.fingerprints),
            changed=self.changed,
            calibration=self.calibrated,
        )

    def _is_proven(self, course: Course, slice_name: str) -> bool:
        if self.pairs.get(slice_name, 0) < self.spec.gates.slice_pairs:
            return False
        return course.guard.slice(slice_name).is_proven

    # Beginning, leaving off, going on

    def _open(self, guardrail: Guardrail, default: float, slices: Mapping[str, float]) -> None:
        tolerances = {name: slices.get(name, default) for name in self.slices}
        alpha = alpha_of(self.spec, guardrail)
        spec = guard_spec(self.spec, guardrail.signal, tolerances, default, alpha)
        self.courses[guardrail.signal] = Course(guardrail.signal, guardrail.action, spec)

    def _open_aa(self) -> None:
        harm = self.spec.guardrail(Signal.HARM)
        tolerances = {
            Signal.DISPLACEMENT: self.spec.mirror.aa_tolerance,
            Signal.HARM: harm.tolerance if harm and isinstance(harm.tolerance, float) else 0.02,
        }
        for signal, tolerance in tolerances.items():
            own = dict.fromkeys(self.slices, tolerance)
            # Its own alpha: it takes no traffic away.
            spec = guard_spec(self.spec, signal, own, tolerance, AA_ALPHA / len(tolerances))
            self.aa[signal] = Course(signal, "hold", spec)

    def _calibrated(self, result: Calibration | None) -> None:
        guardrail = self.spec.guardrail(Signal.DISPLACEMENT)
        if guardrail is None or result is None:
            return
        read = {name: one.tolerance for name, one in result.slices.items()}
        self.calibrated, self.calibration = recorded(result), None
        self._open(guardrail, result.default.tolerance, read | guardrail.slices)

    def dump(self) -> dict[str, Any]:
        """JSON-able; `restore` goes on from it."""
        return {
            "run": self.run,
            "courses": {signal.value: course.dump() for signal, course in self.courses.items()},
            "aa": {signal.value: course.dump() for signal, course in self.aa.items()},
            "tally": self.tally.dump(),
            "fingerprints": self.fingerprints,
            "changed": self.changed,
            "hard": None if self.hard is None else asdict(self.hard),
            "self_tests": msgspec.to_builtins(self.self_tests),
            "observed_at": self.observed_at,
            "pairs": self.pairs,
            "calibration": None if self.calibration is None else self.calibration.dump(),
            "calibrated": self.calibrated,
            "bets": {arm.value: bets.dump() for arm, bets in self._bets.items()},
        }

    @classmethod
    def restore(
        cls, spec: RolloutSpec, slices: tuple[str, ...], dumped: dict[str, Any]
    ) -> "RunEvidence":
        """Goes on where `dump` was, bit for bit."""
        evidence = cls(spec, dumped["run"], slices)
        if dumped["calibrated"] is not None:
            evidence._calibrated(from_record(dumped["calibrated"]))
        elif dumped["calibration"] is not None:
            evidence.calibration = Calibrating.restore(dumped["calibration"])
        for courses, name in ((evidence.courses, "courses"), (evidence.aa, "aa")):
            for signal, one in dumped[name].items():
                courses[Signal(signal)].load(one)
        evidence.tally = Tally.restore(dumped["tally"])
        evidence.fingerprints, evidence.pairs = dict(dumped["fingerprints"]), dict(dumped["pairs"])
        evidence.changed, evidence.observed_at = dumped["changed"], dumped["observed_at"]
        evidence.hard = None if dumped["hard"] is None else Hard(**dumped["hard"])
        evidence.self_tests = msgspec.convert(dumped["self_tests"], dict[str, SelfTest])
        evidence._bets = {arm: Bets.restore(dumped["bets"][arm.value]) for arm in Arm}
        return evidence
