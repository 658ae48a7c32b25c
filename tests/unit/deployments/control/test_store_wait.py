"""A start waits for a database that is away, and for nothing else."""

import logging
from typing import NoReturn

import pytest

from penumbra.deployments.control.store_wait import open_when_there, wait_for_store
from penumbra.deployments.errors import StoreAway, StoreUnavailable


async def test_a_database_that_is_away_is_waited_for_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = [StoreAway("refused"), StoreAway("refused")]

    async def work() -> int:
        if failures:
            raise failures.pop()
        return 7

    with caplog.at_level(logging.INFO):
        assert await wait_for_store(work, retry_seconds=0.0) == 7
    assert caplog.messages == ["store_awaited"]


def _refuse() -> NoReturn:
    raise StoreAway("refused")


def _lack() -> NoReturn:
    raise StoreUnavailable("no driver")


async def test_what_waiting_does_not_help_ends_the_start() -> None:
    with pytest.raises(StoreUnavailable, match="no driver"):
        await open_when_there("postgresql+psycopg://", _lack)
    with pytest.raises(StoreAway):
        await open_when_there("sqlite:////nosuch/file", _refuse)
