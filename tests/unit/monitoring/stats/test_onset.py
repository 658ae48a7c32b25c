import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.stats.betting import EDGES, BetSums, Table
from penumbra.monitoring.stats.block_history import FINEST, PER_LEVEL, BlockHistory, joined
from penumbra.monitoring.stats.guard import Guard, GuardSpec
from penumbra.monitoring.stats.onset import since_onset

SPEC = GuardSpec({"a": 0.02, "b": 0.02}, 0.02, low=-1.0, high=1.0, alpha=0.005)
TABLE = Table(0.02, -1.0, 1.0)


def harm(rng: random.Random, mean: float) -> float:
    drawn = rng.random()
    return 1.0 if drawn < 0.02 + mean else (-1.0 if drawn < 0.04 + mean else 0.0)


def history_of(batches: list[list[float]]) -> BlockHistory:
    history = BlockHistory()
    for batch in batches:
        sums = BetSums()
        for value in batch:
            sums.add(TABLE.bet(value))
        history.add(sums)
    return history


BATCHES = st.lists(
    st.lists(st.sampled_from([-1.0, 0.0, 0.0, 1.0]), min_size=1, max_size=90), max_size=60
)


@given(BATCHES)
@settings(deadline=None, max_examples=50)
def test_blocks_hold_every_observation_in_order_and_are_few(batches: list[list[float]]) -> None:
    blocks = history_of(batches).blocks
    values = [value for batch in batches for value in batch]
    whole = joined(blocks)
    assert (whole.count, whole.total) == (len(values), sum(values))
    begins = 0
    for block in blocks:
        assert block.total == sum(values[begins : begins + block.count])
        begins += block.count
    levels = [block.level for block in blocks]
    assert levels == sorted(levels, reverse=True)
    assert all(levels.count(level) <= PER_LEVEL for level in levels if 2**level >= FINEST)


def test_blocks_stay_few_and_the_age_of_a_beginning_is_known_within_a_third() -> None:
    history = history_of([[0.0]] * 20_000)
    blocks = history.blocks
    assert len(blocks) <= PER_LEVEL * 15
    age = sum(block.count for block in blocks)
    for block in blocks:
        assert block.count <= max(FINEST, age / 3)
        age -= block.count


@given(BATCHES)
@settings(deadline=None, max_examples=30)
def test_history_that_is_loaded_goes_on_as_it_was(batches: list[list[float]]) -> None:
    history = history_of(batches)
    again = BlockHistory()
    again.load(history.dump())
    for kept in (history, again):
        kept.add(TABLE.bet(1.0))
        kept.add(TABLE.bet(0.0))
    assert again.dump() == history.dump()


def test_late_change_shows_its_own_effect_and_not_the_mean_of_the_whole_run() -> None:
    rng, guard = random.Random(3), Guard(SPEC)
    for _ in range(30_000):
        guard.observe("a", harm(rng, 0.004))
    for _ in range(3000):
        guard.observe("a", harm(rng, 0.06))
    view = guard.slice("a")
    assert view.mean is not None
    assert view.mean < 0.012
    assert view.upper < 0.02
    effect = view.effect
    assert effect is not None
    assert effect.count == pytest.approx(3000, rel=0.3)
    assert effect.lower < 0.06 < effect.upper
    assert effect.lower > 0.02


def test_stream_within_tolerance_has_no_onset() -> None:
    guard = Guard(SPEC)
    assert guard.slice("a").effect is None
    for _ in range(500):
        guard.observe("a", 0.0)
    assert guard.slice("a").effect is None


def test_onset_of_a_change_from_the_start_is_the_start() -> None:
    guard = Guard(SPEC)
    for _ in range(20):
        guard.observe("a", 1.0)
    effect = guard.slice("a").effect
    assert effect is not None
    assert (effect.count, effect.mean, effect.upper) == (20, 1.0, 1.0)


def test_effect_survives_a_dump() -> None:
    rng, guard = random.Random(5), Guard(SPEC)
    for _ in range(700):
        guard.observe("b", harm(rng, 0.1))
    again = Guard.restore(SPEC, guard.dump())
    assert again.slice("b").effect == guard.slice("b").effect is not None


def test_older_dump_without_a_history_is_restored() -> None:
    guard = Guard(SPEC)
    guard.observe("a", 1.0)
    dumped = guard.dump()
    for stream in (dumped["aggregate"], *dumped["slices"].values()):
        del stream["history"]
    assert Guard.restore(SPEC, dumped).slice("a").effect is None


def test_displacement_is_counted_by_its_bins() -> None:
    values = [EDGES[30]] * 400
    table = Table(0.01, 0.0, 1.0)
    history = BlockHistory()
    for value in values:
        history.add(table.bet(value))
    effect = since_onset(history.blocks, 0.01, 0.0, 1.0, 0.05, 1000)
    assert effect is not None
    assert effect.mean == pytest.approx(EDGES[30])
    assert effect.lower < EDGES[30] < effect.upper
