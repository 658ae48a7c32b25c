"""Reads the decodings of one comparison: asks for the prefills of the tokens that each arm made.

The tokens of the answer that the client got are scored anyway. Those of a shadow answer are scored
once more by the build that made them, unless they are the same, and by the baseline only where the
two differ.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from penumbra.router.shadow.decode import (
    ARBITRATED,
    Decoded,
    DecodeReading,
    read_decoding,
)
from penumbra.router.shadow.score_result import ScoreResult
from penumbra.router.shadow.scoring import Scorer
from penumbra.router.upstream.port import Scores, Upstream


@dataclass(slots=True)
class DecodeReadings:
    """Readings of the arms' decodings, and the scores that were asked for."""

    arms: dict[str, DecodeReading] = field(default_factory=dict)
    """Arm -> its reading; none of an arm that told nothing, or gave no scores."""
    scores: list[tuple[str, ScoreResult]] = field(default_factory=list)
    """Arm that was asked, and its scores."""

    @property
    def seconds(self) -> float:
        """Engine time of the scores."""
        return sum(result.seconds for _, result in self.scores)


class DecodeReader:
    """Reads the decodings of the arms of one comparison.

    Args:
        scorer: Gets scores.
        upstreams: Arm -> the build that it asks.
        baseline: Name of the baseline's arm.
        known: The tokens that were scored for the comparison.
        scores: Arm -> its usable scores of them.
    """

    def __init__(
        self,
        scorer: Scorer,
        upstreams: Mapping[str, Upstream],
        baseline: str,
        known: tuple[list[int], int],
        scores: Mapping[str, Scores],
    ) -> None:
        self._scorer = scorer
        self._upstreams = upstreams
        self._baseline = baseline
        self._known = known
        self._scores = scores
        self._readings = DecodeReadings()

    async def read(self, decoded: Mapping[str, Decoded]) -> DecodeReadings:
        """Read the decodings of some arms, all at once. Never raises, except when cancelled."""
        async with asyncio.TaskGroup() as group:
            for arm, told in decoded.items():
                group.create_task(self._read(arm, told))
        return self._readings

    async def _read(self, arm: str, decoded: Decoded) -> None:
        own = await self._prefill(arm, decoded)
        if own is None:
            return
        reading = read_decoding(decoded, own.logprobs, None)
        if reading is None:
            return
        self._readings.arms[arm] = reading
        if reading.gap < ARBITRATED or self._upstreams[arm] is self._upstreams[self._baseline]:
            return
        baseline = await self._prefill(self._baseline, decoded)
        if baseline is not None:
            told = read_decoding(decoded, own.logprobs, baseline.logprobs)
            self._readings.arms[arm] = told or reading

    async def _prefill(self, arm: str, decoded: Decoded) -> Scores | None:
        if (list(decoded.token_ids), decoded.start) == self._known:
            return self._scores.get(arm)
        result = await self._scorer.score(self._upstreams[arm], decoded.token_ids, decoded.start)
        self._readings.scores.append((arm, result))
        return result.usable
