"""The events of a stream that its client has, kept so that it can be continued. Pure."""

from penumbra.router.dispatch.kept_bytes import BLOCK_BYTES, MOST_BYTES_A_STREAM, KeptBytes

_TAIL_PIECES = 3
"""Pieces that hold a stream's end: its finish, its usage, its mark."""


class KeptStream:
    """The events of one stream with data, in pieces.

    Args:
        budget: Budget of the process.
    """

    __slots__ = ("_budget", "_left", "_tail", "_taken", "pieces")

    def __init__(self, budget: KeptBytes) -> None:
        self._budget = budget
        self._left = 0
        """Bytes that are left of those that were taken; negative while more are needed."""
        self._taken = 0
        self._tail: list[bytes] = []
        self.pieces: list[bytes] | None = []
        """The events sent, in pieces; None once they are not kept any more."""

    @property
    def tail(self) -> bytes:
        """The last events."""
        pieces = self._tail if self.pieces is None else self.pieces[-_TAIL_PIECES:]
        return b"".join(pieces)

    def add(self, data: bytes) -> None:
        """Keep a piece; past a limit only the stream's end is kept."""
        pieces = self.pieces
        if pieces is None:
            self._tail = [*self._tail[1 - _TAIL_PIECES :], data]
            return
        pieces.append(data)
        self._left -= len(data)
        if self._left < 0:
            self._make_room(pieces)

    def _make_room(self, pieces: list[bytes]) -> None:
        while self._left < 0:
            size = self._taken - self._left
            if size > MOST_BYTES_A_STREAM or not self._budget.take_block():
                self._tail = pieces[-_TAIL_PIECES:]
                self.close()
                return
            self._left += BLOCK_BYTES
            self._taken += BLOCK_BYTES

    def close(self) -> None:
        """Keep nothing any more and give the bytes back to the budget."""
        self.pieces = None
        self._budget.give_back(self._taken)
        self._taken = 0
