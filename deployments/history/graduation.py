"""Graduation: a promoted candidate becomes the baseline, and goes back in one operation. Pure.

Both are events that are committed together: the configuration with another baseline, what follows
from it for other rollouts, and the candidate's own rollout.

Reading order: graduate, take_back, measured_against.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from penumbra.deployments.errors import Conflict
from penumbra.deployments.history.config_effects import (
    apply_config,
    draft_of,
    end_rollout,
    flags_after,
    graduates,
    require_readable,
)
from penumbra.deployments.history.config_plan import reference_problems
from penumbra.deployments.history.events import ConfigPayload, Draft, FlagPayload, Kind
from penumbra.deployments.history.split_places import keep_places
from penumbra.deployments.history.state import State, apply_drafts
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Graduation, Key, Phase, Rollout
from penumbra.deployments.rollouts.spec import PROVED
from penumbra.deployments.rollouts.transitions import (
    DecisionStep,
    StepKind,
    replace_fields,
    roll_back,
)
from penumbra.router.flags.routing_table import ModelSnapshot

T = TypeVar("T")

_WHOLE = 100.0


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's order to graduate a candidate, or to take that back."""

    actor: str
    reason: str
    now: datetime
    """With a timezone."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of a graduation."""

    keep: timedelta = timedelta(days=7)
    """Time for which the baseline of now is to stay in the configuration."""
    accepts_unproven: bool = False
    """Whether clients that have the baseline of now, because the candidate was never proven for
    their requests, may get the candidate."""


def graduate(
    state: State, rollout: Rollout, order: Order, terms: Terms, left: Sequence[str] = ()
) -> list[Draft]:
    """Draft the events by which a promoted candidate becomes its model's baseline.

    Args:
        state: State of the installation.
        rollout: The candidate's rollout.
        order: Who wants it, why, and when.
        terms: Its terms.
        left: Channels of requests that came and were not released, for people.

    Raises:
        Conflict: The candidate is not promoted, or not proven for all requests, or the flag refers
            to it as to a candidate; names every problem.
    """
    name, candidate = rollout.key
    require_readable(state, name)
    problems = [*_obstacles(state, rollout)]
    if not terms.accepts_unproven:
        problems += [*_unproven(rollout, left), *_kept_back(state.models[name])]
    if problems:
        raise Conflict(f"{candidate} ({name}) cannot graduate: {'; '.join(problems)}")
    before = state.models[name].baseline
    ended = end_rollout(rollout, order.now, f"graduated: {order.reason}")
    graduation = Graduation(baseline=before, kept_until=order.now + terms.keep)
    ended = ended.model_copy(update={"record": replace_fields(ended.record, graduated=graduation)})
    draft = draft_of(state, ended, order.actor, order.reason)
    after = apply_drafts(state, [draft], order.now)
    return [draft, *_with_baseline(after, name, candidate, order)]


def take_back(state: State, rollout: Rollout, order: Order) -> list[Draft]:
    """Draft the events by which the baseline of before is the baseline again.

    The candidate is blocked, as after any rollback. Rollouts of others begin anew in shadow.

    Raises:
        Conflict: The candidate is not the baseline by this rollout, or the baseline of before is
            not in the configuration any more, or its engine does not run yet. Nothing in a flag
            stands in the way: what makes no sense of a baseline is taken out of it.
    """
    name, candidate = rollout.key
    require_readable(state, name)
    graduation, model = rollout.record.graduated, state.models.get(name)
    if graduation is None or model is None or model.baseline != candidate:
        raise Conflict(f"{candidate} ({name}) is no baseline by its rollout: nothing to take back")
    if graduation.baseline not in model.variants:
        raise Conflict(
            f"the configuration has no {graduation.baseline} ({name}) any more, to which a rollback"
            " would go: add it with `penumbra apply` first"
        )
    if (name, graduation.baseline) in state.starting:
        raise Conflict(f"the engine of {graduation.baseline} ({name}) is still starting: try again")
    drafts = _freed(state, name, graduation.baseline, order)
    after = apply_drafts(state, drafts, order.now)
    others = [
        draft
        for draft in _with_baseline(after, name, graduation.baseline, order)
        if not _is_of(draft, rollout.key)
    ]
    after = apply_drafts(after, others, order.now)
    drafts += others
    record = replace_fields(rollout.record, graduated=None)
    step = DecisionStep(StepKind.ROLLBACK, f"by hand, after it had graduated: {order.reason}")
    record, _ = roll_back(record, order.now, step)
    back = rollout.model_copy(update={"record": record})
    return [*drafts, draft_of(after, back, order.actor, order.reason)]


