"""Notes proofs that went stale, because the workload has left theirs, and those made anew. Pure.

A stale proof takes no traffic away: the guardrails watch the slice as before. It holds the next
advance (`penumbra.deployments.rollouts.gates`), and is no proof of the candidate's own answers.
"""

from collections.abc import Iterable

from penumbra.deployments.rollouts.findings import AGGREGATE, Findings
from penumbra.deployments.rollouts.record import RolloutRecord
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, replace_fields


def is_whole(spec: RolloutSpec, record: RolloutRecord) -> bool:
    """Whether all slices together have to be proven as well.

    Where slices may be left behind on the baseline, the aggregate does not describe the traffic
    that moves. Elsewhere it is asked for, since pairs of unknown slices are in it only.
    """
    return spec.required_slices is None and not record.quarantined


def note_stale_proofs(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    """Note which proofs are stale now, and which are not any more."""
    claimed = {*record.proven, AGGREGATE} if is_whole(spec, record) else {*record.proven}
    stale = {
        name: record.stale.get(name, how) for name, how in findings.stale.items() if name in claimed
    }
    if record.frozen is not None:  # nothing is called proven by an instrument that is broken
        stale |= {name: how for name, how in record.stale.items() if name in claimed}
    fresh = {name: how for name, how in stale.items() if name not in record.stale}
    renewed = [name for name in record.stale if name in claimed and name not in stale]
    steps = []
    if fresh:
        told = "; ".join(f"{named(name)}, {how}" for name, how in fresh.items())
        steps.append(DecisionStep(StepKind.STALE, f"proven on another workload: {told}"))
    if renewed:
        told = ", ".join(map(named, renewed))
        steps.append(DecisionStep(StepKind.RENEW, f"within tolerance on the new workload: {told}"))
    begun = max(record.revalidations, findings.revalidations)
    if begun != record.revalidations and not fresh:
        cause = f"validation {begun} of this run has begun"
        steps.append(DecisionStep(StepKind.COUNT, cause))
    return replace_fields(
        record,
        stale=stale,
        revalidations=begun,
        proven_live=_without(record.proven_live, fresh),
    ), steps


def named(name: str) -> str:
    """Name a slice, or all of them, for people."""
    return "all slices" if name == AGGREGATE else name


def _without(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    gone = set(others)
    return tuple(name for name in names if name not in gone)
