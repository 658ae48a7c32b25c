"""Mirrored requests of a gateway, each from its decision to the hand-over to the comparator.

`penumbra.router.mirror.selection` decides which requests are mirrored,
`penumbra.router.mirror.route_taps` asks for token ids and takes them out of the client's answer,
and `penumbra.router.mirror.comparator_client` hands the request over. A request that fails here is
counted by its reason, and its client does not notice.

Reading order: MirrorSessions.begin, MirrorSessions.end.
"""

import logging
import math
import time
from dataclasses import dataclass

from penumbra.monitoring.logs import trace_field
from penumbra.monitoring.observations import Run
from penumbra.router import sse
from penumbra.router.flags.request_routes import route_of
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.mirror.comparable import COMPARED_ROUTES
from penumbra.router.mirror.comparator_client import ComparatorClient
from penumbra.router.mirror.evidence_flow import EvidenceFlow
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.route_taps import make_tap
from penumbra.router.mirror.selection import comparable
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_tap import TokenTap
from penumbra.router.upstream.port import UpstreamRequest

log = logging.getLogger(__name__)

_FAILED = frozenset({ShedReason.ERROR, ShedReason.BROKEN_OFF})
_WITHOUT_DECODE_SECONDS = 600.0
"""Time for which a model is not asked for log-probabilities that one of its builds refused."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts of a mirrored request that identify and group it."""

    request_id: bytes
    """The id that its client knows."""
    own_id: bytes
    """The gateway's own id of it, by which it is drawn."""
    model: str
    slice_name: str
    epoch: int
    prompt_hash: int
    root: int
    """Hash of the root of its conversation."""
    session: int
    trace: str = ""
    """Its `traceparent`; empty if it is not traced."""


@dataclass(slots=True)
class MirrorSession:
    """A mirrored request under way."""

    tap: TokenTap
    runs: tuple[Run, ...]
    baseline: str
    facts: RequestFacts
    request: UpstreamRequest
    """The request as the client sent it."""
    has_left: bool = False
    """Whether the client left before the end of its answer."""
    problem: str = ""
    """How the build failed that was asked first, if no other was; empty: it did not."""

    @property
    def is_whole(self) -> bool:
        """Whether the client got an answer, and stayed for all of it."""
        return not self.has_left and not self.problem

    @property
    def has_part(self) -> bool:
        """Whether tokens of a stream came before the client left: these are compared."""
        is_stream = not self.tap.answer.lstrip().startswith(b"{")
        return is_stream and bool(self.tap.count_tokens())


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """The variant that answered a mirrored request, and when; monotonic seconds."""

    variant: str
    started_at: float
    first_byte_at: float
    ended_at: float
    was_paused: bool = False
    """Whether the client did not keep up."""
    latencies: tuple[str, ...] = ()
    """Latencies that a shadow answer's may be held against; see `MirrorFrame.latencies`."""


