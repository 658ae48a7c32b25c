"""The link keeps what its gateway last said of its clients' answers."""

import asyncio
import json

import pytest

from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.monitoring.answers import MOST_COUNTS, AnswerCount
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import Answers, EpochApplied, LinkError, encode
from tests.support.control_plane import FakeGateway, refuse_report, turns
from tests.support.routing_tables import model

FAILED = (AnswerCount("demo", "full", "5xx", 7),)


async def converse(*said: str, is_for_comparators: bool = False) -> Link:
    """Link a gateway that says this, and return the link as it is then."""
    publisher = Publisher("store", lambda: 1.0)
    publisher.publish(Snapshot(epoch=1, models={"demo": model()}), 1.0)
    inbox = LinkInbox(
        GuardLiveness(10.0), lambda: 1.0, refuse_report, is_for_comparators=is_for_comparators
    )
    gateway = FakeGateway("gateway-0")
    attending = asyncio.create_task(publisher.attend(gateway, inbox))
    try:
        await gateway.reach(1)
        for text in said:
            gateway.say(text)
        await turns()
        if attending.done():
            attending.result()
        [link] = publisher.links
        return link
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


async def test_the_last_word_counts() -> None:
    assert (await converse(encode(Answers(FAILED)))).answers == FAILED
    assert (await converse(encode(Answers(FAILED)), encode(Answers()))).answers == ()


async def test_acknowledgements_go_on_between_answers() -> None:
    link = await converse(encode(Answers(FAILED)), encode(EpochApplied(1)))
    assert (link.epoch, link.answers) == (1, FAILED)


async def test_a_comparator_has_no_clients() -> None:
    with pytest.raises(LinkError, match="was not asked for"):
        await converse(encode(Answers(FAILED)), is_for_comparators=True)


@pytest.mark.parametrize(
    "counts",
    [
        [{"model": "demo", "variant": "full", "code": "5xx", "count": -1}],
        [{"model": "demo", "variant": "full", "code": "5xx", "count": "7"}],
        [{"model": "demo", "variant": "full", "count": 7}],
        [{"model": "demo", "variant": "full", "code": "5xx", "count": 7}] * (MOST_COUNTS + 1),
    ],
)
async def test_malformed_answers_end_the_link(counts: object) -> None:
    with pytest.raises(LinkError):
        await converse(json.dumps({"type": "answers", "counts": counts}))
