"""Interfaces between a dispatch, its client and one variant."""

from collections.abc import Callable, Collection
from typing import Protocol

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.build_record import BuildRecord
from penumbra.router.errors import GatewayError
from penumbra.router.metrics import VariantCells
from penumbra.router.upstream.port import Headers, Receiver, Stream, Upstream, UpstreamRequest


class Client(Protocol):
    """The client's side of one request."""

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer."""

    def send_head(self, status: int, headers: Headers) -> None:
        """Send the head of an answer of unknown length."""

    def send_piece(self, data: bytes) -> None:
        """Send a piece of an answer, not empty."""

    def finish(self) -> None:
        """End an answer that is complete."""

    def break_off(self) -> None:
        """Close the connection: the answer cannot be completed."""

    def send_error(self, error: GatewayError) -> None:
        """Send an error of the gateway's own in place of an answer."""

    def note_first_data(self) -> None:
        """Note the first data of an answer whose head and comments were sent before."""

    def count_repeat(self) -> None:
        """Count one more request of the tenant: a candidate's refusal is asked again."""


class AttemptWatch(Protocol):
    """Observer of one variant's attempts, for a rollout."""

    def admit(self, slice_name: str) -> Admission | None:
        """Give an attempt its place in the order of attempts; None if the order is not needed."""

    def note_failure(self, outcome: Outcome, admission: Admission | None) -> None:
        """Note that an attempt has failed, before it is known whose fault it was."""

    def record_end(
        self, slice_name: str, outcome: Outcome, admission: Admission | None = None
    ) -> None:
        """Record the outcome of an attempt at the variant: whose fault it was is known."""

    def record_first_byte(self, slice_name: str, seconds: float, *, is_stream: bool) -> bool:
        """Note the time to the first data of an answer that the first attempt gave.

        Returns:
            Whether it is left to be held against a shadow answer's.
        """

    def record_pace(self, slice_name: str, seconds: float) -> bool:
        """Note the mean time between two tokens of a complete stream; returns as above."""


class TrafficGate:
    """Whether a variant of a model is in service, shared by all routing tables of the process.

    A request keeps the table that it was decided by and may try a candidate a while later, when
    that stands in for an unavailable baseline. A closed gate holds for such a request at once.

    Args:
        is_guarded: Whether the candidate may get live traffic now: the lease.
    """

    __slots__ = ("_is_guarded", "closed_slices", "is_shut")

    def __init__(self, is_guarded: Callable[[], bool] = lambda: True) -> None:
        self.is_shut = False
        self.closed_slices: Collection[str] = ()
        """Slices in which the variant, a candidate, may not answer."""
        self._is_guarded = is_guarded

    def admits(self, slice_name: str) -> bool:
        """Whether an attempt at the variant, a candidate, may start now."""
        return not self.is_shut and slice_name not in self.closed_slices and self._is_guarded()


class Attempt:
    """A variant as requests try it: its upstream, counters, watch and gate.

    Args:
        name: Name of the variant.
        upstream: The variant's upstream.
        cells: Its counters.
        watch: Observer for a rollout, if there is one.
        gate: Gate shared by all attempts at the variant; None: one that is always open.
        record: What is known of the build; None: nothing yet.
    """

    __slots__ = ("cells", "gate", "name", "record", "upstream", "watch")

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        cells: VariantCells,
        watch: AttemptWatch | None = None,
        gate: TrafficGate | None = None,
        record: BuildRecord | None = None,
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.cells = cells
        self.watch = watch
        self.gate = gate or TrafficGate()
        self.record = record or BuildRecord()

    def note_failure(self, outcome: Outcome, admission: Admission | None) -> None:
        """Tell the watch of a failure before it is known whose fault it was."""
        if self.watch is not None:
            self.watch.note_failure(outcome, admission)

    def begin(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """Send a request. The caller has asked the gate; a start behind a shut gate is counted."""
        if self.gate.is_shut:
            self.cells.post_rollback_starts.value += 1
        return self.upstream.stream(request, receiver)

    def record_end(
        self, slice_name: str, outcome: Outcome, admission: Admission | None = None
    ) -> None:
        """Count the outcome of an attempt and tell the watch."""
        self.cells.of(slice_name).attempts[outcome].value += 1
        if self.watch is not None:
            self.watch.record_end(slice_name, outcome, admission)
