"""Answers that come compressed although nothing compressed was asked for."""

import asyncio
import gzip
import zlib

import pytest

from penumbra.monitoring.vocabulary import Outcome
from tests.integration.upstream.conftest import MakeUpstream
from tests.support.asking import ask, begin
from tests.support.raw_server import RawServer, always, answer, raw_server

BODY = b'{"id":"a","choices":[]}' * 50
GZIP = b"content-encoding: gzip\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("encoded", "coding"),
    [(gzip.compress(BODY, mtime=0), b"gzip"), (zlib.compress(BODY), b"deflate")],
)
async def test_a_compressed_answer_is_one_as_any_other(
    upstream_at: MakeUpstream, encoded: bytes, coding: bytes
) -> None:
    headers = b"Content-Encoding: %b\r\ncontent-type: application/json\r\n" % coding
    async with raw_server(always(answer(encoded, headers=headers))) as server:
        upstream = upstream_at(server.url)
        for _ in range(2):
            asked = await ask(upstream)
            assert (asked.body, asked.calls[-1]) == (BODY, "end")
            assert asked.headers == [(b"content-type", b"application/json")]
        assert len(server.connections) == 1


async def test_each_event_of_a_compressed_stream_comes_when_it_is_sent(
    upstream_at: MakeUpstream,
) -> None:
    coder = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    go_on = asyncio.Event()

    async def handler(_: RawServer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % GZIP)
        for event in (b"data: 1\n\n", b"data: [DONE]\n\n"):
            piece = coder.compress(event) + coder.flush(zlib.Z_SYNC_FLUSH)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await go_on.wait()
        piece = coder.flush()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece))
        return True

    async with raw_server(handler) as server:
        asked = begin(upstream_at(server.url))
        await asked.began.wait()
        assert asked.body == b"data: 1\n\n"
        go_on.set()
        await asked.over.wait()
    assert (asked.body, asked.calls[-1]) == (b"data: 1\n\ndata: [DONE]\n\n", "end")


@pytest.mark.parametrize(
    ("encoded", "outcome"),
    [
        (gzip.compress(BODY, mtime=0)[:-20], Outcome.DIED),
        (BODY, Outcome.GARBAGE),
        (gzip.compress(bytes(64 * 1024 * 1024), mtime=0), Outcome.GARBAGE),
    ],
    ids=["cut short", "not compressed", "a bomb"],
)
async def test_an_answer_that_cannot_be_decoded_fails(
    upstream_at: MakeUpstream, encoded: bytes, outcome: Outcome
) -> None:
    async with raw_server(always(answer(encoded, headers=GZIP))) as server:
        upstream = upstream_at(server.url)
        asked = await ask(upstream)
        assert (asked.calls[-1], asked.outcome) == ("fail", outcome)
        assert asked.calls.count("fail") == 1
        await ask(upstream)
        assert len(server.requests) == 2


async def test_an_unknown_coding_is_passed_on_as_it_is(upstream_at: MakeUpstream) -> None:
    headers = b"content-encoding: br\r\n"
    async with raw_server(always(answer(b"\x0b\x01", headers=headers))) as server:
        asked = await ask(upstream_at(server.url))
    assert asked.body == b"\x0b\x01"
    assert (b"content-encoding", b"br") in asked.headers
