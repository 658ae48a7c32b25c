"""Scoring of given tokens by one build, within a deadline."""

import asyncio
import math
from collections.abc import Callable, Sequence

from penumbra.monitoring.signals.faithfulness import find_contradiction
from penumbra.router.shadow.score_result import TIMEOUT, ScoreResult
from penumbra.router.upstream.calls import NotFinite, UpstreamError
from penumbra.router.upstream.port import Upstream


class Scorer:
    """Gets scores through the `Upstream` port.

    Args:
        deadline_seconds: Deadline of one score.
        now: Monotonic clock.
    """

    def __init__(self, deadline_seconds: float, now: Callable[[], float]) -> None:
        self._deadline_seconds = deadline_seconds
        self._now = now

    async def score(self, upstream: Upstream, token_ids: Sequence[int], start: int) -> ScoreResult:
        """Score once and never raise. A second try would hide a build that fails now and then."""
        began = self._now()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                scores = await upstream.score(token_ids, start)
        except TimeoutError:
            return ScoreResult(self._now() - began, problem=TIMEOUT)
        except NotFinite as error:
            seconds = self._now() - began
            return ScoreResult(seconds, problem=error.outcome.value, is_not_finite=True)
        except UpstreamError as error:
            return ScoreResult(self._now() - began, problem=error.outcome.value)
        is_finite = all(map(math.isfinite, scores.logprobs))
        wrong = find_contradiction(
            scores.logprobs, token_ids[start:], scores.top_ids, scores.top_logprobs
        )
        seconds = self._now() - began
        return ScoreResult(seconds, scores, is_not_finite=not is_finite, contradiction=wrong)
