"""Answers that are none, and connections that carry no further request."""

import asyncio

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.port import UpstreamRequest
from tests.integration.upstream.conftest import MakeUpstream
from tests.support.asking import Asked, ask
from tests.support.raw_server import RawServer, always, answer, raw_server

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-own: 1\r\n\r\n2\r\n{}\r\n0\r\n"
TRAILERS = b"x-own: evil\r\nset-cookie: a=b\r\ncontent-type: a/b\r\n\r\n"
LARGE = b"x" * 32_000_000
"""More than the kernel's buffers of both ends hold."""


@pytest.mark.parametrize("pieces", [(CHUNKED + TRAILERS,), (CHUNKED, TRAILERS)])
async def test_trailers_are_no_headers(upstream_at: MakeUpstream, pieces: tuple[bytes]) -> None:
    async with raw_server(always(*pieces)) as server:
        upstream = upstream_at(server.url)
        for _ in range(2):
            asked = await ask(upstream)
            assert asked.calls[-1] == "end"
            assert [line for line in asked.headers if line[0] != b"transfer-encoding"] == [
                (b"x-own", b"1")
            ]
        assert len(server.connections) == 1


@pytest.mark.parametrize("status", [b"099 Odd", b"000 Odd", b"600 Odd", b"999 Odd", b"101 Switch"])
async def test_a_status_that_is_none_is_no_answer(upstream_at: MakeUpstream, status: bytes) -> None:
    async with raw_server(always(answer(status=status))) as server:
        asked = await ask(upstream_at(server.url))
    assert (asked.calls, asked.outcome) == (["fail"], Outcome.GARBAGE)


@pytest.mark.parametrize("status", [b"200 OK", b"599 Last", b"404 None", b"299 Odd", b"418 Tea"])
async def test_any_other_final_status_is_an_answer(
    upstream_at: MakeUpstream, status: bytes
) -> None:
    async with raw_server(always(answer(status=status))) as server:
        asked = await ask(upstream_at(server.url))
    assert (asked.status, asked.calls[-1]) == (int(status[:3]), "end")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_body_where_none_may_be_is_dropped(
    upstream_at: MakeUpstream, status: bytes
) -> None:
    async with raw_server(always(answer(b"hello", status=status))) as server:
        upstream = upstream_at(server.url)
        for _ in range(2):
            asked = await ask(upstream)
            assert (asked.status, asked.body) == (int(status[:3]), b"")
        assert len(server.connections) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
        b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 200_000,
        answer(headers=b"x-a: %b\r\n" % (b"a" * 70_000)),
    ],
    ids=["interim answers", "endless header", "long header"],
)
async def test_a_head_over_the_limit_is_no_answer(upstream_at: MakeUpstream, head: bytes) -> None:
    async with raw_server(always(head)) as server:
        asked = await ask(upstream_at(server.url))
    assert (asked.calls, asked.outcome) == (["fail"], Outcome.GARBAGE)


async def test_interim_answers_are_passed_over(upstream_at: MakeUpstream) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with raw_server(always(hints, hints + answer(b"[]"))) as server:
        asked = await ask(upstream_at(server.url))
    assert (asked.status, asked.body) == (200, b"[]")
    assert b"link" not in dict(asked.headers)


@pytest.mark.parametrize("size", [10, 200_000, len(LARGE)])
async def test_an_early_answer_ends_the_connection_if_the_request_is_not_sent(
    upstream_at: MakeUpstream, size: int
) -> None:
    refusal = answer(b'{"error":{}}', status=b"413 Payload Too Large")
    gone = asyncio.Event()

    async def handler(
        server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if len(server.requests) == 1 and size > 10:
            writer.write(refusal)
            await asyncio.sleep(0.2)
            try:
                while await reader.read(1 << 20):
                    pass
            except ConnectionError:
                pass
            gone.set()
            return False
        await reader.readexactly(size if len(server.requests) == 1 else 2)
        writer.write(refusal if len(server.requests) == 1 else answer())
        return True

    async with raw_server(handler, reads_bodies=False) as server:
        upstream = upstream_at(server.url)
        first = await ask(upstream, body=LARGE[:size])
        assert (first.status, first.calls[-1]) == (413, "end")
        second = await ask(upstream)
        assert (second.status, second.body) == (200, b"{}")
        assert len(server.connections) == (2 if size > 10 else 1)
        if size > 10:
            async with asyncio.timeout(5):
                await gone.wait()


async def test_a_server_that_closes_at_once_is_refused(upstream_at: MakeUpstream) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(close, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    for _ in range(20):
        async with asyncio.timeout(5):
            asked = await ask(upstream_at(f"http://127.0.0.1:{port}"))
        assert (asked.calls, asked.outcome) == (["fail"], Outcome.REFUSED)
    listening.close()
    await listening.wait_closed()


async def test_a_large_body_with_its_head_is_an_answer(upstream_at: MakeUpstream) -> None:
    body = b"x" * 200_000
    async with raw_server(always(answer(body, headers=b"x-a: %b\r\n" % (b"a" * 60_000)))) as server:
        asked = await ask(upstream_at(server.url))
    assert (asked.status, asked.body) == (200, body)


class _Faulty(Asked):
    """A receiver with a fault of ours."""

    def on_body(self, data: bytes) -> None:
        raise RuntimeError("a fault of the gateway's own")


async def test_a_fault_of_the_gateways_own_is_not_the_servers(
    upstream_at: MakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_server(always(answer(b"{}"))) as server:
        asked = _Faulty()
        asked.stream = upstream_at(server.url).stream(UpstreamRequest(b"/v1/x", b"", b"{}"), asked)
        await asked.over.wait()
    assert asked.outcome is Outcome.GATEWAY_LIMIT
    assert "answer_callback_failed" in caplog.text
