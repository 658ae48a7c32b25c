"""A process that does not answer is found; a machine that stood still is no evidence."""

import asyncio
import time
from collections.abc import Iterable

import pytest

from penumbra.serve.supervisor.heartbeat import Heartbeat

QUICK = Heartbeat(period_seconds=0.0, answer_seconds=0.05, most_misses=3, lag_seconds=0.05)


class Answers:
    """Answers as told, one after another, and not at all after that."""

    def __init__(self, told: Iterable[str]) -> None:
        self._told = iter(told)
        self.asked = 0

    async def ask(self) -> bool:
        self.asked += 1
        match next(self._told, "nothing"):
            case "answer":
                return True
            case "refusal":
                return False
            case "standstill":
                time.sleep(0.2)  # noqa: ASYNC251 -- the whole machine
        await asyncio.Event().wait()
        return True


async def asked_until_silence(*told: str) -> int:
    answers = Answers(told)
    await QUICK.await_silence(answers.ask)
    return answers.asked


async def test_misses_in_a_row_are_silence() -> None:
    assert await asked_until_silence() == 3
    assert await asked_until_silence("refusal", "nothing", "refusal") == 3


async def test_an_answer_in_between_begins_the_count_anew() -> None:
    assert await asked_until_silence("nothing", "nothing", "answer") == 6


async def test_a_machine_that_stood_still_is_no_evidence() -> None:
    assert await asked_until_silence("nothing", "nothing", "standstill") == 6


async def test_the_length_of_the_silence_is_told() -> None:
    assert await QUICK.await_silence(Answers([]).ask) == pytest.approx(0.15, abs=0.1)
