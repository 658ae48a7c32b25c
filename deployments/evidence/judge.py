"""From reports to events: folds, decides, and says what is to be stored. Pure but for the evidence.

Reading order: EvidenceBook.hear, EvidenceBook.reconsider.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from penumbra.deployments.actors import GUARD
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.config_effects import draft_of, obstacle_of
from penumbra.deployments.history.events import Draft, Event
from penumbra.deployments.history.state import State, apply_event
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.payload import Decided, RolloutPayload
from penumbra.deployments.rollouts.record import WATCHED, Key, Phase, Rollout
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, summary
from penumbra.monitoring.observations import Counts, Report, Run, RunReport, Signal

FEEDBACK = "feedback"
"""Source of the reports that carry judgements."""

_AWAY = {StepKind.ROLLBACK: "rollback", StepKind.QUARANTINE: "quarantine"}


def evidence_of(rollout: Rollout) -> RunEvidence:
    """The evidence of a rollout's run, before the first report."""
    record = rollout.record
    return RunEvidence(rollout.spec, record.run, record.slices)


def runs_to_keep(rollouts: Iterable[Rollout], events: Iterable[Event]) -> list[str]:
    """The current runs, and those that the last rollback or quarantine of each is about."""
    last = {
        event.payload.after.key: event.payload.after.record.run
        for event in events
        if isinstance(event.payload, RolloutPayload) and event.payload.decided is not None
    }
    return sorted({rollout.record.run for rollout in rollouts} | set(last.values()))


def name_of(report: Report) -> tuple[str, str, int]:
    """What a report is known by."""
    return report.source, report.process_start_id, report.seq


def report_of_feedback(
    judgement: UserFeedback, state: State, process_start_id: str, seq: int
) -> Report:
    """The report by which a user's judgement counts, if its variant is under a rollout."""
    rollout = state.rollouts.get((judgement.model, judgement.variant))
    runs: tuple[RunReport, ...] = ()
    if rollout is not None and rollout.record.phase in WATCHED:
        run = Run(judgement.model, judgement.variant, rollout.record.run)
        ones = int(judgement.is_negative)
        counts = Counts(judgement.slice, Signal.FEEDBACK, 1 - ones, ones)
        runs = (RunReport(run, counts=(counts,)),)
    return Report(FEEDBACK, process_start_id, seq, runs)


class EvidenceBook:
    """All rollouts of a state, with their evidence.

    Args:
        now: Wall clock.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._evidence: dict[Key, RunEvidence] = {}

    def evidence(self, rollout: Rollout) -> RunEvidence:
        """The evidence of the run that a rollout is in."""
        found = self._evidence.get(rollout.key)
        if found is None or found.run != rollout.record.run or found.spec != rollout.spec:
            # A run that is new here: its id was never told to anybody before.
            found = self._evidence[rollout.key] = evidence_of(rollout)
        return found

    def begin(self, rollouts: Iterable[Rollout], reports: Iterable[Report]) -> None:
        """Forget everything, and fold what is stored."""
        evidence = {rollout.record.run: evidence_of(rollout) for rollout in rollouts}
        for report in reports:
            for one in report.runs:
                if one.run.id in evidence:
                    evidence[one.run.id].fold(report.source, one)
        # All at once: somebody may be looking while a thread folds.
        self._evidence = {(one.spec.model, one.spec.candidate): one for one in evidence.values()}

    def hear(self, state: State, reports: Iterable[Report]) -> list[Draft]:
        """Fold new reports, one after another; the events that follow from them."""
        drafts: list[Draft] = []
        for report in reports:
            for key in self._fold(state, report):
                state, draft = self._decided(state, key, report)
                drafts.extend(draft)
        return drafts

    def reconsider(self, state: State) -> list[Draft]:
        """The events that follow from the time alone."""
        drafts: list[Draft] = []
        for key in state.rollouts:
            state, draft = self._decided(state, key, None)
            drafts.extend(draft)
        return drafts

    def findings(self, rollout: Rollout) -> Findings:
        """What the evidence of a rollout comes to."""
        return self.evidence(rollout).findings()

    def _fold(self, state: State, report: Report) -> list[Key]:
        touched: dict[Key, None] = {}
        for one in report.runs:
            key = one.run.model, one.run.candidate
            rollout = state.rollouts.get(key)
            if rollout is None or rollout.record.run != one.run.id:
                continue  # of a run that is over
            self.evidence(rollout).fold(report.source, one)
            touched[key] = None
        return list(touched)

    def _decided(self, state: State, key: Key, report: Report | None) -> tuple[State, list[Draft]]:
        rollout = state.rollouts[key]
        if rollout.record.phase is Phase.OFF:
            return state, []
        evidence, now = self.evidence(rollout), self._now()
        findings = evidence.findings()
        obstacle = obstacle_of(state, rollout)
        record, steps = decide(rollout.spec, rollout.record, findings, now, obstacle)
        if not steps:
            return state, []
        after = rollout.model_copy(update={"record": record})
        decided = None if report is None else decided_by(steps, evidence, findings, name_of(report))
        draft = draft_of(state, after, GUARD, summary(steps), decided)
        return apply_event(state, Event.of(draft, state.epoch + 1, now)), [draft]


def decided_by(
    steps: Iterable[DecisionStep],
    evidence: RunEvidence,
    findings: Findings,
    report: tuple[str, str, int],
) -> Decided | None:
    """What is kept of a decision that took traffic away; None: it did not.

    Args:
        steps: What was decided.
        evidence: By what.
        findings: Its.
        report: The deciding one, by (source, incarnation, seq).
    """
    away = next((one for one in steps if one.did in _AWAY), None)
    if away is None:
        return None
    fields: dict[str, object] = {}
    if away.tripped is not None:
        one = away.tripped
        fields = {
            "signal": one.signal,
            "evidence": one.evidence,
            "boundary": one.boundary,
            "culprits": one.culprits,
            "suspect": one.suspect,
        }
    elif findings.hard is not None:
        fields = {"signal": findings.hard.signal}
    return Decided.model_validate(
        {
            "action": _AWAY[away.did],
            "signal": None,
            "detail": away.cause,
            "pairs": findings.pairs,
            "report": report,
            "observed_at": evidence.observed_at or None,
            **fields,
        }
    )
