"""Turns: one at a time, each with a deadline that ends with it."""

import asyncio

import pytest

from penumbra.deployments.control.turns import CHANGE_SECONDS, Turns, seconds_left
from penumbra.deployments.errors import StoreUnavailable


async def test_a_turn_that_does_not_come_in_time_is_refused_and_the_next_one_comes() -> None:
    turns = Turns()
    async with turns.take(60.0):
        with pytest.raises(StoreUnavailable, match="busy with other changes"):
            async with turns.take(0.01):
                pytest.fail("two turns at once")
    async with turns.take(0.01):
        pass


async def test_what_is_asked_within_a_turn_has_the_rest_of_its_time() -> None:
    turns = Turns()
    assert seconds_left() == CHANGE_SECONDS
    async with turns.take(60.0):
        assert CHANGE_SECONDS < seconds_left() <= 60.0
    assert seconds_left() == CHANGE_SECONDS


async def test_work_that_was_begun_in_a_turn_and_outlives_it_has_time_of_its_own() -> None:
    turns, is_over = Turns(), asyncio.Event()

    async def outlive() -> float:
        await is_over.wait()
        return seconds_left()

    async with turns.take(0.001):
        work = asyncio.create_task(outlive())
        await asyncio.sleep(0.01)
    is_over.set()
    assert await work == CHANGE_SECONDS
