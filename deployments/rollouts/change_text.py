"""Names a change of a rollout: by a label value, and by a sentence for the log. Pure."""

from penumbra.deployments.actors import GUARD
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Phase, Rollout


def change_of(payload: RolloutPayload) -> str:
    """The value of the label `change` for an event of a rollout.

    One event may hold several decisions. The first in the order of this function names it, so that
    a decision which takes traffic away is never hidden behind one that gives some.
    """
    before, after = payload.before, payload.after
    if before is None:
        return "applied"
    was, now = before.record.phase, after.record.phase
    if was is not now:
        named = "graduated" if after.record.graduated else _by_phase(was, now)
        if named is not None:
            return named
    if before.spec != after.spec:
        return "applied"
    return _within_phase(before, after)


def _by_phase(was: Phase, now: Phase) -> str | None:
    if now is Phase.ROLLED_BACK:
        return "rolled_back"
    if now is Phase.OFF:
        return "ended"
    if was is Phase.OFF:
        return "applied"
    return "rearmed" if was is Phase.ROLLED_BACK else None


def _within_phase(before: Rollout, after: Rollout) -> str:
    old, new = before.record, after.record
    if old.run != new.run:
        return "restarted"
    if set(new.quarantined) - set(old.quarantined):
        return "quarantined"
    if new.phase is Phase.PROMOTED and old.phase is not Phase.PROMOTED:
        return "promoted"
    if new.stage_index > old.stage_index:
        return "advanced"
    if (new.held is None) != (old.held is None):
        return "held" if new.held else "resumed"
    if set(new.stale) - set(old.stale):
        return "stale"
    return "renewed" if set(old.stale) - set(new.stale) else "other"


def sentence(payload: RolloutPayload, actor: str) -> str:
    """Describe the change and its cause in a sentence, for the log."""
    before, after = payload.before, payload.after
    name = f"{after.spec.candidate} of {after.spec.model}"
    change = change_of(payload)
    by = "" if actor == GUARD else f" by {actor}"
    if change == "rolled_back" and before is not None:
        return f"{name} was rolled back from {_place(before)}{by}: {_why(payload)}"
    if change == "quarantined" and before is not None:
        old = before.record.quarantined
        where = ", ".join(name for name in after.record.quarantined if name not in old)
        return f"{name} lost the slices {where} at {_place(after)}{by}: {_why(payload)}"
    if change == "advanced" and before is not None:
        return f"{name} went from {_place(before)} to {_place(after)}{by}: {after.record.cause}"
    words = _WORDS[change].format(place=_place(after))
    if change == "applied" and after.spec.scope is not None:
        words += f" (only {after.spec.scope.text})"
    return f"{name} {words}{by}: {after.record.cause}"


_WORDS = {
    "applied": "has a rollout, at {place}",
    "promoted": "was promoted",
    "held": "is held at {place}",
    "resumed": "goes on at {place}",
    "stale": "has a stale proof at {place}",
    "renewed": "has its proof anew at {place}",
    "rearmed": "was armed again, at {place}",
    "restarted": "begins its evidence anew, at {place}",
    "graduated": "is the baseline now",
    "ended": "has no rollout any more",
    "other": "is at {place}",
}


def _place(rollout: Rollout) -> str:
    stage = rollout.stage
    return f"{stage} %" if rollout.record.phase is Phase.LIVE else stage


def _why(payload: RolloutPayload) -> str:
    decided = payload.decided
    if decided is None or decided.evidence is None or decided.boundary is None:
        cause = payload.after.record.cause
        return cause if decided is None else f"{cause}, {_pairs(decided.pairs)}"
    where = ", ".join(decided.culprits) or (
        f"most of it in {decided.suspect}" if decided.suspect else "all slices together"
    )
    figures = f"evidence {decided.evidence:.4g} of {decided.boundary:.4g}"
    return f"{decided.signal}, {where} ({figures}), {_pairs(decided.pairs)}"


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"
