"""Buffer for the part of an answer that its client has not got yet. Pure.

A whole body is buffered until it is complete, a stream until its first event is sound. Later the
buffer holds the beginning of an event. It is off the byte path: whole events pass it by.
"""

import msgspec

from penumbra.router import sse

BUFFER_LIMIT_BYTES = 8 * 1024 * 1024
"""A whole body above this size is passed on as it comes and can no longer be replaced."""
_LONGEST_MARK = 3
"""Bytes of an event's end that may be in an earlier piece than its last byte."""


class ResponseBuffer(msgspec.Struct, eq=False):
    """Bytes that wait to be passed on; joined only when they must be read."""

    length: int = 0
    """Bytes in the buffer."""
    _pieces: list[bytes] = []
    _end: bytes = b""

    def append(self, data: bytes) -> None:
        """Append a piece of what is no stream of events."""
        self._pieces.append(data)
        self.length += len(data)

    def add(self, data: bytes) -> bool:
        """Append a piece; returns whether an event ends in it."""
        joined = self._end + data
        self._end = joined[-_LONGEST_MARK:]
        self._pieces.append(data)
        self.length += len(data)
        return sse.complete_length(joined) > 0

    @property
    def is_over_limit(self) -> bool:
        """Whether the buffer is over `BUFFER_LIMIT_BYTES`."""
        return self.length > BUFFER_LIMIT_BYTES

    @property
    def data(self) -> bytes:
        """All bytes in the buffer."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def take(self, length: int) -> bytes:
        """Remove and return the first `length` bytes."""
        data = self.data
        rest = data[length:]
        self._pieces = [rest] if rest else []
        self.length = len(rest)
        self._end = rest[-_LONGEST_MARK:]
        return data[:length]
