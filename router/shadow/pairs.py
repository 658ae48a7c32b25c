"""From what both arms did with one mirrored request to the `Pair` that is reported. Pure.

Missing data has a rule each: what the *candidate* failed to give although it was asked is evidence
(`Pair.missing`, and harm 1 for an answer); what the *baseline* failed to give leaves nothing to
compare with, and is no evidence either way.
"""

from dataclasses import dataclass

import msgspec
from monitoring.signals.harm import harm

from monitoring.evidence import Arm, Pair
from monitoring.signals.displacement import compare
from router.mirrored import Mirrored
from router.shadow.scoring import Scored


@dataclass(frozen=True, slots=True)
class Answered:
    """Whether an arm answered the request, and how well."""

    failed: frozenset[str] | None = None
    """Harm checks that its answer failed; None if there is no answer."""
    problem: str | None = None
    """Why it gave none although it was asked."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one arm did: the same tokens scored, and an answer where it gave one."""

    scored: Scored
    answered: Answered | None = None
    """None if it was not asked."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Who is compared with whom."""

    arm: Arm
    baseline: Seen
    candidate: Seen
    """In the A/A arm: the baseline a second time."""
    is_candidates: bool = False
    """The tokens are the candidate's: it answered the client."""


def pair_of(mirrored: Mirrored, tokens: int, sides: Sides) -> Pair | None:
    """The pair, without what it cost and when; None if the baseline gave no score.

    Args:
        mirrored: The request.
        tokens: Response tokens that were scored.
        sides: What was seen.
    """
    if sides.baseline.scored.usable is None:
        return None
    pair = Pair(
        request_id=mirrored.request_id,
        slice=mirrored.slice,
        cluster=mirrored.prompt_hash,
        arm=sides.arm,
        answered_by=mirrored.variant,
        session=mirrored.session,
        tokens=tokens,
        missing=_missing(sides.candidate),
        not_finite=sides.candidate.scored.is_not_finite,
    )
    return _with_harm(_with_scores(pair, sides), sides)


def _missing(candidate: Seen) -> str | None:
    if candidate.scored.problem is not None:
        return f"score: {candidate.scored.problem}"
    if candidate.answered is not None and candidate.answered.problem is not None:
        return f"answer: {candidate.answered.problem}"
    return None


def _with_scores(pair: Pair, sides: Sides) -> Pair:
    baseline, candidate = sides.baseline.scored.usable, sides.candidate.scored.usable
    if baseline is None or candidate is None:
        return pair
    own, other = (candidate, baseline) if sides.is_candidates else (baseline, candidate)
    found = compare(own.logprobs, other.logprobs, own.top_ids, other.top_ids)
    return msgspec.structs.replace(
        pair,
        displacement=found.displacement,
        kl=found.kl,
        agreement=found.agreement,
        divergence=found.divergence,
    )


def _with_harm(pair: Pair, sides: Sides) -> Pair:
    baseline, candidate = sides.baseline.answered, sides.candidate.answered
    # Both are there or the pair says nothing of harm: not asked, or the baseline has no answer.
    if baseline is None or baseline.failed is None or candidate is None:
        return pair
    return msgspec.structs.replace(
        pair,
        harm=harm(candidate.failed, baseline.failed),
        failed=tuple(sorted(candidate.failed or ())),
        failed_baseline=tuple(sorted(baseline.failed)),
    )
