"""Gateways of another version than the control process that they are linked to."""

import asyncio
import json

import pytest

from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.link.messages import Hello, LinkError, encode
from tests.support.control_plane import FakeGateway
from tests.support.routing_tables import model

TABLE = Snapshot(epoch=1, models={"demo": model()})
HELLO_OF_BEFORE = '{"type":"hello","gateway":"old","pid":1,"store":"","epoch":0}'


class OtherGateway(FakeGateway):
    """A gateway that says its own `hello`, and nothing by itself."""

    def __init__(self, hello: str) -> None:
        super().__init__("other", answers=False)
        self._said = asyncio.Queue()
        self.say(hello)


async def converse(gateway: FakeGateway, *said: str) -> Delivery:
    """Link the gateway, publish epoch 2, and end when the gateway has said all and left."""
    publisher = Publisher("store", lambda: 1.0)
    publisher.publish(TABLE, 1.0)
    async with asyncio.timeout(30):
        attending = asyncio.create_task(publisher.attend(gateway))
        await gateway.reach(1)
        delivery = publisher.publish(TABLE.model_copy(update={"epoch": 2}), 1.0)
        for text in said:
            gateway.say(text)
        gateway.leave()
        await attending
    return delivery


async def test_a_gateway_of_before_is_served() -> None:
    gateway = OtherGateway(HELLO_OF_BEFORE)
    delivery = await converse(gateway, '{"type":"applied","epoch":2}')
    assert (await delivery.wait(30)).acknowledged == 1


async def test_what_a_newer_gateway_adds_is_ignored_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    hello = {**json.loads(encode(Hello("new", 1, "", 0, version=2))), "added_later": [1]}
    delivery = await converse(
        OtherGateway(json.dumps(hello)),
        '{"type":"added_later","nonce":1}',
        '{"type":"added_later","nonce":2}',
        '{"type":"applied","epoch":2,"added_later":1}',
    )
    assert (await delivery.wait(30)).acknowledged == 1
    unknown = [r for r in caplog.records if r.message == "link_message_unknown"]
    assert [(r.__dict__["peer"], r.__dict__["message_type"]) for r in unknown] == [
        ("new", "added_later")
    ]


async def test_a_link_that_does_not_begin_with_a_hello_is_refused() -> None:
    publisher = Publisher("store", lambda: 1.0)
    with pytest.raises(LinkError, match="begins with a hello"):
        await publisher.attend(OtherGateway('{"type":"added_later"}'))


async def test_a_message_without_a_field_that_is_needed_ends_the_link() -> None:
    with pytest.raises(LinkError):
        await converse(OtherGateway(encode(Hello("g", 1, "", 0))), '{"type":"applied"}')


async def test_comparators_are_told_of_no_keys() -> None:
    comparators = Publisher("store", lambda: 1.0)
    gateways = Publisher("store", lambda: 1.0, follower=comparators)
    keys = (KeySettings(tenant="acme", sha256="a" * 64),)
    gateways.publish(TABLE.model_copy(update={"keys": keys}), 1.0)
    ends = [FakeGateway("gateway"), FakeGateway("comparator")]
    async with asyncio.timeout(30):
        tasks = [
            asyncio.create_task(publisher.attend(end))
            for publisher, end in zip((gateways, comparators), ends, strict=True)
        ]
        for end in ends:
            await end.reach(1)
            end.leave()
        await asyncio.gather(*tasks)
    assert [end.tables[0].keys for end in ends] == [keys, None]
