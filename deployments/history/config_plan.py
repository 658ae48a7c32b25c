"""Plan of a proposed configuration: the differences from what is in force, and their effects. Pure.

A plan is read by a person before the change is made. Each of its steps is a sentence, and says
whether it hurts: whether clients may get other answers, or evidence is lost.

Reading order: Step, Plan, plan_of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from penumbra.deployments.history.config_effects import structure_of
from penumbra.deployments.history.events import ConfigPayload, Draft
from penumbra.deployments.history.hosted_engines import EngineChange, changes_of
from penumbra.deployments.history.key_plan import key_changes
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Phase
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Variant
from penumbra.router.flags.validate import flag_problems


class Action(StrEnum):
    """Kind of a step; the values are on the wire."""

    ADD = "add"
    REMOVE = "remove"
    CHANGE = "change"
    EFFECT = "effect"
    """Follows from the other steps: what happens to rollouts."""
    NOTE = "note"
    """Changes nothing."""
    LATER = "later"
    """A local setting: it takes effect at the next start."""


@dataclass(frozen=True, slots=True)
class Step:
    """One difference, or one effect."""

    action: Action
    text: str
    hurts: bool = False
    model: str | None = None
    """The model that it concerns; None: keys, or settings of a machine."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a proposed configuration changes."""

    steps: tuple[Step, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be changed now."""
        return all(step.action in (Action.NOTE, Action.LATER) for step in self.steps)

    @property
    def models(self) -> frozenset[str]:
        """The models that are changed."""
        quiet = (Action.NOTE, Action.LATER)
        return frozenset(s.model for s in self.steps if s.model and s.action not in quiet)


def plan_of(state: State, payload: ConfigPayload, drafts: Sequence[Draft], now: datetime) -> Plan:
    """Compare a proposed configuration with the one in force.

    Args:
        state: The state.
        payload: The proposal, with the address of each variant and its place in splits.
        drafts: The events that would put it into force (`config_effects.apply_config`).
        now: With a timezone.
    """
    steps = [
        *(Step(Action(kind), text, hurts) for kind, text, hurts in _keys(state, payload)),
        *_model_steps(state, payload),
        *_engine_steps(state, payload),
        *_effects(drafts),
        *_kept_baselines(state, payload, now),
        *_notes(state, payload),
    ]
    return Plan(tuple(steps))


def reference_problems(payload: ConfigPayload, flags: Mapping[str, Flag]) -> Iterator[str]:
    """Find references of flags to variants and slices that the proposal has no more.

    Args:
        payload: The proposal.
        flags: Model -> the flag that would be in force.
    """
    for name, model in payload.models.items():
        flag = flags.get(name)
        for text in flag_problems(model, flag) if flag is not None else ():
            yield (
                f"models.{name}: the flag in force does not fit: {text}. Change the flag first"
                f" (`penumbra flags`), or leave in what it refers to"
            )


def _keys(state: State, payload: ConfigPayload) -> Iterator[tuple[str, str, bool]]:
    if payload.keys is not None:
        yield from key_changes(state.keys, payload.keys)


def _model_steps(state: State, payload: ConfigPayload) -> Iterator[Step]:
    before, after = structure_of(state.models), structure_of(payload.models)
    for name in state.models:
        if name not in payload.models:
            text = f"model {name}: its clients get 404 from then on"
            yield Step(Action.REMOVE, text, hurts=True, model=name)
    for name, model in payload.models.items():
        if name not in state.models:
            text = f"model {name}: baseline {model.baseline}, variants {', '.join(model.variants)}"
            live = sorted(_in_use(state.flags.get(name, model.flag)))
            told = f"; its flag gives requests to {', '.join(live)} at once" if live else ""
            yield Step(Action.ADD, text + told, hurts=bool(live), model=name)
        elif before[name] != after[name]:
            yield from _changes_of(name, state.models[name], model)


def _changes_of(name: str, old: ModelSnapshot, new: ModelSnapshot) -> Iterator[Step]:
    found = [*_variant_steps(name, old, new), *_other_steps(name, old, new)]
    if not found:
        text = f"model {name}: the variants come in another order; no share moves"
        found = [Step(Action.CHANGE, text, model=name)]
    yield from found


def _variant_steps(name: str, old: ModelSnapshot, new: ModelSnapshot) -> Iterator[Step]:
    for variant, found in old.variants.items():
        if variant not in new.variants:
            share = old.flag.split.get(variant, 0.0)
            had = f"; {share:g} % of its model's requests go to the baseline" if share else ""
            text = f"variant {variant} of {name}, at {found.url}{had}"
            yield Step(Action.REMOVE, text, hurts=share > 0, model=name)
    for variant, found in new.variants.items():
        known = old.variants.get(variant)
        if known is None:
            text = f"variant {variant} of {name}, at {found.url}; it has no share yet"
            yield Step(Action.ADD, text, model=name)
        elif known != found:
            is_busy = variant == old.baseline or variant in _in_use(old.flag)
            text = f"variant {variant} of {name}: {_differences(known, found)}"
            yield Step(Action.CHANGE, text, hurts=is_busy, model=name)


def _engine_steps(state: State, payload: ConfigPayload) -> Iterator[Step]:
    for change in changes_of(state.engines, payload.engines):
        yield _engine_step(change, state, payload)


def _engine_step(change: EngineChange, state: State, payload: ConfigPayload) -> Step:
    name, engine = change.model, f"the engine of {change.variant} ({change.model})"
    if change.after is None:
        text = f"stops {engine}, once no gateway uses it any more"
        return Step(Action.REMOVE, text, model=name)
    is_baseline = change.variant == payload.models[name].baseline
    until = f"requests to {name} fail" if is_baseline else "the baseline answers in its place"
    if change.before is None:
        text = f"starts {engine} from {change.after.get('source')}; until it is ready, {until}"
        return Step(Action.ADD, text, model=name)
    if not change.is_start:
        return Step(Action.CHANGE, f"scales {engine}: {change.differences()}", model=name)
    known = state.flags.get(name, Flag())
    text = f"stops {engine} and starts it again: {change.differences()}; until it is ready, {until}"
    is_busy = is_baseline or change.variant in _in_use(known)
    return Step(Action.CHANGE, text, hurts=is_busy, model=name)


def _in_use(flag: Flag) -> set[str]:
    """Variants that get requests by the split, a rule or a pin."""
    return flag.in_traffic | {pin.variant for pin in flag.pins}


def _differences(old: Variant, new: Variant) -> str:
    pairs = ((field, getattr(old, field), getattr(new, field)) for field in Variant.model_fields)
    return ", ".join(f"{field} {a} -> {b}" for field, a, b in pairs if a != b)


def _other_steps(name: str, old: ModelSnapshot, new: ModelSnapshot) -> Iterator[Step]:
    if old.baseline != new.baseline:
        text = f"baseline of {name}: {old.baseline} -> {new.baseline}, for all its clients"
        yield Step(Action.CHANGE, text, hurts=True, model=name)
    if old.slices != new.slices:
        names = [", ".join(rule.name for rule in model.slices) or "none" for model in (old, new)]
        what = f"{names[0]} -> {names[1]}" if names[0] != names[1] else f"other rules of {names[0]}"
        # Requests may leave a slice in which something is quarantined, or that a rule names.
        hurts = bool(old.flag.quarantined_for_any or _in_use(old.flag))
        yield Step(Action.CHANGE, f"slices of {name}: {what}", hurts=hurts, model=name)
    if old.sticky_headers != new.sticky_headers:
        text = f"sticky_headers of {name}: users may be given other variants"
        yield Step(Action.CHANGE, text, hurts=bool(_in_use(old.flag)), model=name)


def _effects(drafts: Sequence[Draft]) -> Iterator[Step]:
    for draft in drafts:
        payload = draft.payload
        if isinstance(payload, RolloutPayload) and payload.before is not None:
            rollout = payload.before
            hurts = rollout.record.phase is not Phase.OFF
            spec = rollout.spec
            only = "" if spec.scope is None else f", only {spec.scope.text}"
            text = (
                f"rollout of {spec.candidate} ({spec.model}, {rollout.stage}{only}):"
                f" {payload.after.record.cause}"
            )
            yield Step(Action.EFFECT, text, hurts=hurts, model=rollout.spec.model)


def _kept_baselines(state: State, payload: ConfigPayload, now: datetime) -> Iterator[Step]:
    """Say that a rollback of a candidate that graduated would have nowhere to go."""
    for rollout in state.rollouts.values():
        graduation, (name, candidate) = rollout.record.graduated, rollout.key
        if graduation is None or graduation.kept_until <= now:
            continue
        model = payload.models.get(name)
        if model is not None and graduation.baseline not in model.variants:
            until = f"{graduation.kept_until:%Y-%m-%d %H:%M}"
            text = (
                f"variant {graduation.baseline} of {name} is kept until {until} UTC for a rollback"
                f" of {candidate}, which would have nowhere to go"
            )
            yield Step(Action.EFFECT, text, hurts=True, model=name)


def _notes(state: State, payload: ConfigPayload) -> Iterator[Step]:
    if state.keys and payload.keys is None:
        yield Step(Action.NOTE, "keys: the proposal says nothing of them, those in force stay")
    for name, model in payload.models.items():
        known = state.flags.get(name)
        if known is not None and model.flag not in (Flag(), known):
            text = (
                f"flag of {name}: the proposal's is for a new model only, the one in force stays"
                " (`penumbra flags` changes it)"
            )
            yield Step(Action.NOTE, text, model=name)
    used = {v.api_key_env for model in state.models.values() for v in model.variants.values()}
    for name, model in payload.models.items():
        for variant, found in model.variants.items():
            if found.api_key_env is not None and found.api_key_env not in used:
                text = (
                    f"variant {variant} of {name}: a gateway that was started without"
                    f" {found.api_key_env} in its environment calls it without a key"
                )
                yield Step(Action.NOTE, text, model=name)
