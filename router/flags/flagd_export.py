"""Export of flags as flagd JSON, which any OpenFeature SDK reads and decides alike. Pure.

There is one flagd flag for each model, with the model's name and variants. An evaluator supplies
`targetingKey` and the attributes that the rules ask for: `tenant`, `slice`, `route`, `modality`,
`headers` (an object), `json_mode`, `tools`, `prompt_chars`, `script`, `code` and `prompt` (the last
user text).
The branches of `targeting`, in order:

    true                        the kill switch is on
    slice in [...]              quarantined slices
    targetingKey == / tenant == pins
    ...                         the targeting rules; metadata `rules` holds their names, in order
    otherwise                   the split, or the baseline

A condition on the candidates that the guard blocked, and on those that may not answer in a slice,
is wrapped around the rest.
`penumbra.router.flags.flagd_import` reads all of it back.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from penumbra.router.flags.bucketing import intervals
from penumbra.router.flags.routing_table import Flag, Match, ModelSnapshot, Pin, Rule

SCHEMA = "https://flagd.dev/schema/v0/flags.json"

Logic = dict[str, Any]
"""A JsonLogic expression."""
Branch = tuple[Any, Any]
"""Condition and outcome."""


def to_flagd(models: Mapping[str, ModelSnapshot]) -> Logic:
    """Export the flags of a routing table as one flagd document."""
    flags = {name: _export(model) for name, model in models.items()}
    return {"$schema": SCHEMA, "flags": flags}


def _export(model: ModelSnapshot) -> Logic:
    flag, baseline = model.flag, model.baseline
    wish = _chain(
        [*map(_pin_branch, _pins_in_order(flag)), *_rule_branches(flag, model)],
        _outcome(flag.split, model),
    )
    guards = list(_guards(flag, wish))
    if guards:
        wish = {"if": [guards[0] if len(guards) == 1 else {"or": guards}, baseline, wish]}
    targeting = _chain(list(_overrides(flag, baseline)), wish)
    return {
        "state": "ENABLED",
        "variants": {name: name for name in model.variants},
        "defaultVariant": baseline,
        "targeting": {} if isinstance(targeting, str) else targeting,
        "metadata": {"rules": ",".join(rule.name for rule in flag.rules)},
    }


def _chain(branches: list[Branch], otherwise: Any) -> Any:
    if not branches:
        return otherwise
    steps: list[Any] = [part for branch in branches for part in branch]
    is_open = isinstance(otherwise, dict) and "if" in otherwise and not _is_guard(otherwise)
    steps.extend(otherwise["if"] if is_open else [otherwise])
    return {"if": steps}


def _is_guard(logic: Logic) -> bool:
    return is_guard_condition(logic["if"][0])


def _guards(flag: Flag, wish: Any) -> Iterator[Logic]:
    """The conditions on the wish under which the baseline answers in its place."""
    if flag.blocked:
        yield {"in": [wish, list(flag.blocked)]}
    for candidate, slices in flag.quarantined_for.items():
        if slices:
            yield {"and": [{"in": [wish, [candidate]]}, _is_in("slice", slices)]}


def is_guard_condition(condition: object) -> bool:
    """Whether a condition tests the variant that the rest chooses, as the guard's wrapper does."""
    if not isinstance(condition, dict) or len(condition) != 1:
        return False
    ((operator, parts),) = condition.items()
    if operator in ("and", "or"):
        return isinstance(parts, list) and bool(parts) and is_guard_condition(parts[0])
    if operator != "in":
        return False
    looked_at = parts[0]
    return isinstance(looked_at, str) or (isinstance(looked_at, dict) and "var" not in looked_at)


def _overrides(flag: Flag, baseline: str) -> Iterator[Branch]:
    if flag.killed:
        yield True, baseline
    if flag.quarantined:
        yield _is_in("slice", flag.quarantined), baseline


def _pins_in_order(flag: Flag) -> list[Pin]:
    # As in evaluate: a pin of the key is closer to the request than one of the tenant.
    return sorted(flag.pins, key=lambda pin: pin.kind != "key")


def _pin_branch(pin: Pin) -> Branch:
    name = "targetingKey" if pin.kind == "key" else "tenant"
    return {"==": [{"var": name}, pin.subject]}, pin.variant


def _rule_branches(flag: Flag, model: ModelSnapshot) -> Iterator[Branch]:
    for rule in flag.rules:
        yield _condition(rule.match), _rule_outcome(rule, model)


def _rule_outcome(rule: Rule, model: ModelSnapshot) -> Any:
    return rule.variant if rule.variant is not None else _outcome(rule.split or {}, model)


def _outcome(split: Mapping[str, float], model: ModelSnapshot) -> Any:
    laid = intervals(split, model.baseline, model.variants, model.places)
    if [name for name, _ in laid] == [model.baseline]:
        return model.baseline
    return {"fractional": [[name, points] for name, points in laid]}


def _condition(match: Match) -> Any:
    conditions = list(_conditions(match))
    if len(conditions) == 1:
        return conditions[0]
    return {"and": conditions or [True]}


def _conditions(match: Match) -> Iterator[Logic]:
    if match.tenants:
        yield _is_in("tenant", match.tenants)
    if match.slices:
        yield _is_in("slice", match.slices)
    for name, values in match.headers.items():
        yield _is_in(f"headers.{name}", values)
    for name, among in (
        ("route", match.route),
        ("modality", match.modality),
        ("script", match.scripts),
    ):
        if among:
            yield _is_in(name, among)
    for name in ("json_mode", "tools", "code"):
        wanted = getattr(match, name)
        if wanted is not None:
            yield {"==": [{"var": name}, wanted]}
    yield from _prompt_conditions(match)


def _prompt_conditions(match: Match) -> Iterator[Logic]:
    if match.prompt_chars_min is not None:
        yield {">=": [{"var": "prompt_chars"}, match.prompt_chars_min]}
    if match.prompt_chars_max is not None:
        yield {"<=": [{"var": "prompt_chars"}, match.prompt_chars_max]}
    if match.prompt_prefix:
        starts = [{"starts_with": [{"var": "prompt"}, prefix]} for prefix in match.prompt_prefix]
        yield starts[0] if len(starts) == 1 else {"or": starts}


def _is_in(name: str, values: tuple[str, ...]) -> Logic:
    return {"in": [{"var": name}, list(values)]}
