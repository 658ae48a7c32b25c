"""An HTTP server over raw sockets whose every byte, pause and crash is scripted by the test.

It runs on its own thread and loop, so tests may block. A behaviour is a coroutine function that
gets the `Exchange` of one request and does with the connection whatever it likes; `behaviours`
has the usual ones. Everything that was received is kept byte for byte.

Reading order: ScriptedUpstream; then `scripted_connection` for what a behaviour can do.
"""

import asyncio
import itertools
import socket
import threading
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.scripted_connection import (
    Behaviour,
    Connection,
    Exchange,
    RecordedRequest,
)


class Gate:
    """A door that a test opens and a behaviour waits at; made by `ScriptedUpstream.gate`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()
        self.reached = threading.Event()
        """Set when a behaviour stands at the gate."""

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def passed(self) -> None:
        self.reached.set()
        await self._event.wait()


class ScriptedUpstream:
    """One upstream on a loopback port of its own.

    Args:
        name: For messages of failed tests.
        default: What it does with a request that nothing else was scripted for.
    """

    def __init__(self, name: str, default: Behaviour) -> None:
        self.name = name
        self._initial = default
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        # Bound and never listening: keeps the port ours while the real socket is closed.
        self._reservation = _bound_socket(0)
        self.port: int = self._reservation.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._changed = threading.Condition()
        self._errors: list[Exception] = []
        self._numbers = itertools.count()
        self.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # Scripting

    def reset(self) -> None:
        """Forget scripts and records; a behaviour that raised fails the test here."""
        errors, self._errors = self._errors, []
        self._default = self._initial
        self._by_path: dict[str, Behaviour] = {}
        self._queue: deque[Behaviour] = deque()
        self.requests: list[RecordedRequest] = []
        if errors:
            raise AssertionError(f"behaviours of {self.name} failed") from errors[0]

    def always(self, behaviour: Behaviour) -> None:
        """Do this with every request."""
        self._default = behaviour

    def next(self, *behaviours: Behaviour) -> None:
        """Do these with the next requests, one each, before anything else."""
        self._queue.extend(behaviours)

    def on(self, path: str, behaviour: Behaviour) -> None:
        """Do this with every request whose path ends so."""
        self._by_path[path] = behaviour

    def gate(self) -> Gate:
        return Gate(self._loop)

    # Watching

    def wait_for_requests(self, count: int, timeout: float = 30.0) -> list[RecordedRequest]:
        """The first `count` requests, once they have arrived whole."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, timeout)
        assert arrived, f"{self.name} got {len(self.requests)} requests, wanted {count}"
        return self.requests[:count]

    def wait_for_request(self, timeout: float = 30.0) -> RecordedRequest:
        return self.wait_for_requests(1, timeout)[0]

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    # Life

    def start(self) -> None:
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        self._run(self._shut(with_connections=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30.0)
        self._loop.close()
        self._reservation.close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """No listener and no open connection: connecting is refused."""
        self._run(self._shut(with_connections=True))
        try:
            yield
        finally:
            self._run(self._listen())

    def close_connections(self) -> None:
        """Close all open connections in order, as a server does with idle ones."""
        self._run(self._close_connections())

    def send_unasked(self, data: bytes) -> None:
        """Write to every open connection, whether or not a request is under way."""

        async def write() -> None:
            for connection in list(self._connections):
                connection.transport.write(data)

        self._run(write())

    # Called on the loop

    async def answer(self, exchange: Exchange) -> None:
        request = exchange.request
        is_aside = self._is_aside(request)
        behaviour = self._default if is_aside else self._choose(request)
        if not is_aside:
            with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
        try:
            await behaviour(exchange)
        finally:
            request.finished.set()

    def adopt(self, connection: Connection) -> None:
        self._connections.add(connection)

    def drop(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def failed(self, error: Exception) -> None:
        self._errors.append(error)

    def _is_aside(self, request: RecordedRequest) -> bool:
        """Whether no client is behind it: a gateway asks by itself, about an earlier request."""
        if request.header("x-penumbra-repeat"):
            return True
        return request.target == "/health" and request.target not in self._by_path

    def _choose(self, request: RecordedRequest) -> Behaviour:
        path = request.target.split("?")[0]
        for suffix, behaviour in self._by_path.items():
            if path.endswith(suffix):
                return behaviour
        return self._queue.popleft() if self._queue else self._default

    async def _listen(self) -> None:
        listener = _bound_socket(self.port)
        self._server = await self._loop.create_server(
            lambda: Connection(self, next(self._numbers)), sock=listener, backlog=1024
        )

    async def _shut(self, *, with_connections: bool) -> None:
        assert self._server is not None
        self._server.close()
        if with_connections:
            await self._close_connections()

    async def _close_connections(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            await connection.shut()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)


def _bound_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