def measured_against(state: State, rollout: Rollout) -> str | None:
    """Tell that a candidate is measured against a build that was a candidate itself.

    Returns:
        A sentence for people; None if the model's baseline did not graduate.
    """
    name = rollout.spec.model
    model = state.models.get(name)
    if model is None or rollout.record.phase is Phase.OFF:
        return None
    parts = []
    for reference in graduates(state, name, model.baseline):
        earlier = state.rollouts[name, reference]
        former = earlier.record.graduated and earlier.record.graduated.baseline
        parts.append(f"{reference}, itself within tolerance of {former} ({_tolerances(earlier)})")
    if not parts:
        return None
    return f"measured against {', '.join(parts)}: tolerances add up"


def _obstacles(state: State, rollout: Rollout) -> Iterator[str]:
    record, (name, candidate) = rollout.record, rollout.key
    if state.flags[name].killed:
        yield "the kill switch is on: all clients have the baseline of now, and are to have it"
    if (name, candidate) in state.starting:
        yield "its engine is starting"
    if record.phase is not Phase.PROMOTED:
        yield f"found the stage {rollout.stage}, wanted promoted"
    elif rollout.share < _WHOLE:
        yield f"found a last stage of {rollout.share:g} %, wanted 100 %"
    if record.held is not None:
        yield f"it is held ({record.held.cause}): resume it first"
    if record.frozen is not None:
        yield f"the instrument is broken ({record.frozen})"


def _unproven(rollout: Rollout, left: Sequence[str]) -> Iterator[str]:
    """Slices and channels that the baseline of now answers, because nothing was proven there."""
    record, told = rollout.record, "or accept that clients get it all the same (--accept-unproven)"
    missing = [name for name in record.slices if name not in record.proven]
    if missing:
        yield f"never proven in {', '.join(missing)}: wait for pairs there, {told}"
    if record.stale:
        yield f"its proof is stale in {', '.join(record.stale)}: wait until it is renewed, {told}"
    if rollout.spec.scope is not None:
        yield f"its rollout has a scope, outside of which nothing is compared: end it, {told}"
    if left:
        yield f"never proven by {', '.join(left)}: {told}"


def _kept_back(model: ModelSnapshot) -> Iterator[str]:
    """Slices, pins and rules by which an operator keeps requests on the baseline of now."""
    flag, told = model.flag, "they would get the candidate, or depend on its guard"
    if flag.quarantined:
        yield f"quarantined by hand: {', '.join(flag.quarantined)}: {told} (--accept-unproven)"
    ways = [f"the pin of {pin.subject}" for pin in flag.pins if pin.variant == model.baseline]
    ways += [f"the rule {rule.name}" for rule in flag.rules if rule.variant == model.baseline]
    if ways:
        more = f" and {len(ways) - 3} more" if len(ways) > 3 else ""
        yield (
            f"kept on {model.baseline} by {', '.join(ways[:3])}{more}: once it is a candidate they"
            " get the new baseline whenever the kill switch is on or no guard is alive"
            " (--accept-unproven)"
        )


def _freed(state: State, name: str, baseline: str, order: Order) -> list[Draft]:
    """Take out of a flag what it says of a candidate and cannot say of a baseline."""
    flag = state.flags[name]
    rules = tuple(
        rule
        if rule.split is None
        else rule.model_copy(update={"split": _less(rule.split, baseline)})
        for rule in flag.rules
    )
    after = flag.model_copy(
        update={
            "split": _less(flag.split, baseline),
            "blocked": tuple(each for each in flag.blocked if each != baseline),
            "quarantined_for": _less(flag.quarantined_for, baseline),
            "rules": rules,
        }
    )
    if after == flag:
        return []
    payload = FlagPayload(before=flag, after=after)
    return [
        Draft(kind=Kind.SET, actor=order.actor, reason=order.reason, model=name, payload=payload)
    ]


def _less(found: Mapping[str, T], name: str) -> dict[str, T]:
    return {known: value for known, value in found.items() if known != name}


def _with_baseline(state: State, name: str, baseline: str, order: Order) -> list[Draft]:
    models = {
        known: model.model_copy(update={"watches": ()}) for known, model in state.models.items()
    }
    models[name] = models[name].model_copy(update={"baseline": baseline})
    payload = keep_places(ConfigPayload(models=models), state.places)
    flags = {name: flags_after(state, payload, order.now)[name]}
    problems = [*reference_problems(payload, flags)]
    if problems:
        raise Conflict("; ".join(problems))
    return apply_config(state, payload, order.actor, order.now, order.reason)


def _is_of(draft: Draft, key: Key) -> bool:
    return isinstance(draft.payload, RolloutPayload) and draft.payload.after.key == key


def _tolerances(rollout: Rollout) -> str:
    read = (rollout.record.calibration or {}).get("slices", {})
    parts = []
    for guardrail in rollout.spec.guardrails:
        if guardrail.signal not in PROVED:
            continue
        stated = [*guardrail.slices.values()]
        if isinstance(guardrail.tolerance, float):
            stated.append(guardrail.tolerance)
        else:
            stated += [each["tolerance"] for each in read.values()]
        if stated:
            parts.append(f"{guardrail.signal.value} {max(stated):.3g}")
    return ", ".join(parts) or "no quality guardrail"
