"""The connection of one gateway or comparator to the control process.

Each link has a task of its own that sends its messages, so a process that hangs delays no other. No
queue builds up either: of messages with the same key, as of the tables, only the newest is sent.
"""

import asyncio
from typing import Protocol

from penumbra.monitoring.answers import AnswerCount
from penumbra.router.link.messages import Hello

_TABLE = "table"


class LinkClosed(Exception):
    """The connection is gone.

    Args:
        text: How it ended.
        has_ended: Whether the process closed it in order, because it ends itself.
    """

    def __init__(self, text: str, *, has_ended: bool = False) -> None:
        super().__init__(text)
        self.has_ended = has_ended


class Channel(Protocol):
    """The connection to one process."""

    async def send(self, text: str) -> None:
        """Send one message; raises LinkClosed."""

    async def receive(self) -> str:
        """Receive the next message; raises LinkClosed."""


class Link:
    """One process that is connected.

    Args:
        hello: Its first message.
        channel: The connection.
        connected_at: Monotonic seconds.
        peer: The host that it connects from; empty if that is not known.
    """

    def __init__(self, hello: Hello, channel: Channel, connected_at: float, peer: str = "") -> None:
        self.hello = hello
        self.peer = peer
        self.has_ended = False
        """Whether it closed the connection in order."""
        self.connected_at = connected_at
        self.epoch = 0
        """The last epoch that it acknowledged."""
        self.refusal: str | None = None
        """Reason for its last refusal of a table; None if it has applied one since."""
        self.last_propagation_seconds: float | None = None
        self.answers: tuple[AnswerCount, ...] | None = None
        """Answers that its clients got in the last minute, as it last said; None if it never did,
        because it is older than that message."""
        self.stopped: dict[str, set[str]] = {}
        """Model -> candidates whose evidence has stopped there, by itself or its comparator."""
        self.kills: dict[str, str] = {}
        """Model -> why an operator killed it there, at the gateway itself."""
        self._channel = channel
        self._unsent: dict[object, str] = {}
        self._has_unsent = asyncio.Event()

    def offer(self, push: str) -> None:
        """Send this table next, before any other message."""
        self.say(_TABLE, push)

    def say(self, key: object, text: str) -> None:
        """Send this message in place of an unsent one with the same key."""
        self._unsent[key] = text
        self._has_unsent.set()

    async def run_sender(self) -> None:
        """Send the messages as they come, until the channel closes."""
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            while self._unsent:
                key = _TABLE if _TABLE in self._unsent else next(iter(self._unsent))
                await self._channel.send(self._unsent.pop(key))
