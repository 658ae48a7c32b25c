"""Gap between the decoding and the prefill of one engine, on tokens that it made itself. Pure.

Displacement compares prefill with prefill, so damage that only decoding does (the type of the KV
cache, captured graphs, speculative decoding, an attention kernel) leaves it at zero. Here the
log-probabilities that came with an answer, from the decoding that made it, are held against the
same engine's prefill of the same tokens.

An engine's gap is no fault by itself: kernels of other shapes round differently, and there are
engines whose log-probabilities are taken after the temperature. So a candidate's gap is held
against the baseline's on the same request, each on the tokens that it made. Between equal builds
the difference has mean zero whatever the gaps are, because exchanging the two changes its sign
alone; one gap alone, or a difference that is cut at zero, would not have that.
"""

import math
from collections.abc import Sequence

LIMIT = 0.1
"""Gaps count up to this. It is the same for both builds, so the difference keeps its mean of zero;
and in the range [-0.1, 0.1] a guard bets nine times more than in [-1, 1]."""


def gap(decoded: Sequence[float], prefilled: Sequence[float]) -> float | None:
    """Measure the gap between two log-probabilities for each token of one answer.

    It is the mean of 1 - exp(-|difference|): the relative loss of the smaller probability. It is
    symmetric, since tokens that were chosen greedily may have become likelier by the damage as well
    as less likely.

    Args:
        decoded: Natural log-probabilities of the tokens.
        prefilled: Another measurement of them.

    Returns:
        In [0, 1], 0 for equal ones; None if there are no tokens, or if one is not finite.

    Raises:
        ValueError: The two are not equally long.
    """
    total, count = 0.0, 0
    for one, other in zip(decoded, prefilled, strict=True):
        if not (math.isfinite(one) and math.isfinite(other)):
            return None
        total -= math.expm1(-abs(one - other))
        count += 1
    return min(1.0, total / count) if count else None


def decode_gap(candidate: float, baseline: float) -> float:
    """Subtract the baseline's gap from the candidate's.

    Args:
        candidate: The candidate's `gap` on an answer of its own to a request, [0, 1].
        baseline: The baseline's on its own answer to the same request.

    Returns:
        In [-LIMIT, LIMIT]; larger is worse.
    """
    return min(candidate, LIMIT) - min(baseline, LIMIT)
