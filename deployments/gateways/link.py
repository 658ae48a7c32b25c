"""One process -- a gateway or a comparator -- that is connected to the control process.

Each has a task of its own that sends what is for it, so one that hangs holds up nobody. Nothing
queues up for it either: of the tables, and of whatever else has a key, only the newest is sent.
"""

import asyncio
from typing import Protocol

from penumbra.router.link.messages import Hello

_TABLE = "table"


class LinkClosed(Exception):
    """The connection is gone.

    Args:
        text: How.
        has_ended: The process closed it in order: it has come to its end.
    """

    def __init__(self, text: str, *, has_ended: bool = False) -> None:
        super().__init__(text)
        self.has_ended = has_ended


class Channel(Protocol):
    """The connection to one process."""

    async def send(self, text: str) -> None:
        """Send one message. Raises LinkClosed."""

    async def receive(self) -> str:
        """The next message. Raises LinkClosed."""


class Link:
    """One process that is connected."""

    def __init__(self, hello: Hello, channel: Channel, connected_at: float, peer: str = "") -> None:
        self.hello = hello
        self.peer = peer
        """The host that it connects from; empty if that is not known."""
        self.has_ended = False
        """It closed the connection in order."""
        self.connected_at = connected_at
        self.epoch = 0
        """The last one that it acknowledged."""
        self.refusal: str | None = None
        """Why it refused the last table that it refused, if it has taken none since."""
        self.last_propagation_seconds: float | None = None
        self._channel = channel
        self._news: dict[object, str] = {}
        self._has_news = asyncio.Event()

    def offer(self, push: str) -> None:
        """Let this be the next table that is sent, before anything else."""
        self.say(_TABLE, push)

    def say(self, key: object, text: str) -> None:
        """Send this message, in place of one with the same key that has not been sent yet."""
        self._news[key] = text
        self._has_news.set()

    async def send_news(self) -> None:
        """Send whatever there is to send, until the channel closes."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            while self._news:
                key = _TABLE if _TABLE in self._news else next(iter(self._news))
                await self._channel.send(self._news.pop(key))
