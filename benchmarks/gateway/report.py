"""The run as Markdown. Pure."""

from collections.abc import Sequence

from benchmarks.gateway.figures import (
    METRICS,
    OURS,
    Metric,
    Round,
    Spread,
    Verdict,
    advantage,
    median_interval,
    metric,
    over_rounds,
    ratio,
)
from benchmarks.gateway.targets import EARLIER


def markdown(
    environment: dict[str, str],
    rounds: Sequence[Round],
    missing: dict[str, str],
    verdicts: Sequence[Verdict],
) -> str:
    """Tables of figures and of ratios, the verdicts, and what is missing."""
    names = list(dict.fromkeys(name for results in rounds for name in results))
    parts = [
        "# Gateway benchmark",
        "\n".join(f"- {key}: {text}" for key, text in environment.items()),
        f"## Figures: median of {len(rounds)} rounds (lowest to highest)",
        _table(["target", *(m.label for m in METRICS), "wrong answers"], _figures(names, rounds)),
        f"## {OURS} ÷ peer, by round: median (lowest to highest)",
        _table(["peer", *(m.label for m in METRICS)], _ratios(names, rounds)),
        "## Verdicts",
        "\n".join(_verdict(v) for v in verdicts),
    ]
    if EARLIER in names:
        parts += [
            f"## {OURS} against {EARLIER}: above 1 is better, median (its 95 % interval)",
            "\n".join(_before_and_after(rounds)),
        ]
    if missing:
        parts += ["## Not measured", "\n".join(f"- {n}: {why}" for n, why in missing.items())]
    return "\n\n".join(parts) + "\n"


def _figures(names: Sequence[str], rounds: Sequence[Round]) -> list[list[str]]:
    return [
        [
            name,
            *(_cell(over_rounds(m, name, rounds), m.digits) for m in METRICS),
            str(sum(results[name].errors for results in rounds if name in results)),
        ]
        for name in names
    ]


def _ratios(names: Sequence[str], rounds: Sequence[Round]) -> list[list[str]]:
    def row(peer: str) -> list[str]:
        return [peer, *(_cell(_against(m, peer, rounds), 2) for m in METRICS)]

    return [row(peer) for peer in names if peer != OURS]


def _before_and_after(rounds: Sequence[Round]) -> list[str]:
    lines = []
    for name in ("requests_per_core", "cpu_us_per_request", "cpu_us_per_token"):
        which = metric(name)
        values = advantage(which, EARLIER, rounds)
        lines.append(f"- {which.label}: {_cell(median_interval(values), 3)}, {len(values)} rounds")
    return lines


def _against(which: Metric, peer: str, rounds: Sequence[Round]) -> Spread | None:
    return ratio(which, [peer], rounds, max)


def _cell(measured: Spread | None, digits: int) -> str:
    if measured is None:
        return "-"
    middle, low, high = (f"{v:,.{digits}f}" for v in (measured.median, measured.low, measured.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _verdict(verdict: Verdict) -> str:
    measured = _cell(verdict.measured, 2)
    return f"- **{verdict.outcome}**: {verdict.claim}; measured {measured}"
