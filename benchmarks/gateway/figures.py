"""From measurements to figures, ratios and verdicts. Pure.

Every ratio is taken within one round, where both sides saw the same machine; the median and the
range of the rounds' ratios are reported, never a ratio of medians.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.gateway.scenarios import Measurement
from benchmarks.gateway.targets import Kind

OURS = "penumbra"
DIRECT = "direct"
_QUIET_PERCENT = 10.0


class Result(BaseModel):
    """One target in one round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str
    kind: Kind
    measurements: dict[str, Measurement]
    """Scenario name -> what it showed."""
    rss_mb: tuple[float, ...]
    pss_mb: float
    second_upstream_share: float
    """The share of the requests that the second upstream answered, in [0, 1]."""
    foreign_share: float
    """The share of the target's core that other processes took meanwhile: how noisy it was."""

    @property
    def errors(self) -> int:
        """Answers that were wrong or missing, over all scenarios."""
        return sum(m.errors for m in self.measurements.values())


Round = dict[str, Result]
"""Target name -> its result in one round."""


Best = Callable[[Iterable[float]], float]
"""`max` where more is better, `min` where less is."""


@dataclass(frozen=True)
class Spread:
    """The median and the range of a figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    """One column: a figure of a target in a round, given the direct path in that round."""

    name: str
    label: str
    digits: int
    of: Callable[[Result, Result], float | None]
    """None where the figure does not exist (the direct path's own overhead)."""


def _per_core(result: Result, _: Result) -> float | None:
    m = result.measurements["unary-16"]
    return m.answers / m.cpu_seconds if m.cpu_seconds else None


def _per_second(result: Result, _: Result) -> float:
    m = result.measurements["unary-16"]
    return m.answers / m.seconds


def _cpu_per(scenario: str, unit: Literal["answers", "tokens"]) -> Callable[..., float | None]:
    def figure(result: Result, _: Result) -> float | None:
        m = result.measurements[scenario]
        count = m.answers if unit == "answers" else m.tokens
        return m.cpu_seconds / count * 1e6 if count and m.cpu_seconds else None

    return figure


def _added(
    scenario: str, field: Literal["p50_us", "p99_us", "first_p50_us"]
) -> Callable[..., float | None]:
    def figure(result: Result, direct: Result) -> float | None:
        here, there = result.measurements[scenario], direct.measurements[scenario]
        if result.kind == "direct" or not getattr(here, field):
            return None
        return float(getattr(here, field)) - float(getattr(there, field))

    return figure


def _max_tokens(result: Result, _: Result) -> float:
    m = result.measurements["max-64"]
    return m.tokens / m.seconds


def _resident(result: Result, _: Result) -> float | None:
    return max(result.rss_mb, default=None)


METRICS: tuple[Metric, ...] = (
    Metric("requests_per_core", "req/s a core, 16 conn", 0, _per_core),
    Metric("requests_per_second", "req/s, 16 conn", 0, _per_second),
    Metric("cpu_us_per_request", "CPU µs/req, 64 conn", 1, _cpu_per("unary-64", "answers")),
    Metric("added_p50_us_1", "added p50 µs, 1 conn", 0, _added("unary-1", "p50_us")),
    Metric("added_p99_us_1", "added p99 µs, 1 conn", 0, _added("unary-1", "p99_us")),
    Metric("added_p50_us_16", "added p50 µs, 16 conn", 0, _added("unary-16", "p50_us")),
    Metric("added_p99_us_16", "added p99 µs, 16 conn", 0, _added("unary-16", "p99_us")),
    Metric("cpu_us_per_token", "CPU µs/token, 64 streams", 1, _cpu_per("paced-64", "tokens")),
    Metric("added_first_us", "added p50 µs to first token", 0, _added("paced-64", "first_p50_us")),
    Metric("max_tokens_per_second", "max tokens/s", 0, _max_tokens),
    Metric("resident_mb", "resident MB, largest process", 0, _resident),
    Metric("resident_all_mb", "resident MB, all (PSS)", 0, lambda r, _: r.pss_mb or None),
    Metric(
        "foreign_percent", "% of the core taken by others", 0, lambda r, _: r.foreign_share * 100
    ),
)


def noise(rounds: Sequence[Round]) -> str:
    """One sentence on how quiet the machine was."""
    foreign = metric("foreign_percent")
    taken = spread(foreign.of(r, r) for figures in rounds for r in figures.values())
    if taken is None:
        return "not measured"
    text = f"others took {taken.median:.0f} % of the target's core (at most {taken.high:.0f} %)"
    return text if taken.median <= _QUIET_PERCENT else f"{text}: TOO NOISY to quote these figures"


def metric(name: str) -> Metric:
    """The metric of that name."""
    return next(m for m in METRICS if m.name == name)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Median and range of the values that exist; None if there are none."""
    known = [value for value in values if value is not None]
    return Spread(median(known), min(known), max(known)) if known else None


def over_rounds(which: Metric, target: str, rounds: Sequence[Round]) -> Spread | None:
    """One metric of one target."""
    return spread(value(which, target, round_) for round_ in rounds)


def value(which: Metric, target: str, one: Round) -> float | None:
    """One metric of one target in one round; None where it was not measured."""
    if target not in one or DIRECT not in one:
        return None
    return which.of(one[target], one[DIRECT])


def ratio(
    which: Metric, peers: Sequence[str], rounds: Sequence[Round], best: Best
) -> Spread | None:
    """Ours over the best of these peers, round by round."""
    return spread(_ratio_in(which, peers, round_, best) for round_ in rounds)


def _ratio_in(which: Metric, peers: Sequence[str], one: Round, best: Best) -> float | None:
    ours = value(which, OURS, one)
    theirs = [v for peer in peers if (v := value(which, peer, one)) is not None and v > 0]
    return ours / best(theirs) if ours is not None and theirs else None


def advantage(which: Metric, peer: str, rounds: Sequence[Round]) -> list[float]:
    """Ours against a peer in each round, above 1 where ours is better; for figures above 0."""
    ratios = (_ratio_in(which, [peer], round_, max) for round_ in rounds)
    known = (found for found in ratios if found)
    return [1 / found if which.name.startswith("cpu") else found for found in known]


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Spread | None:
    """The median and its confidence interval by order statistics, for any distribution.

    The interval from the k-th lowest to the k-th highest value covers the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (the sign test); the largest k that keeps the confidence is
    taken. None below six values, where no k does.
    """
    ordered, count = sorted(values), len(values)
    missed, rank = 0.0, 0
    while missed + comb(count, rank) / 2**count <= (1 - confidence) / 2:
        missed += comb(count, rank) / 2**count
        rank += 1
    if rank == 0:
        return None
    return Spread(median(ordered), ordered[rank - 1], ordered[-rank])


Outcome = Literal["pass", "miss", "not judged"]


class Verdict(BaseModel):
    """One target of the design, and what the run says of it."""

    model_config = ConfigDict(frozen=True)

    claim: str
    outcome: Outcome
    measured: Spread | None


def _judge(claim: str, measured: Spread | None, holds: Callable[[float], bool]) -> Verdict:
    if measured is None:
        return Verdict(claim=claim, outcome="not judged", measured=None)
    outcome: Outcome = "pass" if holds(measured.median) else "miss"
    return Verdict(claim=claim, outcome=outcome, measured=measured)


def verdicts(rounds: Sequence[Round]) -> list[Verdict]:
    """The targets of the gateway, judged on the medians of this run's ratios."""
    rust = sorted({r.target for figures in rounds for r in figures.values() if r.kind == "rust"})
    ours = [figures[OURS] for figures in rounds if OURS in figures]
    per_core, per_token = metric("requests_per_core"), metric("cpu_us_per_token")
    added = metric("added_p50_us_1")
    return [
        _judge(
            "requests/s a core >= 1.0 x the best Rust router",
            ratio(per_core, rust, rounds, max),
            lambda v: v >= 1.0,
        ),
        _judge(
            "requests/s a core >= 100 x LiteLLM",
            ratio(per_core, ["litellm"], rounds, max),
            lambda v: v >= 100,
        ),
        _judge(
            "CPU per streamed token <= 1.5 x nginx",
            ratio(per_token, ["nginx"], rounds, min),
            lambda v: v <= 1.5,
        ),
        _judge(
            "added p50 at one connection <= 1.2 x the best Rust router",
            ratio(added, rust, rounds, min),
            lambda v: v <= 1.2,
        ),
        _judge(
            "resident <= 150 MB a process",
            over_rounds(metric("resident_mb"), OURS, rounds),
            lambda v: v <= 150,
        ),
        _judge(
            "the split is on: the second upstream's share is in [0.45, 0.55]",
            spread(r.second_upstream_share for r in ours),
            lambda v: 0.45 <= v <= 0.55,
        ),
        _judge(
            "no wrong or missing answer in any round",
            spread([sum(r.errors for r in ours)] if ours else []),
            lambda v: v == 0,
        ),
    ]
