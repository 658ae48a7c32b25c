"""Traffic before two equal builds, as what their run observes of it.

Requests are drawn as traffic has them: conversations, long answers, noise in both builds,
tolerances that are read, a candidate that begins to answer. Every function here makes a `Draw`.
"""

import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from penumbra.monitoring.observations import Arm, Counts, Pair, Run, Signal, Trip
from penumbra.monitoring.signals.answer import CHAT_PATH
from penumbra.monitoring.stats.failure import FailureProcess
from penumbra.router.dispatch.admissions import Admission, AdmissionLedger, Verdict
from penumbra.router.shadow.generation import shadow_request
from penumbra.router.shadow.turn_choice import TurnChoice

Observation = Pair | Counts | Trip
Share = Callable[[str], float]
"""Slice -> share of its requests on which the baseline is compared with itself."""
Draw = Callable[[random.Random, Share], Iterator[Observation]]
"""Makes observations without an end."""
Law = Callable[[random.Random, float], float]
"""(random numbers, mean) -> a displacement."""

RUN = Run("demo", "int8", "int8-1")
_DEADLINE_SECONDS = 60.0


class FailureSpec(NamedTuple):
    """Settings of the failure processes of one run's gateways."""

    gateways: int
    tolerance: float
    alpha: float
    requests: int


def _pair(key: int, slice_name: str, **values: float | int | str | None) -> Pair:
    return Pair(request_id="r", slice=slice_name, cluster=key, at=1.0, **values)  # type: ignore[arg-type]


def calibrated(shares: Sequence[float], means: Sequence[float], law: Law) -> Draw:
    """Draw slices, each with a displacement of its own.

    Args:
        shares: Traffic of each slice.
        means: Displacement of each slice.
        law: Draws one around its mean.
    """

    def draw(rng: random.Random, aa: Share) -> Iterator[Observation]:
        del aa
        names = [f"s{index}" for index in range(len(shares))]
        key = 0
        while True:
            key += 1
            (index,) = rng.choices(range(len(shares)), shares)
            yield _pair(key, names[index], displacement=law(rng, means[index]))

    return draw


def beta(rng: random.Random, mean: float) -> float:
    """Draw from a smooth law."""
    return rng.betavariate(10 * mean, 10 * (1 - mean))


def lognormal(rng: random.Random, mean: float) -> float:
    """Draw from a law with a heavy tail."""
    return min(1.0, mean * rng.lognormvariate(-1.125, 1.5))


def spikes(rng: random.Random, mean: float) -> float:
    """Draw all or nothing."""
    return float(rng.random() < mean)


def conversations(turns: int, spread: float) -> Draw:
    """Chats of many turns, each with a leaning of its own; no session header."""

    def draw(rng: random.Random, aa: Share) -> Iterator[Observation]:
        choice, chats, newest = TurnChoice(), [], 0
        while True:
            while len(chats) < 50:
                newest += 1
                chats.append([newest, rng.gauss(0.0, spread), turns])
            chat = rng.choice(chats)
            key, leaning, _ = chat
            chat[2] -= 1
            if chat[2] == 0:
                chats.remove(chat)
            if choice.chooses(int(key), rng.random()):
                worse = min(1.0, max(0.0, 0.1 + leaning)) * 0.5
                better = min(1.0, max(0.0, 0.1 - leaning)) * 0.5
                yield _pair(int(key), "other", harm=_sign(rng, worse, better))
                if rng.random() < aa("other"):
                    yield _pair(int(key), "other", harm=_sign(rng, 0.05, 0.05), arm=Arm.BASELINE)

    return draw


def _sign(rng: random.Random, worse: float, better: float) -> int:
    drawn = rng.random()
    return 1 if drawn < worse else (-1 if drawn < worse + better else 0)


def noise(level: float) -> Draw:
    """An instrument that calls the second of two equal answers worse."""

    def draw(rng: random.Random, aa: Share) -> Iterator[Observation]:
        key = 0
        while True:
            key += 1
            yield _pair(key, "other", harm=int(rng.random() < level))
            if rng.random() < aa("other"):
                yield _pair(key, "other", harm=int(rng.random() < level), arm=Arm.BASELINE)

    return draw


def long_answers(rng: random.Random, aa: Share) -> Iterator[Observation]:
    """Answers of which 3.7 % take longer than a shadow answer may."""
    key = 0
    while True:
        key += 1
        late = [_seconds(rng) > _DEADLINE_SECONDS for _ in range(3)]
        yield _pair(key, "other", harm=_harm_of(late[0], late[1]))
        if rng.random() < aa("other"):
            yield _pair(key, "other", harm=_harm_of(late[0], late[2]), arm=Arm.BASELINE)


def _seconds(rng: random.Random) -> float:
    return 300 * rng.lognormvariate(0.0, 1.0) / 30


