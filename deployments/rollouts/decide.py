"""Decides the next step of a rollout: `decide`, pure and total.

The checks run in this order; the first that takes the candidate out of traffic ends the decision:

    rolled back by quality       -> the verdict stays fail, or becomes error
    hard failure, failure signal -> rolled_back      also when the instrument is broken
    a build changed              -> shadow, new run; held if that goes on and on
    candidate's scorer unfit     -> verdict error, frozen; its scores decide nothing, and the live
                                    share goes back if its decoding is suspect as well
    instrument broken            -> verdict error, frozen; quality signals decide nothing
    guardrail tripped            -> rolled_back | quarantine | held | an alert
    broken for too long          -> the live share goes back: shadow, new run
    workload left                -> a proof is stale until it is made anew; advances wait for it
    slice proven                 -> it gets its share, by pairs in which the baseline answered
    slice proven live            -> it may get most of the traffic
    required slices proven       -> verdict pass
    undecided at the horizon     -> verdict inconclusive, held
    all conditions met           -> next stage, in the decision that a pair causes

Every transition is listed in docs/rollouts.md. Reading order: findings.py; decide; gates.py;
transitions.py; arbitrate.py.
"""

from datetime import datetime, timedelta

from penumbra.deployments.rollouts.arbitrate import arbitrate, plan_arbitration
from penumbra.deployments.rollouts.channel_release import release_channels, release_slices
from penumbra.deployments.rollouts.findings import AGGREGATE, Findings, Tripped
from penumbra.deployments.rollouts.gates import advance_conditions, required_slices
from penumbra.deployments.rollouts.live_proofs import note_live_proofs, told_readings
from penumbra.deployments.rollouts.rebuilds import begin_anew
from penumbra.deployments.rollouts.record import (
    SERVING,
    WATCHED,
    Hold,
    RolloutRecord,
    Verdict,
    builds_key,
    join_names,
)
from penumbra.deployments.rollouts.spec import QUALITY, SAFETY, SCORED, RolloutSpec
from penumbra.deployments.rollouts.stale_proofs import is_whole, note_stale_proofs
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
from penumbra.monitoring.observations import AnsweredBy

HORIZON = "horizon"


def decide(
    spec: RolloutSpec,
    record: RolloutRecord,
    findings: Findings,
    now: datetime,
    obstacle: str | None = None,
) -> Decision:
    """Decide by the findings; never raises.

    Args:
        spec: The declared rollout.
        record: Its record.
        findings: Findings of the record's run; those of another run change nothing.
        now: With a timezone.
        obstacle: Reason why the model's flag has no room for the next stage; None: it has room.

    Returns:
        The new record, and the steps that led to it.
    """
    if findings.run != record.run:
        return record, ()
    if record.arbitration is not None:
        return arbitrate(record, record.arbitration, findings, now)
    if record.phase not in WATCHED:
        return record, ()
    out_of_service = _take_out_of_service(record, findings, now)
    if out_of_service is not None:
        return out_of_service
    record, steps = _freeze_or_unfreeze(record, findings, now)
    if _is_broken_too_long(spec, record, now):
        return _take_share_back(record, now)
    record, more = _judge(spec, record, findings)
    steps.extend(more)
    record, last_steps = _advance(spec, record, findings, obstacle, now)
    steps.extend(last_steps)
    if steps:
        record = replace_fields(record, cause=summary(steps))
    return record, tuple(steps)


