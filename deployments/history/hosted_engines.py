"""Engines of variants that are hosted here: what is in force, what changes, what is starting. Pure.

An engine is kept as the configuration has it (`penumbra.deployments.config.spec.EngineSpec`), as
JSON. A variant whose engine was added or replaced is *starting* until all its replicas answer:
gateways have it as blocked, so that the baseline answers, and no one watches it, so that nothing is
held against it.

Reading order: changes_of, starting_after, held_back.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penumbra.deployments.rollouts.record import join_names
from penumbra.router.flags.routing_table import ModelSnapshot

Definition = Mapping[str, Any]
"""Settings of one engine as JSON, without those at their default."""
Engines = Mapping[str, Mapping[str, Definition]]
"""Model -> variant -> its engine."""
Starting = frozenset[tuple[str, str]]
"""Model and variant of each engine that is starting."""

_SCALING = frozenset({"replicas", "autoscaling", "startup_seconds"})
"""Settings that change the number of replicas, and not the build that each of them is."""
_ENVIRONMENT = "env"


@dataclass(frozen=True, slots=True)
class EngineChange:
    """A difference of one variant's engine."""

    model: str
    variant: str
    before: Definition | None
    """None: it is new."""
    after: Definition | None
    """None: it goes away."""

    @property
    def is_start(self) -> bool:
        """Whether replicas have to start before the variant can answer as defined."""
        if self.after is None:
            return False
        return self.before is None or bool(set(self._settings()) - _SCALING)

    def differences(self) -> str:
        """The settings that differ, each with both values; of `env` only its name."""
        texts = []
        for name in self._settings():
            before, after = (found.get(name) for found in (self.before or {}, self.after or {}))
            if name == _ENVIRONMENT:
                texts.append(name)
            elif isinstance(before, Mapping) or isinstance(after, Mapping):
                texts += _inner_differences(name, before or {}, after or {})
            else:
                texts.append(f"{name} {_shown(before)} -> {_shown(after)}")
        return ", ".join(texts)

    def _settings(self) -> list[str]:
        before, after = self.before or {}, self.after or {}
        names = dict.fromkeys([*before, *after])
        return [name for name in names if before.get(name) != after.get(name)]


def changes_of(before: Engines | None, after: Engines | None) -> Iterator[EngineChange]:
    """Find the differences between engines in force and proposed ones; none if either says nothing.

    Args:
        before: The engines in force; None: no configuration told of any.
        after: The proposed ones; None: the proposal says nothing of them.
    """
    if before is None or after is None:
        return
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, {}), after.get(name, {})
        for variant in dict.fromkeys([*old, *new]):
            if old.get(variant) != new.get(variant):
                yield EngineChange(name, variant, old.get(variant), new.get(variant))


def starting_after(starting: Starting, before: Engines | None, after: Engines) -> Starting:
    """The engines that are starting once others are in force."""
    began = {(each.model, each.variant) for each in changes_of(before, after) if each.is_start}
    known = {key for key in starting if key[1] in after.get(key[0], {})}
    return frozenset(began | known)


def replaced_in(before: Engines | None, after: Engines | None) -> Starting:
    """Model and variant of each engine that becomes another build."""
    return frozenset(
        (each.model, each.variant)
        for each in changes_of(before, after)
        if each.before is not None and each.is_start
    )


def held_back(name: str, model: ModelSnapshot, starting: Starting) -> ModelSnapshot:
    """One model as gateways have it while engines of it are starting.

    The baseline cannot be held back: while it starts, nothing is compared.
    """
    waiting = [variant for variant in model.variants if (name, variant) in starting]
    if not waiting:
        return model
    candidates = [variant for variant in waiting if variant != model.baseline]
    watches = tuple(watch for watch in model.watches if watch.candidate not in waiting)
    if model.baseline in waiting:
        watches = ()
    blocked = join_names(model.flag.blocked, candidates)
    flag = model.flag.model_copy(update={"blocked": blocked})
    return model.model_copy(update={"flag": flag, "watches": watches})


def _inner_differences(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[str]:
    for inner in dict.fromkeys([*before, *after]):
        old, new = before.get(inner), after.get(inner)
        if old != new:
            yield f"{name}.{inner} {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    text = "default" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}..."
