"""Conditions of an advance to the next stage. Pure."""

from dataclasses import dataclass

from penumbra.deployments.rollouts.findings import AGGREGATE, Findings, Flow
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.rollouts.stale_proofs import named
from penumbra.deployments.rollouts.transitions import next_stage_index

MOSTLY_PERCENT = 50.0
"""Share from which on the candidate's own answers have to be proven: it answers most clients."""


@dataclass(frozen=True, slots=True)
class AdvanceCondition:
    """One condition of an advance."""

    name: str
    is_met: bool
    found: str
    wanted: str


def advance_conditions(
    spec: RolloutSpec,
    record: RolloutRecord,
    findings: Findings,
    obstacle: str | None = None,
) -> tuple[AdvanceCondition, ...]:
    """All conditions of the next advance, met or not.

    Args:
        spec: The declared rollout.
        record: Its record.
        findings: Findings of the record's run.
        obstacle: Reason why the model's flag has no room for the next stage; None: it has room.
    """
    wanted = spec.gates
    required = required_slices(spec, record, findings)
    missing = [name for name in required if name not in record.proven]
    verdict = record.verdict.value if record.verdict else "undecided"
    slices = ", ".join(required) if required else "any slice"
    return (
        AdvanceCondition(
            "slices",
            not missing and bool(record.proven),
            f"proven: {', '.join(record.proven) or 'none'}",
            f"proven: {slices}",
        ),
        AdvanceCondition("verdict", record.verdict is Verdict.PASS, verdict, "pass"),
        AdvanceCondition(
            "pairs", findings.pairs >= wanted.pairs, f"{findings.pairs}", f"{wanted.pairs}"
        ),
        _live_condition(spec, record, findings),
        _workload_condition(spec, record),
        AdvanceCondition(
            "missing",
            findings.missing_ratio <= wanted.missing_ratio,
            f"{findings.missing_ratio:.2%}",
            f"at most {wanted.missing_ratio:.2%}",
        ),
        *_stage_conditions(spec, record, findings),
        AdvanceCondition(
            "held", record.held is None, record.held.cause if record.held else "no", "no"
        ),
        AdvanceCondition("instrument", record.frozen is None, record.frozen or "works", "works"),
        AdvanceCondition(
            "noise", findings.noise is None, findings.noise or "within", "within the tolerances"
        ),
        AdvanceCondition("flag", obstacle is None, obstacle or "has room", "has room"),
    )


def _stage_conditions(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[AdvanceCondition, ...]:
    """Evidence in the stage itself: for how long it came, and how much of it.

    At a stage with a share it is of pairs in which the candidate answered. Where its gateways have
    no lease, or nothing is compared, there are none.
    """
    is_live = record.phase is Phase.LIVE
    flow = _live_flow(record, findings) if is_live else findings.flow
    seconds, pairs = flow.seconds, flow.pairs
    where = "in the stage" + (", answered by the candidate" if is_live else "")
    wanted = spec.gates
    return (
        AdvanceCondition(
            "time",
            seconds >= wanted.stage_seconds,
            f"{seconds:.0f} s of evidence {where}",
            f"{wanted.stage_seconds:g} s",
        ),
        AdvanceCondition(
            "stage_pairs",
            pairs >= wanted.stage_pairs,
            f"{pairs} {where}",
            f"{wanted.stage_pairs}",
        ),
    )


def _live_flow(record: RolloutRecord, findings: Findings) -> Flow:
    """Evidence of the candidate's answers that were decided in the record's stage."""
    unknown = findings.live_by_epoch.get(0, Flow())
    found = Flow(
        max(0.0, unknown.seconds - record.stage_from_seconds),
        max(0, unknown.pairs - record.stage_from_pairs),
    )
    for epoch, flow in findings.live_by_epoch.items():
        if epoch and epoch >= record.stage_epoch:
            found += flow
    return found


def _live_condition(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> AdvanceCondition:
    """The proof by the candidate's own answers, before it answers at least half of the clients.

    Until a candidate answers clients there is no such proof, so the first live stage does not ask
    for it, however large it is. Where any slice will do, all of them together do as well.
    """
    index = next_stage_index(spec, record)
    coming = spec.shares[index] if index is not None else 0.0
    if record.phase is not Phase.LIVE or coming < MOSTLY_PERCENT:
        return AdvanceCondition("live", True, "not wanted", f"not below {MOSTLY_PERCENT:g} %")
    wanted = spec.required_slices
    if wanted is None:
        wanted = tuple(name for name in record.proven if name not in record.quarantined)
    is_met = set(wanted) <= set(record.proven_live) and bool(record.proven_live)
    found = list(record.proven_live)
    if spec.required_slices == ():
        is_met = is_met or findings.is_live_aggregate_proven
        found += ["all together"] if findings.is_live_aggregate_proven else []
    return AdvanceCondition(
        "live",
        is_met,
        f"proven where the candidate answered: {', '.join(found) or 'none'}",
        f"{', '.join(wanted) or 'any slice, or all together'}, before it answers {coming:g} %",
    )


def _workload_condition(spec: RolloutSpec, record: RolloutRecord) -> AdvanceCondition:
    """The proofs that are needed are not stale: made on the workload of now."""
    wanted = spec.required_slices
    if wanted is None:
        wanted = (*record.proven, AGGREGATE)
    stale = [name for name in wanted if name in record.stale]
    is_met = not stale
    if not wanted:  # any slice is enough
        stale = list(record.stale)
        is_met = not stale or not set(record.proven) <= set(stale)
    found = "; ".join(f"{named(name)} proven on another: {record.stale[name]}" for name in stale)
    return AdvanceCondition("workload", is_met, found or "the same", "that of the proofs")


def required_slices(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[str, ...]:
    """The slices that must be proven before traffic moves."""
    if spec.required_slices is not None:
        return spec.required_slices
    return tuple(name for name in findings.seen if name not in record.quarantined)
