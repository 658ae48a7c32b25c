"""The guard of one gateway: watches candidates under a rollout and takes failing ones out.

Every candidate attempt whose outcome is the candidate's own feeds the run's failure process, in the
order of admission. When that trips, the candidate is out of service in this gateway at once, before
the control process knows, until the run changes. First byte
and pace of every live candidate answer are compared with the baseline's recent p90. Requests of
models without a watch cost one look for a watch.

Reading order: LocalGuard.apply, CandidateWatch, BaselineWatch.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from penumbra.monitoring.observations import Run, Signal, Trip, no_counterpart
from penumbra.monitoring.stats.failure import FailureProcess
from penumbra.monitoring.stats.rolling_quantile import RollingQuantile
from penumbra.monitoring.vocabulary import FAILURES, Outcome
from penumbra.router.dispatch.admissions import Admission, AdmissionLedger, Verdict
from penumbra.router.dispatch.attempt import AttemptWatch
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Watch
from penumbra.router.link.observation_outbox import ObservationOutbox

log = logging.getLogger(__name__)


def _verdict(outcome: Outcome) -> Verdict:
    """The verdict of an outcome: only the candidate's own deeds count."""
    if outcome is Outcome.OK:
        return Verdict.GOOD
    return Verdict.FAILED if outcome in FAILURES else Verdict.VOID


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of the guard, in seconds."""

    monotonic: Callable[[], float]
    unix: Callable[[], float] = lambda: datetime.now(UTC).timestamp()


class _Latency:
    """One latency of the baseline's recent answers, by slice."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: dict[str, RollingQuantile] = {}

    def add(self, slice_name: str, seconds: float, now: float) -> None:
        found = self._slices.get(slice_name)
        if found is None:
            found = self._slices[slice_name] = RollingQuantile()
        found.add(seconds, now)

    def p90(self, slice_name: str, now: float) -> float | None:
        """The slice's p90; None if it has too few answers, for slices take different times."""
        found = self._slices.get(slice_name)
        return found.value(now) if found is not None else None


class BaselineWatch:
    """Latencies of one model's baseline, which its candidates are compared with."""

    __slots__ = ("_now", "of_whole", "per_token", "to_first_byte")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.to_first_byte = _Latency()
        self.of_whole = _Latency()
        self.per_token = _Latency()

    def admit(self, slice_name: str) -> None:
        """See AttemptWatch. The order of the baseline's attempts is not needed."""

    def note_failure(self, outcome: Outcome, admission: Admission | None) -> None:
        """See AttemptWatch."""

    def record_end(
        self, slice_name: str, outcome: Outcome, admission: Admission | None = None
    ) -> None:
        """See AttemptWatch. The baseline's outcomes are not judged."""

    def record_first_byte(self, slice_name: str, seconds: float, *, is_stream: bool) -> bool:
        """See AttemptWatch. A shadow answer's beside it tells what is usual between the two."""
        latency = self.to_first_byte if is_stream else self.of_whole
        latency.add(slice_name, seconds, self._now())
        return True

    def record_pace(self, slice_name: str, seconds: float) -> bool:
        """See AttemptWatch."""
        self.per_token.add(slice_name, seconds, self._now())
        return True


