"""Effects on rollouts of a changed configuration and of flags changed by hand. Pure."""

from collections.abc import Mapping
from datetime import datetime

from penumbra.deployments.errors import Conflict, ModelSetAside
from penumbra.deployments.history.events import ConfigPayload, Draft, Kind
from penumbra.deployments.history.hosted_engines import (
    Engines,
    Starting,
    replaced_in,
    starting_after,
)
from penumbra.deployments.history.set_aside import reason_of
from penumbra.deployments.history.state import State, apply_drafts
from penumbra.deployments.rollouts.flag_effects import flag_after
from penumbra.deployments.rollouts.payload import Decided, RolloutPayload
from penumbra.deployments.rollouts.record import (
    WATCHED,
    Phase,
    Rollout,
    Verdict,
    slices_of,
)
from penumbra.deployments.rollouts.transitions import next_stage_index, replace_fields, restart
from penumbra.router.flags.routing_table import Flag, ModelSnapshot
from penumbra.router.flags.tenant_keys import KeySettings

_WHOLE = 100.0


def draft_of(
    state: State,
    rollout: Rollout,
    actor: str,
    reason: str,
    decided: Decided | None = None,
) -> Draft:
    """Draft the event that puts a rollout, and the flag that follows from it, in force."""
    before = state.rollouts.get(rollout.key)
    name = rollout.spec.model
    flag = state.flags[name]
    if rollout.record.outside is not None:
        # An older release had made the model's quarantine this rollout's; `flag_after` ends that.
        record = replace_fields(rollout.record, outside=None)
        rollout = rollout.model_copy(update={"record": record})
    return Draft(
        kind=Kind.ROLLOUT,
        actor=actor,
        reason=_storable(reason),
        model=name,
        payload=RolloutPayload(
            before=before,
            after=rollout,
            flag_before=flag,
            flag_after=_known(flag_after(flag, before, rollout), state.models.get(name)),
            decided=decided,
        ),
    )


def _known(flag: Flag, model: ModelSnapshot | None) -> Flag:
    """Drop what is said of builds that are no candidates any more; their rollouts remember it."""
    if model is None:
        return flag
    candidates = model.variants.keys() - {model.baseline}
    blocked = tuple(name for name in flag.blocked if name in candidates)
    closed = {name: slices for name, slices in flag.quarantined_for.items() if name in candidates}
    return flag.model_copy(update={"blocked": blocked, "quarantined_for": closed})


def _storable(reason: str) -> str:
    """The reason as every database takes it; a part of it may be a gateway's or a build's words."""
    text = reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return text.decode()[:1000]


def apply_config(
    state: State, payload: ConfigPayload, actor: str, now: datetime, reason: str = ""
) -> list[Draft]:
    """Draft the events of a new configuration: its own, then those of the rollouts that it changes.

    A rollout whose candidate is gone (or is the baseline now) ends. A rollout whose model has other
    slices, another baseline, or another engine of one of its builds, starts again in shadow,
    because its evidence no longer applies.
    """
    if not reason:
        reason = "the configuration file changed" if state.epoch else "first start"
    draft = Draft(kind=Kind.CONFIG, actor=actor, reason=reason, model=None, payload=payload)
    drafts, after = [draft], apply_drafts(state, [draft], now)
    replaced = replaced_in(state.engines, payload.engines)
    for rollout in state.rollouts.values():
        model = after.models.get(rollout.spec.model)
        changed = _adapt(
            state, rollout, model, now, _reason_to_begin_anew(state, rollout, model, replaced)
        )
        if changed is None:
            continue
        draft = draft_of(after, changed, actor, changed.record.cause)
        drafts.append(draft)
        after = apply_drafts(after, [draft], now)
    return drafts


def configured(
    state: State,
    models: Mapping[str, ModelSnapshot],
    keys: tuple[KeySettings, ...] | None,
    engines: Engines | None,
) -> ConfigPayload:
    """Make the payload of a configuration, with the engines that have to start for it.

    Args:
        state: The state, with the engines in force.
        models: The models.
        keys: The API keys; None says nothing of them.
        engines: The engines; None says nothing of them.
    """
    if engines is None:
        return ConfigPayload(models=dict(models), keys=keys)
    starting = starting_after(state.starting, state.engines, engines)
    return ConfigPayload(
        models=dict(models),
        keys=keys,
        engines={
            name: {variant: dict(engine) for variant, engine in variants.items()}
            for name, variants in engines.items()
        },
        starting=tuple(sorted(starting)),
    )


def obstacle_of(state: State, rollout: Rollout) -> str | None:
    """The reason why the model's flag has no room for the rollout's next stage; None: it has room.

    There are four reasons: an event of the model cannot be read; an engine of it is starting; the
    kill switch is on, so that the stage would get no traffic; other candidates, by rollouts of
    their own or by hand, have too much of the split.
    """
    model, candidate = rollout.key
    aside = reason_of(state.aside, model)
    if aside is not None:
        return aside.text
    for name in (candidate, state.models[model].baseline) if model in state.models else ():
        if (model, name) in state.starting:
            return f"the engine of {name} is starting"
    flag = state.flags[model]
    if flag.killed:
        return "the kill switch is on"
    index = next_stage_index(rollout.spec, rollout.record)
    wanted = 0.0 if index is None else rollout.spec.shares[index]
    taken = sum(
        share
        for name, share in flag.split.items()
        if name != candidate and name not in flag.blocked
    )
    if wanted + taken > _WHOLE:
        return f"other candidates have {taken:g} % of the split, the stage wants {wanted:g} %"
    return None


