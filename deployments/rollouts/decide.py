"""What a rollout does next: `decide`, pure and total. Every transition is in docs/rollouts.md.

In order, and the first that takes the candidate out of traffic ends it:

    hard guard, failure          -> rolled_back      also when the instrument is broken
    a build changed              -> shadow, new run
    instrument broken            -> verdict error, frozen; quality signals decide nothing
    guardrail tripped            -> rolled_back | quarantine | held | an alert
    slice proven                 -> it gets its share
    required slices proven       -> verdict pass
    undecided at the horizon     -> verdict inconclusive, held
    all gates open               -> next stage

Reading order: decide; gates.py; moves.py.
"""

from datetime import datetime

from penumbra.deployments.rollouts.findings import Findings, Tripped
from penumbra.deployments.rollouts.gates import advance_conditions, required_slices
from penumbra.deployments.rollouts.record import WATCHED, Hold, RolloutRecord, Verdict, join_names
from penumbra.deployments.rollouts.spec import QUALITY, RolloutSpec
from penumbra.deployments.rollouts.transitions import (
    Decision,
    DecisionStep,
    StepKind,
    advance,
    replace_fields,
    restart,
    roll_back,
    summary,
)

HORIZON = "horizon"


def decide(
    spec: RolloutSpec,
    record: RolloutRecord,
    findings: Findings,
    now: datetime,
    obstacle: str | None = None,
) -> Decision:
    """The record after this moment, and what was decided. Never raises.

    Args:
        spec: What was declared.
        record: Where it stands.
        findings: What the evidence comes to; of another run than the record's it says nothing.
        now: With a timezone.
        obstacle: Why the model's flag has no place for the next stage.
    """
    if findings.run != record.run or record.phase not in WATCHED:
        return record, ()
    ended = _take_out_of_service(record, findings, now)
    if ended is not None:
        return ended
    steps: list[DecisionStep] = []
    for move in (
        _freeze_or_unfreeze,
        _apply_holds,
        _quarantine_slices,
        _record_builds,
        _release_slices,
        _reach_verdict,
    ):
        record, taken = move(spec, record, findings)
        steps.extend(taken)
    record, advance = _advance(spec, record, findings, now, obstacle)
    steps.extend(advance)
    if steps:
        record = replace_fields(record, cause=summary(steps))
    return record, tuple(steps)


def _take_out_of_service(
    record: RolloutRecord, findings: Findings, now: datetime
) -> Decision | None:
    if findings.hard is not None:
        hard = findings.hard
        return roll_back(
            record, now, DecisionStep(StepKind.ROLLBACK, f"{hard.signal}: {hard.detail}")
        )
    others = [one for one in _takes_away(findings) if one.signal not in QUALITY]
    if others:
        return roll_back(record, now, _rollback(others[0]))
    if findings.changed is not None:
        cause = f"evidence begins anew: {findings.changed}"
        return restart(record, now, cause), (DecisionStep(StepKind.RESET, cause),)
    if findings.broken is None:
        quality = _takes_away(findings)
        if quality:
            return roll_back(record, now, _rollback(quality[0]))
    return None


def _takes_away(findings: Findings) -> list[Tripped]:
    # A tripped guardrail with `quarantine` is here only if naming slices was not enough.
    return [one for one in findings.tripped if one.action in {"rollback", "quarantine"}]


def _rollback(tripped: Tripped) -> DecisionStep:
    return DecisionStep(StepKind.ROLLBACK, f"{_words(tripped)}", tripped)


def _words(tripped: Tripped) -> str:
    where = ", ".join(tripped.culprits) or (f"most: {tripped.suspect}" if tripped.suspect else "")
    text = f"{tripped.signal}: evidence {tripped.evidence:.4g} reached {tripped.boundary:.4g}"
    return f"{text} ({where})" if where else text


