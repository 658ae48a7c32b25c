"""Bounds on a probability from a count of events in a number of repetitions."""

from math import exp, lgamma, log

CONFIDENCE = 0.95


def upper_bound(events: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Exact one-sided upper bound of a probability (Clopper-Pearson).

    The largest p under which so few events or fewer have a chance of 1 - confidence.

    Args:
        events: How often it happened.
        trials: Of how many.
        confidence: In (0, 1).
    """
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if chance_of_at_most(events, trials, middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high


def chance_of_at_most(events: int, trials: int, probability: float) -> float:
    """P(X <= events) of a binomial X."""
    if probability <= 0.0:
        return 1.0
    if probability >= 1.0:
        return float(events >= trials)
    return sum(
        exp(
            lgamma(trials + 1)
            - lgamma(count + 1)
            - lgamma(trials - count + 1)
            + count * log(probability)
            + (trials - count) * log(1.0 - probability)
        )
        for count in range(events + 1)
    )
