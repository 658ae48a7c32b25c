"""Whether the instrument works: the baseline scored against itself must be within noise.

Each sequence is scored twice, the second time in another order: an engine whose log-probabilities
depend on what it was asked before (a prefix cache that scored requests read) fails the test.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence

from penumbra.monitoring.observations import SelfTest
from penumbra.monitoring.signals.displacement import compare
from penumbra.router.shadow.score_result import ScoreResult
from penumbra.router.shadow.settings import SelfTestSettings
from penumbra.router.upstream.port import Scores, Upstream

Sequences = Sequence[tuple[Sequence[int], int]]
"""Token ids, and the index of the first one to score."""

_LENGTHS = (24, 48, 96)
_SMALLEST_ID = 16
_IDS = 200
_STRIDE = 7


def built_in_sequences() -> Sequences:
    """For a baseline that nothing was mirrored of yet.

    Small ids that every vocabulary has; the sequences share their beginning, which is what a
    prefix cache would mistake.
    """
    ids = [_SMALLEST_ID + (_STRIDE * number * number + number) % _IDS for number in range(96)]
    return [(ids[:length], length // 4) for length in _LENGTHS]


async def run_self_test(
    upstream: Upstream,
    sequences: Sequences,
    score: Callable[[Upstream, Sequence[int], int], Awaitable[ScoreResult]],
    settings: SelfTestSettings,
    at: Callable[[], float],
) -> tuple[SelfTest, float]:
    """Score every sequence twice, one request at a time; the verdict and the engine seconds."""
    seconds = 0.0
    rounds: list[list[Scores]] = []
    for order in (1, -1):
        scored: list[Scores] = []
        for token_ids, start in sequences[::order]:
            one = await score(upstream, token_ids, start)
            seconds += one.seconds
            if one.usable is None:
                why = "not finite" if one.is_not_finite else one.problem
                return _failed(f"the baseline gave no score: {why}", at()), seconds
            scored.append(one.usable)
        rounds.append(scored[::order])
    return _judge(rounds[0], rounds[1], settings, at()), seconds


def _judge(
    first: Sequence[Scores], second: Sequence[Scores], settings: SelfTestSettings, at: float
) -> SelfTest:
    gap = max(_gaps(first, second), default=0.0)
    found = [
        compare(own.logprobs, other.logprobs, own.top_ids, other.top_ids).displacement or 0.0
        for own, other in zip(first, second, strict=True)
    ]
    mean = sum(found) / len(found)
    is_ok = gap <= settings.largest_gap and mean <= settings.displacement
    detail = f"{len(first)} sequences, mean displacement {mean:.6f}"
    if not is_ok:
        detail += f"; wanted at most {settings.largest_gap} nats and {settings.displacement}"
    return SelfTest(is_ok, gap, detail, at)


def _gaps(first: Sequence[Scores], second: Sequence[Scores]) -> Iterator[float]:
    for own, other in zip(first, second, strict=True):
        for one, again in zip(own.logprobs, other.logprobs, strict=True):
            yield abs(one - again)


def _failed(detail: str, at: float) -> SelfTest:
    return SelfTest(is_ok=False, largest_gap=float("inf"), detail=detail, at=at)