class CandidateWatch:
    """Observations of one run of one candidate in this gateway."""

    def __init__(
        self, run: Run, watch: Watch, baseline: BaselineWatch, guard: "LocalGuard"
    ) -> None:
        self.run = run
        self.is_tripped = False
        self._factor = watch.latency_factor
        process = (
            None
            if watch.failure_alpha is None
            else FailureProcess(
                watch.failure_tolerance, watch.failure_alpha, watch.failure_requests
            )
        )
        self._ledger = AdmissionLedger(process, self._report, guard.clocks.monotonic)
        self._baseline = baseline
        self._guard = guard

    def admit(self, slice_name: str) -> Admission:
        """See AttemptWatch."""
        return self._ledger.admit(slice_name)

    def note_failure(self, outcome: Outcome, admission: Admission | None) -> None:
        """See AttemptWatch."""
        del outcome
        if admission is not None:
            self._ledger.note_failure(admission)

    def record_end(
        self, slice_name: str, outcome: Outcome, admission: Admission | None = None
    ) -> None:
        """See AttemptWatch. What others or the request did says nothing of the candidate."""
        has_tripped = self._ledger.settle(
            admission or self._ledger.admit(slice_name), _verdict(outcome)
        )
        if has_tripped and not self.is_tripped:
            self.is_tripped = True
            self._guard.trip(self.run)

    def _report(self, slice_name: str, is_failure: bool) -> None:
        self._guard.outbox.count(self.run, slice_name, Signal.FAILURE, is_one=is_failure)

    def record_first_byte(self, slice_name: str, seconds: float, *, is_stream: bool) -> bool:
        """See AttemptWatch. Whole answers, whose first byte is their last, have their own p90."""
        baseline = self._baseline
        latency = baseline.to_first_byte if is_stream else baseline.of_whole
        return not self._judge(Signal.TTFT, latency, slice_name, seconds)

    def record_pace(self, slice_name: str, seconds: float) -> bool:
        """See AttemptWatch."""
        return not self._judge(Signal.TPOT, self._baseline.per_token, slice_name, seconds)

    def _judge(self, signal: Signal, baseline: _Latency, slice_name: str, seconds: float) -> bool:
        """Count whether an answer was late; False if there is nothing to judge it by."""
        p90 = baseline.p90(slice_name, self._guard.clocks.monotonic())
        if p90 is None:
            self._guard.outbox.shed(self.run, slice_name, no_counterpart(signal))
            return False
        is_late = seconds > self._factor * p90
        self._guard.outbox.count(self.run, slice_name, signal, is_one=is_late)
        return True


class LocalGuard:
    """All watches of one gateway process.

    Args:
        outbox: Gets the observations.
        clocks: Clocks.
        on_trip: Called when a candidate has tripped: `block_tripped` blocks it from now on.
    """

    def __init__(
        self, outbox: ObservationOutbox, clocks: Clocks, on_trip: Callable[[], None]
    ) -> None:
        self.outbox = outbox
        self.clocks = clocks
        self._on_trip = on_trip
        self._baselines: dict[str, BaselineWatch] = {}
        self._candidates: dict[tuple[str, str], CandidateWatch] = {}
        self.trips: dict[tuple[str, ...], int] = {}
        """(model, candidate) -> times that this process took it out of service."""

    def apply(self, snapshot: Snapshot) -> None:
        """Watch the candidates that this table names; a run that goes on keeps its observations."""
        watched = {name: model for name, model in snapshot.models.items() if model.watches}
        self._baselines = {
            name: self._baselines.get(name) or BaselineWatch(self.clocks.monotonic)
            for name in watched
        }
        self._candidates = {
            (name, watch.candidate): self._candidate(name, watch)
            for name, model in watched.items()
            for watch in model.watches
        }

    def _candidate(self, model: str, watch: Watch) -> CandidateWatch:
        run = Run(model, watch.candidate, watch.run)
        found = self._candidates.get((model, watch.candidate))
        if found is not None and found.run == run:
            return found
        return CandidateWatch(run, watch, self._baselines[model], self)

    def watch(self, name: str, model: ModelSnapshot, variant: str) -> AttemptWatch | None:
        """The watch of this variant; None if it has none."""
        if variant == model.baseline:
            return self._baselines.get(name)
        return self._candidates.get((name, variant))

    def block_tripped(self, name: str, model: ModelSnapshot) -> ModelSnapshot:
        """Block the candidates of the model that have tripped in this gateway."""
        flag = model.flag
        tripped = [
            watch.candidate
            for watch in model.watches
            if self._candidates[name, watch.candidate].is_tripped
            and watch.candidate not in flag.blocked
        ]
        if not tripped:
            return model
        blocked = flag.model_copy(update={"blocked": (*flag.blocked, *tripped)})
        return model.model_copy(update={"flag": blocked})

    def trip(self, run: Run) -> None:
        """Take a candidate out of service: its failure process has reached its boundary."""
        log.warning("candidate_tripped", extra={"model": run.model, "candidate": run.candidate})
        key = (run.model, run.candidate)
        self.trips[key] = self.trips.get(key, 0) + 1
        detail = "more attempts failed in one gateway than the tolerance allows"
        self.outbox.trip(run, Trip(Signal.FAILURE, detail, self.clocks.unix()))
        self._on_trip()
