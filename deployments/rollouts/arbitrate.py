"""Makes the verdict of a rollback final by comparing the baseline with itself. Pure.

Reading order: plan_arbitration, arbitrate.
"""

from datetime import datetime, timedelta

from penumbra.deployments.rollouts.findings import AGGREGATE, Findings, Tripped
from penumbra.deployments.rollouts.record import Arbitration, RolloutRecord, Verdict
from penumbra.deployments.rollouts.spec import SCORED
from penumbra.deployments.rollouts.transitions import (
    Decision,
    DecisionStep,
    StepKind,
    replace_fields,
)

MOST_AA_PAIRS = 20_000
"""Pairs of the baseline with itself after a rollback by a quality signal, until it is final."""
LONGEST_ARBITRATION = timedelta(days=3)
"""The same in time: traffic may end, or bring nothing new."""


def plan_arbitration(tripped: Tripped, findings: Findings) -> Arbitration:
    """Plan the comparison of the baseline with itself."""
    suspects = tripped.culprits or ((tripped.suspect,) if tripped.suspect else ())
    plan = Arbitration(signal=tripped.signal, slices=suspects, until_pairs=1)
    counted = plan.pairs(findings.aa_pairs.get(tripped.signal, {}))
    return plan.model_copy(update={"until_pairs": counted + MOST_AA_PAIRS})


def arbitrate(
    record: RolloutRecord, plan: Arbitration, findings: Findings, now: datetime
) -> Decision:
    """Make the verdict of a rollback final: the candidate's fault, or the instrument's.

    A self-test that fails meanwhile says nothing of the pairs before: it is waited for.
    """
    void = findings.aa_alarm
    if void is None and findings.unfit is not None and plan.signal in SCORED:
        void = findings.unfit.detail
    if findings.hard is None and void is not None:
        cause = f"the rollback says nothing of the candidate: {void}"
        after = replace_fields(record, verdict=Verdict.ERROR, arbitration=None, cause=cause)
        return after, (DecisionStep(StepKind.VOID, cause),)
    final = _final_verdict(record, plan, findings, now)
    if final is None:
        return record, ()
    verdict, told = final
    after = replace_fields(
        record, verdict=verdict, arbitration=None, cause=f"{record.cause}; {told}"
    )
    return after, (DecisionStep(StepKind.CONFIRM, told),)


def _final_verdict(
    record: RolloutRecord, plan: Arbitration, findings: Findings, now: datetime
) -> tuple[Verdict, str] | None:
    """The verdict of a rollback and why it is final; None while it is not."""
    if findings.hard is not None:
        return Verdict.FAIL, f"{findings.hard.signal}: {findings.hard.detail}"
    pairs = plan.pairs(findings.aa_pairs.get(plan.signal, {}))
    sound = findings.aa_proven.get(plan.signal, ())
    if set(plan.slices) <= set(sound) if plan.slices else AGGREGATE in sound:
        return Verdict.FAIL, f"the baseline agrees with itself, by {pairs} pairs"
    if findings.changed is not None:
        return Verdict.INCONCLUSIVE, f"no more is compared: {findings.changed}"
    if pairs >= plan.until_pairs or now - record.since >= LONGEST_ARBITRATION:
        told = f"whether the baseline agrees with itself is undecided after {pairs} pairs"
        return Verdict.INCONCLUSIVE, told
    return None
