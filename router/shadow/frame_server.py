"""Server of the Unix socket on which the gateways of a machine hand over mirrored requests.

Nothing is ever sent back, and reading never waits for a comparison: a request without room is shed
at once, so a gateway's socket buffer stays empty however slow the engines are.
"""

import asyncio
import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Protocol

import msgspec

from penumbra.router.bounds import FRAME_BYTES
from penumbra.router.mirror.frame import LENGTH_BYTES, MirrorFrame, read_frame

log = logging.getLogger(__name__)

_BACKLOG = 64


class FrameReceiver(Protocol):
    """Takes the frames that a `FrameServer` reads; must not block."""

    def offer(self, mirrored: MirrorFrame, size_bytes: int) -> None:
        """Take a mirrored request of so many bytes, or shed it."""

    def note_malformed(self) -> None:
        """Count a frame that could not be read; its connection is closed."""


class FrameServer:
    """Accepts gateways and reads their frames.

    Args:
        path: Path of the socket; an old socket without a listener is replaced.
        receiver: Takes the frames.
        connections: Gateways at once.
    """

    def __init__(self, path: Path, receiver: FrameReceiver, connections: int = 64) -> None:
        self._path = path
        self._receiver = receiver
        self._limit = connections
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """Gateways that are connected."""
        return len(self._writers)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: The socket cannot be made; the message names it.
        """
        await self._remove_stale_socket()
        try:
            server = await asyncio.start_unix_server(self._serve, self._path, backlog=_BACKLOG)
        except OSError as error:
            text = f"cannot listen on {self._path} (shadow.socket_path): {error.strerror}"
            raise OSError(error.errno, text) from error
        # Prompts arrive here, so the socket is for this user's gateways only.
        self._path.chmod(0o600)
        log.info("frames_awaited", extra={"socket": str(self._path)})
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for writer in list(self._writers):
                writer.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _remove_stale_socket(self) -> None:
        try:
            if not stat.S_ISSOCK(self._path.stat().st_mode):
                return  # binding fails with an error that says what is wrong
        except FileNotFoundError:
            return
        try:
            _, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            self._path.unlink()
            return
        writer.close()
        raise OSError(f"another comparator listens on {self._path} (shadow.socket_path)")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= self._limit:
            log.warning("gateway_connection_refused", extra={"connections": self._limit})
            writer.close()
            return
        self._writers.add(writer)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
                if not 0 < length <= FRAME_BYTES:
                    raise msgspec.DecodeError(f"a frame of {length} bytes")
                mirrored = read_frame(await reader.readexactly(length))
                self._receiver.offer(mirrored, length)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Not the error's text: it could quote what it could not read.
            log.warning("frame_malformed", extra={"error": type(error).__name__})
            self._receiver.note_malformed()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def nice(amount: int) -> None:
    """Add to this process's nice value, so that other processes go first."""
    if amount:
        os.nice(amount)
