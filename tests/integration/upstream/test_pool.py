"""Connections of one pool: their limit, their age, and what the machine lacks for them."""

import asyncio
import errno
import socket

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream import connecting
from penumbra.router.upstream.http import PoolLimits
from penumbra.router.upstream.resolver import Resolver
from tests.integration.upstream.conftest import MakeUpstream
from tests.support.asking import ask, begin
from tests.support.raw_server import Handler, RawServer, always, answer, raw_server


def gated(gate: asyncio.Event) -> Handler:
    async def handler(_: RawServer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await gate.wait()
        writer.write(answer())
        return True

    return handler


async def test_the_limit_of_connections_is_the_gateways_own(upstream_at: MakeUpstream) -> None:
    gate = asyncio.Event()
    async with raw_server(gated(gate)) as server:
        upstream = upstream_at(server.url, limits=PoolLimits(connections=2))
        first = [begin(upstream) for _ in range(2)]
        asked = await ask(upstream)
        assert (asked.outcome, asked.stream.was_sent) == (Outcome.GATEWAY_LIMIT, False)
        gate.set()
        for other in first:
            await other.over.wait()
        assert (await ask(upstream)).status == 200


@pytest.mark.parametrize(
    "code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL]
)
async def test_a_connect_for_which_the_machine_lacks_something_is_no_refusal(
    upstream_at: MakeUpstream, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, "none left")

    async with raw_server(always(answer())) as server:
        upstream = upstream_at(server.url)
        with monkeypatch.context() as patch:
            patch.setattr(f"{connecting.__name__}.socket.socket", fail)
            asked = await ask(upstream)
            assert (asked.outcome, asked.stream.was_sent) == (Outcome.GATEWAY_LIMIT, False)
            assert asked.detail == "connect failed: none left"
        assert (await ask(upstream)).status == 200


async def test_a_look_up_without_descriptors_is_no_refusal(
    upstream_at: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    upstream = upstream_at("http://engine.test")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert (await ask(upstream)).outcome is Outcome.REFUSED
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", fail)
        assert (await ask(upstream)).outcome is Outcome.GATEWAY_LIMIT


async def test_a_look_up_without_a_thread_is_no_refusal(
    upstream_at: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Resolver) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", fail)
    asked = await ask(upstream_at("http://engine.test"))
    assert asked.outcome is Outcome.GATEWAY_LIMIT


async def test_an_idle_connection_is_closed_at_its_age(upstream_at: MakeUpstream) -> None:
    async with raw_server(always(answer())) as server:
        upstream = upstream_at(server.url, limits=PoolLimits(lifetime_seconds=0.1))
        await ask(upstream)
        assert upstream.idle_connections == 1
        async with asyncio.timeout(5):
            await server.connections[0].wait_closed()
        assert (await ask(upstream)).status == 200
        assert len(server.connections) == 2


async def test_a_busy_connection_is_closed_when_its_answer_ends(
    upstream_at: MakeUpstream,
) -> None:
    gate = asyncio.Event()
    async with raw_server(gated(gate)) as server:
        upstream = upstream_at(server.url, limits=PoolLimits(lifetime_seconds=0.05))
        asked = begin(upstream)
        await asyncio.sleep(0.2)
        assert asked.calls == []
        gate.set()
        await asked.over.wait()
        assert asked.calls[-1] == "end"
        assert upstream.idle_connections == 0


async def test_a_peer_that_vanishes_is_noticed(
    upstream_at: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    async def connect(*arguments: object) -> socket.socket:
        made.append(await original(*arguments))  # type: ignore[arg-type]
        return made[-1]

    original = connecting.connect
    monkeypatch.setattr("penumbra.router.upstream.http.connect", connect)
    async with raw_server(always(answer())) as server:
        await ask(upstream_at(server.url))
        assert made[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        idle = made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + interval * count == 60
