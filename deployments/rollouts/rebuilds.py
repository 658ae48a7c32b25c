"""Restarts of a run because a build has changed: they back off, and then the rollout is held. Pure.

A build that was exchanged begins the evidence anew at once. Two comparators that read two builds
under one name would do so for ever, so restarts in quick succession wait 1, 2, 4, ... seconds, and
the one after `MOST_RESTARTS` does not happen: the rollout is held, and its cause names the
comparators and what each reads. A live share is never waited for: it is taken back at once.

Reading order: begin_anew.
"""

from datetime import datetime, timedelta

from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.record import SERVING, Hold, RolloutRecord
from penumbra.deployments.rollouts.transitions import (
    Decision,
    DecisionStep,
    StepKind,
    replace_fields,
    restart,
)

MOST_RESTARTS = 6
"""Restarts in quick succession after which the rollout is held."""
SETTLED = timedelta(hours=1)
"""A run that stood for so long ends the succession."""
LONGEST_WAIT = timedelta(hours=1)
BUILDS = "builds"
"""Mark in `RolloutRecord.answered`: the run is held because its builds are not agreed upon."""


def begin_anew(record: RolloutRecord, findings: Findings, now: datetime) -> Decision:
    """Begin the evidence anew, wait for the time to do so, or hold.

    Args:
        record: The record of a watched rollout.
        findings: Findings of its run; `changed` says which build has changed.
        now: With a timezone.
    """
    is_disputed = BUILDS in record.answered
    if is_disputed and record.held is None:
        return _restart(record, findings, now, 0)  # an operator has resumed it
    restarts = record.rebuilds
    if now - record.since >= SETTLED and not is_disputed:
        restarts = 0
    if record.phase in SERVING:
        return _restart(record, findings, now, restarts + 1)
    if restarts >= MOST_RESTARTS and not is_disputed:
        return _hold(record, findings, restarts)
    if now - record.since < wait_before(restarts) or (is_disputed and findings.dispute):
        return record, ()
    return _restart(record, findings, now, restarts + 1)


def wait_before(restarts: int) -> timedelta:
    """Time that a run has to stand before it is begun anew.

    Args:
        restarts: Restarts before it in the same succession.
    """
    if restarts == 0:
        return timedelta(0)
    return min(timedelta(seconds=2.0 ** min(restarts - 1, 32)), LONGEST_WAIT)


def _restart(record: RolloutRecord, findings: Findings, now: datetime, count: int) -> Decision:
    cause = f"evidence begins anew: {findings.changed}"
    after = replace_fields(restart(record, now, cause), rebuilds=count)
    return after, (DecisionStep(StepKind.RESET, cause),)


def _hold(record: RolloutRecord, findings: Findings, restarts: int) -> Decision:
    told = findings.dispute or findings.changed
    cause = f"held: the builds still change after {restarts} restarts: {told}"
    after = replace_fields(
        record,
        held=record.held or Hold(by="guard", cause=cause),
        answered=(*record.answered, BUILDS),
        cause=cause,
    )
    return after, (DecisionStep(StepKind.HOLD, cause),)