def _harm_of(is_baseline_late: bool, is_candidate_late: bool) -> int | None:
    """The harm of one pair: none where both are late (`penumbra.router.shadow.pairs`)."""
    if is_baseline_late and is_candidate_late:
        return None
    return int(is_candidate_late) - int(is_baseline_late)


_SHADOW_PAIRS = 3000
"""Pairs in which the baseline answers, before the candidate does."""


def _who_answers(rng: random.Random, key: int, share: float) -> str:
    return RUN.candidate if key > _SHADOW_PAIRS and rng.random() < share else "full"


def greedy(shadow: float, live: float, share: float) -> Draw:
    """Greedy answers: the build that chose a token overrates it, and so the other underrates it."""

    def draw(rng: random.Random, aa: Share) -> Iterator[Observation]:
        del aa
        key = 0
        while True:
            key += 1
            by = _who_answers(rng, key, share)
            level = live if by == RUN.candidate else shadow
            # The mean over the tokens of an answer, of which there are many.
            found = rng.betavariate(100 * level, 100 * (1 - level))
            yield _pair(key, "other", displacement=found, answered_by=by)

    return draw


_MOST_PARSED_PERCENT = 90
"""Answers that an engine's parser reads whole and in a stream alike; others only whole."""


def streams(rng: random.Random, aa: Share) -> Iterator[Observation]:
    """Answers of which a tenth fails a check if it is streamed; two of three clients want that."""
    key = 0
    while True:
        key += 1
        by = _who_answers(rng, key, 1.0)
        is_stream = rng.random() < 2 / 3
        # The tool call, or the reasoning, is the prompt's: both builds make it.
        is_hard = rng.randrange(100) >= _MOST_PARSED_PERCENT
        client = int(is_hard and is_stream)
        other = int(is_hard and _SHADOW_STREAMS[is_stream])
        harm = client - other if by == RUN.candidate else other - client
        yield _pair(key, "other", harm=harm, answered_by=by)
        if rng.random() < aa("other"):
            yield _pair(key, "other", harm=other - client, arm=Arm.BASELINE)


def _is_streamed(is_stream: bool) -> bool:
    """Whether the other build is asked for a stream, after a client that was (not) answered so."""
    asked = shadow_request(CHAT_PATH, {"stream": is_stream}, "r", 10, 100, is_stream=is_stream)
    return bool(json.loads(asked.body)["stream"])


_SHADOW_STREAMS = {is_stream: _is_streamed(is_stream) for is_stream in (False, True)}


def at_tolerance(slices: int, tolerance: float, spread: float) -> Draw:
    """Harm whose mean is the tolerance in every slice: as bad as a good build may be.

    Args:
        slices: Number of slices.
        tolerance: Mean of the harm.
        spread: Share of the pairs that have a harm, for better or for worse.
    """

    def draw(rng: random.Random, aa: Share) -> Iterator[Observation]:
        key, half = 0, spread / 2
        while True:
            key += 1
            name = f"s{rng.randrange(slices)}"
            found = _sign(rng, half + tolerance / 2, half - tolerance / 2)
            yield _pair(key, name, harm=found)
            if rng.random() < aa(name):
                yield _pair(key, name, harm=_sign(rng, half, half), arm=Arm.BASELINE)

    return draw


def attempts(spec: FailureSpec, a_second: float, seconds: float) -> Draw:
    """Attempts of which half as many fail as may; failures come at once, good answers late.

    Args:
        spec: Settings of each gateway's failure process.
        a_second: Attempts a second, over all gateways.
        seconds: Time that a good answer takes.
    """

    def draw(rng: random.Random, aa: Share) -> Iterator[Observation]:
        del aa
        clock = [0.0]
        told: list[Observation] = []

        def release(slice_name: str, is_failure: bool) -> None:
            told.append(Counts(slice_name, Signal.FAILURE, int(not is_failure), int(is_failure)))

        ledgers = [
            AdmissionLedger(FailureProcess(*spec[1:]), release, lambda: clock[0])
            for _ in range(spec.gateways)
        ]
        running: deque[tuple[float, AdmissionLedger, Admission]] = deque()
        while True:
            clock[0] += rng.expovariate(a_second)
            while running and running[0][0] <= clock[0]:
                _, ledger, admission = running.popleft()
                ledger.settle(admission, Verdict.GOOD)
            ledger = rng.choice(ledgers)
            admission = ledger.admit("other")
            if rng.random() < spec.tolerance / 2:
                ledger.note_failure(admission)
                if ledger.settle(admission, Verdict.FAILED):
                    told.append(Trip(Signal.FAILURE, "trips in one gateway", 1.0))
            else:
                running.append((clock[0] + seconds, ledger, admission))
            yield from told
            told.clear()

    return draw
