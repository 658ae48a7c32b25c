"""One mirrored request from its decision to its hand-over, and what becomes of those that fail.

What decides is in `penumbra.router.mirror.selection`, what asks for token ids and takes them out
again in `penumbra.router.mirror.token_tap`, what carries it away in
`penumbra.router.mirror.comparator_client`. Whatever goes wrong here is counted by its reason and
costs the client nothing.

Reading order: MirrorSessions.begin, MirrorSessions.end.
"""

import logging
from dataclasses import dataclass

from penumbra.monitoring.logs import trace_field
from penumbra.monitoring.observations import Run
from penumbra.router import sse
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.mirror.comparator_client import ComparatorClient
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.selection import comparable
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_tap import TokenTap, tap_body
from penumbra.router.upstream.port import UpstreamRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a mirrored request is known as."""

    request_id: bytes
    model: str
    slice_name: str
    epoch: int
    prompt_hash: int
    session: int
    trace: str = ""
    """Its `traceparent`, if it is traced."""


@dataclass(slots=True)
class MirrorSession:
    """A mirrored request under way."""

    tap: TokenTap
    runs: tuple[Run, ...]
    baseline: str
    facts: RequestFacts
    request: UpstreamRequest
    """As the client sent it."""


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """How its answer went; monotonic seconds."""

    variant: str
    """Who answered."""
    started_at: float
    first_byte_at: float
    ended_at: float


class MirrorSessions:
    """All mirrored requests of one gateway process."""

    def __init__(
        self,
        comparator_client: ComparatorClient,
        outbox: ObservationOutbox,
        metrics: GatewayMetrics,
    ) -> None:
        self.comparator_client = comparator_client
        self._outbox = outbox
        self._metrics = metrics

    def begin(
        self, runs: tuple[Run, ...], baseline: str, request: UpstreamRequest, facts: RequestFacts
    ) -> MirrorSession | None:
        """Take on a request that was chosen, before anybody has answered it.

        Args:
            runs: For which it was chosen.
            baseline: Of its model.
            request: As the client sent it.
            facts: What it is known as.

        Returns:
            None if it cannot be handed over now: then it is not tapped either.
        """
        try:
            return self._begin(runs, baseline, request, facts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request goes on
            self._fault(runs, facts, error)
            return None

    def _begin(
        self, runs: tuple[Run, ...], baseline: str, request: UpstreamRequest, facts: RequestFacts
    ) -> MirrorSession | None:
        refusal = self.comparator_client.refusal()
        if refusal is not None:
            self._shed(runs, facts, refusal)
            return None
        body = tap_body(request.body)
        if body is None:
            self._shed(runs, facts, ShedReason.NOT_TAPPABLE)
            return None
        return MirrorSession(TokenTap(request, body), runs, baseline, facts, request)

    def end(self, tapped: MirrorSession, ending: AnswerTimes) -> None:
        """The client has its last byte, or will get no more: hand over what is to be compared."""
        try:
            self._end(tapped, ending)
        except Exception as error:  # noqa: BLE001 - whoever calls has an answer to finish
            self._fault(tapped.runs, tapped.facts, error)

    def _end(self, tapped: MirrorSession, ending: AnswerTimes) -> None:
        facts, lost = tapped.facts, tapped.tap.lost
        if lost is not None:
            self._shed(tapped.runs, facts, lost)
            return
        runs = comparable(tapped.runs, tapped.baseline, ending.variant)
        others = tuple(run for run in tapped.runs if run not in runs)
        if others:
            self._shed(others, facts, ShedReason.OTHER_VARIANT)
        if runs:
            self._hand_over(runs, tapped, ending)

    def _hand_over(self, runs: tuple[Run, ...], tapped: MirrorSession, ending: AnswerTimes) -> None:
        facts, answer = tapped.facts, tapped.tap.answer
        if sse.ERROR_MARK in answer and sse.has_error_event(answer):
            self._shed(runs, facts, ShedReason.ERROR)
            return
        mirrored = MirrorFrame(
            request_id=facts.request_id.decode("latin-1"),
            model=facts.model,
            variant=ending.variant,
            candidates=tuple(run.candidate for run in runs),
            slice=facts.slice_name,
            epoch=facts.epoch,
            path=tapped.request.path.decode("ascii"),
            prompt_hash=facts.prompt_hash,
            session=facts.session,
            body=tapped.request.body,
            is_stream=not answer.lstrip().startswith(b"{"),
            answer=answer,
            answered_at=ending.ended_at,
            first_byte_seconds=ending.first_byte_at - ending.started_at,
            total_seconds=ending.ended_at - ending.started_at,
            trace=facts.trace,
        )
        refusal = self.comparator_client.offer(mirrored)
        if refusal is not None:
            self._shed(runs, facts, refusal)
            return
        for run in runs:
            cell = self._metrics.mirrored.cell(facts.model, run.candidate, facts.slice_name)
            cell.value += 1

    def _fault(self, runs: tuple[Run, ...], facts: RequestFacts, error: Exception) -> None:
        # Its type only: the text could quote what was mirrored.
        log.error(
            "mirroring_failed", extra={"error": type(error).__name__, **trace_field(facts.trace)}
        )
        self._shed(runs, facts, ShedReason.FAULT)

    def _shed(self, runs: tuple[Run, ...], facts: RequestFacts, reason: ShedReason) -> None:
        for run in runs:
            self._metrics.mirror_sheds.cell(facts.model, run.candidate, reason.value).value += 1
            self._outbox.shed(run, facts.slice_name, reason.value)
