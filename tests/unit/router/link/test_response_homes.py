"""Homes of stored responses: remembered here, else asked of the other gateways."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penumbra.router.link.feedback import FeedbackSubmitter
from penumbra.router.link.messages import Attribution, Feedback, Found, Locate, Located, Seek
from penumbra.router.link.response_homes import ResponseHomes
from penumbra.router.link.served import Served

INT8 = Attribution("demo", "int8", "other")


@contextmanager
def asking(homes: ResponseHomes) -> Iterator[list[Locate | Feedback]]:
    """Messages passed to the control process, through the link that feedback has."""
    passed: list[Locate | Feedback] = []
    with FeedbackSubmitter(Served(), homes).connected(passed.append):
        yield passed


def test_the_home_of_a_response_is_remembered_for_its_tenant() -> None:
    homes = ResponseHomes()
    homes.note("resp_1", (INT8, "acme"))
    assert homes.find("resp_1", "acme") == INT8
    for unknown in ("resp_2", "", "ρ", "\ud800", "x" * 1_000, None, 7, ["resp_1"]):
        assert homes.find(unknown, "acme") is None
    assert homes.find("resp_1", "globex") is None


async def test_a_response_of_another_process_is_asked_for() -> None:
    homes = ResponseHomes()
    with asking(homes) as passed:
        answered = homes.ask("resp_1", "acme")
        assert answered is not None
        assert passed == [Locate(1, "resp_1", "acme")]
        homes.located(Located(1, INT8))
        await answered
    assert homes.find("resp_1", "acme") == INT8


async def test_no_answer_is_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penumbra.router.link.response_homes.ASK_SECONDS", 0.01)
    homes = ResponseHomes()
    with asking(homes):
        answered = homes.ask("resp_1", "acme")
        assert answered is not None
        await answered
    homes.located(Located(1, INT8))  # too late, and no harm
    assert homes.find("resp_1", "acme") is None


async def test_what_no_gateway_knows_is_not_remembered() -> None:
    homes = ResponseHomes()
    with asking(homes):
        answered = homes.ask("resp_1", "acme")
        assert answered is not None
        homes.located(Located(1, None))
        await answered
    assert homes.find("resp_1", "acme") is None


async def test_nothing_is_asked_without_need_or_beyond_the_limit() -> None:
    homes = ResponseHomes()
    homes.note("resp_1", (INT8, "acme"))
    assert homes.ask("resp_2", "acme") is None  # no link
    with asking(homes) as passed:
        for useless in ("resp_1", "", "x" * 1_000, None, 7):
            assert homes.ask(useless, "acme") is None
        asked = [homes.ask(f"other-{number}", "acme") for number in range(100)]
        assert len(passed) == 64
        assert [each is None for each in asked] == [False] * 64 + [True] * 36
        for question in passed:
            homes.located(Located(question.nonce, None))
        await asyncio.gather(*(each for each in asked if each is not None))
        assert homes.ask("resp_2", "acme") is not None


def test_another_process_is_told_of_requests_and_responses() -> None:
    homes, served = ResponseHomes(), Served()
    submitter = FeedbackSubmitter(served, homes)
    homes.note("resp_1", (INT8, "acme"))
    served.remember(b"req-1", (INT8, "acme"))
    for known in ("resp_1", "req-1"):
        assert submitter.found(Seek(4, known, "acme")) == Found(4, INT8)
    assert submitter.found(Seek(5, "resp_2", "acme")) == Found(5, None)
