"""Objects with a deadline."""

from typing import Protocol


class Timed(Protocol):
    """An object with a deadline, which the gateway's sweep watches."""

    deadline: float

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""

    def forgive(self, seconds: float) -> None:
        """Extend all limits: the process itself stood still for so long."""
