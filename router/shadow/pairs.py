"""Pairs: makes the reported `Pair` from the results of both arms for one mirrored request. Pure.

Missing data has one rule for each arm. A score or answer that the *candidate* failed to give
although it was asked is evidence (`Pair.missing`, and harm 1 for an answer). One that the
*baseline* failed to give leaves nothing to compare with, and is no evidence either way.
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
    """The answer of one arm, or why there is none."""

    answer: Answer | None = None
    problem: str | None = None
    """Why the arm gave no answer although it was asked."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The results of one arm: its score of the tokens, and its answer if it was asked for one."""

    score: ScoreResult
    answer: ArmAnswer | None = None
    """None if the arm was not asked to answer."""


@dataclass(frozen=True, slots=True)
class ArmPair:
    """The results of the two arms that are compared."""

    arm: Arm
    baseline: ArmResult
    candidate: ArmResult
    """In the A/A arm: the baseline a second time."""
    is_candidates: bool = False
    """Whether the tokens are the candidate's: it answered the client."""


def pair_of(
    mirrored: MirrorFrame, expected: Expectations, tokens: int, arms: ArmPair
) -> Pair | None:
    """Make the pair, without its cost and time; None if the baseline gave no score.

    Args:
        mirrored: The request.
        expected: Properties that it wants of an answer.
        tokens: Response tokens that were scored.
        arms: The results of both arms.
    """
    if arms.baseline.score.usable is None:
        return None
    pair = Pair(
        request_id=mirrored.request_id,
        slice=mirrored.slice,
        cluster=mirrored.prompt_hash,
        arm=arms.arm,
        answered_by=mirrored.variant,
        session=mirrored.session,
        tokens=tokens,
        missing=_missing(arms.candidate),
        not_finite=arms.candidate.score.is_not_finite,
    )
    return _with_harm(_with_scores(pair, arms), expected, arms)


def _missing(candidate: ArmResult) -> str | None:
    if candidate.score.problem is not None:
        return f"score: {candidate.score.problem}"
    if candidate.answer is not None and candidate.answer.problem is not None:
        return f"answer: {candidate.answer.problem}"
    return None


def _with_scores(pair: Pair, arms: ArmPair) -> Pair:
    baseline, candidate = arms.baseline.score.usable, arms.candidate.score.usable
    if baseline is None or candidate is None:
        return pair
    own, other = (candidate, baseline) if arms.is_candidates else (baseline, candidate)
    found = compare(own.logprobs, other.logprobs, own.top_ids, other.top_ids)
    return msgspec.structs.replace(
        pair,
        displacement=found.displacement,
        kl=found.kl,
        agreement=found.agreement,
        divergence=found.divergence,
    )


def _with_harm(pair: Pair, expected: Expectations, arms: ArmPair) -> Pair:
    baseline, candidate = arms.baseline.answer, arms.candidate.answer
    # If not asked, or without the baseline's answer, the pair says nothing about harm.
    if baseline is None or baseline.answer is None or candidate is None:
        return pair
    harm_result = judge(expected, candidate.answer, baseline.answer)
    return msgspec.structs.replace(
        pair,
        harm=harm_result.harm,
        failed=harm_result.failed,
        failed_baseline=harm_result.failed_baseline,
    )
