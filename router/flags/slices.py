"""Conditions on a request, compiled once, and the slice of the traffic that it belongs to. Pure.

`compile_match` turns a `Match` into a plain function, so that a request pays only for the
conditions that a rule really has.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Match, SliceRule

OTHER = "other"
"""The slice of every request that no rule claims."""


class Headers(Protocol):
    """Request headers by name in lower case; a dict will do."""

    def get(self, name: str, /) -> str | None:
        """Return the value of one header; None if it was not sent."""


Condition = Callable[[RequestFeatures, str, Headers, str], bool]
"""Whether (features, tenant, headers in lower case, slice) match."""


class CompiledSlices:
    """The slice rules of one model, compiled."""

    __slots__ = ("names", "rules")

    def __init__(self, rules: Iterable[SliceRule]) -> None:
        self.rules = tuple((rule.name, compile_match(rule.match)) for rule in rules)
        self.names = frozenset(name for name, _ in self.rules) | {OTHER}


def slice_of(
    slices: CompiledSlices,
    tenant: str,
    headers: Headers,
    features: RequestFeatures,
    named: str | None = None,
    quarantined: Sequence[str] = (),
) -> str:
    """Return the slice of one request: the first rule that matches names it. Never raises.

    While slices are quarantined, a body that a rule could not read counts as one of them: it may
    be, and only the baseline is proven there.

    Args:
        slices: The model's rules.
        tenant: The authenticated tenant.
        headers: The request's headers.
        features: Features of the body.
        named: Value of the header `x-penumbra-slice`; wins if it names a slice of the model ...
        quarantined: ... but takes no request out of one of these slices, which are kept on the
            baseline: for every candidate, or for one.
    """
    is_named = named is not None and named in slices.names
    if named is not None and is_named and not quarantined:
        return named
    own = _slice_by_rules(slices, tenant, headers, features)
    if own in quarantined:
        return own
    if quarantined and features.is_unreadable:
        return quarantined[0]
    return named if named is not None and is_named else own


def _slice_by_rules(
    slices: CompiledSlices, tenant: str, headers: Headers, features: RequestFeatures
) -> str:
    for name, condition in slices.rules:
        if condition(features, tenant, headers, ""):
            return name
    return OTHER


def compile_match(match: Match) -> Condition:
    """Compile all conditions of `match` into one function, the cheapest first."""
    conditions = list(_conditions(match))
    if not conditions:
        return _always
    if len(conditions) == 1:
        return conditions[0]

    def all_hold(features: RequestFeatures, tenant: str, headers: Headers, slice_name: str) -> bool:
        for condition in conditions:  # noqa: SIM110 - a generator costs as much as the conditions
            if not condition(features, tenant, headers, slice_name):
                return False
        return True

    return all_hold


def _always(features: RequestFeatures, tenant: str, headers: Headers, slice_name: str) -> bool:
    del features, tenant, headers, slice_name
    return True


def _conditions(match: Match) -> Iterable[Condition]:
    if match.tenants:
        yield _tenant_in(frozenset(match.tenants))
    if match.slices:
        yield _slice_in(frozenset(match.slices))
    if match.route:
        yield _route_in(frozenset(match.route))
    for name, values in match.headers.items():
        yield _header_in(name, frozenset(values))
    yield from _body_conditions(match)


def _body_conditions(match: Match) -> Iterable[Condition]:
    json_mode, tools, code = match.json_mode, match.tools, match.code
    if json_mode is not None:
        yield lambda features, _t, _h, _s: features.json_mode is json_mode
    if tools is not None:
        yield lambda features, _t, _h, _s: features.tools is tools
    if match.modality:
        yield _modality_in(frozenset(match.modality))
    if match.prompt_chars_min is not None or match.prompt_chars_max is not None:
        yield _chars_between(match.prompt_chars_min or 0, match.prompt_chars_max)
    if match.prompt_prefix:
        yield lambda features, _t, _h, _s: features.text.startswith(match.prompt_prefix)
    if match.scripts:
        scripts = frozenset(match.scripts)
        yield lambda features, _t, _h, _s: features.script in scripts
    if code is not None:
        yield lambda features, _t, _h, _s: features.code is code


def _tenant_in(tenants: frozenset[str]) -> Condition:
    return lambda _f, tenant, _h, _s: tenant in tenants


def _slice_in(names: frozenset[str]) -> Condition:
    return lambda _f, _t, _h, slice_name: slice_name in names


def _route_in(names: frozenset[str]) -> Condition:
    return lambda features, _t, _h, _s: features.route in names


def _modality_in(names: frozenset[str]) -> Condition:
    return lambda features, _t, _h, _s: features.modality in names


def _header_in(name: str, values: frozenset[str]) -> Condition:
    return lambda _f, _t, headers, _s: headers.get(name) in values


def _chars_between(least: int, most: int | None) -> Condition:
    if most is None:
        # The bound first: a short body needs no reading.
        return lambda features, _t, _h, _s: (
            features.most_chars >= least and features.prompt_chars >= least
        )
    return lambda features, _t, _h, _s: least <= features.prompt_chars <= most
