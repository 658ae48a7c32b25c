"""Test of a candidate's scorer: its prefill against its decoding, on answers to fixed prompts.

Both builds answer the same prompts greedily and score what they said. The baseline's figures are
the floor: what its engine's rounding does. A candidate whose scores are far from its own decoding
beyond that has a fault in one of the two, and the baseline's prefill tells in which.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from penumbra.monitoring.observations import ScorerTest
from penumbra.monitoring.signals.answer import COMPLETIONS_PATH
from penumbra.monitoring.signals.decode_gap import gap
from penumbra.monitoring.signals.faithfulness import ScorerFault, arbitrate, greedy_misses
from penumbra.router.shadow.decode import Decoded, decoded_of
from penumbra.router.shadow.generation import Generator
from penumbra.router.shadow.score_result import ScoreResult
from penumbra.router.upstream.calls import json_request
from penumbra.router.upstream.port import Scores, Upstream

LARGEST_GAP = 0.02
"""Gap beyond the floor from which a build contradicts itself: about 0.02 nats a token."""
MOST_MISSES = 0.05
"""Share of greedy tokens, beyond the floor, that need not be the likeliest by prefill."""
ANSWER_TOKENS = 32
"""Tokens of each answer."""

Score = Callable[[Upstream, Sequence[int], int], Awaitable[ScoreResult]]


class _Untestable(Exception):
    """An engine gave no answer, no log-probabilities or no score."""


@dataclass(slots=True)
class _Figures:
    """One build's words on all prompts, and its scores of them."""

    said: list[Decoded] = field(default_factory=list)
    decoded: list[float] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    contradiction: str | None = None

    @property
    def prefilled(self) -> list[float]:
        return [value for scores in self.scores for value in scores.logprobs]

    @property
    def gap(self) -> float:
        return gap(self.decoded, self.prefilled) or 0.0

    @property
    def noise(self) -> float:
        """Largest difference of a token's log-probabilities, nats."""
        pairs = zip(self.decoded, self.prefilled, strict=True)
        return max((abs(one - other) for one, other in pairs), default=0.0)

    def misses(self, floor: float) -> float:
        """Share of the tokens that are not the likeliest by the build's own prefill."""
        missed = sum(
            greedy_misses(
                scores.logprobs,
                said.token_ids[said.start :],
                scores.top_ids,
                scores.top_logprobs,
                floor,
            )
            for said, scores in zip(self.said, self.scores, strict=True)
        )
        return missed / len(self.decoded)


class ScorerTester:
    """Tests the scorers of candidates.

    Args:
        generator: Gets answers.
        score: Gets scores.
        at: Wall clock.
    """

    def __init__(self, generator: Generator, score: Score, at: Callable[[], float]) -> None:
        self._generator = generator
        self._score = score
        self._at = at
        self.seconds = 0.0
        """Engine time spent so far."""

    async def test(
        self, model: str, candidate: Upstream, baseline: Upstream, prompts: Sequence[Sequence[int]]
    ) -> ScorerTest | None:
        """Test a candidate's scorer; None if an engine does not tell enough for it.

        Args:
            model: The model's name, as the engines know it.
            candidate: The build to be tested.
            baseline: The build that tells the floor, and arbitrates.
            prompts: Token ids.
        """
        try:
            own = await self._figures(model, candidate, prompts)
            if own.contradiction is not None:
                return ScorerTest(self._at(), ScorerFault.SCORER.value, own.contradiction)
            floor = await self._figures(model, baseline, prompts)
            return await self._judge(own, floor, baseline)
        except _Untestable:
            return None

    async def _judge(self, own: _Figures, floor: _Figures, baseline: Upstream) -> ScorerTest:
        misses, usual = own.misses(floor.noise), floor.misses(floor.noise)
        detail = f"gap {own.gap:.4g} with a floor of {floor.gap:.4g}, {misses:.1%} greedy misses"
        test = ScorerTest(self._at(), None, detail, own.gap, floor.gap)
        has_gap = own.gap - floor.gap > LARGEST_GAP
        if not has_gap and misses - usual <= MOST_MISSES:
            return test
        told = [self._usable(await self._prefill(baseline, said)) for said in own.said]
        if not has_gap:
            return self._judge_misses(test, own, told, floor.noise)
        known = [value for scores in told for value in scores.logprobs]
        decode_apart = gap(own.decoded, known) or 0.0
        prefill_apart = gap(own.prefilled, known) or 0.0
        fault = arbitrate(decode_apart, prefill_apart)
        detail += (
            f"; from the baseline's prefill its decoding is {decode_apart:.4g} away, "
            f"its prefill {prefill_apart:.4g}"
        )
        return ScorerTest(self._at(), fault.value, detail, own.gap, floor.gap)

    def _judge_misses(
        self, test: ScorerTest, own: _Figures, told: list[Scores], noise: float
    ) -> ScorerTest:
        """Say whether the tokens are no greedy choices, or the scorer names other ones."""
        missed = own.misses(noise)
        by_baseline = replace(own, scores=told).misses(noise)
        fault = ScorerFault.DECODE if 2 * by_baseline > missed else ScorerFault.SCORER
        detail = f"{test.detail}, {by_baseline:.1%} by the baseline's prefill"
        return msgspec.structs.replace(test, fault=fault.value, detail=detail)

    async def _figures(
        self, model: str, upstream: Upstream, prompts: Sequence[Sequence[int]]
    ) -> _Figures:
        figures = _Figures()
        for prompt in prompts:
            said = await self._say(model, upstream, prompt)
            result = await self._prefill(upstream, said)
            figures.contradiction = figures.contradiction or result.contradiction
            if figures.contradiction is not None:
                return figures
            figures.said.append(said)
            figures.decoded += said.logprobs
            figures.scores.append(self._usable(result))
        return figures

    async def _say(self, model: str, upstream: Upstream, prompt: Sequence[int]) -> Decoded:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "repetition_penalty": 1.0,
            "logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
        }
        made = await self._generator.answer(upstream, json_request(COMPLETIONS_PATH, body))
        self.seconds += made.seconds
        said = decoded_of(made.answer, None)
        if said is None:
            raise _Untestable
        return said

    async def _prefill(self, upstream: Upstream, said: Decoded) -> ScoreResult:
        result = await self._score(upstream, said.token_ids, said.start)
        self.seconds += result.seconds
        return result

    def _usable(self, result: ScoreResult) -> Scores:
        if result.usable is None:
            raise _Untestable
        return result.usable
