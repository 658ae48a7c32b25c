"""What became of a rollout: in one of a few words, and in a sentence for people. Pure."""

from deployments.rollouts.payload import RolloutPayload
from deployments.rollouts.record import Phase, Rollout

GUARD = "guard"
"""Who decides by itself, in the history."""


def change_of(payload: RolloutPayload) -> str:
    """What became of the rollout: one of `monitoring.telemetry.labels.CHANGE`."""
    before, after = payload.before, payload.after
    if before is None:
        return "applied"
    return _phase_change(before, after) or _record_change(before, after) or "other"


def _phase_change(before: Rollout, after: Rollout) -> str | None:
    was, now = before.record.phase, after.record.phase
    if was is now:
        return None
    if now is Phase.SHADOW:
        if was is Phase.ROLLED_BACK:
            return "rearmed"
        return "applied" if was is Phase.OFF else "restarted"
    return {
        Phase.ROLLED_BACK: "rolled_back",
        Phase.OFF: "ended",
        Phase.PROMOTED: "promoted",
        Phase.LIVE: "advanced",
    }[now]


def _record_change(before: Rollout, after: Rollout) -> str | None:
    was, now = before.record, after.record
    if before.spec != after.spec:
        return "applied"
    if now.run != was.run:
        return "restarted"
    if now.step > was.step:
        return "advanced"
    if set(now.quarantined) - set(was.quarantined):
        return "quarantined"
    if now.held != was.held:
        return "resumed" if now.held is None else "held"
    return None


def sentence(payload: RolloutPayload, actor: str) -> str:
    """What became of the rollout and why, for whoever reads the log."""
    before, after = payload.before, payload.after
    name = f"{after.spec.candidate} of {after.spec.model}"
    change = change_of(payload)
    by = "" if actor == GUARD else f" by {actor}"
    if change == "rolled_back" and before is not None:
        return f"{name} was rolled back from {_place(before)}{by}: {_why(payload)}"
    if change == "quarantined" and before is not None:
        new = [one for one in after.record.quarantined if one not in before.record.quarantined]
        where = ", ".join(new)
        return f"{name} lost the slices {where} at {_place(after)}{by}: {_why(payload)}"
    if change == "advanced" and before is not None:
        return f"{name} went from {_place(before)} to {_place(after)}{by}: {after.record.cause}"
    words = _WORDS[change].format(place=_place(after))
    return f"{name} {words}{by}: {after.record.cause}"


_WORDS = {
    "applied": "has a rollout, at {place}",
    "promoted": "was promoted",
    "held": "is held at {place}",
    "resumed": "goes on at {place}",
    "rearmed": "was armed again, at {place}",
    "restarted": "begins its evidence anew, at {place}",
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
