"""Pairs: makes the reported `Pair` from the results of both arms for one mirrored request. Pure.

Missing data has one rule for both arms: an answer that one arm alone failed to give is harm, of the
candidate (1) or of the baseline (-1). One that both failed to give in time says nothing of either:
long answers take long in every build. So a shadow answer has no less time than the client's had,
and an answer that came too late for it counts as missing in the client's arm as well.

A score that the candidate failed to give is a failure of the candidate (`Pair.missing`). Without
the baseline's score there is nothing to compare with.
"""

from dataclasses import dataclass

import msgspec

from penumbra.monitoring.observations import Arm, Pair
from penumbra.monitoring.signals.answer import Answer
from penumbra.monitoring.signals.decode_gap import decode_gap
from penumbra.monitoring.signals.displacement import compare
from penumbra.monitoring.signals.harm import Expectations, judge
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.decode import DecodeReading
from penumbra.router.shadow.score_result import TIMEOUT, ScoreResult


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """The answer of one arm, or why there is none."""

    answer: Answer | None = None
    problem: str | None = None
    """Why the arm gave no answer although it was asked."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The results of one arm: its score of the tokens, and its answer if it was asked for one."""

    score: ScoreResult | None
    """None if the tokens are not known, so that only the answers are compared."""
    answer: ArmAnswer | None = None
    """None if the arm was not asked to answer."""
    decoding: DecodeReading | None = None
    """Its decoding beside prefills, on tokens that it made; None if untold."""


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
    mirrored: MirrorFrame, expected: Expectations, tokens: int, arms: ArmPair, cluster: int
) -> Pair | None:
    """Make the pair, without its cost and time; None if the baseline was asked and gave no score.

    Args:
        mirrored: The request.
        expected: Properties that it wants of an answer.
        tokens: Response tokens that were scored.
        arms: The results of both arms.
        cluster: Key of the requests of which one is bet on.
    """
    if arms.baseline.score is not None and arms.baseline.score.usable is None:
        return None
    pair = Pair(
        request_id=mirrored.request_id,
        slice=mirrored.slice,
        cluster=cluster,
        arm=arms.arm,
        answered_by=mirrored.variant,
        session=mirrored.session,
        tokens=tokens,
        missing=_missing(arms.candidate),
        not_finite=arms.candidate.score is not None and arms.candidate.score.is_not_finite,
    )
    return _with_harm(_with_decoding(_with_scores(pair, arms), arms), expected, arms)


def _missing(candidate: ArmResult) -> str | None:
    if candidate.score is not None and candidate.score.problem is not None:
        return f"score: {candidate.score.problem}"
    answer = candidate.answer
    # An answer may be long: lateness is judged beside the other arm's, as harm.
    if answer is not None and answer.problem not in (None, TIMEOUT):
        return f"answer: {answer.problem}"
    return None


def _with_scores(pair: Pair, arms: ArmPair) -> Pair:
    if arms.baseline.score is None or arms.candidate.score is None:
        return pair
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


def _with_decoding(pair: Pair, arms: ArmPair) -> Pair:
    baseline, candidate = arms.baseline.decoding, arms.candidate.decoding
    if baseline is None or candidate is None:
        return pair
    return msgspec.structs.replace(
        pair,
        decode_gap=decode_gap(candidate.gap, baseline.gap),
        own_gap=candidate.gap,
        baseline_gap=baseline.gap,
        decode_apart=candidate.decode_apart,
        prefill_apart=candidate.prefill_apart,
    )


def _with_harm(pair: Pair, expected: Expectations, arms: ArmPair) -> Pair:
    baseline, candidate = arms.baseline.answer, arms.candidate.answer
    if baseline is None or candidate is None:  # not asked
        return pair
    if baseline.problem == TIMEOUT and candidate.problem == TIMEOUT:
        return pair
    harm_result = judge(expected, candidate.answer, baseline.answer)
    return msgspec.structs.replace(
        pair,
        harm=harm_result.harm,
        failed=harm_result.failed,
        failed_baseline=harm_result.failed_baseline,
    )


def without_scores(pair: Pair) -> Pair:
    """Take out of a candidate's pair what rests on the scores of an unfit scorer."""
    if pair.arm is Arm.BASELINE:
        return pair
    return msgspec.structs.replace(
        pair, displacement=None, kl=None, agreement=None, divergence=None, decode_gap=None
    )
