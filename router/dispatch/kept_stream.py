"""The events of a stream that its client has, kept so that it can be continued. Pure."""

from penumbra.router.dispatch.kept_bytes import BLOCK_BYTES, MOST_BYTES_A_STREAM, KeptBytes


class KeptStream:
    """The events of one stream.

    Args:
        budget: Budget of the process.
    """

    __slots__ = ("_budget", "_room", "_size", "_taken", "pieces")

    def __init__(self, budget: KeptBytes) -> None:
        self._budget = budget
        self._size = 0
        self._room = 0
        self._taken = 0
        self.pieces: list[bytes] | None = []
        """The events sent, in pieces; None once they are not kept any more."""

    def add(self, data: bytes) -> None:
        """Keep a piece; past a limit the stream is kept no more."""
        pieces = self.pieces
        if pieces is None:
            return
        pieces.append(data)
        self._size += len(data)
        if self._size > self._room:
            self._make_room()

    def _make_room(self) -> None:
        while self._room < self._size:
            if self._size > MOST_BYTES_A_STREAM or not self._budget.take_block():
                self.close()
                return
            self._room += BLOCK_BYTES
            self._taken += BLOCK_BYTES

    def close(self) -> None:
        """Keep nothing any more and give the bytes back to the budget."""
        self.pieces = None
        self._budget.give_back(self._taken)
        self._taken = 0
