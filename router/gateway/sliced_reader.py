"""Gives what a client has sent to the parser in slices, so that no read holds up the event loop.

One read of a quarter of a megabyte may hold seven thousand requests, or forty thousand chunks of
one byte. `GatewayProtocol` (`penumbra.router.gateway.client_protocol`) is the only subclass.
"""

from abc import abstractmethod
from typing import Any

from penumbra.router.gateway.head_reader import HeadReader
from penumbra.router.gateway.repeated_head import RepeatedHead
from penumbra.router.settings import LimitSettings

PIPELINE_LENGTH = 16
"""Requests of a connection that wait for their turn before it is not read on."""
SLICE_BYTES = 8 * 1024
_MOST_HEADS = 32
"""Heads that are parsed in one turn of the event loop, but for the rest of a slice."""
_CHUNKED_HEADS = 4
"""Heads that cost as much as a slice of a chunked body, whose chunks may be of one byte."""
_MOST_UNFED_BYTES = 1024 * 1024


class SlicedReader(HeadReader):
    """The reading side of a client connection, up to the parser.

    Args:
        limits: Limits of the process.
        **uvicorn_state: Arguments of uvicorn's own protocol.
    """

    def __init__(self, limits: LimitSettings, **uvicorn_state: Any) -> None:
        super().__init__(limits, **uvicorn_state)
        # Bytes for which the parser has no time yet, or the pipeline no room.
        self._unfed: bytes | None = None

    @abstractmethod
    def _take(self, data: bytes | memoryview) -> None:
        """Take a slice of what the client sent."""

    @abstractmethod
    def _begin_repeat(self, head: RepeatedHead, data: bytes) -> bool:
        """Begin a request without the parser, if `data` is a whole one with this head."""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._unfed is not None:  # what reads a body has gone on reading meanwhile
            self._unfed += data
            self.flow.pause_reading()
            if len(self._unfed) > _MOST_UNFED_BYTES:
                self.transport.abort()
        elif self._repeated is not None and self._begin_repeat(self._repeated, data):
            return
        elif len(data) <= SLICE_BYTES:
            self._take(data)
        else:
            self._feed_slices(data)

    def _go_on_reading(self) -> None:
        """Read on, unless there is something left to feed; then that comes first."""
        if self._unfed is None:
            self.flow.resume_reading()
        else:
            self.loop.call_soon(self._feed_rest)

    def _feed_rest(self) -> None:
        rest, self._unfed = self._unfed, None
        if rest is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._feed_slices(rest)

    def _feed_slices(self, data: bytes) -> None:
        view, at, work = memoryview(data), 0, 0
        while at < len(view) and not self.transport.is_closing():
            if len(self.pipeline) >= PIPELINE_LENGTH or work > _MOST_HEADS:
                self._unfed = data[at:]
                self.flow.pause_reading()
                if work > _MOST_HEADS:
                    self.loop.call_soon(self._feed_rest)
                return
            heads = self._heads
            self._take(view[at : at + SLICE_BYTES])
            work += self._heads - heads + (_CHUNKED_HEADS if self._is_chunked else 0)
            at += SLICE_BYTES
