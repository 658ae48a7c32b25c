"""The two parties of a dispatch: the client that wants an answer, a variant that may give it."""

from typing import Protocol

from router.errors import GatewayError
from router.metrics import VariantCells
from router.ports import Headers, Upstream


class Client(Protocol):
    """The client's side of one request."""

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer."""

    def send_head(self, status: int, headers: Headers) -> None:
        """The head of an answer of unknown length."""

    def send_piece(self, data: bytes) -> None:
        """A piece of it, not empty."""

    def finish(self) -> None:
        """The answer is complete."""

    def break_off(self) -> None:
        """The answer cannot be completed: close the connection."""

    def send_error(self, error: GatewayError) -> None:
        """An error of the gateway's own, in place of an answer."""


class Attempt:
    """What is known of a variant when it is tried."""

    __slots__ = ("cells", "name", "upstream")

    def __init__(self, name: str, upstream: Upstream, cells: VariantCells) -> None:
        self.name = name
        self.upstream = upstream
        self.cells = cells
