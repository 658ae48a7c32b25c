"""Budget for the bytes of streams that a process keeps so that they can be continued. Pure.

A stream takes its share block by block. When the budget is used up, streams that grow are no longer
kept: they go on, but cannot be continued.
"""

BLOCK_BYTES = 64 * 1024
MOST_BYTES = 24 * 1024 * 1024
"""Of one process."""
MOST_BYTES_A_STREAM = 4 * 1024 * 1024
"""A longer stream cannot be continued."""


class KeptBytes:
    """The bytes that one process keeps.

    Args:
        most: The budget, bytes.
    """

    __slots__ = ("_most", "taken")

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self.taken = 0
        """Bytes that streams have taken."""

    def take_block(self) -> bool:
        """Take `BLOCK_BYTES`; False if there is no room."""
        if self.taken + BLOCK_BYTES > self._most:
            return False
        self.taken += BLOCK_BYTES
        return True

    def give_back(self, count: int) -> None:
        """Give back bytes that were taken."""
        self.taken -= count
