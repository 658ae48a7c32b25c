"""Client of the socket on which a gateway hands mirrored requests over to the comparator.

Nothing here waits, and nothing is on a request's path. `offer` queues a request after its client
has the last byte. A little later all queued requests are encoded and written together, so a
comparator that sleeps on another core is woken once for many. The buffer is bounded. `refusal` is
called before a request is tapped, so one that could not be handed over costs its engine nothing.

Whether there is room depends on what waits already, never on the size of the next request: a limit
that long answers reach first would make the compared traffic look shorter than it is.

Reading order: ComparatorClient.refusal, ComparatorClient.offer, ComparatorClient.run.
"""

import asyncio
import logging
from collections import deque
from pathlib import Path
from typing import cast

from penumbra.router.bounds import COMPARED_BYTES
from penumbra.router.mirror.frame import MirrorFrame, frame
from penumbra.router.mirror.shed_reason import ShedReason

log = logging.getLogger(__name__)

BUFFER_BYTES = 16 * 1024 * 1024
_BATCH_SECONDS = 0.005
"""Time for which requests are queued before they are written together."""
_TURN_BYTES = 1024 * 1024
"""Bytes that are encoded in one turn of the event loop: about a millisecond."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class ComparatorClient(asyncio.Protocol):
    """Hands mirrored requests over.

    Args:
        path: The comparator's socket; None if there is no comparator.
        buffer_bytes: Bytes that may wait for it, encoded or not.
    """

    def __init__(self, path: Path | None, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._path = path
        self._limit = buffer_bytes
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: deque[MirrorFrame] = deque()
        self._waiting_bytes = 0
        self._flushing: asyncio.TimerHandle | asyncio.Handle | None = None
        self._ended = asyncio.Event()
        self.lost = 0
        """Requests that waited when the comparator went away."""

    # Requests

    @property
    def is_connected(self) -> bool:
        """Whether a comparator is connected."""
        return self._transport is not None

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the comparator."""
        written = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._waiting_bytes + written

    def refusal(self) -> ShedReason | None:
        """Return why nothing can be handed over now; None if it can."""
        if self._transport is None:
            return ShedReason.NO_COMPARATOR
        return ShedReason.BUFFER_FULL if self.buffered_bytes >= self._limit else None

    def offer(self, mirrored: MirrorFrame) -> ShedReason | None:
        """Hand over one request; never waits, never raises.

        Returns:
            The reason why it was shed; None if it was taken.
        """
        refusal = self.refusal()
        if refusal is not None:
            return refusal
        size = len(mirrored.body) + len(mirrored.answer)
        if size > COMPARED_BYTES:
            return ShedReason.TOO_LARGE
        self._waiting.append(mirrored)
        self._waiting_bytes += size
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(_BATCH_SECONDS, self._flush)
        return None

    def _flush(self) -> None:
        """Encode and write the waiting requests, a bounded part of them in one turn."""
        self._flushing = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        frames: list[bytes] = []
        left = _TURN_BYTES
        while self._waiting and left > 0:
            mirrored = self._waiting.popleft()
            self._waiting_bytes -= len(mirrored.body) + len(mirrored.answer)
            frames.append(frame(mirrored))
            left -= len(frames[-1])
        transport.write(b"".join(frames))
        if self._waiting:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    # Connection

    async def run(self) -> None:
        """Keep a connection to the comparator, until cancelled."""
        if self._path is None:
            return
        now = asyncio.get_running_loop().time
        pause = _FIRST_PAUSE_SECONDS
        try:
            while True:
                began_at = now()
                if await self._connect(self._path):
                    await self._ended.wait()
                await asyncio.sleep(pause)
                # One that takes connections only to close them is treated as one that is away.
                is_stable = now() - began_at > 2 * _LONGEST_PAUSE_SECONDS
                pause = (
                    _FIRST_PAUSE_SECONDS if is_stable else min(2 * pause, _LONGEST_PAUSE_SECONDS)
                )
        finally:
            if self._transport is not None:
                self._transport.abort()

    async def _connect(self, path: Path) -> bool:
        self._ended.clear()
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, str(path))
        except OSError:
            return False  # not there yet, or no longer; the gauge and the sheds show it
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)
        log.info("comparator_connected")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol. What was not written is lost: it is evidence, not a request."""
        del exc
        if self._flushing is not None:
            self._flushing.cancel()
        self.lost += len(self._waiting)
        self._transport, self._flushing = None, None
        self._waiting.clear()
        self._waiting_bytes = 0
        self._ended.set()
        log.info("comparator_lost")
