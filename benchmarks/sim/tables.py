"""The figures as Markdown tables, and whether they are what was promised."""

from collections.abc import Iterable, Sequence
from math import isinf

from benchmarks.sim.bounds import upper_bound
from benchmarks.sim.rivals import RULES
from benchmarks.sim.traffic import ALPHA
from benchmarks.sim.trial import SHIPPED, Result

Results = dict[str, dict[str, Result]]
"""Scenario -> rule -> result."""

REFERENCE = {
    "all traffic +0.05": (1265, 2228),
    "all traffic +0.10": (257, 464),
    "all traffic +0.30": (52, 87),
    "all traffic +0.90": (14, 20),
    "one 5 % slice +0.10": (7900, 12100),
    "one 5 % slice +0.30": (1467, 2273),
    "one 5 % slice +0.90": (414, 579),
    "from 50k on, all +0.05": (2200, 3600),
    "from 50k on, all +0.10": (535, 777),
    "from 50k on, one slice +0.30": (2100, 3000),
}
"""Median and p90 of the design study's prototype, 500 runs each."""
LEEWAY = 1.1


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def false_alarms(results: Results, has_rivals: bool = True) -> str:
    """Table of false rollbacks: share of candidates within tolerance that each rule rolled back."""
    rivals = RULES if has_rivals else ()
    rows = []
    for name, of_rule in results.items():
        shipped = of_rule[SHIPPED]
        rows.append(
            [
                name,
                f"**{shipped.fired} / {shipped.reps}**",
                f"**{100 * upper_bound(shipped.fired, shipped.reps):.2f} %**",
                *(_percent(of_rule[rule]) for rule in rivals),
            ]
        )
    return table(["candidate", SHIPPED, "95 % upper bound", *rivals], rows)


def delays(results: Results) -> str:
    """Observations to rollback, median / p90."""
    rows = []
    for name, of_rule in results.items():
        reference = REFERENCE.get(name)
        rows.append(
            [
                name,
                f"**{delay(of_rule[SHIPPED])}**",
                f"{reference[0]:,} / {reference[1]:,}" if reference else "-",
                *(delay(of_rule[rule]) for rule in RULES),
            ]
        )
    return table(["regression", SHIPPED, "prototype", *RULES], rows)


def short_delays(results: Results) -> str:
    """Observations to rollback of the shipped rule alone."""
    return table(
        ["candidate", "rolled back", "median / p90"],
        [
            [name, _percent(of_rule[SHIPPED]), delay(of_rule[SHIPPED])]
            for name, of_rule in results.items()
        ],
    )


def broken_promises(nulls: Results, regressions: Results) -> list[str]:
    """Sentences on the figures that miss their limit."""
    broken = []
    for name, of_rule in nulls.items():
        shipped = of_rule[SHIPPED]
        bound = upper_bound(shipped.fired, shipped.reps)
        if bound > ALPHA:
            broken.append(f"{name}: the upper bound of false rollback is {bound:.4f} > {ALPHA}")
    for name, of_rule in regressions.items():
        shipped, (median, p90) = of_rule[SHIPPED], REFERENCE[name]
        if shipped.median > LEEWAY * median or shipped.p90 > LEEWAY * p90:
            found = f"{_number(shipped.median)} / {_number(shipped.p90)}"
            broken.append(f"{name}: {found}, wanted at most 10 % over {median} / {p90}")
    return broken


def _percent(result: Result) -> str:
    return f"{100 * result.fired / (result.reps - result.early or 1):.1f} %"


def delay(result: Result) -> str:
    """Median / p90, with what was rolled back too early and what never was."""
    text = f"{_number(result.median)} / {_number(result.p90)}"
    if result.early:
        text += f" ({100 * result.early / result.reps:.1f} % before)"
    return text


def _number(value: float) -> str:
    return "never" if isinf(value) else f"{value:,.0f}"
