"""The `BrokenStream` port: what a continuation knows of the stream that it completes."""

from typing import Protocol


class BrokenStream(Protocol):
    """The stream that broke off: takes the rest of its events and the end."""

    @property
    def slice_name(self) -> str:
        """The request's slice, for the attempt counters."""

    def send_event(self, event: bytes) -> None:
        """Send one event of the continuation to the client."""

    def finish_resumed(self) -> None:
        """End the answer: the continuation is complete."""

    def give_up(self) -> None:
        """Break the answer off: the stream cannot be completed."""
