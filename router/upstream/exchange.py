"""One request at one HTTP upstream, whatever connection carries it: the stream of its caller."""

import asyncio
from typing import Protocol

import msgspec

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.port import AttemptBudget, Receiver


class Sender(Protocol):
    """The pool that opens a connection for a request."""

    def connect_for(self, exchange: "UpstreamExchange") -> None:
        """Open a connection and send `exchange` on it."""


class Carrier(Protocol):
    """The connection that carries a request and its answer."""

    def abort(self) -> None:
        """Close at once and drop the exchange in flight."""

    def set_paused(self, *, is_paused: bool) -> None:
        """Stop reading, or go on."""


class UpstreamExchange(msgspec.Struct, eq=False):
    """One request at one upstream: the `Stream` that its caller holds."""

    upstream: Sender
    """The pool that sends it."""
    wire: tuple[bytes, ...]
    """The request as bytes, in pieces."""
    receiver: Receiver
    """Takes the answer."""
    budget: AttemptBudget
    """Takes count of the sends."""
    connection: Carrier | None = None
    connecting: asyncio.Task[None] | None = None
    was_sent: bool = False
    was_reused: bool = False
    is_over: bool = False
    is_paused: bool = False

    def abort(self) -> None:
        """See `Stream`."""
        if self.is_over:
            return
        self.is_over = True
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.abort()

    def pause(self) -> None:
        """See `Stream`."""
        self.is_paused = True
        if self.connection is not None and not self.is_over:
            self.connection.set_paused(is_paused=True)

    def resume(self) -> None:
        """See `Stream`."""
        self.is_paused = False
        if self.connection is not None and not self.is_over:
            self.connection.set_paused(is_paused=False)

    def fail(self, outcome: Outcome, detail: str) -> None:
        """End the exchange with a failure, once."""
        if self.is_over:
            return
        self.is_over = True
        self.receiver.on_fail(outcome, detail)

    def carried_by(self, connection: Carrier) -> None:
        """Count a send: `connection` writes the request now."""
        self.connection = connection
        self.was_sent = True
        self.budget.left -= 1

    def never_arrived(self) -> None:
        """Take back a send that the server can not have seen."""
        self.was_sent = False
        self.budget.left += 1

    def closed_unanswered(self) -> None:
        """Handle a connection that was closed, or broke, before a byte of the answer.

        A kept connection may be closed by its server at any moment, and a proxy closes one whose
        own server did so. Then the request is sent once more, on a fresh one.
        """
        if self.is_over:
            return
        if self.was_reused and (self.budget.can_repeat or not self.was_sent):
            self.was_reused = False
            self.connection = None
            self.upstream.connect_for(self)
        else:
            self.fail(Outcome.REFUSED, "connection closed before an answer")
