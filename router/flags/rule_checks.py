"""Static checks of conditions: problems in one, and whether one implies another. Pure.

Problems are texts `path: found X, wanted Y`, the path relative to what is checked.
"""

import re
from collections.abc import Iterable, Iterator

from penumbra.monitoring.signals.scripts import SCRIPTS
from penumbra.router.flags.modality import MODALITIES
from penumbra.router.flags.request_routes import ROUTE_NAMES
from penumbra.router.flags.routing_table import Match, SliceRule
from penumbra.router.flags.slices import OTHER

MOST_CHARS = 1_000_000_000
"""Largest bound on the characters of a prompt."""
_HEADER_NAME = re.compile(r"^[a-z0-9!#$%&'*+^_`|~-]+$")


def problem(path: str, found: object, wanted: str) -> str:
    """Write the text of one problem."""
    shown = f'"{found}"' if isinstance(found, str) else f"{found}"
    return f"{path}: found {shown}, wanted {wanted}"


def one_of(names: Iterable[str]) -> str:
    """Write in words that one of these names is wanted."""
    listed = ", ".join(names)
    return f"one of {listed}" if listed else "nothing (there is none to choose from)"


def match_problems(path: str, match: Match, slices: Iterable[str]) -> Iterator[str]:
    """Find every problem in one match.

    Args:
        path: Its path in the checked value.
        match: The conditions.
        slices: The slices that it may name.
    """
    yield from _header_problems(path, match)
    known = tuple(slices)
    for named in match.slices:
        if named not in known:
            yield problem(f"{path}.slices", named, one_of(known))
    for condition, values, wanted in (
        ("route", match.route, ROUTE_NAMES),
        ("modality", match.modality, MODALITIES),
        ("scripts", match.scripts, sorted(SCRIPTS)),
    ):
        for value in values:
            if value not in wanted:
                yield problem(f"{path}.{condition}", value, one_of(wanted))
    yield from _length_problems(path, match.prompt_chars_min, match.prompt_chars_max)


def _length_problems(path: str, least: int | None, most: int | None) -> Iterator[str]:
    for name, chars in (("prompt_chars_min", least), ("prompt_chars_max", most)):
        if chars is not None and chars > MOST_CHARS:
            yield problem(f"{path}.{name}", "a larger number", f"at most {MOST_CHARS}")
    if least is not None and most is not None and least > most:
        yield problem(
            f"{path}.prompt_chars_min", least, f"at most prompt_chars_max, {most}: it never matches"
        )


def _header_problems(path: str, match: Match) -> Iterator[str]:
    for name, values in match.headers.items():
        if not _HEADER_NAME.match(name):
            yield problem(f"{path}.headers", name, "a header name in lower case, without dots")
        if not values:
            yield problem(f"{path}.headers.{name}", "nothing", "at least one value")


def slice_problems(rules: tuple[SliceRule, ...]) -> Iterator[str]:
    """Find every problem in the slice rules of one model."""
    for index, rule in enumerate(rules):
        path = f"slices[{index}]"
        earlier = rules[:index]
        if rule.name == OTHER:
            yield problem(f"{path}.name", rule.name, f'another name: "{OTHER}" is the rest')
        if any(rule.name == other.name for other in earlier):
            yield problem(f"{path}.name", rule.name, "a name that no earlier slice has")
        if rule.match.slices:
            yield problem(f"{path}.match.slices", list(rule.match.slices), "no slices in a slice")
        else:
            yield from match_problems(f"{path}.match", rule.match, ())
        yield from shadowing_problems(
            path, rule.name, rule.match, ((other.name, other.match) for other in earlier)
        )


def shadowing_problems(
    path: str, name: str, match: Match, earlier: Iterable[tuple[str, Match]]
) -> Iterator[str]:
    """Find an earlier rule that takes everything that this one could match."""
    for earlier_name, earlier_match in earlier:
        if implies(match, earlier_match):
            yield problem(
                path,
                name,
                f'a rule that can be reached: "{earlier_name}" above matches all that it matches',
            )
            return


def implies(narrow: Match, wide: Match) -> bool:
    """Whether every request that matches `narrow` also matches `wide`.

    False may also mean that it cannot be told from the conditions one by one.
    """
    return (
        _within(narrow.tenants, wide.tenants)
        and _within(narrow.slices, wide.slices)
        and _within(narrow.route, wide.route)
        and _within(narrow.modality, wide.modality)
        and _within(narrow.scripts, wide.scripts)
        and all(
            name in narrow.headers and _within(narrow.headers[name], values)
            for name, values in wide.headers.items()
        )
        and _prefixes_within(narrow.prompt_prefix, wide.prompt_prefix)
        and _bounds_within(narrow, wide)
        and all(
            getattr(wide, flag) in (None, getattr(narrow, flag))
            for flag in ("json_mode", "tools", "code")
        )
    )


def _within(narrow: tuple[str, ...], wide: tuple[str, ...]) -> bool:
    return not wide or (bool(narrow) and set(narrow) <= set(wide))


def _prefixes_within(narrow: tuple[str, ...], wide: tuple[str, ...]) -> bool:
    return not wide or (bool(narrow) and all(prefix.startswith(wide) for prefix in narrow))


def _bounds_within(narrow: Match, wide: Match) -> bool:
    is_least_within = (narrow.prompt_chars_min or 0) >= (wide.prompt_chars_min or 0)
    if wide.prompt_chars_max is None:
        return is_least_within
    has_most_within = (
        narrow.prompt_chars_max is not None and narrow.prompt_chars_max <= wide.prompt_chars_max
    )
    return is_least_within and has_most_within