def structure_of(models: Mapping[str, ModelSnapshot]) -> dict[str, str]:
    """Write out what a configuration says of each model: all but flags and watches."""
    # As text: the order of the variants matters, and equal mappings may differ in it.
    return {
        name: model.model_copy(update={"flag": Flag(), "watches": ()}).model_dump_json()
        for name, model in models.items()
    }


def require_readable(state: State, name: str, *, is_kill: bool = False) -> None:
    """Check that a model's history can be read, so that a change can be based on it.

    Args:
        state: State of the installation.
        name: The model.
        is_kill: Whether the change is a kill, which is always made.

    Raises:
        ModelSetAside: It cannot; tells which event, why, and the command to use.
    """
    aside = reason_of(state.aside, name)
    if aside is not None and not is_kill:
        raise ModelSetAside(
            f"{aside.text}. {name} is served by the baseline until that is mended: see"
            " `penumbra store verify` and `penumbra store repair`",
            param="model",
        )


def flags_after(state: State, payload: ConfigPayload, now: datetime) -> dict[str, Flag]:
    """The flags that a configuration leads to."""
    drafts = apply_config(state, payload, "configuration", now)
    return dict(apply_drafts(state, drafts, now).flags)


def end_rollout(rollout: Rollout, now: datetime, cause: str) -> Rollout:
    """End a rollout: nothing is compared any more, and the candidate's share is gone.

    A build that was rolled back stays blocked.
    """
    record = rollout.record
    record = replace_fields(
        record,
        phase=Phase.OFF,
        since=now,
        cause=cause,
        arbitration=None,
        is_condemned=record.is_condemned or record.phase is Phase.ROLLED_BACK,
    )
    return rollout.model_copy(update={"record": record})


def require_unguarded(state: State, name: str, before: Flag, after: Flag) -> None:
    """Check that a change by hand does not touch what a rollout decides.

    Kill switch, pins and targeting rules are always the operators'.

    Raises:
        Conflict: It does; names the rollout, and the commands to use instead.
    """
    for rollout in state.rollouts.values():
        if rollout.spec.model != name or rollout.record.phase is Phase.OFF:
            continue
        candidate = rollout.spec.candidate
        is_touched = (
            before.split.get(candidate, 0.0) != after.split.get(candidate, 0.0)
            or (candidate in before.blocked) != (candidate in after.blocked)
            or before.quarantined_for.get(candidate) != after.quarantined_for.get(candidate)
            or (rollout.record.outside is not None and before.quarantined != after.quarantined)
        )
        if is_touched:
            raise Conflict(
                f"the share, the block and the quarantine of {candidate} are decided by its rollout"
                f" ({rollout.stage}): use `rollout hold`, `rollout rollback` or `rollout end`,"
                " or kill the flag",
                param=f"split.{candidate}",
            )


def _has(model: ModelSnapshot | None, variant: str) -> bool:
    return model is not None and variant in model.variants


def _reason_to_begin_anew(
    state: State, rollout: Rollout, model: ModelSnapshot | None, replaced: Starting
) -> str | None:
    """Why the evidence of a rollout no longer applies; None: it does."""
    name = rollout.spec.model
    old = state.models.get(name)
    if old is None or model is None:
        return "the model's slices or baseline changed"
    if old.baseline != model.baseline or old.slices != model.slices:
        return "the model's slices or baseline changed"
    for build in (rollout.spec.candidate, model.baseline):
        if (name, build) in replaced:
            return f"the engine of {build} changed"
    return None


def graduates(state: State, name: str, baseline: str) -> list[str]:
    """List the candidates that became the baseline one after another, the present one first.

    Args:
        state: State of the installation.
        name: The model.
        baseline: Its baseline.
    """
    found: list[str] = []
    while baseline not in found:
        rollout = state.rollouts.get((name, baseline))
        if rollout is None or rollout.record.graduated is None:
            break
        found.append(baseline)
        baseline = rollout.record.graduated.baseline
    return found


def _adapt(
    state: State, rollout: Rollout, model: ModelSnapshot | None, now: datetime, reason: str | None
) -> Rollout | None:
    spec, record = rollout.spec, rollout.record
    old = state.models.get(spec.model)
    if record.graduated is not None and model is not None:
        if spec.candidate in graduates(state, spec.model, model.baseline):
            return None
        cause = f"the configuration has another baseline: {model.baseline}"
        ended = replace_fields(record, graduated=None, cause=cause)
        return rollout.model_copy(update={"record": ended})
    if record.phase is Phase.OFF:
        is_there = _has(model, spec.candidate)
        if not record.is_condemned or is_there == _has(old, spec.candidate):
            return None
        # The block of a failed build comes and goes with it.
        cause = f"the configuration has {spec.candidate} {'again' if is_there else 'no more'}"
        return rollout.model_copy(update={"record": replace_fields(record, cause=cause)})
    if model is None or not _has(model, spec.candidate) or spec.candidate == model.baseline:
        return end_rollout(
            rollout, now, f"the configuration has no candidate {spec.candidate} any more"
        )
    if reason is None or (record.phase not in WATCHED and record.arbitration is None):
        return None
    if record.arbitration is not None:
        cause = f"{record.cause}; no more is compared: {reason}"
        final = replace_fields(record, arbitration=None, verdict=Verdict.INCONCLUSIVE, cause=cause)
        return rollout.model_copy(update={"record": final})
    cause = f"evidence begins anew: {reason}"
    fresh = replace_fields(restart(record, now, cause), slices=slices_of(model))
    return rollout.model_copy(update={"record": fresh})
