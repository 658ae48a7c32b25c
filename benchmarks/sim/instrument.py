"""Equal builds before the whole instrument: how often one is rolled back, by the shipped path.

    python -m benchmarks.sim.instrument [--reps 100] [--seed 7] [--workers 2]

`benchmarks.sim` tries the guard alone. Here requests are drawn as traffic has them (conversations,
long answers, noise in both builds, tolerances that are read, a candidate that begins to answer),
pairs are made of them, and `RunEvidence` and `decide` act on these. Both builds are equal in every
scenario, or keep the level that they began with, so a final verdict `fail` is false. Exits with 1
if the binomial bound of a scenario is over what it may be.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.sim.bounds import upper_bound
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict
from penumbra.deployments.rollouts.spec import Calibrate, Guardrail, MirrorRates, RolloutSpec
from penumbra.monitoring.observations import Arm, Pair, Run, RunReport, Signal
from penumbra.monitoring.signals.answer import CHAT_PATH
from penumbra.router.shadow.generation import shadow_request
from penumbra.router.shadow.turn_choice import TurnChoice

RUN = Run("demo", "int8", "int8-1")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ALPHA = 0.01
_HARM = Guardrail(signal=Signal.HARM, tolerance=0.02, action="rollback", share=1.0)
_DEADLINE_SECONDS = 60.0
_AFTER_PAIRS = 25_000
"""Pairs that come after a rollback, until its verdict is final."""


@dataclass(frozen=True)
class Scenario:
    """One kind of traffic before two equal builds."""

    name: str
    spec: RolloutSpec
    slices: tuple[str, ...]
    pairs: int
    draw: Callable[[random.Random, bool], Iterator[Pair]]
    """(random numbers, whether the A/A arm has every request) -> pairs without an end."""


@dataclass(frozen=True)
class Outcome:
    """The end of one run."""

    was_rolled_back: bool
    verdict: Verdict | None


def play(scenario: Scenario, seed: int) -> Outcome:
    """Let one run go on until its verdict is final, or its pairs are used up."""
    draw = random.Random(seed)
    evidence = RunEvidence(scenario.spec, RUN.id, scenario.slices)
    record = RolloutRecord(
        phase=Phase.SHADOW, since=BEGAN, run=RUN.id, slices=scenario.slices, cause="begins"
    )
    stream, count, left = scenario.draw(draw, False), 0, scenario.pairs
    while left > 0:
        batch = tuple(next(stream) for _ in range(20))
        evidence.fold("comparator", RunReport(RUN, pairs=batch))
        count, left = count + len(batch), left - len(batch)
        was = record.phase
        record, _ = decide(scenario.spec, record, evidence.findings(), BEGAN)
        if record.phase is Phase.ROLLED_BACK and record.arbitration is None:
            break
        if record.phase is not was and record.phase is Phase.ROLLED_BACK:
            stream, left = scenario.draw(draw, True), _AFTER_PAIRS
    return Outcome(record.phase is Phase.ROLLED_BACK, record.verdict)


# Traffic


def _pair(key: int, slice_name: str, **values: float | int | str | None) -> Pair:
    return Pair(request_id="r", slice=slice_name, cluster=key, at=1.0, **values)  # type: ignore[arg-type]


def _calibrated(
    shares: Sequence[float], means: Sequence[float], law: Callable[[random.Random, float], float]
) -> Callable[[random.Random, bool], Iterator[Pair]]:
    def draw(rng: random.Random, has_all_aa: bool) -> Iterator[Pair]:
        del has_all_aa
        names = [f"s{index}" for index in range(len(shares))]
        key = 0
        while True:
            key += 1
            (index,) = rng.choices(range(len(shares)), shares)
            yield _pair(key, names[index], displacement=law(rng, means[index]))

    return draw


def _beta(rng: random.Random, mean: float) -> float:
    return rng.betavariate(10 * mean, 10 * (1 - mean))


def _lognormal(rng: random.Random, mean: float) -> float:
    return min(1.0, mean * rng.lognormvariate(-1.125, 1.5))


def _spikes(rng: random.Random, mean: float) -> float:
    return float(rng.random() < mean)


def _conversations(turns: int, spread: float) -> Callable[[random.Random, bool], Iterator[Pair]]:
    """Chats of many turns, each with a leaning of its own; no session header."""

    def draw(rng: random.Random, has_all_aa: bool) -> Iterator[Pair]:
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
                if has_all_aa or rng.random() < 0.05:
                    yield _pair(int(key), "other", harm=_sign(rng, 0.05, 0.05), arm=Arm.BASELINE)

    return draw


def _sign(rng: random.Random, worse: float, better: float) -> int:
    drawn = rng.random()
    return 1 if drawn < worse else (-1 if drawn < worse + better else 0)


def _noise(level: float) -> Callable[[random.Random, bool], Iterator[Pair]]:
    """An instrument that calls the second of two equal answers worse."""

    def draw(rng: random.Random, has_all_aa: bool) -> Iterator[Pair]:
        key = 0
        while True:
            key += 1
            yield _pair(key, "other", harm=int(rng.random() < level))
            if has_all_aa or rng.random() < 0.05:
                yield _pair(key, "other", harm=int(rng.random() < level), arm=Arm.BASELINE)

    return draw


def _long_answers(rng: random.Random, has_all_aa: bool) -> Iterator[Pair]:
    """Answers of which 3.7 % take longer than a shadow answer may."""
    key = 0
    while True:
        key += 1
        late = [_seconds(rng) > _DEADLINE_SECONDS for _ in range(3)]
        yield _pair(key, "other", harm=_harm_of(late[0], late[1]))
        if has_all_aa or rng.random() < 0.05:
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


def _greedy(
    shadow: float, live: float, share: float
) -> Callable[[random.Random, bool], Iterator[Pair]]:
    """Greedy answers: the build that chose a token overrates it, and so the other underrates it."""

    def draw(rng: random.Random, has_all_aa: bool) -> Iterator[Pair]:
        del has_all_aa
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


def _streams(rng: random.Random, has_all_aa: bool) -> Iterator[Pair]:
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
        if has_all_aa or rng.random() < 0.05:
            yield _pair(key, "other", harm=other - client, arm=Arm.BASELINE)


def _is_streamed(is_stream: bool) -> bool:
    """Whether the other build is asked for a stream, after a client that was (not) answered so."""
    asked = shadow_request(CHAT_PATH, {"stream": is_stream}, "r", 10, 100, is_stream=is_stream)
    return bool(json.loads(asked.body)["stream"])


_SHADOW_STREAMS = {is_stream: _is_streamed(is_stream) for is_stream in (False, True)}


# Scenarios


def _harm_spec(tolerance: float) -> RolloutSpec:
    guardrail = _HARM.model_copy(update={"tolerance": tolerance})
    return RolloutSpec(model="demo", candidate="int8", alpha=ALPHA, guardrails=(guardrail,))


def _displacement_spec() -> RolloutSpec:
    guardrail = Guardrail(
        signal=Signal.DISPLACEMENT,
        tolerance=Calibrate(calibrate=1000),
        action="rollback",
        share=1.0,
    )
    return RolloutSpec(
        model="demo",
        candidate="int8",
        alpha=ALPHA,
        guardrails=(guardrail,),
        mirror=MirrorRates(aa=0.0),
    )


def _levels(count: int, spread: float) -> tuple[float, ...]:
    rng = random.Random(11)
    return tuple(min(0.2, 0.02 * math.exp(rng.gauss(0.0, spread))) for _ in range(count))


def scenarios() -> list[Scenario]:
    """All scenarios."""
    calibrated = [
        ("6 equal slices, beta", (1.0,) * 6, (0.02,) * 6, _beta, 25_000),
        ("6 equal slices, lognormal 1.5", (1.0,) * 6, (0.02,) * 6, _lognormal, 25_000),
        ("6 equal slices, all or nothing", (1.0,) * 6, (0.02,) * 6, _spikes, 25_000),
        ("20 slices, levels apart by .3", (1.0,) * 20, _levels(20, 0.3), _beta, 45_000),
        ("20 slices, levels apart by .5", (1.0,) * 20, _levels(20, 0.5), _beta, 45_000),
        ("8 Zipf slices", tuple(1 / k for k in range(1, 9)), _levels(8, 0.4), _beta, 30_000),
    ]
    found = [
        Scenario(
            f"calibrated: {name}",
            _displacement_spec(),
            tuple(f"s{index}" for index in range(len(shares))),
            pairs,
            _calibrated(shares, means, law),
        )
        for name, shares, means, law, pairs in calibrated
    ]
    found += [
        Scenario(
            f"conversations of {turns} turns, leaning {spread}",
            _harm_spec(0.02),
            ("other",),
            20_000,
            _conversations(turns, spread),
        )
        for turns, spread in ((20, 0.1), (20, 0.3), (50, 0.1))
    ]
    found += [
        Scenario(
            f"noise {level} in both, tolerance {tolerance}",
            _harm_spec(tolerance),
            ("other",),
            20_000,
            _noise(level),
        )
        for tolerance, level in ((0.03, 0.04), (0.03, 0.08), (0.005, 0.012))
    ]
    found += [
        Scenario(
            f"who answered, level {shadow} to {live}, {share:.0%} live",
            _displacement_spec(),
            ("other",),
            8_000,
            _greedy(shadow, live, share),
        )
        for shadow, live, share in ((0.086, 0.116, 1.0), (0.012, 0.058, 0.5))
    ]
    long = Scenario("answers over 60 s", _harm_spec(0.02), ("other",), 20_000, _long_answers)
    streams = Scenario("streamed and whole", _harm_spec(0.02), ("other",), 6_000, _streams)
    return [*found, long, streams]


def main() -> int:
    """Play every scenario; the exit status says whether the promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="play the scenarios whose name begins so")
    options = parser.parse_args()
    print("| equal builds | rolled back | verdict error | verdict fail | 95 % bound |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    is_kept = True
    with ProcessPoolExecutor(options.workers) as pool:
        for index, scenario in enumerate(scenarios()):
            if not scenario.name.startswith(options.only):
                continue
            began = time.perf_counter()
            seeds = [options.seed * 100_000 + index * 1000 + n for n in range(options.reps)]
            ends = list(pool.map(_play_numbered, [index] * options.reps, seeds, chunksize=4))
            away = sum(end.was_rolled_back for end in ends)
            errors = sum(end.verdict is Verdict.ERROR for end in ends)
            fails = sum(end.verdict is Verdict.FAIL for end in ends)
            bound = upper_bound(fails, options.reps)
            # More than chance gives to a rate of alpha.
            is_kept = is_kept and fails <= ALPHA * options.reps + 3 * (ALPHA * options.reps) ** 0.5
            print(
                f"| {scenario.name} | {away} | {errors} | {fails} of {options.reps} |"
                f" {100 * bound:.1f} % |",
                flush=True,
            )
            took = time.perf_counter() - began
            print(f"{scenario.name}: {took:.0f} s", file=sys.stderr, flush=True)
    return 0 if is_kept else 1


def _play_numbered(index: int, seed: int) -> Outcome:
    return play(scenarios()[index], seed)


if __name__ == "__main__":
    sys.exit(main())