def _freeze_or_unfreeze(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    del spec
    if findings.broken is not None and record.frozen is None:
        after = replace_fields(record, frozen=findings.broken, verdict=Verdict.ERROR)
        return after, [DecisionStep(StepKind.FREEZE, f"promotion frozen: {findings.broken}")]
    if findings.broken is None and record.frozen is not None:
        verdict = Verdict.PASS if record.is_passed else None
        after = replace_fields(record, frozen=None, verdict=verdict)
        return after, [DecisionStep(StepKind.UNFREEZE, "the instrument works again")]
    return record, []


def _apply_holds(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    del spec
    steps = []
    for one in findings.tripped:
        is_void = record.frozen is not None and one.signal in QUALITY
        if one.action not in {"hold", "alert"} or one.signal in record.answered or is_void:
            continue
        record = replace_fields(record, answered=(*record.answered, one.signal))
        if one.action == "alert":
            steps.append(DecisionStep(StepKind.ALERT, f"alert: {_words(one)}", one))
            continue
        steps.append(DecisionStep(StepKind.HOLD, f"held: {_words(one)}", one))
        record = replace_fields(record, held=record.held or Hold(by="guard", cause=_words(one)))
    return record, steps


def _quarantine_slices(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    del spec
    fresh = [name for name in findings.quarantined if name not in record.quarantined]
    if not fresh or record.frozen is not None:
        return record, []
    record = replace_fields(
        record,
        quarantined=(*record.quarantined, *fresh),
        proven=tuple(name for name in record.proven if name not in fresh),
    )
    by_guardrail = {findings.quarantined[name].signal: findings.quarantined[name] for name in fresh}
    return record, [
        DecisionStep(
            StepKind.QUARANTINE, f"quarantined {', '.join(one.culprits)}: {_words(one)}", one
        )
        for one in by_guardrail.values()
    ]


def _record_builds(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    del spec
    steps = []
    if dict(findings.fingerprints) != record.fingerprints:
        record = replace_fields(record, fingerprints=dict(findings.fingerprints))
        steps.append(DecisionStep(StepKind.IDENTIFY, "the builds were identified"))
    if findings.calibration is not None and record.calibration is None:
        record = replace_fields(record, calibration=dict(findings.calibration))
        steps.append(
            DecisionStep(StepKind.CALIBRATE, "the tolerance of displacement was read and frozen")
        )
    return record, steps


def _release_slices(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    is_late = findings.pairs >= spec.gates.horizon and not record.is_passed
    known = {*record.proven, *record.quarantined}
    fresh = [name for name in findings.proven if name not in known]
    if not fresh or record.frozen is not None or is_late:
        return record, []
    record = replace_fields(record, proven=join_names(record.proven, fresh))
    return record, [DecisionStep(StepKind.RELEASE, f"within tolerance: {', '.join(fresh)}")]


def _reach_verdict(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    if record.verdict is not None:
        return record, []
    required = required_slices(spec, record, findings)
    # What is seen of unknown slices is in the aggregate only. Where slices may be left behind on
    # the baseline, the aggregate is not what gets traffic.
    is_whole = spec.required_slices is None and not record.quarantined
    is_proven = bool(record.proven) and set(required) <= set(record.proven)
    is_late = findings.pairs >= spec.gates.horizon
    if is_proven and not is_late and (findings.is_aggregate_proven or not is_whole):
        record = replace_fields(record, verdict=Verdict.PASS, is_passed=True)
        return record, [
            DecisionStep(StepKind.PASS, f"validated within tolerance on {', '.join(record.proven)}")
        ]
    if not is_late:
        return record, []
    cause = f"undecided after {findings.pairs} pairs"
    record = replace_fields(record, verdict=Verdict.INCONCLUSIVE)
    if HORIZON not in record.answered:
        record = replace_fields(
            record,
            answered=(*record.answered, HORIZON),
            held=record.held or Hold(by="guard", cause=cause),
        )
    return record, [DecisionStep(StepKind.INCONCLUSIVE, f"inconclusive: {cause}")]


def _advance(
    spec: RolloutSpec,
    record: RolloutRecord,
    findings: Findings,
    now: datetime,
    obstacle: str | None,
) -> Decision:
    if not all(gate.is_met for gate in advance_conditions(spec, record, findings, now, obstacle)):
        return record, ()
    return advance(spec, record, now)