class MirrorSessions:
    """All mirrored requests of one gateway process.

    Args:
        comparator_client: Takes the requests for the comparator.
        outbox: Takes the sheds.
        metrics: Counts mirrored requests and sheds.
    """

    def __init__(
        self,
        comparator_client: ComparatorClient,
        outbox: ObservationOutbox,
        metrics: GatewayMetrics,
    ) -> None:
        self.comparator_client = comparator_client
        self.flow = EvidenceFlow()
        """Whether the comparator takes what is mirrored."""
        self._outbox = outbox
        self._metrics = metrics
        self._without_decode: dict[str, float] = {}
        """Models of which a build refused to tell log-probabilities -> until when it is not asked
        for them; monotonic seconds."""

    def begin(
        self,
        runs: tuple[Run, ...],
        baseline: str,
        request: UpstreamRequest,
        facts: RequestFacts,
        *,
        is_decode_wanted: bool = False,
    ) -> MirrorSession | None:
        """Begin to mirror a request that was chosen, before it is sent to a variant.

        Args:
            runs: The runs for which it was chosen.
            baseline: The baseline of its model.
            request: The request as the client sent it.
            facts: Facts that identify it.
            is_decode_wanted: Whether the decoding of its answer is to be read.

        Returns:
            None if it cannot be handed over now: then it is not tapped either.
        """
        try:
            tap = self._tap(runs, request, facts, is_decode_wanted=is_decode_wanted)
            return None if tap is None else MirrorSession(tap, runs, baseline, facts, request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes on
            self._fault(runs, facts, error)
            return None

    def _tap(
        self,
        runs: tuple[Run, ...],
        request: UpstreamRequest,
        facts: RequestFacts,
        *,
        is_decode_wanted: bool,
    ) -> TokenTap | None:
        refusal = self.comparator_client.refusal()
        if refusal is not None:
            self._shed(runs, facts, refusal)
            return None
        if is_decode_wanted:
            muted_until = self._without_decode.get(facts.model, -math.inf)
            is_decode_wanted = time.monotonic() >= muted_until
        tap = make_tap(route_of(request.path), request, is_decode_wanted=is_decode_wanted)
        if tap is None:
            self._shed(runs, facts, ShedReason.NOT_TAPPABLE)
            return None
        return tap

    def leave_out(self, runs: tuple[Run, ...], slice_name: str, route: str) -> None:
        """Count a request that was chosen and cannot be compared: its route, or what it asks for.

        Args:
            runs: The runs for which it was chosen.
            slice_name: Its slice.
            route: Name of its route.
        """
        is_compared = route in COMPARED_ROUTES
        for run in runs:
            reason = ShedReason.NOT_TAPPABLE if is_compared else ShedReason.ROUTE
            self._count_shed(run, slice_name, reason, route)

    def end(self, session: MirrorSession, times: AnswerTimes) -> None:
        """Hand the request over, or shed it: the client has its last byte, or will get no more."""
        try:
            self._end(session, times)
        except Exception as error:  # noqa: BLE001 - the caller has an answer to finish
            self._fault(session.runs, session.facts, error)

    def _end(self, session: MirrorSession, times: AnswerTimes) -> None:
        if session.has_left and not session.has_part:
            session.tap.lose(ShedReason.CLIENT_GONE)
        facts, lost = session.facts, session.tap.lost
        if session.tap.has_refused_decode and lost is None:
            # Without them the same request was answered.
            self._without_decode[facts.model] = times.ended_at + _WITHOUT_DECODE_SECONDS
        if lost in _FAILED and session.problem and times.variant == session.baseline:
            self._hand_over(session.runs, session, times)
            return
        if lost is not None:
            self._shed(session.runs, facts, lost)
            return
        runs = comparable(session.runs, session.baseline, times.variant)
        others = tuple(run for run in session.runs if run not in runs)
        if others:
            self._shed(others, facts, ShedReason.OTHER_VARIANT)
        if runs:
            self._hand_over(runs, session, times)

    def _hand_over(self, runs: tuple[Run, ...], session: MirrorSession, times: AnswerTimes) -> None:
        facts, answer = session.facts, session.tap.answer
        if sse.ERROR_MARK in answer and sse.has_error_event(answer):
            if times.variant != session.baseline:
                self._shed(runs, facts, ShedReason.ERROR)
                return
            session.problem, answer = "error_event", b""
        mirrored = MirrorFrame(
            request_id=facts.request_id.decode("latin-1"),
            model=facts.model,
            variant=times.variant,
            candidates=tuple(run.candidate for run in runs) if session.is_whole else (),
            slice=facts.slice_name,
            epoch=facts.epoch,
            path=session.request.path.partition(b"?")[0].decode("ascii"),
            prompt_hash=facts.prompt_hash,
            session=facts.session,
            body=session.request.body,
            is_stream=not answer.lstrip().startswith(b"{"),
            answer=answer,
            answered_at=times.ended_at,
            first_byte_seconds=times.first_byte_at - times.started_at,
            total_seconds=times.ended_at - times.started_at,
            trace=facts.trace,
            own_id=facts.own_id.decode("ascii"),
            root=facts.root,
            was_paused=times.was_paused,
            partial_for=() if session.is_whole else tuple(run.candidate for run in runs),
            problem=session.problem,
            latencies=times.latencies,
        )
        refusal = self.comparator_client.offer(mirrored)
        if refusal is not None:
            self._shed(runs, facts, refusal)
            return
        for run in runs:
            self.flow.come(run, time.monotonic())
            cell = self._metrics.mirrored.cell(facts.model, run.candidate, facts.slice_name)
            cell.value += 1

    def _fault(self, runs: tuple[Run, ...], facts: RequestFacts, error: Exception) -> None:
        # The type only: the text could quote the request.
        log.error(
            "mirroring_failed", extra={"error": type(error).__name__, **trace_field(facts.trace)}
        )
        self._shed(runs, facts, ShedReason.FAULT)

    def _shed(self, runs: tuple[Run, ...], facts: RequestFacts, reason: ShedReason) -> None:
        for run in runs:
            self._count_shed(run, facts.slice_name, reason)

    def _count_shed(self, run: Run, slice_name: str, reason: ShedReason, route: str = "") -> None:
        self._metrics.mirror_sheds.cell(run.model, run.candidate, reason.value).value += 1
        self.flow.lack(run, reason, time.monotonic())
        self._outbox.shed(run, slice_name, reason.value, route)
