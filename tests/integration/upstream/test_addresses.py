"""Names with several addresses, and names whose addresses change."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.http import PoolLimits
from tests.integration.upstream.conftest import MakeUpstream
from tests.support.asking import ask, begin
from tests.support.raw_server import always, answer, raw_server

NAME = "engine.test"


class Names:
    """The addresses of `NAME`, as `getaddrinfo` gives them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: list[str] = []
        self.look_ups = 0
        self.wait: threading.Event | None = None
        self._original = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *more: Any, **options: Any) -> Any:
        if host != NAME:
            return self._original(host, port, *more, **options)
        self.look_ups += 1
        if self.wait is not None:
            self.wait.wait(10)
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            item
            for address in self.hosts
            for item in self._original(address, port, *more, **options)
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@contextlib.contextmanager
def silent(host: str) -> Iterator[int]:
    """A port of an address that drops what comes, as one of a host that is gone does."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind((host, 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        for _ in range(8):  # a full backlog
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((host, port))
        time.sleep(0.1)
        yield port


async def test_the_next_address_is_tried_while_the_first_is_silent(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts = ["127.0.0.1", "127.0.0.2"]
    with silent("127.0.0.1") as port:
        async with raw_server(always(answer()), host="127.0.0.2", port=port):
            asked = await ask(upstream_at(f"http://{NAME}:{port}"))
            assert asked.status == 200


async def test_many_silent_addresses_share_the_time(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts = ["127.0.0.1"] * 12 + ["127.0.0.2"]
    with silent("127.0.0.1") as port:
        async with raw_server(always(answer()), host="127.0.0.2", port=port):
            asked = await ask(upstream_at(f"http://{NAME}:{port}"))
            assert asked.status == 200


async def test_the_next_address_is_tried_at_once_when_the_first_refuses(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts = ["127.0.0.1", "127.0.0.3", "127.0.0.2"]
    async with raw_server(always(answer()), host="127.0.0.2") as server:
        limits = PoolLimits(connect_seconds=30)
        for _ in range(20):
            upstream = upstream_at(f"http://{NAME}:{server.port}", limits=limits)
            began = time.monotonic()
            assert (await ask(upstream)).status == 200
            if time.monotonic() - began < 0.2:  # the machine may be slow
                return
    pytest.fail("it waits before it tries the next address")


async def test_only_one_connection_of_several_is_kept(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts = ["127.0.0.1", "127.0.0.2"]
    async with (
        raw_server(always(answer())) as first,
        raw_server(always(answer()), host="127.0.0.2", port=first.port) as second,
    ):
        upstream = upstream_at(f"http://{NAME}:{first.port}")
        for _ in range(5):
            assert (await ask(upstream)).status == 200
        assert upstream.open_connections == 1
        assert (len(first.connections), len(second.connections)) == (1, 0)


async def test_no_address_that_answers_is_a_refusal(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts = ["127.0.0.1", "127.0.0.2"]
    with socket.socket() as sock:
        sock.bind(("127.0.0.3", 0))
        port = sock.getsockname()[1]
    asked = await ask(upstream_at(f"http://{NAME}:{port}"))
    assert (asked.outcome, asked.stream.was_sent) == (Outcome.REFUSED, False)
    names.hosts = []
    asked = await ask(upstream_at(f"http://{NAME}:{port}"))
    assert (asked.outcome, asked.stream.was_sent) == (Outcome.REFUSED, False)
    assert "not known" in asked.detail


async def test_a_literal_address_of_each_family_answers(upstream_at: MakeUpstream) -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    async with raw_server(always(answer()), host="::1") as server:
        asked = await ask(upstream_at(server.url))
        assert asked.status == 200
        assert b"\r\nhost: [::1]:%d\r\n" % server.port in server.requests[0]


async def test_a_new_connection_goes_where_the_name_points_now(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts = ["127.0.0.1"]
    async with (
        raw_server(always(answer())) as old,
        raw_server(always(answer()), host="127.0.0.2", port=old.port) as new,
    ):
        limits = PoolLimits(lifetime_seconds=0.05)
        upstream = upstream_at(f"http://{NAME}:{old.port}", limits=limits)
        assert (await ask(upstream)).status == 200
        names.hosts = ["127.0.0.2"]
        async with asyncio.timeout(10):
            while not new.requests:
                assert (await ask(upstream)).status == 200
                await asyncio.sleep(0.01)


async def test_connections_that_are_made_at_once_share_a_look_up(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts, names.wait = ["127.0.0.1"], threading.Event()
    async with raw_server(always(answer())) as server:
        upstream = upstream_at(f"http://{NAME}:{server.port}")
        all_asked = [begin(upstream) for _ in range(30)]
        await asyncio.sleep(0.05)
        names.wait.set()
        for asked in all_asked:
            await asked.over.wait()
        assert [asked.status for asked in all_asked] == [200] * 30
        assert names.look_ups == 1


async def test_a_look_up_that_hangs_delays_nothing_else(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.wait = threading.Event()
    async with raw_server(always(answer())) as server:
        limits = PoolLimits(connect_seconds=0.1)
        hanging = [upstream_at(f"http://{NAME}:1", limits=limits) for _ in range(40)]
        all_asked = [begin(upstream) for upstream in hanging for _ in range(2)]
        other = upstream_at(f"http://localhost:{server.port}")
        assert (await ask(other)).status == 200
        for asked in all_asked:
            await asked.over.wait()
            assert asked.detail == "connect timed out"
        assert names.look_ups == len(hanging)
        names.wait.set()
        await asyncio.sleep(0.05)


async def test_a_connect_that_this_process_was_too_busy_for_is_made_again(
    upstream_at: MakeUpstream, names: Names
) -> None:
    names.hosts, names.wait = ["127.0.0.1"], threading.Event()
    async with raw_server(always(answer())) as server:
        limits = PoolLimits(connect_seconds=0.2)
        asked = begin(upstream_at(f"http://{NAME}:{server.port}", limits=limits))
        await asyncio.sleep(0.05)
        time.sleep(0.6)  # noqa: ASYNC251
        names.wait.set()
        await asked.over.wait()
        assert asked.status == 200


async def test_a_connect_that_this_process_is_too_busy_for_twice_is_its_own_fault(
    upstream_at: MakeUpstream,
) -> None:
    with silent("127.0.0.1") as port:
        limits = PoolLimits(connect_seconds=0.2)
        asked = begin(upstream_at(f"http://127.0.0.1:{port}", limits=limits))
        for _ in range(2):
            await asyncio.sleep(0.05)
            time.sleep(0.6)  # noqa: ASYNC251
        await asked.over.wait()
    assert asked.outcome is Outcome.GATEWAY_LIMIT
