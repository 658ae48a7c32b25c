"""Steps of a decision that tell who answered: live proofs, and tolerances that were read. Pure.

Reading order: note_live_proofs; the condition that asks for these proofs is in gates.py.
"""

from collections.abc import Mapping
from typing import Any

from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.record import RolloutRecord, join_names
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, replace_fields


def note_live_proofs(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    """Note the released slices that are proven where the candidate answered, too."""
    del spec
    fresh = [
        name
        for name in findings.proven_live
        if name in record.proven and name not in record.proven_live
    ]
    if not fresh or record.frozen is not None:
        return record, []
    record = replace_fields(record, proven_live=join_names(record.proven_live, fresh))
    cause = f"within tolerance where the candidate answered: {', '.join(fresh)}"
    return record, [DecisionStep(StepKind.PROVE_LIVE, cause)]


def told_readings(found: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Tell which tolerances were read that the record does not know."""
    parts = []
    for part, where in (("slices", ""), ("live_slices", "where the candidate answered: ")):
        fresh = [name for name in found.get(part, {}) if name not in known.get(part, {})]
        if fresh:
            parts.append(where + ", ".join(fresh))
    # None is new where an older version had read them from pairs of both kinds.
    told = "; ".join(parts) or "anew, by who answered"
    return f"the tolerance of displacement was read and frozen: {told}"
