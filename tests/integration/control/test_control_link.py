"""The link between gateways and a real control process, when either end fails."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.backoff import Backoff
from penumbra.router.link.client import ControlLink
from penumbra.router.link.messages import PATH, EpochApplied, Hello, encode, from_gateway, push_of
from tests.support.control_process import GATEWAY, ControlProcess
from tests.support.routing_tables import snapshot

QUICK = Backoff(
    open_seconds=2.0, ping_seconds=0.5, first_retry_seconds=0.01, longest_retry_seconds=0.1
)


class Gateway:
    """A link with nothing behind it."""

    def __init__(self, url: str, token: str = GATEWAY, pace: Backoff = QUICK) -> None:
        self.tables: list[Snapshot] = []
        self.link = ControlLink(url, token, "gateway-0", self._apply, pace)
        self._changed = asyncio.Event()

    def _apply(self, table: Snapshot) -> None:
        self.tables.append(table)
        self._changed.set()

    async def epoch(self, epoch: int) -> Snapshot:
        """The table, once it is at least at this epoch."""
        async with asyncio.timeout(60):
            while not self.tables or self.tables[-1].epoch < epoch:
                self._changed.clear()
                await self._changed.wait()
        return self.tables[-1]

    async def connected(self, wanted: bool) -> None:
        async with asyncio.timeout(60):
            while self.link.is_connected is not wanted:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    task = asyncio.create_task(gateway.link.run())
    try:
        yield gateway
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def split(control: ControlProcess, share: float) -> dict:
    return await asyncio.to_thread(control.split, share)


async def test_a_change_arrives_before_it_is_answered(control: ControlProcess) -> None:
    async with running(Gateway(control.url)) as gateway:
        await gateway.epoch(1)
        await gateway.connected(True)
        answer = await split(control, 30)
        assert answer["gateways"] == {"connected": 1, "acknowledged": 1}
        assert gateway.tables[-1].epoch == answer["epoch"] == 2
        assert gateway.tables[-1].models["demo"].flag.split == {"int8": 30}
        [view] = (await asyncio.to_thread(control.get, "/gateways"))["gateways"]
        assert (view["gateway"], view["pid"], view["epoch"]) == ("gateway-0", os.getpid(), 2)


async def test_the_last_table_stays_while_control_is_gone_and_a_newer_one_comes_after(
    control: ControlProcess,
) -> None:
    async with running(Gateway(control.url)) as gateway:
        await gateway.epoch(1)
        await split(control, 30)
        await gateway.epoch(2)
        await asyncio.to_thread(control.kill)
        await gateway.connected(False)
        assert gateway.tables[-1].epoch == 2
        await asyncio.to_thread(control.start)
        await split(control, 40)
        assert (await gateway.epoch(3)).models["demo"].flag.split == {"int8": 40}
        # The same store came back: no epoch was put into force twice.
        assert [table.epoch for table in gateway.tables] == [1, 2, 3]


async def test_a_control_process_that_hangs_is_noticed_and_comes_back(
    control: ControlProcess,
) -> None:
    async with running(Gateway(control.url)) as gateway:
        await gateway.connected(True)
        os.kill(control.process.pid, signal.SIGSTOP)
        try:
            await gateway.connected(False)
        finally:
            os.kill(control.process.pid, signal.SIGCONT)
        await gateway.connected(True)
        assert gateway.tables[-1].epoch == 1


async def test_a_wrong_token_brings_no_table_and_no_end(
    control: ControlProcess, caplog: pytest.LogCaptureFixture
) -> None:
    tries = asyncio.Semaphore(0)

    async def count(_: float) -> None:
        tries.release()
        await asyncio.sleep(0.01)

    gateway = Gateway(control.url, "not-the-gateways-token", Backoff(sleep=count))
    async with running(gateway):
        for _ in range(3):
            await tries.acquire()
        assert gateway.tables == []
        assert not gateway.link.is_connected
    assert "control_link_down" in caplog.text
    assert "not-the-gateways-token" not in caplog.text


async def test_a_gateway_that_hangs_delays_no_other_gateway(control: ControlProcess) -> None:
    """One gateway reads but never answers; the other gets the change at once."""
    headers = {"authorization": f"Bearer {GATEWAY}"}
    url = f"{control.url.replace('http', 'ws')}{PATH}"
    async with connect(url, additional_headers=headers) as hanging:
        await hanging.send(encode(Hello("hangs", 1, "", 0)))
        async with running(Gateway(control.url)) as gateway:
            await gateway.epoch(1)
            changing = asyncio.create_task(split(control, 30))
            await gateway.epoch(2)
            assert not changing.done()
            answer = await changing
            assert answer["gateways"] == {"connected": 2, "acknowledged": 1}
            assert answer["propagation_ms"] is None


async def test_what_control_says_amiss_ends_the_connection_not_the_link() -> None:
    sent: list[str] = ["this is no message", push_of("store", snapshot(epoch=3))]
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def control(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(sent.pop(0))
        async for text in socket:
            heard.put_nowait(from_gateway(text))

    async with serve(control, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with running(Gateway(f"http://127.0.0.1:{port}")) as gateway:
            await gateway.epoch(3)
            assert await heard.get() == EpochApplied(3)
            assert gateway.link.connected_since is not None
