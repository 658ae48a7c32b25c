"""The comparator: queues mirrored requests, compares them while there is room, reports pairs.

Everything is bounded, and a gateway never waits for it: reading its socket never blocks.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Hashable, Sequence

import msgspec

from penumbra.monitoring.observations import Pair, Run, ScorerTest
from penumbra.monitoring.signals.faithfulness import ScorerFault
from penumbra.monitoring.signals.lengths import UsualLengths
from penumbra.monitoring.telemetry import comparator as of
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.router.mirror.evidence_flow import LACKING, EvidenceFlow
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.shadow.admission import has_headroom
from penumbra.router.shadow.case import Case, read_case
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.comparison import Comparison
from penumbra.router.shadow.comparison_result import ComparisonResult
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.failed_answer import FailedAnswer
from penumbra.router.shadow.fault_log import log_fault
from penumbra.router.shadow.generation import Generator
from penumbra.router.shadow.metrics import ShadowMetrics
from penumbra.router.shadow.ordered_results import OrderedResults, Slot
from penumbra.router.shadow.pairs import without_scores
from penumbra.router.shadow.queue import MirrorQueue
from penumbra.router.shadow.reporting import Reporting
from penumbra.router.shadow.scoring import Scorer
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.tracing import trace_comparison
from penumbra.router.shadow.watch_list import WatchedModel, WatchedRun, WatchList

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
"""Interval at which a queue that waits for room is looked at."""
_ALIVE_SECONDS = 5.0
"""A comparator that did not look at its queue for this long does not compare."""

Pairs = tuple[Pair, ...]
Slots = dict[str, Slot[Pairs]]


class Comparator:
    """The state of one comparator process.

    Args:
        settings: Settings of the process.
        watched: The models and runs to compare.
        facts: Facts about the engines, shared with `EngineChecks`.
        outbox: Takes the observations.
        clocks: Time.
        tracer: Of mirrored requests that are traced; None: tracing is off.
    """

    def __init__(
        self,
        settings: ShadowSettings,
        watched: WatchList,
        facts: EngineFacts,
        outbox: Reporting,
        clocks: Clocks,
        tracer: Tracer | None = None,
    ) -> None:
        self.settings = settings
        self.watched = watched
        self.clocks = clocks
        self.metrics = ShadowMetrics()
        self.flow = EvidenceFlow()
        """Whether what the gateways hand over ends in pairs."""
        self.queue = MirrorQueue(settings.limits, self._shed_all, clocks.now)
        self._facts = facts
        self._lengths: dict[str, UsualLengths] = {}
        """Model -> how long its baseline's answers are."""
        self._running: dict[str, int] = {}
        """Model -> comparisons under way."""
        self._looked_at = clocks.now()
        """When the queue was looked at last, by which it is known that this process compares."""
        self._tracer = tracer
        self._outbox = outbox
        self._order: OrderedResults[Pairs] = OrderedResults(self._deliver)
        self._scorer = Scorer(settings.deadlines.score_seconds, clocks.now)
        self._generator = Generator(settings.deadlines.generate_seconds, clocks.now)
        self._wake = asyncio.Event()
        self._declare_gauges()

    def is_comparing(self) -> bool:
        """Whether the queue was looked at lately."""
        return self.clocks.now() - self._looked_at < _ALIVE_SECONDS

    def offer(self, mirrored: MirrorFrame, size_bytes: int) -> None:
        """Queue a mirrored request, or shed it."""
        self.metrics.received.value += 1
        if mirrored.partial_for:
            mirrored = msgspec.structs.replace(mirrored, candidates=mirrored.partial_for)
        eligible = self._eligible(mirrored, is_new=True)
        candidates = tuple(run.run.candidate for run in eligible)
        if not candidates:
            return
        if candidates != mirrored.candidates:  # the others are shed, and must not be again
            mirrored = msgspec.structs.replace(mirrored, candidates=candidates)
        if self.queue.put(mirrored, size_bytes):
            self._wake.set()

    def note_malformed(self) -> None:
        """Count what a gateway sent and was no frame."""
        self.metrics.malformed.value += 1
        for run in self.watched.runs:  # it could be of any
            self.flow.lack(run.run, ShedReason.UNREADABLE, self.clocks.now())

    async def run(self) -> None:
        """Compare until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._wake.clear()
                    self._look(group)
                    await self._wait()
        finally:
            self.queue.clear(ShedReason.STOPPING)

    async def _wait(self) -> None:
        # Also without news, because room appears, requests age, and this process must show that it
        # compares.
        try:
            async with asyncio.timeout(_TICK_SECONDS if self.queue.items else 1.0):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _look(self, group: asyncio.TaskGroup) -> None:
        self._looked_at = self.clocks.now()
        self.queue.shed_old()
        while sum(self._running.values()) < self.settings.limits.in_flight:
            mirrored = self.queue.take(self._obstacle)
            if mirrored is None:
                return
            self._admit(mirrored, group)

    def _obstacle(self, name: str) -> ShedReason | None:
        model = self.watched.models.get(name)
        if model is None:
            return None  # nothing will be compared; admission sheds it
        if not self._facts.budget.is_open(self.clocks.now()):
            return ShedReason.BUDGET
        if not self._has_room(model, model.baseline):
            return ShedReason.BUSY
        if not any(self._is_free(model, run) for run in model.runs.values()):
            return ShedReason.BUSY
        return None

    def _is_free(self, model: WatchedModel, run: WatchedRun) -> bool:
        """Whether a run's candidate has room; another one's load does not stop it."""
        is_ready = self._facts.scorers.is_ready(run.run)
        return is_ready and self._has_room(model, run.watch.candidate)

    def _has_room(self, model: WatchedModel, variant: str) -> bool:
        gauges = self._facts.fresh_gauges(model.name, variant)
        in_flight = self._running.get(model.name, 0)
        return has_headroom([gauges], self.settings.headroom, in_flight)

    def _admit(self, mirrored: MirrorFrame, group: asyncio.TaskGroup) -> None:
        eligible = self._eligible(mirrored)
        model = self.watched.models.get(mirrored.model)
        if not eligible or model is None:
            return
        runs = [run for run in eligible if self._is_free(model, run)]
        self._shed(mirrored, [run for run in eligible if run not in runs], ShedReason.BUSY)
        if not runs:
            return
        slots: Slots = {}
        for run in runs:
            run.note(mirrored)
            slots[run.watch.candidate] = self._order.open(run.run)
        self._running[model.name] = self._running.get(model.name, 0) + 1
        group.create_task(self._compare(mirrored, model, runs, slots))

    async def _compare(
        self, mirrored: MirrorFrame, model: WatchedModel, runs: list[WatchedRun], slots: Slots
    ) -> None:
        try:
            if mirrored.problem:
                result = await FailedAnswer(mirrored, model, runs, self._generator).compare(
                    self.settings.generation_tokens
                )
                self._settle(mirrored, runs, result, slots)
                return
            case = read_case(mirrored, self._facts.context_tokens.get(model.name))
            if isinstance(case, ShedReason):
                self._shed(mirrored, runs, case)
                return
            if case.token_ids:
                self._facts.note_sequence(model.name, case.token_ids, case.start)
            case = self._with_usual_length(case, model.baseline)
            comparison = Comparison(
                case, model, runs, self._scorer, self._generator, self.settings.generation_tokens
            )
            began = self.clocks.now()
            result = await comparison.run()
            self._settle(mirrored, runs, result, slots)
            trace_comparison(self._tracer, mirrored, result, began)
        except asyncio.CancelledError:
            self._shed(mirrored, runs, ShedReason.STOPPING)
            raise
        except Exception as error:  # noqa: BLE001 - one request's fault must not end the process
            log_fault(error, mirrored.trace)
            self._shed(mirrored, runs, ShedReason.FAULT)
        finally:
            for slot in slots.values():
                slot.close()
            self._running[model.name] -= 1
            self._wake.set()

    def _settle(
        self, mirrored: MirrorFrame, runs: list[WatchedRun], result: ComparisonResult, slots: Slots
    ) -> None:
        self._facts.budget.charge(result.engine_seconds)
        self.metrics.took(mirrored.model, self.clocks.now() - mirrored.answered_at)
        count = sum(map(len, result.pairs.values()))
        at = self.clocks.wall()
        for run in runs:
            candidate = run.watch.candidate
            if candidate in result.sheds:
                self._shed(mirrored, [run], result.sheds[candidate])
                continue
            if candidate in result.contradictions:
                self._note_contradiction(run.run, result.contradictions[candidate])
            is_unfit = run.run in self._facts.scorers.unfit
            pairs = result.pairs[candidate]
            if pairs:
                self.flow.come(run.run, self.clocks.now(), mirrored.variant)
            slots[candidate].close(
                tuple(
                    msgspec.structs.replace(
                        without_scores(pair) if is_unfit else pair,
                        engine_seconds=result.engine_seconds / count,
                        at=at,
                        epoch=mirrored.epoch,
                    )
                    for pair in pairs
                )
            )

    def _note_contradiction(self, run: Run, detail: str) -> None:
        if self._facts.scorers.note_contradiction(run):
            log.error("scorer_test", extra={"candidate": run.candidate, "detail": detail})
            test = ScorerTest(self.clocks.wall(), ScorerFault.SCORER.value, detail)
            self._outbox.scorer_test(run, test)

    def _deliver(self, run: Hashable, pairs: Pairs) -> None:
        assert isinstance(run, Run)  # noqa: S101 - the order's keys are runs
        for pair in pairs:
            self.metrics.count_pair(run.model, run.candidate, pair)
            self._outbox.pair(run, pair)

    def _with_usual_length(self, case: Case, baseline: str) -> Case:
        mirrored = case.mirrored
        lengths = self._lengths.setdefault(mirrored.model, UsualLengths())
        usual = lengths.usual(mirrored.slice)
        if mirrored.variant == baseline and not mirrored.is_partial:
            lengths.note(mirrored.slice, case.answer)
        expected = msgspec.structs.replace(case.expected, usual_chars=usual)
        return dataclasses.replace(case, expected=expected)

    # Shedding

    def _eligible(self, mirrored: MirrorFrame, *, is_new: bool = False) -> list[WatchedRun]:
        """Return the runs that the request may count in; for the others it is shed.

        Args:
            mirrored: The request.
            is_new: Whether it has just come: then it is a turn of its conversation.
        """
        model = self.watched.models.get(mirrored.model)
        found = []
        for candidate in dict.fromkeys(mirrored.candidates):
            run = model.runs.get(candidate) if model else None
            if run is None or mirrored.epoch < run.since_epoch:
                self.metrics.shed(mirrored.model, ShedReason.NOT_WATCHED)
                continue
            is_chosen = run.chooses(mirrored) if is_new else True
            obstacle = run.repeats(mirrored) or (None if is_chosen else ShedReason.OTHER_TURN)
            if obstacle is None:
                found.append(run)
            else:
                self._shed(mirrored, [run], obstacle)
        return found

    def _shed_all(self, mirrored: MirrorFrame, reason: ShedReason) -> None:
        model = self.watched.models.get(mirrored.model)
        runs = (
            [model.runs[name] for name in mirrored.candidates if name in model.runs]
            if model
            else []
        )
        self._shed(mirrored, runs, reason)

    def _shed(self, mirrored: MirrorFrame, runs: Sequence[WatchedRun], reason: ShedReason) -> None:
        now = self.clocks.now()
        # Where the budget is spent the queue overflows, and what is in it grows old.
        is_short = reason in LACKING and not self._facts.budget.is_open(now)
        cause = ShedReason.BUDGET if is_short else reason
        for run in runs:
            self.metrics.shed(mirrored.model, reason)
            self.flow.lack(run.run, cause, now, mirrored.variant)
            self._outbox.shed(run.run, mirrored.slice, reason.value)

    def _declare_gauges(self) -> None:
        cells = self.metrics.cells
        cells.read(of.QUEUE_ITEMS, lambda: self.queue.items)
        cells.read(of.QUEUE_BYTES, lambda: self.queue.bytes)
        cells.read(of.IN_FLIGHT, lambda: sum(self._running.values()))
        cells.read(of.BUDGET, lambda: self._facts.budget.balance(self.clocks.now()))
