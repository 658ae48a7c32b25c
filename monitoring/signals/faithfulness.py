"""Faithfulness of a build's scorer: whether its prefill scores can be believed. Pure.

Displacement and the decode gap rest on the scores that a build gives of itself. One whose scorer
is broken may look perfect, or be condemned though it answers well. Two kinds of facts speak against
a scorer: scores that are no log-probabilities (`find_contradiction`), and scores that are far from
the decoding of the same build. In the second case the decoding may be at fault as well, and the
baseline's prefill of the same tokens tells which of the two stands alone (`arbitrate`).
"""

import math
from collections.abc import Sequence
from enum import StrEnum

SLACK = 1e-3
"""Nats, and probability, by which rounding may exceed what is possible."""
APART = 1.3
"""The one that is at fault lies at least this many times further from the baseline than the other.
Both lie apart from it by what the build's weights do, and a fault adds to one of them: it is told
from that as long as it is not smaller than three quarters of it."""


class ScorerFault(StrEnum):
    """Part of a build that contradicts the others. The values are reported and stored."""

    DECODE = "decode"
    """Its decoding, apart from both prefills. The scorer is fit."""
    SCORER = "scorer"
    """Its prefill, apart from its own decoding and from the baseline's prefill: unfit."""
    BOTH = "both"
    """All three are apart from each other: unfit, and the answers are suspect too."""


def find_contradiction(
    logprobs: Sequence[float],
    token_ids: Sequence[int],
    top_ids: Sequence[int],
    top_logprobs: Sequence[float] = (),
) -> str | None:
    """Find a score that no log-probability can be.

    Args:
        logprobs: Scores of the given tokens; those that are not finite are left out.
        token_ids: The tokens.
        top_ids: The likeliest token in place of each.
        top_logprobs: Its score; empty if the engine does not tell it.

    Returns:
        The contradiction in words, without any content; None if there is none.
    """
    for value in logprobs:
        if value > SLACK and math.isfinite(value):
            return f"a log-probability of {value:.3g}, wanted at most 0"
    rows = zip(logprobs, token_ids, top_ids, top_logprobs, strict=False)
    for value, token, top, best in rows:
        if not (math.isfinite(value) and math.isfinite(best)):
            continue
        if value > best + SLACK:
            return "a token that is likelier than the likeliest"
        if token != top and math.exp(value) + math.exp(min(best, 1.0)) > 1 + SLACK:
            return f"probabilities of {math.exp(value) + math.exp(min(best, 1.0)):.3g} in sum"
    return None


def greedy_misses(
    logprobs: Sequence[float],
    token_ids: Sequence[int],
    top_ids: Sequence[int],
    top_logprobs: Sequence[float],
    floor: float,
) -> int:
    """Count the greedily chosen tokens that are not the likeliest by the build's own prefill.

    Args:
        logprobs: Scores of the tokens.
        token_ids: The tokens, chosen greedily.
        top_ids: The likeliest token in place of each.
        top_logprobs: Its score; if the engine does not tell it, the places count by their ids.
        floor: Nats by which two tokens may be apart and still change places: the engine's noise.
    """
    misses = 0
    for index, (token, top) in enumerate(zip(token_ids, top_ids, strict=True)):
        if token != top:
            lead = top_logprobs[index] - logprobs[index] if top_logprobs else math.inf
            misses += not lead <= floor
    return misses


def arbitrate(decode_apart: float, prefill_apart: float) -> ScorerFault:
    """Say which part of a build is at fault, once its decoding and its prefill are far apart.

    Args:
        decode_apart: `gap` between the build's decoding and the baseline's prefill of the tokens.
        prefill_apart: `gap` between the build's own prefill of them and the baseline's.
    """
    if decode_apart >= APART * prefill_apart:
        return ScorerFault.DECODE
    if prefill_apart >= APART * decode_apart:
        return ScorerFault.SCORER
    return ScorerFault.BOTH
