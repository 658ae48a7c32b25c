"""Distance between two builds of a model on tokens that one of them chose. Pure.

Both builds are given the same response tokens and asked for their log-probabilities. With x drawn
from p, the build that answered, and q the other one, the mean of max(0, 1 - q(x)/p(x)) is the total
variation between p and q, and r - 1 - ln r with r = q(x)/p(x) has the mean KL(p || q) and is never
negative. For answers that were not sampled at temperature 1 the first is no longer the total
variation, but still lies in [0, 1] and still is zero between equal builds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LARGEST_LOG_RATIO = 20.0
"""Upper limit of ln r: e^20 in one token already dominates any mean."""
LEAST_LOG_RATIO = -10_000.0
"""Lower limit of ln r: vLLM writes -9999 for the logarithm of zero."""


@dataclass(frozen=True, slots=True)
class Displacement:
    """Figures from two builds' scores of one answer. Only `displacement` is ever tested.

    The figures are None if there are no tokens, or if a log-probability was not finite: then there
    is nothing to average, and the caller reports what is missing.
    """

    tokens: int
    """Response tokens that were scored."""
    displacement: float | None
    """[0, 1], larger for worse: mean of max(0, 1 - q/p)."""
    kl: float | None
    """>= 0 nats: mean of r - 1 - ln r."""
    agreement: float | None
    """[0, 1]: share of the tokens in whose place both would have chosen the same one greedily."""
    divergence: int | None
    """Index of the first token in whose place they would not; None if there is none."""
    is_own_finite: bool = True
    """Whether all log-probabilities of the build that answered are numbers."""
    is_other_finite: bool = True
    """The same of the other one."""

    @property
    def is_finite(self) -> bool:
        """Whether both builds gave numbers."""
        return self.is_own_finite and self.is_other_finite


def compare(
    own: Sequence[float],
    other: Sequence[float],
    own_top: Sequence[int],
    other_top: Sequence[int],
) -> Displacement:
    """Compare two builds on the tokens of one answer, one entry of each sequence for each token.

    Args:
        own: Natural log-probabilities that the build that answered gives the tokens.
        other: Those of the other build.
        own_top: The token that the build that answered would have chosen greedily in each place.
        other_top: The same of the other build.

    Raises:
        ValueError: The four are not equally long: they are not of the same tokens.
    """
    tokens = len(own)
    if not tokens == len(other) == len(own_top) == len(other_top):
        raise ValueError(
            f"scores of {tokens} and {len(other)} tokens, "
            f"greedy choices of {len(own_top)} and {len(other_top)}"
        )
    is_own_finite, is_other_finite = _all_finite(own), _all_finite(other)
    if tokens == 0 or not (is_own_finite and is_other_finite):
        return Displacement(tokens, None, None, None, None, is_own_finite, is_other_finite)
    displaced = kl = 0.0
    for p, q in zip(own, other, strict=True):
        log_ratio = max(LEAST_LOG_RATIO, min(q - p, LARGEST_LOG_RATIO))
        # expm1 keeps the digits where the builds are nearly equal, which is where they mostly are.
        excess = math.expm1(log_ratio)
        displaced += max(0.0, -excess)
        kl += max(0.0, excess - log_ratio)
    apart = [i for i, (a, b) in enumerate(zip(own_top, other_top, strict=True)) if a != b]
    return Displacement(
        tokens=tokens,
        displacement=min(1.0, displaced / tokens),
        kl=kl / tokens,
        agreement=1.0 - len(apart) / tokens,
        divergence=apart[0] if apart else None,
    )


def _all_finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
