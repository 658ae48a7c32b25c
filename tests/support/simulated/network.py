"""Links between simulated processes: ordered messages that may be late, held back or cut off."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from tests.support.simulated.timeline import Loop, Timeline

CLIENT_NOTICES_SECONDS = 5.0
"""A client leaves a server that answers no pings: twice `Backoff.ping_seconds`."""
SERVER_NOTICES_SECONDS = 10.0
"""The server's pings: every 5 s, and as long for the answer."""
_LOOK_SECONDS = 0.5
_GOING_AWAY = 1001
_BROKEN = 1006
_PROTOCOL_ERROR = 1002


class Host(Protocol):
    """A simulated process as the network sees it."""

    name: str
    loop: Loop


class Server(Host, Protocol):
    """A process that accepts links."""

    is_listening: bool

    async def accept(self, socket: "ServerSocket", path: str) -> None:
        """Serve a link."""


me: ContextVar[Host] = ContextVar("me")
"""The simulated process whose task runs."""


@dataclass
class Network:
    """All links, and the pairs of processes that cannot reach each other."""

    timeline: Timeline
    seed: int
    partitions: set[frozenset[str]] = field(default_factory=set)
    slow_seconds: float = 0.0
    """Longest additional latency of a message."""
    wires: "list[Wire]" = field(default_factory=list)
    servers: dict[str, Server] = field(default_factory=dict)
    """Address -> the process that listens there."""
    is_over: bool = False
    """Whether nothing is carried any more, because the simulation ends."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between two processes."""
        return frozenset((one, other)) in self.partitions

    def connect(self, url: str, **options: Any) -> "Connecting":
        """Stand in for `websockets.connect`."""
        return Connecting(self, url, options)

    def wire(self, client: Host, server: Server) -> "Wire":
        """Make a link."""
        name = f"{self.seed}/{client.name}/{server.name}/{next(self._numbers)}"
        wire = Wire(self, client, server, random.Random(name))
        self.wires.append(wire)
        return wire

    def break_links_of(self, name: str) -> None:
        """A process was killed: its machine answers for it, unless it is cut off."""
        for wire in list(self.wires):
            if name in (wire.client.name, wire.server.name):
                wire.lose(name)

    def deliver_held(self) -> None:
        """Deliver what partitions held back and do no longer."""
        for wire in list(self.wires):
            wire.deliver_held()

    async def watch(self) -> None:
        """Break links whose pings stay without an answer; runs on a loop of its own."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for wire in list(self.wires):
                wire.look()


class _End:
    """One end of a link: what has arrived, and the close if it has."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.arrived: asyncio.Queue[str | Close] = asyncio.Queue()
        self.closed: Close | None = None
        self.last_at = 0.0

    def receive(self, item: str | Close) -> None:
        if self.closed is not None:
            return
        if isinstance(item, Close):
            self.closed = item
        self.arrived.put_nowait(item)


class Wire:
    """One link."""

    def __init__(
        self, network: Network, client: Host, server: Server, chance: random.Random
    ) -> None:
        self.network = network
        self.client, self.server = client, server
        self.client_end, self.server_end = _End(client), _End(server)
        self._chance = chance
        self._held: list[tuple[_End, str | Close]] = []
        self._unreachable_since: float | None = None

    def carry(self, end: _End, item: str | Close) -> None:
        """Bring an item to an end, in order."""
        if self.network.is_over:
            return
        if self._held or self.network.is_cut(self.client.name, self.server.name):
            self._held.append((end, item))
            return
        timeline = self.network.timeline
        late = self.network.slow_seconds * self._chance.random()
        at = timeline.now + 0.0005 + 0.002 * self._chance.random() + late
        end.last_at = at = max(at, end.last_at + 1e-6)
        end.host.loop.call_at(at, end.receive, item)

    def deliver_held(self) -> None:
        """Deliver what was held back, if the ends reach each other again."""
        if self._held and not self.network.is_cut(self.client.name, self.server.name):
            held, self._held = self._held, []
            for end, item in held:
                self.carry(end, item)

    def lose(self, name: str) -> None:
        """One end is gone without a word."""
        self.network.wires.remove(self)
        if not self.network.is_cut(self.client.name, self.server.name):
            end = self.server_end if name == self.client.name else self.client_end
            self._held = []
            self.carry(end, Close(_BROKEN, ""))
        elif name == self.server.name:
            self._break(self.client_end, CLIENT_NOTICES_SECONDS)
        else:
            self._break(self.server_end, SERVER_NOTICES_SECONDS)

    def look(self) -> None:
        """Let the ends notice that the other does not answer their pings."""
        if self.client_end.closed is not None and self.server_end.closed is not None:
            self.network.wires.remove(self)
            return
        is_away = self.client.loop.is_stopped or self.server.loop.is_stopped
        if not (is_away or self.network.is_cut(self.client.name, self.server.name)):
            self._unreachable_since = None
            return
        now = self.network.timeline.now
        if self._unreachable_since is None:
            self._unreachable_since = now
        away = now - self._unreachable_since
        if away > CLIENT_NOTICES_SECONDS and not self.client.loop.is_stopped:
            self._break(self.client_end)
        if away > SERVER_NOTICES_SECONDS and not self.server.loop.is_stopped:
            self._break(self.server_end)

    def _break(self, end: _End, seconds: float = 0.0) -> None:
        at = self.network.timeline.now + seconds
        end.host.loop.call_at(at, end.receive, Close(_BROKEN, ""))


