"""Promises that a simulated installation must have kept when all is well again."""

from penumbra.deployments.actors import RECOVERY
from penumbra.deployments.history.events import Event
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Phase
from tests.support.simulated.installation import (
    GATEWAYS,
    OPERATOR,
    Installation,
)
from tests.support.simulated.processes import CANDIDATES, LEASE_SECONDS, SECOND
from tests.support.simulated.specs import STAGE_PAIRS


def check_at_rest(installation: Installation) -> None:
    """Check that the installation is whole, and that no promise was broken."""
    for process in (
        *installation.controls.values(),
        *installation.gateways.values(),
        installation.comparator,
    ):
        assert process is not None
        assert not process.failures, f"{process.name}: {process.failures}"
    assert len(installation.leaders) == 1, f"leaders: {[c.name for c in installation.leaders]}"
    [leader] = installation.leaders
    events = installation.events()
    epoch = events[-1].epoch
    assert leader.parts.controller.state.epoch == epoch
    for gateway in installation.gateways.values():
        found = gateway.table.epoch
        assert found == epoch, f"{gateway.name} is at epoch {found}, the store at {epoch}"
        assert gateway.lease.is_fresh("demo", installation.timeline.now), (
            f"{gateway.name}: no lease"
        )
    _check_history(installation, events)
    _check_stages(installation, events)
    _check_others(events)
    _check_kill(installation, leader.name)


def _check_kill(installation: Installation, leader: str) -> None:
    acknowledged = installation.operator.acknowledged
    before, until = len(acknowledged), installation.timeline.now + 2 * LEASE_SECONDS
    installation.ask("kill", leader)
    while len(acknowledged) == before and installation.timeline.now < until:
        installation.run(0.1)
    assert len(acknowledged) > before, "no change is made any more"
    assert acknowledged[-1].arrival.acknowledged == len(GATEWAYS), f"{acknowledged[-1]}"


def _check_history(installation: Installation, events: list[Event]) -> None:
    """Each acknowledged change is in the store, by its operator; what the store lost is said."""
    kept = {(event.epoch, event.actor, event.reason) for event in events}
    changes = {event.reason for event in events}
    notices = [event for event in events if event.actor == RECOVERY]
    for change in installation.operator.acknowledged:
        if (change.epoch, OPERATOR, change.reason) in kept or change.is_unchanged:
            continue
        # It was committed at some time between its question and its answer.
        lost = [loss for loss in installation.losses if loss[1] < change.at]
        lost = [loss for loss in lost if change.asked_at <= loss[0]]
        assert lost, f"{change.reason} was acknowledged, and is not in the store ({changes})"
        assert notices, f"{change.reason} was lost with the store's tail, and nothing says so"


def _check_stages(installation: Installation, events: list[Event]) -> None:
    """No live stage ended without pairs that the candidate answered, and that it decided."""
    for event in events:
        payload = event.payload
        if not isinstance(payload, RolloutPayload) or payload.before is None:
            continue
        before, after = payload.before.record, payload.after.record
        candidate = payload.after.spec.candidate
        if before.phase is not Phase.LIVE or not before.stage_epoch:
            continue
        if after.stage_index > before.stage_index or after.phase is Phase.PROMOTED:
            own = (p for p in installation.candidate_pairs if p.answered_by == candidate)
            pairs = [p for p in own if p.epoch >= before.stage_epoch]
            text = f"stage {before.stage_index} ended (epoch {event.epoch}) with {len(pairs)} pairs"
            assert len(pairs) >= STAGE_PAIRS, text


def _check_others(events: list[Event]) -> None:
    """No rollout has changed what another candidate has, and a good build is never condemned."""
    for event in events:
        payload = event.payload
        if not isinstance(payload, RolloutPayload):
            continue
        before, after, own = payload.flag_before, payload.flag_after, payload.after.spec.candidate
        assert own != SECOND or payload.decided is None, f"epoch {event.epoch}: {payload.decided}"
        for other in CANDIDATES:
            if other == own:
                continue
            text = f"the rollout of {own} changes {other} in epoch {event.epoch}"
            assert (other in before.blocked) == (other in after.blocked), text
            assert before.quarantined_for.get(other) == after.quarantined_for.get(other), text
            # A blocked candidate gets nothing, and makes room for one that goes live.
            kept = after.split.get(other) == before.split.get(other)
            assert kept or other in before.blocked, text
