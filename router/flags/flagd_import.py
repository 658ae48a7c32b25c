"""Import of flagd JSON: documents that `flagd_export` wrote, and plain flags of an author. Pure.

JsonLogic can express far more than a flag here can. An expression that does not fit is refused,
never guessed at. The candidates that the guard blocked are not read: only the guard, or an operator
on purpose, unblocks a candidate.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from penumbra.router.flags.flagd_export import Branch, is_guard_condition
from penumbra.router.flags.routing_table import Flag, Match, ModelSnapshot, Pin, Rule
from penumbra.router.flags.rule_checks import one_of, problem

_LIST_FIELDS = {
    "tenant": "tenants",
    "slice": "slices",
    "route": "route",
    "modality": "modality",
    "script": "scripts",
}
_HEADER = "headers."


class FlagdInvalid(ValueError):
    """A flagd document that cannot be expressed as flags here; says where and why."""

    code = "flagd_invalid"


def from_flagd(document: object, models: Mapping[str, ModelSnapshot]) -> dict[str, Flag]:
    """Read the flags of a flagd document, by model.

    `blocked` of each is the one in force. The flags still have to be validated.

    Args:
        document: The decoded JSON.
        models: The models that it may name; those that it leaves out are left out of the answer.

    Raises:
        FlagdInvalid: It is no flagd document, names a model that is not there, or asks for what
            cannot be expressed.
    """
    flags = document.get("flags") if isinstance(document, dict) else None
    if not isinstance(flags, dict):
        raise FlagdInvalid('found no `flags`, wanted a flagd document: {"flags": {...}}')
    imported = {}
    for name, flag in flags.items():
        if name not in models:
            raise FlagdInvalid(problem("flags", name, one_of(models)))
        try:
            imported[name] = _Importer(models[name], _object(flag, "the flag")).flag()
        except (FlagdInvalid, ValidationError) as error:
            raise FlagdInvalid(f"flags.{name}: {error}") from error
    return imported


class _Importer:
    """Reads one flag."""

    def __init__(self, model: ModelSnapshot, flag: Mapping[str, Any]) -> None:
        self._model = model
        self._flag = flag
        self._killed = False
        self._quarantined: tuple[str, ...] = ()
        self._pins: list[Pin] = []
        self._rules: list[Rule] = []

    def flag(self) -> Flag:
        default = self._flag.get("defaultVariant")
        if default != self._model.baseline:
            raise FlagdInvalid(problem("defaultVariant", default, self._model.baseline))
        branches, otherwise = _flattened(self._flag.get("targeting") or self._model.baseline)
        names = self._rule_names()
        first_rule = len(branches) - len(names) if names is not None else 0
        if first_rule < 0:
            raise FlagdInvalid("metadata.rules: found more names than `targeting` has branches")
        for branch in branches[:first_rule]:
            self._take_override(*branch)
        for index, branch in enumerate(branches[first_rule:]):
            self._take_rule(names[index] if names is not None else f"rule-{index + 1}", branch)
        return Flag(
            killed=self._killed or self._flag.get("state") == "DISABLED",
            blocked=self._model.flag.blocked,
            quarantined_for=self._model.flag.quarantined_for,
            quarantined=self._quarantined,
            pins=tuple(self._pins),
            rules=tuple(self._rules),
            split=self._split(otherwise),
        )

    def _rule_names(self) -> list[str] | None:
        metadata = self._flag.get("metadata")
        names = metadata.get("rules") if isinstance(metadata, dict) else None
        if not isinstance(names, str):
            return None
        return names.split(",") if names else []

    def _take_override(self, condition: object, outcome: object) -> None:
        if condition is True and outcome == self._model.baseline:
            self._killed = True
            return
        operator, name, value = _comparison(condition)
        if operator == "in" and name == "slice" and outcome == self._model.baseline:
            self._quarantined = tuple(value)
        elif operator == "==" and name in ("targetingKey", "tenant"):
            self._pins.append(
                Pin(
                    kind="key" if name == "targetingKey" else "tenant",
                    subject=value,
                    variant=_variant(outcome),
                )
            )
        else:
            raise FlagdInvalid(f"found the branch {condition}, wanted a quarantine or a pin there")

    def _take_rule(self, name: str, branch: Branch) -> None:
        condition, outcome = branch
        if isinstance(outcome, str):
            self._rules.append(Rule(name=name, match=_match(condition), variant=outcome))
        else:
            self._rules.append(Rule(name=name, match=_match(condition), split=self._split(outcome)))

    def _split(self, outcome: object) -> dict[str, float]:
        if outcome == self._model.baseline:
            return {}
        if isinstance(outcome, str):
            return {outcome: 100.0}
        weights = _weights(_argument(outcome, "fractional"))
        total = sum(weights.values())
        if total <= 0:
            raise FlagdInvalid("found a fractional without weights, wanted a positive sum")
        return {
            name: weight * 100 / total
            for name, weight in weights.items()
            if name != self._model.baseline
        }


def _flattened(logic: Any) -> tuple[list[Branch], Any]:
    """The branches of nested `if`s in order, and what is left; the guard's wrapper taken off."""
    branches: list[Branch] = []
    while isinstance(logic, dict) and list(logic) == ["if"]:
        steps = _array(logic["if"], "if")
        pairs = list(zip(steps[0::2], steps[1::2], strict=False))
        if len(steps) % 2 == 0:
            raise FlagdInvalid("found an `if` without a last `else`, wanted one")
        branches.extend(pair for pair in pairs if not is_guard_condition(pair[0]))
        logic = steps[-1]
    return branches, logic