class ClientSocket:
    """The client's end, as `websockets` has it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._end = wire.client_end

    async def send(self, text: str) -> None:
        if self._end.closed is not None:
            raise _closed(self._end.closed)
        self._wire.carry(self._wire.server_end, text)

    async def close(self, code: int = 1000) -> None:
        if self._end.closed is None:
            self._end.receive(Close(code, ""))
            self._wire.carry(self._wire.server_end, Close(code, ""))

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            item = await self._end.arrived.get()
            if isinstance(item, str):
                yield item
            elif item.code in (1000, _GOING_AWAY):
                return
            else:
                raise _closed(item)


class ServerSocket:
    """The server's end, as Starlette has it."""

    def __init__(self, wire: Wire, answer: Callable[[Response | None], None]) -> None:
        self._wire = wire
        self._end = wire.server_end
        self._answer = answer

    async def accept(self) -> None:
        self._answer(None)

    async def send_denial_response(self, response: Any) -> None:
        headers = Headers({k.decode(): v.decode() for k, v in response.raw_headers})
        self._answer(Response(response.status_code, "", headers))

    async def send_text(self, text: str) -> None:
        if self._end.closed is not None:
            raise WebSocketDisconnect(self._end.closed.code)
        self._wire.carry(self._wire.client_end, text)

    async def receive_text(self) -> str:
        item = await self._end.arrived.get()
        if isinstance(item, str):
            return item
        raise WebSocketDisconnect(item.code, item.reason)

    async def close(self, code: int, reason: str = "") -> None:
        if self._end.closed is None:
            self._end.receive(Close(code, ""))
            self._wire.carry(self._wire.client_end, Close(code, reason))


class Connecting(AbstractAsyncContextManager[ClientSocket]):
    """An attempt to connect."""

    def __init__(self, network: Network, url: str, options: dict[str, Any]) -> None:
        self._network = network
        self._address, _, self._path = url.removeprefix("ws://").partition("/")
        self._seconds = float(options["open_timeout"])
        self._socket: ClientSocket | None = None

    async def __aenter__(self) -> ClientSocket:
        async with asyncio.timeout(self._seconds):
            await asyncio.sleep(0.001)
            client = me.get()
            server = self._network.servers.get(self._address)
            if server is not None and self._network.is_cut(client.name, server.name):
                await asyncio.sleep(self._seconds + 1)
            if server is None or not server.is_listening:
                raise ConnectionRefusedError(f"{self._address} refuses")
            self._socket = ClientSocket(await self._shake_hands(client, server))
        return self._socket

    async def _shake_hands(self, client: Host, server: Server) -> Wire:
        timeline = self._network.timeline
        answered: asyncio.Future[Response | None] = client.loop.create_future()
        wire = self._network.wire(client, server)

        def answer(response: Response | None) -> None:
            client.loop.call_at(timeline.now + 0.001, settle, response)

        def settle(response: Response | None) -> None:
            if not answered.done():
                answered.set_result(response)

        def arrive() -> None:
            server.loop.create_task(server.accept(ServerSocket(wire, answer), f"/{self._path}"))

        server.loop.call_at(timeline.now + 0.001, arrive)
        try:
            response = await answered
        except BaseException:
            wire.carry(wire.server_end, Close(_BROKEN, ""))
            raise
        if response is not None:
            self._network.wires.remove(wire)
            raise InvalidStatus(response)
        return wire

    async def __aexit__(self, *_: object) -> None:
        assert self._socket is not None
        await self._socket.close()


def _closed(close: Close) -> ConnectionClosedError | ConnectionClosedOK:
    kind = ConnectionClosedOK if close.code in (1000, _GOING_AWAY) else ConnectionClosedError
    return kind(None if close.code == _BROKEN else close, None)
