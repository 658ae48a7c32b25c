"""The two parties of a dispatch: the client that wants an answer, a variant that may give it."""

from collections.abc import Callable, Collection
from typing import Protocol

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.errors import GatewayError
from penumbra.router.metrics import VariantCells
from penumbra.router.upstream.port import Headers, Receiver, Stream, Upstream, UpstreamRequest


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


class AttemptWatch(Protocol):
    """Looks on while a variant answers."""

    def ended(self, slice_name: str, outcome: Outcome) -> None:
        """An attempt at the variant is over."""

    def first_byte(self, slice_name: str, seconds: float) -> None:
        """It began its answer, asked first, after so long."""

    def piece(self, slice_name: str, seconds: float) -> None:
        """It completed a stream, with so long between two pieces on average."""


class TrafficGate:
    """Whether a variant of a model is in service, whichever routing table one has in hand.

    A request keeps the table that it was decided by, and may come to a candidate a while later, if
    that stands in for a baseline which is away; what the guard says holds at once for all.

    Args:
        is_guarded: Whether candidates of the model may get live traffic now: the lease.
    """

    __slots__ = ("_is_guarded", "closed_slices", "is_shut")

    def __init__(self, is_guarded: Callable[[], bool] = lambda: True) -> None:
        self.is_shut = False
        self.closed_slices: Collection[str] = ()
        """Slices that stay on the baseline."""
        self._is_guarded = is_guarded

    def admits(self, slice_name: str) -> bool:
        """Whether an attempt at the variant, a candidate, may start now."""
        return not self.is_shut and slice_name not in self.closed_slices and self._is_guarded()


class Attempt:
    """What is known of a variant when it is tried."""

    __slots__ = ("cells", "gate", "name", "upstream", "watch")

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        cells: VariantCells,
        watch: AttemptWatch | None = None,
        gate: TrafficGate | None = None,
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.cells = cells
        self.watch = watch
        self.gate = gate or TrafficGate()

    def begin(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """Send a request to it. Who asks has looked at the gate; this counts if not."""
        if self.gate.is_shut:
            self.cells.post_rollback_starts.value += 1
        return self.upstream.stream(request, receiver)

    def ended(self, slice_name: str, outcome: Outcome) -> None:
        """An attempt at it is over."""
        self.cells.of(slice_name).attempts[outcome].value += 1
        if self.watch is not None:
            self.watch.ended(slice_name, outcome)
