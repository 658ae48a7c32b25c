"""The gateway's end of the link over a real socket, with the other end played by the test."""

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from websockets.asyncio.server import ServerConnection, serve

from penumbra.monitoring.observations import Pair, Report, Run
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.backoff import Backoff
from penumbra.router.link.client import ControlLink
from penumbra.router.link.duties import Duties
from penumbra.router.link.feedback import FeedbackBody, FeedbackSubmitter
from penumbra.router.link.lease import Lease
from penumbra.router.link.messages import (
    COMPARATOR_PATH,
    PATH,
    Attribution,
    Beat,
    EpochApplied,
    Feedback,
    FeedbackDone,
    Found,
    FromControl,
    FromGateway,
    Hello,
    LeaseGrant,
    Probe,
    Refused,
    Renew,
    Seek,
    Stored,
    encode,
    from_gateway,
    push_of,
)
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.link.served import Served
from tests.support.routing_tables import snapshot

Said = TypeVar("Said")

RUN = Run("demo", "int8", "run-1")
INT8 = Attribution("demo", "int8", "facts")
UNUSABLE = 13
"""An epoch that no process here can put into force."""
QUICK = Backoff(first_retry_seconds=0.01, longest_retry_seconds=0.05)


class Control:
    """The other end: tells what was said, says what it is told to."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.heard: asyncio.Queue[FromGateway] = asyncio.Queue()
        self.paths: list[str] = []
        self.hello: Hello | None = None

    async def attend(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        self.connections.append(socket)
        await socket.send(push_of("store", snapshot(epoch=1)))
        async for text in socket:
            self.heard.put_nowait(from_gateway(text))

    async def hear(self, kind: type[Said]) -> Said:
        async with asyncio.timeout(30):
            while True:
                message = await self.heard.get()
                if isinstance(message, kind):
                    return message

    async def say(self, message: FromControl) -> None:
        await self.connections[-1].send(encode(message))

    async def hang_up(self) -> None:
        await self.connections[-1].close()


@asynccontextmanager
async def linked(duties: Duties) -> AsyncIterator[Control]:
    async with linked_ends(duties) as (_, control):
        yield control


@asynccontextmanager
async def linked_ends(duties: Duties) -> AsyncIterator[tuple[ControlLink, Control]]:
    control = Control()
    async with serve(control.attend, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link = ControlLink(f"http://127.0.0.1:{port}", "token", "me", _take, QUICK, duties)
        task = asyncio.create_task(link.run())
        try:
            control.hello = await control.hear(Hello)
            yield link, control
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _take(table: Snapshot) -> None:
    if table.epoch == UNUSABLE:
        raise ValueError("cannot be put into force")


def pair(number: int) -> Pair:
    return Pair(request_id=f"req-{number}", slice="facts", cluster=number)


def clusters(report: Report) -> list[int]:
    return [pair.cluster for run in report.runs for pair in run.pairs]


async def test_an_observation_is_sent_at_once_and_the_next_ones_with_the_acknowledgement() -> None:
    outbox = ObservationOutbox("me", "life-1")
    async with linked(Duties(outbox=outbox)) as control:
        outbox.pair(RUN, pair(1))
        first = await control.hear(Report)
        assert clusters(first) == [1]
        for number in (2, 3):
            outbox.pair(RUN, pair(number))
        await control.say(Stored("life-1", first.seq))
        second = await control.hear(Report)
        assert (second.seq, clusters(second)) == (2, [2, 3])


async def test_what_was_not_acknowledged_comes_again_over_the_next_connection() -> None:
    outbox = ObservationOutbox("me", "life-1")
    async with linked(Duties(outbox=outbox)) as control:
        outbox.pair(RUN, pair(1))
        first = await control.hear(Report)
        await control.hang_up()
        await control.hear(Hello)
        assert await control.hear(Report) == first
        await control.say(Stored("life-1", first.seq))
        outbox.pair(RUN, pair(2))
        assert clusters(await control.hear(Report)) == [2]


async def test_what_was_observed_while_the_link_was_down_is_not_lost() -> None:
    outbox = ObservationOutbox("me", "life-1")
    for number in range(3):
        outbox.pair(RUN, pair(number))
    async with linked(Duties(outbox=outbox)) as control:
        assert clusters(await control.hear(Report)) == [0, 1, 2]


async def test_a_lease_is_asked_for_at_once_and_again_and_again() -> None:
    lease = Lease()
    async with linked(Duties(lease=lease)) as control:
        renewals = [await control.hear(Renew) for _ in range(3)]
        assert len({renewal.nonce for renewal in renewals}) == 3
        assert not lease.is_fresh("demo", QUICK.now())
        await control.say(LeaseGrant(renewals[-1].nonce, {"demo": 60.0}, 1.0))
        await control.hear(Renew)
        assert lease.is_fresh("demo", QUICK.now())
        assert lease.period_seconds == 0.25


async def test_a_new_table_asks_for_a_lease_at_once() -> None:
    lease = Lease()
    async with linked(Duties(lease=lease)) as control:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while True:
                    asked = await control.hear(Renew)
                    await control.say(LeaseGrant(asked.nonce, {"demo": 60.0}, 3600.0))
        # Else the next question would be a quarter of an hour away.
        await control.connections[-1].send(push_of("store", snapshot(epoch=2)))
        await control.hear(Renew)


async def test_a_gateway_that_cannot_take_the_newest_table_has_no_lease() -> None:
    # It goes on with the last one, which may have a candidate that was rolled back since.
    lease = Lease()
    async with linked(Duties(lease=lease)) as control:
        asked = await control.hear(Renew)
        await control.say(LeaseGrant(asked.nonce, {"demo": 60.0}, 3600.0))
        await control.connections[-1].send(push_of("store", snapshot(epoch=UNUSABLE)))
        await control.hear(Refused)
        assert not lease.is_fresh("demo", QUICK.now())
        while not control.heard.empty():
            assert not isinstance(control.heard.get_nowait(), Renew)
        await control.connections[-1].send(push_of("store", snapshot(epoch=14)))
        asked = await control.hear(Renew)
        await control.say(LeaseGrant(asked.nonce, {"demo": 60.0}, 3600.0))
        await control.connections[-1].send(push_of("store", snapshot(epoch=15)))
        await control.hear(Renew)
        assert lease.is_fresh("demo", QUICK.now())


async def test_a_comparator_that_cannot_take_the_newest_table_gives_no_sign_of_life() -> None:
    async with linked(Duties(is_comparing=lambda: True)) as control:
        await control.connections[-1].send(push_of("store", snapshot(epoch=UNUSABLE)))
        await control.hear(Refused)
        await control.say(Probe(7))
        await control.connections[-1].send(push_of("store", snapshot(epoch=14)))
        assert await control.hear(object) == EpochApplied(14)
        await control.say(Probe(8))
        assert await control.hear(object) == Beat(8)


async def test_no_lease_is_asked_for_before_the_newest_table_is_in_force() -> None:
    lease = Lease()
    async with linked(Duties(lease=lease)) as control:
        await control.hear(Renew)
        await control.hang_up()
        await control.hear(Hello)
        assert await control.hear(object) == EpochApplied(1)
        await control.hear(Renew)


@pytest.mark.parametrize("is_comparing", [True, False])
async def test_a_comparator_says_that_it_compares_only_while_it_does(is_comparing: bool) -> None:
    duties = Duties(outbox=ObservationOutbox("me", "life-1"), is_comparing=lambda: is_comparing)
    async with linked(duties) as control:
        assert control.paths == [COMPARATOR_PATH]
        await control.hear(EpochApplied)
        await control.say(Probe(7))
        await control.connections[-1].send(push_of("store", snapshot(epoch=2)))
        heard = [await control.hear(object)]
        while heard[-1] != EpochApplied(2):
            heard.append(await control.hear(object))
        assert (Beat(7) in heard) is is_comparing


async def test_a_judgement_makes_its_way_and_back() -> None:
    served = Served()
    served.remember(b"req-1", (INT8, "acme"))
    submitter = FeedbackSubmitter(served)
    async with linked(Duties(feedback=submitter)) as control:
        assert control.paths == [PATH]
        judging = asyncio.create_task(submitter.submit("acme", FeedbackBody("req-1", thumb="up")))
        heard = await control.hear(Feedback)
        assert (heard.attribution, heard.thumb) == (INT8, True)
        await control.say(FeedbackDone(heard.nonce, INT8))
        assert await judging == INT8
        await control.say(Seek(9, "req-1", "acme"))
        assert await control.hear(Found) == Found(9, INT8)
    assert not submitter.is_connected


async def test_the_end_waits_for_what_is_still_to_be_told() -> None:
    outbox = ObservationOutbox("me", "life-1")
    async with linked_ends(Duties(outbox=outbox)) as (link, control):
        outbox.pair(RUN, pair(1))
        ending = asyncio.create_task(link.tell_the_rest(5.0))
        report = await control.hear(Report)
        assert not ending.done()
        await control.say(Stored("life-1", report.seq))
        async with asyncio.timeout(30):
            await ending
        assert outbox.is_empty


async def test_two_containers_that_share_no_host_name_are_one_machine_if_they_are_told_so() -> None:
    gateway, comparator = (
        Duties(machine="pod-1"),
        Duties(is_comparing=lambda: True, machine="pod-1"),
    )
    async with linked(gateway) as one, linked(comparator) as other, linked(Duties()) as third:
        hosts = [end.hello.host for end in (one, other, third) if end.hello is not None]
        assert hosts == ["pod-1", "pod-1", platform.node()]
