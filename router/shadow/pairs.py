"""From what both arms did with one mirrored request to the `Pair` that is reported. Pure.

Missing data has a rule each: what the *candidate* failed to give although it was asked is evidence
(`Pair.missing`, and harm 1 for an answer); what the *baseline* failed to give leaves nothing to
compare with, and is no evidence either way.
"""

from dataclasses import dataclass

import msgspec

from penumbra.monitoring.observations import Arm, Pair
from penumbra.monitoring.signals.answer import Answer
from penumbra.monitoring.signals.displacement import compare
from penumbra.monitoring.signals.harm import Expectations, judge
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.score_result import ScoreResult


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """Whether an arm answered the request, and what."""

    answer: Answer | None = None
    problem: str | None = None
    """Why it gave none although it was asked."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What one arm did: the same tokens scored, and an answer where it gave one."""

    scored: ScoreResult
    answered: ArmAnswer | None = None
    """None if it was not asked."""


@dataclass(frozen=True, slots=True)
class ArmPair:
    """Who is compared with whom."""

    arm: Arm
    baseline: ArmResult
    candidate: ArmResult
    """In the A/A arm: the baseline a second time."""
    is_candidates: bool = False
    """The tokens are the candidate's: it answered the client."""


def pair_of(
    mirrored: MirrorFrame, expected: Expectations, tokens: int, sides: ArmPair
) -> Pair | None:
    """The pair, without what it cost and when; None if the baseline gave no score.

    Args:
        mirrored: The request.
        expected: What it wants of an answer.
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
    return _with_harm(_with_scores(pair, sides), expected, sides)


def _missing(candidate: ArmResult) -> str | None:
    if candidate.scored.problem is not None:
        return f"score: {candidate.scored.problem}"
    if candidate.answered is not None and candidate.answered.problem is not None:
        return f"answer: {candidate.answered.problem}"
    return None


def _with_scores(pair: Pair, sides: ArmPair) -> Pair:
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


def _with_harm(pair: Pair, expected: Expectations, sides: ArmPair) -> Pair:
    baseline, candidate = sides.baseline.answered, sides.candidate.answered
    # Not asked, or the baseline has no answer: then the pair says nothing of harm.
    if baseline is None or baseline.answer is None or candidate is None:
        return pair
    judgement = judge(expected, candidate.answer, baseline.answer)
    return msgspec.structs.replace(
        pair,
        harm=judgement.harm,
        failed=judgement.failed,
        failed_baseline=judgement.failed_baseline,
    )
