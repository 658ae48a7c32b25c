"""Self-test of the scoring: the baseline scored against itself must agree up to noise.

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
    """Return sequences for a baseline of which nothing was compared yet.

    They hold small ids that every vocabulary has. They share their beginning, which would show a
    prefix cache that changes scores.
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
    """Score every sequence twice, one request at a time.

    Returns:
        The verdict, and the engine seconds that it took.
    """
    seconds = 0.0
    rounds: list[list[Scores]] = []
    for order in (1, -1):
        scored: list[Scores] = []
        for token_ids, start in sequences[::order]:
            result = await score(upstream, token_ids, start)
            seconds += result.seconds
            if result.usable is None:
                why = "not finite" if result.is_not_finite else result.problem
                why = result.contradiction or why
                return _failed(f"the baseline gave no score: {why}", at()), seconds
            scored.append(result.usable)
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
        for logprob, again in zip(own.logprobs, other.logprobs, strict=True):
            yield abs(logprob - again)


def _failed(detail: str, at: float) -> SelfTest:
    return SelfTest(is_ok=False, largest_gap=float("inf"), detail=detail, at=at)
