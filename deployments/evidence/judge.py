"""Judge of all rollouts: folds reports into evidence and drafts the events that follow from it.

Pure, apart from the evidence that an `EvidenceBook` keeps.

Reading order: EvidenceBook.fold_reports, EvidenceBook.reconsider.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime

from penumbra.deployments.actors import GUARD
from penumbra.deployments.evidence.kind_guards import PAIRS, PairKinds
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.config_effects import draft_of, obstacle_of
from penumbra.deployments.history.events import Draft, Event
from penumbra.deployments.history.state import State, apply_event
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.payload import Decided
from penumbra.deployments.rollouts.record import WATCHED, Key, Phase, Rollout
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, summary
from penumbra.monitoring.observations import Counts, Report, Run, RunReport, Signal

FEEDBACK = "feedback"
"""Source of the reports that carry users' judgements."""

_AWAY = {StepKind.ROLLBACK: "rollback", StepKind.QUARANTINE: "quarantine"}


def evidence_of(
    rollout: Rollout, kinds: PairKinds = PAIRS, *, has_floors: bool = True
) -> RunEvidence:
    """Makes the empty evidence of a rollout's run, in which these kinds of pairs are told apart."""
    record = rollout.record
    return RunEvidence(
        rollout.spec,
        record.run,
        record.slices,
        record.earlier_runs,
        kinds,
        has_floors=has_floors,
    )


def fold_stored_reports(evidence: RunEvidence, reports: Iterable[Report]) -> RunEvidence:
    """Folds the parts of stored reports that are of the evidence's run; returns the evidence."""
    for report in reports:
        for run_report in report.runs:
            if run_report.run.id == evidence.run:
                evidence.fold(report.source, run_report, report.process_start_id)
    return evidence


def name_of(report: Report) -> tuple[str, str, int]:
    """Names a report: (source, process start id, sequence number)."""
    return report.source, report.process_start_id, report.seq


def report_of_feedback(
    judgement: UserFeedback, state: State, process_start_id: str, seq: int
) -> Report:
    """Makes the report that counts a user's judgement; empty if no rollout watches its variant."""
    rollout = state.rollouts.get((judgement.model, judgement.variant))
    runs: tuple[RunReport, ...] = ()
    if rollout is not None and rollout.record.phase in WATCHED:
        run = Run(judgement.model, judgement.variant, rollout.record.run)
        ones = int(judgement.is_negative)
        counts = Counts(judgement.slice, Signal.FEEDBACK, 1 - ones, ones)
        runs = (RunReport(run, counts=(counts,)),)
    return Report(FEEDBACK, process_start_id, seq, runs)


class UnfoldableReport(Exception):
    """A report whose fold, or the decision by it, failed.

    Args:
        report: The report.
        error: How it failed.
    """

    def __init__(self, report: Report, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.report = report


class EvidenceBook:
    """Keeps the evidence of all rollouts of a state.

    Args:
        now: Wall clock.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._evidence: dict[Key, RunEvidence] = {}

    def evidence(self, rollout: Rollout) -> RunEvidence:
        """Returns the evidence of the run that a rollout is in."""
        found = self._evidence.get(rollout.key)
        if found is None or found.run != rollout.record.run or found.spec != rollout.spec:
            # A new run: no report can name it yet, so its evidence begins empty.
            found = self._evidence[rollout.key] = evidence_of(rollout)
        return found

    def begin(self, evidence: Iterable[RunEvidence]) -> None:
        """Forgets all evidence, and takes that which was read from the store."""
        # Replaced at once: a request may read the evidence while a thread folds.
        self._evidence = {(folded.spec.model, folded.spec.candidate): folded for folded in evidence}

    def lose(self, runs: Collection[str]) -> None:
        """Ends the evidence of runs of which a stored report cannot be read: they begin anew."""
        for evidence in self._evidence.values():
            if evidence.run in runs and evidence.changed is None:
                evidence.changed = "a stored report of this run cannot be read"

    def fold_reports(self, state: State, reports: Iterable[Report]) -> list[Draft]:
        """Folds new reports, one after another, and drafts the events that follow from them.

        Raises:
            UnfoldableReport: The evidence holds a part of one; it is to be folded anew.
        """
        drafts: list[Draft] = []
        for report in reports:
            try:
                for key, has_grown in self._fold(state, report).items():
                    state, draft = self._decide(state, key, report, has_news=has_grown)
                    drafts.extend(draft)
            except Exception as error:
                raise UnfoldableReport(report, error) from error
        return drafts

    def reconsider(self, state: State) -> list[Draft]:
        """Drafts the events that follow from the time alone."""
        drafts: list[Draft] = []
        for key in state.rollouts:
            state, draft = self._decide(state, key, None)
            drafts.extend(draft)
        return drafts

    def findings(self, rollout: Rollout) -> Findings:
        """Summarizes the evidence of a rollout for `decide`."""
        return self.evidence(rollout).findings()

    def _fold(self, state: State, report: Report) -> dict[Key, bool]:
        """Folds a report.

        Returns:
            The rollouts that it tells of -> whether it made the evidence of their stage grow.
        """
        touched: dict[Key, bool] = {}
        for run_report in report.runs:
            run = run_report.run
            key = run.model, run.candidate
            rollout = state.rollouts.get(key)
            if rollout is None or rollout.record.run != run.id:
                continue  # a run that is over
            evidence = self.evidence(rollout)
            is_live = rollout.record.phase is Phase.LIVE
            clock = evidence.clocks.live if is_live else evidence.clocks.all
            before = clock.pairs
            evidence.fold(report.source, run_report, report.process_start_id)
            touched[key] = touched.get(key, False) or clock.pairs > before
        return touched

    def _decide(
        self, state: State, key: Key, report: Report | None, *, has_news: bool = False
    ) -> tuple[State, list[Draft]]:
        rollout = state.rollouts[key]
        if rollout.record.phase is Phase.OFF:
            return state, []
        evidence, now = self.evidence(rollout), self._now()
        findings = replace(evidence.findings(), epoch=state.epoch + 1, has_news=has_news)
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
    """Describes a decision that took traffic away, for the history; None if it did not.

    Args:
        steps: The steps of the decision.
        evidence: The evidence that it was made by.
        findings: The evidence's findings.
        report: The deciding report, by (source, process start id, sequence number).
    """
    away = next((step for step in steps if step.did in _AWAY), None)
    if away is None:
        return None
    fields: dict[str, object] = {}
    if away.tripped is not None:
        tripped = away.tripped
        fields = {
            "signal": tripped.signal,
            "evidence": tripped.evidence,
            "boundary": tripped.boundary,
            "culprits": tripped.culprits,
            "suspect": tripped.suspect,
            "answered_by": tripped.answered_by,
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
