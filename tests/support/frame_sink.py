"""A comparator that only listens: it keeps the mirrored requests that a gateway hands over.

It runs on a thread of its own and shares no code with the gateway but the frame's format.
"""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self

from penumbra.router.mirror.frame import LENGTH_BYTES, MirrorFrame, read_frame


class FrameSink:
    """Listens on a Unix socket.

    Args:
        path: The socket's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        """Connections that a gateway has made so far."""
        self._frames: list[MirrorFrame] = []
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._reads = threading.Event()
        self._reads.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Stop as a comparator that died: without a listener, and with closed connections."""
        self._reads.set()
        for sock in [self._listener, *self._open]:
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._listener, self._open = None, []
        self.path.unlink(missing_ok=True)

    def pause(self) -> None:
        """Read no more, after at most one piece: a comparator that hangs."""
        self._reads.clear()

    def resume(self) -> None:
        self._reads.set()

    def forget(self) -> None:
        with self._changed:
            self._frames.clear()

    def wait_for(self, count: int, timeout: float = 30.0) -> list[MirrorFrame]:
        """The first `count` mirrored requests, once they are there."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self._frames) >= count, timeout)
            assert arrived, f"{len(self._frames)} frames came, wanted {count}"
            return self._frames[:count]

    def frame_of(self, request_id: str, timeout: float = 30.0) -> MirrorFrame:
        """The mirrored request with this id, once it is there."""

        def found() -> MirrorFrame | None:
            return next((each for each in self._frames if each.request_id == request_id), None)

        with self._changed:
            frame = self._changed.wait_for(found, timeout)
        assert frame is not None, f"{request_id} was not handed over"
        return frame

    def wait_for_connection(self, number: int = 1, timeout: float = 30.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= number, timeout)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with self._changed:
                self.connections += 1
                self._changed.notify_all()
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        buffer = b""
        while True:
            self._reads.wait()
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            buffer = self._take_frames(buffer + data)

    def _take_frames(self, buffer: bytes) -> bytes:
        while len(buffer) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(buffer[:LENGTH_BYTES], "big")
            if len(buffer) < end:
                break
            with self._changed:
                self._frames.append(read_frame(buffer[LENGTH_BYTES:end]))
                self._changed.notify_all()
            buffer = buffer[end:]
        return buffer
