"""Proof of several slices together, and of several runs of the same builds. Pure.

A slice that is released alone at 1/alpha is released falsely with probability alpha, and of twenty
such slices some one is in every third run. The rules here bound the probability of *any* false
release: over the slices of a run (`newly_proven`), and over all runs of two builds
(`share_of_run`).

Reading order: newly_proven, boundary_of, share_of_run.
"""

from collections.abc import Mapping

FIRST_RUN = 0.75
"""Share of alpha that the first run of two builds has; all later ones have the rest together."""


def newly_proven(proofs: Mapping[str, float], alpha: float) -> tuple[str, ...]:
    """Name the slices whose proof reaches the boundary that it has in the family.

    H0 of each slice: it is beyond its tolerance, and its proof is at most a test martingale that
    begins at 1. Guarantee: whichever slices are beyond, P(one of them is ever named) <= alpha, in
    any dependence between slices. Argument: at the first false naming all slices that are beyond
    are still in the family, and the boundary of `boundary_of` is reached only if their mean is at
    least 1/alpha; that mean is a test martingale too, so Ville's inequality bounds it.

    Source: closed testing with the mean of e-values (arXiv 1912.06116), one step a look.

    Args:
        proofs: Slice -> its proof now; of all slices that have not been named yet, whether they
            have traffic or not. One that was named leaves the family.
        alpha: Of the family, in (0, 1).
    """
    missing = _missing(proofs, alpha)
    return tuple(name for name, proof in proofs.items() if proof >= 1.0 / alpha + missing)


def boundary_of(name: str, proofs: Mapping[str, float], alpha: float) -> float:
    """Return the proof at which a slice is named: 1/alpha, and what the others lack to 1/alpha.

    So the last slice needs 1/alpha, like a slice that is alone, and the first of K silent ones
    needs nearly K/alpha.

    Args:
        name: A slice, of the family or named before.
        proofs: As `newly_proven` takes them.
        alpha: The same.
    """
    others = {other: proof for other, proof in proofs.items() if other != name}
    return 1.0 / alpha + _missing(others, alpha)


def share_of_run(earlier: int) -> float:
    """Return the share of alpha that a run has; the shares of all runs add up to 1.

    Args:
        earlier: Number of runs of the same builds before it, 0 or more.
    """
    return FIRST_RUN if earlier == 0 else (1.0 - FIRST_RUN) / (earlier * (earlier + 1))


def _missing(proofs: Mapping[str, float], alpha: float) -> float:
    bar = 1.0 / alpha
    return sum(max(0.0, bar - proof) for proof in proofs.values())
