"""One request is sent twice at most, whatever repeats it."""

import asyncio
import contextlib
import socket
import struct

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.http import PoolLimits
from penumbra.router.upstream.port import AttemptBudget
from tests.integration.upstream.conftest import MakeUpstream
from tests.support.asking import ask
from tests.support.raw_server import Handler, RawServer, always, answer, raw_server


def dying(*after: int, end: str = "fin") -> Handler:
    """Answer but for the requests of these numbers, on which the connection is closed."""

    async def handler(
        server: RawServer, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if len(server.requests) not in after:
            writer.write(answer())
            return True
        if end == "rst":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return handler


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_request_that_kills_its_server_is_sent_twice_at_most(
    upstream_at: MakeUpstream, end: str
) -> None:
    async with raw_server(dying(*range(7, 99), end=end)) as server:
        upstream = upstream_at(server.url)
        await asyncio.gather(*(ask(upstream) for _ in range(6)))
        budget = AttemptBudget()
        for _ in range(3):
            asked = await ask(upstream, budget=budget)
            assert (asked.calls, asked.outcome) == (["fail"], Outcome.REFUSED)
        assert (len(server.requests), budget.left) == (8, 0)
        assert asked.detail == "no attempts left"
        assert not asked.stream.was_sent


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_reused_connection_that_is_closed_on_a_request_is_replaced(
    upstream_at: MakeUpstream, end: str
) -> None:
    async with raw_server(dying(2, end=end)) as server:
        upstream = upstream_at(server.url)
        await ask(upstream)
        budget = AttemptBudget()
        asked = await ask(upstream, budget=budget)
        assert (asked.status, asked.stream.was_sent, asked.stream.was_reused) == (200, True, False)
        assert (len(server.requests), budget.left) == (3, 0)


async def test_a_send_that_is_kept_for_another_attempt_is_not_used_up(
    upstream_at: MakeUpstream,
) -> None:
    async with raw_server(dying(2)) as server:
        upstream = upstream_at(server.url)
        await ask(upstream)
        budget = AttemptBudget(kept=1)
        asked = await ask(upstream, budget=budget)
        assert (asked.outcome, asked.stream.was_reused) == (Outcome.REFUSED, True)
        assert (len(server.requests), budget.left) == (2, 1)


async def test_the_last_send_goes_out_on_a_fresh_connection(upstream_at: MakeUpstream) -> None:
    """A proxy that starts anew closes the kept ones just when a build has died."""
    async with raw_server(dying(2)) as server:
        upstream = upstream_at(server.url)
        await ask(upstream)
        server.requests.append(b"as if another request had come")
        asked = await ask(upstream, budget=AttemptBudget(left=1))
        assert (asked.status, asked.stream.was_reused, len(server.connections)) == (200, False, 2)


async def test_the_last_send_takes_a_kept_connection_where_no_other_may_be_opened(
    upstream_at: MakeUpstream,
) -> None:
    async with raw_server(always(answer())) as server:
        upstream = upstream_at(server.url, limits=PoolLimits(connections=1))
        await ask(upstream)
        asked = await ask(upstream, budget=AttemptBudget(left=1))
        assert (asked.status, asked.stream.was_reused) == (200, True)


async def test_a_fresh_connection_that_is_closed_on_a_request_is_the_servers_fault(
    upstream_at: MakeUpstream,
) -> None:
    async with raw_server(dying(1)) as server:
        asked = await ask(upstream_at(server.url))
        assert (asked.outcome, asked.stream.was_sent) == (Outcome.REFUSED, True)
        assert not asked.stream.was_reused
        assert len(server.requests) == 1


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_request_that_crosses_the_servers_close_was_never_sent(
    upstream_at: MakeUpstream, kept: int
) -> None:
    async with raw_server(always(answer())) as server:
        upstream = upstream_at(server.url)
        await ask(upstream)
        budget = AttemptBudget(kept=kept)
        # Closed without the loop, which learns of it only after the request has been written.
        sock = server.connections[0].get_extra_info("socket")
        with socket.socket(fileno=socket.dup(sock.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)
        asked = await ask(upstream, budget=budget)
        assert (asked.status, budget.left) == (200, 1)
        assert (len(server.requests), len(server.connections)) == (2, 2)


async def test_connections_that_close_right_after_an_answer_cost_nothing(
    upstream_at: MakeUpstream,
) -> None:
    async def handler(
        server: RawServer, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(answer())
        for _ in range(len(server.requests) % 4):
            await asyncio.sleep(0)
        return False

    async with raw_server(handler) as server:
        upstream = upstream_at(server.url)
        for _ in range(200):
            asked = await ask(upstream)
            assert asked.status == 200
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(0)


async def test_a_refused_connect_takes_nothing(upstream_at: MakeUpstream) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    budget = AttemptBudget()
    asked = await ask(upstream_at(f"http://127.0.0.1:{port}"), budget=budget)
    assert (asked.outcome, asked.stream.was_sent, budget.left) == (Outcome.REFUSED, False, 2)
