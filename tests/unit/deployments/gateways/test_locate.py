"""The question of a gateway which build gave a stored response."""

import asyncio

import pytest

from penumbra.router.link.messages import Found, LinkError, Locate, Located, Seek
from tests.unit.deployments.gateways.test_inbox import INT8, running, say


async def test_the_other_gateways_are_asked_and_the_one_that_knows_is_heard() -> None:
    async with running() as plane:
        asking, one, other = [await plane.connect(f"gateway-{number}") for number in range(3)]
        say(asking, Locate(9, "resp_1", "acme"))
        seek = await one.hear(Seek)
        assert (seek.request_id, seek.tenant) == ("resp_1", "acme")
        say(one, Found(seek.nonce, None))
        say(other, Found((await other.hear(Seek)).nonce, INT8))
        assert await asking.hear(Located) == Located(9, INT8)
        assert not [message for message in asking.heard if isinstance(message, Seek)]


async def test_a_response_that_no_gateway_knows_is_answered_at_once() -> None:
    async with running() as plane:
        asking, other = await plane.connect("asking"), await plane.connect("other")
        say(asking, Locate(1, "resp_1", "acme"))
        say(other, Found((await other.hear(Seek)).nonce, None))
        assert await asking.hear(Located) == Located(1, None)


async def test_a_lone_gateway_is_answered_at_once() -> None:
    async with running() as plane:
        asking = await plane.connect("asking")
        say(asking, Locate(1, "resp_1", "acme"))
        assert await asking.hear(Located) == Located(1, None)


async def test_a_gateway_that_is_silent_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penumbra.deployments.gateways.feedback_relay.LOCATE_SECONDS", 0.01)
    async with running() as plane:
        asking, silent = await plane.connect("asking"), await plane.connect("silent")
        say(asking, Locate(1, "resp_1", "acme"))
        await silent.hear(Seek)
        assert await asking.hear(Located) == Located(1, None)


async def test_too_many_questions_at_once_are_answered_without_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penumbra.deployments.gateways.feedback_relay.IN_FLIGHT", 1)
    async with running() as plane:
        asking, other = await plane.connect("asking"), await plane.connect("other")
        say(asking, Locate(1, "resp_1", "acme"))
        seek = await other.hear(Seek)
        say(asking, Locate(2, "resp_2", "acme"))
        assert await asking.hear(Located) == Located(2, None)
        say(other, Found(seek.nonce, INT8))
        await asyncio.sleep(0)
        assert await asking.hear(Located) == Located(1, INT8)


async def test_a_comparator_may_not_ask() -> None:
    async with running() as plane:
        comparator = await plane.connect("comparator", is_comparator=True)
        say(comparator, Locate(1, "resp_1", "acme"))
        with pytest.raises(LinkError):
            await plane.attending["comparator"]
