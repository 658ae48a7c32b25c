"""Validation of a flag against its model, before it is stored; never per request. Pure."""

from collections.abc import Iterator

from penumbra.router.flags.bucketing import TOTAL, basis_points
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Rule
from penumbra.router.flags.rule_checks import match_problems, one_of, problem, shadowing_problems
from penumbra.router.flags.slices import OTHER


class FlagInvalid(ValueError):
    """A flag that cannot be put into force.

    Attributes:
        problems: Each as `path: found X, wanted Y`, the path inside the flag.
    """

    code = "flag_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def validate_flag(model: ModelSnapshot, flag: Flag) -> None:
    """Check a flag against the variants and slices of its model.

    Raises:
        FlagInvalid: Lists every problem: an unknown variant or slice, a share that is none, shares
            over 100 together, a share for the baseline, a name used twice, a rule out of reach.
    """
    problems = tuple(flag_problems(model, flag))
    if problems:
        raise FlagInvalid(problems)


def flag_problems(model: ModelSnapshot, flag: Flag) -> Iterator[str]:
    """Find every problem in a flag."""
    candidates = [name for name in model.variants if name != model.baseline]
    slices = [*(rule.name for rule in model.slices), OTHER]
    for index, name in enumerate(flag.blocked):
        if name not in candidates:
            yield problem(f"blocked[{index}]", name, one_of(candidates))
    for index, name in enumerate(flag.quarantined):
        if name not in slices:
            yield problem(f"quarantined[{index}]", name, one_of(slices))
    yield from _own_quarantine_problems(flag, candidates, slices)
    yield from _pin_problems(model, flag)
    for index, rule in enumerate(flag.rules):
        yield from _rule_problems(model, flag.rules, index, rule)
    yield from split_problems("split", model, flag.split)


def _own_quarantine_problems(flag: Flag, candidates: list[str], slices: list[str]) -> Iterator[str]:
    for candidate, names in flag.quarantined_for.items():
        if candidate not in candidates:
            yield problem("quarantined_for", candidate, one_of(candidates))
        for index, name in enumerate(names):
            if name not in slices:
                yield problem(f"quarantined_for.{candidate}[{index}]", name, one_of(slices))


def split_problems(path: str, model: ModelSnapshot, split: dict[str, float]) -> Iterator[str]:
    """Find every problem in a split."""
    candidates = [name for name in model.variants if name != model.baseline]
    total = 0
    for name, percent in split.items():
        if name == model.baseline:
            yield problem(
                f"{path}.{name}", percent, "no share: the baseline gets what the candidates leave"
            )
        elif name not in candidates:
            yield problem(path, name, one_of(candidates))
        try:
            total += basis_points(percent)
        except ValueError as error:
            yield problem(f"{path}.{name}", percent, str(error))
    if total > TOTAL:
        yield problem(path, f"{total / 100:g} percent in sum", "at most 100")


def _pin_problems(model: ModelSnapshot, flag: Flag) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for index, pin in enumerate(flag.pins):
        if pin.variant not in model.variants:
            yield problem(f"pins[{index}].variant", pin.variant, one_of(model.variants))
        if (pin.kind, pin.subject) in seen:
            yield problem(f"pins[{index}]", f"{pin.kind} {pin.subject}", "one pin for each subject")
        seen.add((pin.kind, pin.subject))


def _rule_problems(
    model: ModelSnapshot, rules: tuple[Rule, ...], index: int, rule: Rule
) -> Iterator[str]:
    path = f"rules[{index}]"
    slices = [*(known.name for known in model.slices), OTHER]
    earlier = rules[:index]
    if any(rule.name == other.name for other in earlier):
        yield problem(f"{path}.name", rule.name, "a name that no earlier rule has")
    if rule.variant is not None and rule.split is not None:
        yield problem(path, "both variant and split", "one of them")
    if rule.variant is None and rule.split is None:
        yield problem(path, "neither variant nor split", "one of them")
    if rule.variant is not None and rule.variant not in model.variants:
        yield problem(f"{path}.variant", rule.variant, one_of(model.variants))
    if rule.split is not None:
        yield from split_problems(f"{path}.split", model, rule.split)
    yield from match_problems(f"{path}.match", rule.match, slices)
    yield from shadowing_problems(
        path, rule.name, rule.match, ((other.name, other.match) for other in earlier)
    )
