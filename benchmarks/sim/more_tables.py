"""Tables of what depends on the settings: releases of slices, onsets, deployed defaults.

    python -m benchmarks.sim.more_tables [--reps 400] [--seed 31]

Exits with 1 if slices beyond tolerance are released, or intervals miss, in more runs than chance
gives to the promised rate.
"""

import argparse
import sys

import numpy as np

from benchmarks.sim.bounds import chance_of_at_most, upper_bound
from benchmarks.sim.deployed import deployed
from benchmarks.sim.lanes import Floats
from benchmarks.sim.onsets import ALPHA_OF_INTERVAL, CHANGES, cover
from benchmarks.sim.promotion import ALPHA_PROMOTION
from benchmarks.sim.releases import (
    BUILDS,
    FAMILY,
    REARMED,
    RULES,
    RUN_PAIRS,
    RUNS,
    SHARED,
    rearm,
    release,
)
from benchmarks.sim.tables import table

_UNLIKELY = 1e-3


def releases(reps: int, seed: int) -> tuple[str, list[str]]:
    """Table of releases, and sentences on the promises that are broken."""
    rows, broken = [], []
    for number, build in enumerate(BUILDS):
        first = release(build, reps, seed + number)
        good = np.setdiff1d(np.arange(len(build.means)), build.bad)
        for rule in RULES:
            false = int(np.isfinite(first[rule][:, build.bad]).any(axis=1).sum())
            told = f"{false} / {reps}, ≤ {100 * upper_bound(false, reps):.1f} %"
            rows.append(
                [
                    build.name,
                    rule,
                    told if len(build.bad) else "-",
                    *(_times(first[rule][:, good], part) for part in (0.0, 0.5, 1.0)),
                ]
            )
            if rule == FAMILY and not _is_plausible(false, reps, ALPHA_PROMOTION):
                broken.append(f"{build.name}: {false} of {reps} release a slice beyond tolerance")
    heads = ["build", "rule", "runs that release a bad slice", "first good slice", "half", "all"]
    return table(heads, rows), broken


def rearms(reps: int, seed: int) -> tuple[str, list[str]]:
    """Table of slices that are armed again and again, and sentences on broken promises."""
    rows, broken = [], []
    for number, mean in enumerate(REARMED):
        for rule, first in rearm(mean, reps, seed + number).items():
            false = int(np.isfinite(first).sum())
            once = int((first == 1).sum())
            bound = f"{100 * upper_bound(false, reps):.1f} %"
            rows.append([f"+{mean:g}", rule, f"{once}", f"{false} / {reps}, ≤ {bound}"])
            if rule == SHARED and not _is_plausible(false, reps, ALPHA_PROMOTION):
                broken.append(f"harm {mean:g}: {false} of {reps} are proven in some run")
    heads = ["harm", "rule", "proven in the first run", f"in any of {RUNS} runs"]
    return table(heads, rows), broken


def onsets(reps: int, seed: int) -> tuple[str, list[str]]:
    """Table of effects since the onset, and sentences on the promises that are broken."""
    rows, broken = [], []
    for number, change in enumerate(CHANGES):
        found = cover(change, reps if change.before < 10_000 else reps // 5, seed + number)
        effect = found.median
        rows.append(
            [
                change.name,
                f"{found.shown} of {found.reps}",
                f"{found.missed}, ≤ {100 * upper_bound(found.missed, max(1, found.shown)):.1f} %",
                f"{found.whole}",
                "-"
                if effect is None
                else f"{effect.mean:.3f} [{effect.lower:.3f}, {effect.upper:.3f}]"
                f" of the last {effect.count:,}",
            ]
        )
        if not _is_plausible(found.missed, found.reps, ALPHA_OF_INTERVAL):
            broken.append(f"{change.name}: {found.missed} intervals of {found.reps} miss")
    heads = ["change", "shown", "interval misses", "interval of the whole run misses", "median"]
    return table(heads, rows), broken


def settings_table(reps: int, seed: int) -> str:
    """Table of delays in mirrored requests, by the settings; in brackets the floor."""
    found = deployed(reps, seed)
    columns = list(next(iter(found.values())))
    rows = [
        [
            name,
            *(
                f"{settings.requests(result.median):,.0f} / {settings.requests(result.p90):,.0f}"
                f" ({settings.requests(least):,.0f})"
                for settings, (result, least) in of_settings.items()
            ),
        ]
        for name, of_settings in found.items()
    ]
    heads = [f"{each.name}: alpha x {each.share:g}, generate {each.generate:g}" for each in columns]
    return table(["regression", *heads], rows)


def _times(first: Floats, part: float) -> str:
    if not first.shape[1]:
        return "-"
    ordered = np.sort(first, axis=1)[:, round(part * (first.shape[1] - 1))]
    median, p90 = (float(np.quantile(ordered, level, method="higher")) for level in (0.5, 0.9))
    return " / ".join("never" if np.isinf(each) else f"{each:,.0f}" for each in (median, p90))


def _is_plausible(events: int, trials: int, probability: float) -> bool:
    return events == 0 or 1.0 - chance_of_at_most(events - 1, trials, probability) > _UNLIKELY


def main() -> int:
    """Print the tables; the exit status says whether the promises are kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=31)
    options = parser.parse_args()
    print("### Pairs to rollback by the settings, mirrored requests, median / p90 (floor)\n")
    print(settings_table(options.reps, options.seed), flush=True)
    print("\n### Release of slices, pairs of all slices, median / p90\n")
    released, broken = releases(options.reps, options.seed + 100)
    print(released, flush=True)
    print(f"\n### One slice beyond tolerance, {RUNS} runs of {RUN_PAIRS:,} pairs\n")
    again, unkept = rearms(options.reps, options.seed + 150)
    broken += unkept
    print(again, flush=True)
    print("\n### Effect since the onset\n")
    shown, more = onsets(options.reps, options.seed + 200)
    print(shown)
    for line in (*broken, *more):
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken or more else 0


if __name__ == "__main__":
    sys.exit(main())
