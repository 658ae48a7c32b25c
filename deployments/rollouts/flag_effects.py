"""Flag and watches of a model that follow from its rollouts. Pure.

Reading order: flag_after, watch_of.
"""

from collections.abc import Iterable
from typing import Any

from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.record import (
    SERVING,
    WATCHED,
    Arbitration,
    Phase,
    Rollout,
    RolloutRecord,
    join_names,
)
from penumbra.deployments.rollouts.spec import LATENCY, RolloutSpec
from penumbra.monitoring.observations import Signal
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Watch

SUSPECT_AA = 0.5
"""Least share of the A/A arm where the evidence is suspicious: half a verdict's pairs or more."""


def flag_after(flag: Flag, before: Rollout | None, after: Rollout) -> Flag:
    """The model's flag once the rollout has changed from `before` to `after`.

    After a rollback the candidate is blocked, also when the rollout is ended then. Its share stays,
    so that answers have the reason GUARD, until another candidate goes live and needs the room.
    """
    candidate = after.spec.candidate
    flag = flag.model_copy(update=_quarantines_after(flag, before, after))
    if after.record.phase is Phase.ROLLED_BACK:
        return flag.model_copy(update={"blocked": join_names(flag.blocked, (candidate,))})
    split = {name: share for name, share in flag.split.items() if name != candidate}
    if after.record.is_condemned:
        blocked = join_names(flag.blocked, (candidate,))
        return flag.model_copy(update={"split": split, "blocked": blocked})
    if after.share > 0:
        split = {name: share for name, share in split.items() if name not in flag.blocked}
        split[candidate] = after.share
    update = {
        "split": split,
        "blocked": tuple(name for name in flag.blocked if name != candidate),
    }
    return flag.model_copy(update=update)


def _quarantines_after(flag: Flag, before: Rollout | None, after: Rollout) -> dict[str, Any]:
    """The fields of the flag that say which slices stay on the baseline.

    The candidate's own change and no other candidate's. Those set by hand stay, but for what an
    older release had put there for this rollout (`RolloutRecord.outside`): that is its own from now
    on.
    """
    record, candidate = after.record, after.spec.candidate
    own = {name: closed for name, closed in flag.quarantined_for.items() if name != candidate}
    if record.phase in SERVING:
        proven = set(record.proven) - set(record.quarantined)
        closed = tuple(name for name in record.slices if name not in proven)
        own |= {candidate: closed} if closed else {}
    elif record.phase in WATCHED and record.quarantined:
        own[candidate] = record.quarantined  # a pin must not lead there either
    by_hand = flag.quarantined
    if before is not None and before.record.outside is not None:
        known = set(record.slices)
        by_hand = tuple(name for name in before.record.outside if name in known)
    return {"quarantined": by_hand, "quarantined_for": own}


def watch_of(rollout: Rollout) -> Watch | None:
    """The watch of a rollout: the observations that gateways and comparators make; None: none."""
    spec, record = rollout.spec, rollout.record
    if record.arbitration is not None:
        return _watch_of_arbitration(spec, record.run, record.arbitration)
    if record.phase not in WATCHED:
        return None
    failure = spec.guardrail(Signal.FAILURE)
    # Without a share of the alpha, gateways may not take traffic away for failures.
    fields: dict[str, float | int | None] = {"failure_alpha": None}
    if failure is not None and isinstance(failure.tolerance, float):
        fields["failure_tolerance"] = failure.tolerance
    if failure is not None and failure.share is not None:
        # The other half is the control process's own; see `guardrail_monitor.alpha_of`.
        fields["failure_alpha"] = spec.guard_alpha * failure.share / 2 / spec.gateways
        if spec.gates.failure_requests is not None:
            fields["failure_requests"] = spec.gates.failure_requests
    for guardrail in spec.guardrails:
        if guardrail.signal in LATENCY:
            fields["latency_factor"] = guardrail.factor  # the same for both
    closer = max(SUSPECT_AA, spec.mirror.aa)
    return Watch(
        candidate=spec.candidate,
        run=record.run,
        mirror=spec.mirror.rate,
        mirror_slices=spec.mirror.slices,
        cluster=spec.mirror.cluster,
        generate=spec.mirror.generate,
        aa=closer if AGGREGATE in record.suspects else spec.mirror.aa,
        aa_slices={name: closer for name in record.suspects if name in record.slices},
        in_flight=spec.on_rollback,
        released=_released(record),
        scope=spec.scope,
        **fields,
    )


def _released(record: RolloutRecord) -> dict[str, tuple[str, ...]] | None:
    """The channels that may go to the candidate; None where the candidate has no live share.

    There an older gateway, which does not know the field, still takes the table.
    """
    if record.phase not in SERVING or record.released is None:
        return None
    return {name: record.released.get(name, ()) for name in record.proven}


def _watch_of_arbitration(spec: RolloutSpec, run: str, arbitration: Arbitration) -> Watch:
    """The watch after a rollback: the slices in question, always with the A/A arm."""
    mirror = spec.mirror
    slices = {name: mirror.slices.get(name, mirror.rate) for name in arbitration.slices}
    return Watch(
        candidate=spec.candidate,
        run=run,
        mirror=0.0 if slices else mirror.rate,
        mirror_slices=slices or mirror.slices,
        cluster=mirror.cluster,
        generate=1.0,
        aa=1.0,
        failure_alpha=None,
        scope=spec.scope,
        in_flight=spec.on_rollback,
    )


def watches_of(model: ModelSnapshot, rollouts: Iterable[Rollout]) -> tuple[Watch, ...]:
    """All watches of a model, only for candidates that it has."""
    watches = (
        watch_of(rollout) for rollout in rollouts if rollout.spec.candidate in model.variants
    )
    return tuple(watch for watch in watches if watch is not None)