def _judge(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    steps: list[DecisionStep] = []
    for check in (
        _apply_holds,
        _quarantine_slices,
        _suspect_slices,
        _record_builds,
        note_stale_proofs,
        release_channels,
        release_slices,
        note_live_proofs,
        _reach_verdict,
    ):
        record, new_steps = check(spec, record, findings)
        steps.extend(new_steps)
    return record, steps


def _take_out_of_service(
    record: RolloutRecord, findings: Findings, now: datetime
) -> Decision | None:
    if findings.hard is not None:
        hard = findings.hard
        return roll_back(
            record, now, DecisionStep(StepKind.ROLLBACK, f"{hard.signal}: {hard.detail}")
        )
    safety = _tripped_safety(findings)
    others = [tripped for tripped in safety if tripped.signal not in QUALITY]
    if others:
        return roll_back(record, now, _rollback_step(others[0]))
    if findings.changed is not None:
        return begin_anew(record, findings, now)
    unfit = findings.unfit
    if unfit is not None and unfit.is_decoding_suspect and record.phase in SERVING:
        return roll_back(record, now, DecisionStep(StepKind.ROLLBACK, unfit.detail), Verdict.ERROR)
    if safety:
        after, steps = roll_back(record, now, _rollback_step(safety[0]))
        return replace_fields(after, arbitration=plan_arbitration(safety[0], findings)), steps
    return None


def _tripped_safety(findings: Findings) -> list[Tripped]:
    # A tripped guardrail with `quarantine` is here only if naming slices was not enough.
    return [
        tripped
        for tripped in findings.tripped
        if tripped.action in SAFETY and not _is_void(tripped.signal, findings)
    ]


def _is_void(signal: str, findings: Findings) -> bool:
    """Whether a signal says nothing: the instrument is broken, or the candidate's scorer unfit."""
    if findings.broken is not None and signal in QUALITY:
        return True
    return findings.unfit is not None and signal in SCORED


def _rollback_step(tripped: Tripped) -> DecisionStep:
    return DecisionStep(StepKind.ROLLBACK, _describe(tripped), tripped)


def _describe(tripped: Tripped) -> str:
    where = ", ".join(tripped.culprits) or (f"most: {tripped.suspect}" if tripped.suspect else "")
    text = f"{tripped.signal}: evidence {tripped.evidence:.4g} reached {tripped.boundary:.4g}"
    if tripped.answered_by == AnsweredBy.CANDIDATE:
        text += " where the candidate answered"
    return f"{text} ({where})" if where else text


def _freeze_or_unfreeze(
    record: RolloutRecord, findings: Findings, now: datetime
) -> tuple[RolloutRecord, list[DecisionStep]]:
    cause = findings.broken or (findings.unfit.detail if findings.unfit else None)
    if cause is not None and record.frozen is None:
        after = replace_fields(record, frozen=cause, frozen_at=now, verdict=Verdict.ERROR)
        return after, [DecisionStep(StepKind.FREEZE, f"promotion frozen: {cause}")]
    if cause is None and record.frozen is not None:
        verdict = Verdict.PASS if record.is_passed else None
        after = replace_fields(record, frozen=None, frozen_at=None, verdict=verdict)
        return after, [DecisionStep(StepKind.UNFREEZE, "the instrument works again")]
    return record, []


def _is_broken_too_long(spec: RolloutSpec, record: RolloutRecord, now: datetime) -> bool:
    if record.frozen is None or record.phase not in SERVING:
        return False
    since = record.frozen_at or record.since
    return now - since >= timedelta(seconds=spec.gates.broken_seconds)


def _take_share_back(record: RolloutRecord, now: datetime) -> Decision:
    """Begin anew in shadow: clients get no build that cannot be judged. No fault of the build's."""
    cause = f"live share taken back: {record.frozen}, for too long"
    return restart(record, now, cause), (DecisionStep(StepKind.RESET, cause),)


def _apply_holds(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    del spec
    steps = []
    for tripped in findings.tripped:
        is_void = _is_void(tripped.signal, findings)
        if tripped.action in SAFETY or tripped.signal in record.answered or is_void:
            continue
        record = replace_fields(record, answered=(*record.answered, tripped.signal))
        cause = _describe(tripped)
        if tripped.action == "alert":
            steps.append(DecisionStep(StepKind.ALERT, f"alert: {cause}", tripped))
            continue
        steps.append(DecisionStep(StepKind.HOLD, f"held: {cause}", tripped))
        record = replace_fields(record, held=record.held or Hold(by="guard", cause=cause))
    return record, steps


def _quarantine_slices(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    del spec
    fresh = [name for name in findings.quarantined if name not in record.quarantined]
    if not fresh or findings.broken is not None:
        return record, []
    record = replace_fields(
        record,
        quarantined=(*record.quarantined, *fresh),
        proven=tuple(name for name in record.proven if name not in fresh),
        proven_live=tuple(name for name in record.proven_live if name not in fresh),
    )
    by_guardrail = {findings.quarantined[name].signal: findings.quarantined[name] for name in fresh}
    return record, [
        DecisionStep(
            StepKind.QUARANTINE,
            f"quarantined {', '.join(tripped.culprits)}: {_describe(tripped)}",
            tripped,
        )
        for tripped in by_guardrail.values()
    ]


def _suspect_slices(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    """Compare the baseline with itself more often where a verdict may be near."""
    del spec
    fresh = [name for name in findings.suspects if name not in record.suspects]
    if not fresh or record.frozen is not None:
        return record, []
    record = replace_fields(record, suspects=join_names(record.suspects, fresh))
    where = ", ".join("all slices" if name == AGGREGATE else name for name in fresh)
    cause = f"the baseline is compared with itself more often: suspicious evidence in {where}"
    return record, [DecisionStep(StepKind.SUSPECT, cause)]


def _record_builds(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    steps = []
    if dict(findings.fingerprints) != record.fingerprints:
        record = replace_fields(record, fingerprints=dict(findings.fingerprints))
        steps.append(DecisionStep(StepKind.IDENTIFY, "the builds were identified"))
    if findings.pairs >= spec.gates.slice_pairs and not record.is_counted:
        record = replace_fields(record, is_counted=True)
        number = record.runs_so_far[builds_key(record.fingerprints)]
        steps.append(DecisionStep(StepKind.COUNT, f"run {number} of these builds may prove slices"))
    found, known = findings.calibration, record.calibration or {}
    if found is not None and dict(found) != known:
        record = replace_fields(record, calibration=dict(found))
        steps.append(DecisionStep(StepKind.CALIBRATE, told_readings(found, known)))
    return record, steps


def _reach_verdict(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    if record.verdict is not None:
        return record, []
    required = required_slices(spec, record, findings)
    is_proven = bool(record.proven) and set(required) <= set(record.proven)
    is_proven = is_proven and not record.stale.keys() & {*required, AGGREGATE}
    is_late = findings.pairs >= spec.gates.horizon
    if is_proven and not is_late and (findings.is_aggregate_proven or not is_whole(spec, record)):
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
    obstacle: str | None,
    now: datetime,
) -> Decision:
    conditions = advance_conditions(spec, record, findings, obstacle)
    if not findings.has_news or not all(condition.is_met for condition in conditions):
        return record, ()
    return advance(spec, record, findings, now)