def _match(condition: Any) -> Match:
    fields: dict[str, Any] = {}
    for part in _conjuncts(condition):
        if part is not True:
            _add(fields, part)
    return Match.model_validate(fields, strict=True)


def _conjuncts(condition: Any) -> list[Any]:
    if isinstance(condition, dict) and list(condition) == ["and"]:
        return _array(condition["and"], "and")
    return [condition]


def _add(fields: dict[str, Any], part: object) -> None:
    prefixes = _prefixes(part)
    if prefixes:
        _set(fields, "prompt_prefix", prefixes)
        return
    operator, name, value = _comparison(part)
    if operator == "in" and name in _LIST_FIELDS:
        _set(fields, _LIST_FIELDS[name], tuple(value))
    elif operator == "==" and name in _LIST_FIELDS:
        _set(fields, _LIST_FIELDS[name], (value,))
    elif name.startswith(_HEADER) and operator in ("in", "=="):
        values = tuple(value) if operator == "in" else (value,)
        fields.setdefault("headers", {})[name.removeprefix(_HEADER)] = values
    elif operator == "==" and name in ("json_mode", "tools", "code"):
        _set(fields, name, value)
    elif name == "prompt_chars" and operator in (">=", "<="):
        _set(fields, "prompt_chars_min" if operator == ">=" else "prompt_chars_max", value)
    else:
        raise FlagdInvalid(f"found the condition {part}, which no rule here can express")


def _set(fields: dict[str, Any], name: str, value: object) -> None:
    if name in fields:
        raise FlagdInvalid(f"found two conditions on {name}, wanted one")
    fields[name] = value


def _prefixes(part: object) -> tuple[str, ...]:
    starts = part["or"] if isinstance(part, dict) and list(part) == ["or"] else [part]
    prefixes = []
    for start in _array(starts, "or"):
        if not isinstance(start, dict) or list(start) != ["starts_with"]:
            return ()
        _, name, prefix = _comparison(start)
        if name != "prompt":
            raise FlagdInvalid(f"found starts_with on {name}, wanted it on prompt")
        prefixes.append(prefix)
    return tuple(prefixes)


def _comparison(condition: object) -> tuple[str, str, Any]:
    """Operator, variable and value of `{operator: [{"var": name}, value]}`."""
    if isinstance(condition, dict) and len(condition) == 1:
        [(operator, arguments)] = condition.items()
        if isinstance(arguments, list) and len(arguments) == 2 and isinstance(arguments[0], dict):
            name = arguments[0].get("var")
            value = arguments[1]
            if isinstance(name, str) and (operator == "in") == isinstance(value, list):
                return operator, name, value
    raise FlagdInvalid(f"found the condition {condition}, which no rule here can express")


def _weights(fractions: list[Any]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for fraction in fractions:
        if not isinstance(fraction, list) or not 1 <= len(fraction) <= 2:
            raise FlagdInvalid(
                f"found {fraction} in a fractional, wanted [variant, weight]; splits are always on"
                " the flag key and the targeting key"
            )
        weight = fraction[1] if len(fraction) == 2 else 1
        if not isinstance(weight, int) or isinstance(weight, bool) or weight < 0:
            raise FlagdInvalid(f"found the weight {weight}, wanted an integer ≥ 0")
        name = _variant(fraction[0])
        weights[name] = weights.get(name, 0) + weight
    return weights


def _variant(outcome: object) -> str:
    if not isinstance(outcome, str):
        raise FlagdInvalid(f"found {outcome}, wanted the name of a variant")
    return outcome


def _argument(logic: object, operator: str) -> list[Any]:
    if not isinstance(logic, dict) or list(logic) != [operator]:
        raise FlagdInvalid(f"found {logic}, wanted a variant or a `{operator}`")
    return _array(logic[operator], operator)


def _array(value: object, operator: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise FlagdInvalid(f"found {value} in `{operator}`, wanted a list")
    return value


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FlagdInvalid(f"found {value}, wanted {what} as an object")
    return value
