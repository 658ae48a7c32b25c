"""Deadlines of connections to the control process: its real server, with short limits."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from fastapi import APIRouter, FastAPI

from penumbra.deployments.api.app import add_error_handlers
from penumbra.deployments.api.connection_limits import ConnectionLimits, Connections
from penumbra.deployments.api.guarded_route import GuardedRoute
from penumbra.deployments.api.serving import build_server

PATIENCE = 20.0
SHORT = ConnectionLimits(
    head_seconds=0.3, body_seconds=0.5, discard_seconds=0.3, idle_seconds=0.3, unknown=4
)
TOKEN = "authorization: Bearer known"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HastyRoute(GuardedRoute):
    seconds = SHORT.body_seconds


def application() -> FastAPI:
    app = FastAPI()
    router = APIRouter(route_class=HastyRoute)

    @router.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    @router.get("/page")
    async def page() -> dict[str, str]:
        return {"page": "x" * 10_000_000}

    app.include_router(router)
    add_error_handlers(app)
    return app


class Server:
    def __init__(self, port: int, connections: Connections) -> None:
        self.port = port
        self.connections = connections
        self.opened: list[asyncio.StreamWriter] = []

    async def connect(self, *lines: str) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.opened.append(writer)
        writer.write("\r\n".join(lines).encode())
        return reader, writer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    sock = socket.create_server(("127.0.0.1", 0))
    connections = Connections(lambda shown: shown == "Bearer known", SHORT)
    uvicorn = build_server(application(), connections)
    serving = asyncio.create_task(uvicorn.serve(sockets=[sock]))
    server = Server(sock.getsockname()[1], connections)
    yield server
    for writer in server.opened:
        writer.close()
    uvicorn.should_exit = True
    await serving
    sock.close()


async def rest_of(streams: Streams) -> bytes:
    """All that the other end still sends, until it closes the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await streams[0].read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("GET /page HTTP/1.1", "host: control"),
        ("GET /page HTTP/1.1", TOKEN),
        ("GET /nosuch HTTP/1.1", "", ""),
        ("POST /echo HTTP/1.1", "content-length: 10", TOKEN, "", ""),
    ],
    ids=["silent", "half a head", "half a head with a token", "idle", "no body"],
)
async def test_connection_is_closed_when_its_time_is_over(
    server: Server, lines: tuple[str, ...]
) -> None:
    await rest_of(await server.connect(*lines))
    assert len(server.connections) == 0


async def test_body_that_comes_too_slowly_is_a_408(server: Server) -> None:
    head = ("POST /echo HTTP/1.1", "content-length: 100", "content-type: application/json", TOKEN)
    streams = await server.connect(*head, "", '{"a":')
    answer = await rest_of(streams)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer


async def test_slow_trickle_of_a_head_extends_nothing(server: Server) -> None:
    reader, writer = await server.connect("GET /page HTTP/1.1", "x: ")
    async with asyncio.timeout(PATIENCE):
        while not writer.is_closing():
            writer.write(b"y")
            await asyncio.sleep(0.05)
            if reader.at_eof() or reader.exception():
                break


async def test_rest_of_a_refused_body_does_not_hold_the_connection(server: Server) -> None:
    streams = await server.connect("POST /nosuch HTTP/1.1", "content-length: 1000000", "", "x")
    assert (await rest_of(streams)).startswith(b"HTTP/1.1 404")


async def test_connection_serves_one_request_after_another(server: Server) -> None:
    head = ("POST /echo HTTP/1.1", "content-length: 7", "content-type: application/json", TOKEN)
    reader, writer = await server.connect(*head, "", '{"a":1}')
    for _ in range(3):
        assert (await reader.readuntil(b'{"a":1}')).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(SHORT.idle_seconds / 3)
        writer.write("\r\n".join((*head, "", '{"a":1}')).encode())


async def test_two_requests_in_one_piece_are_both_answered(server: Server) -> None:
    head = ("POST /echo HTTP/1.1", "content-length: 7", "content-type: application/json", TOKEN)
    one = "\r\n".join((*head, "", '{"a":1}'))
    answer = await rest_of(await server.connect(one + one))
    assert answer.count(b"HTTP/1.1 200") == 2


async def test_slow_reader_gets_the_whole_answer(server: Server) -> None:
    reader, _ = await server.connect("GET /page HTTP/1.1", "", "")
    await asyncio.sleep(3 * SHORT.idle_seconds)
    async with asyncio.timeout(PATIENCE):
        assert len(await reader.readuntil(b'"}')) > 10_000_000


async def test_connections_with_a_valid_token_are_not_counted_among_the_bounded(
    server: Server,
) -> None:
    reader, writer = await server.connect("GET /nosuch HTTP/1.1", TOKEN, "", "")
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(3 * SHORT.unknown):
        await server.connect()
    assert len(server.connections) <= SHORT.unknown
    writer.write("\r\n".join(("GET /nosuch HTTP/1.1", TOKEN, "", "")).encode())
    assert b"404" in await reader.readuntil(b"\r\n\r\n")
