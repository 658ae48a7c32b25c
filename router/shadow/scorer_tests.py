"""Periodic tests of the scorers of all watched candidates.

A run's first test comes before its first comparison, so that a scorer that was never fit condemns
no candidate.
"""

import logging

from penumbra.monitoring.observations import Run
from penumbra.monitoring.signals.faithfulness import ScorerFault
from penumbra.router.shadow.admission import has_headroom
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.generation import Generator
from penumbra.router.shadow.reporting import Reporting
from penumbra.router.shadow.scorer_test import ScorerTester
from penumbra.router.shadow.scoring import Scorer
from penumbra.router.shadow.selftest import built_in_sequences
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import WatchedModel, WatchList

log = logging.getLogger(__name__)

_UNREACHABLE_SECONDS = 2.0
"""Interval at which an engine that does not answer is tried again."""


class ScorerTests:
    """Tests the scorer of every watched candidate when its run begins, and then again and again.

    Args:
        settings: Settings of the process; intervals are those of self-tests.
        watched: The models and runs.
        facts: Takes which runs were tested, and whose scorer is unfit.
        outbox: Takes the results.
        clocks: Time.
    """

    def __init__(
        self,
        settings: ShadowSettings,
        watched: WatchList,
        facts: EngineFacts,
        outbox: Reporting,
        clocks: Clocks,
    ) -> None:
        self._settings = settings.self_test
        self._headroom = settings.headroom
        self._watched = watched
        self._facts = facts
        self._outbox = outbox
        self._clocks = clocks
        # An answer of a few tokens has no more time than a score.
        seconds = settings.deadlines.score_seconds
        self._tester = ScorerTester(
            Generator(seconds, clocks.now), Scorer(seconds, clocks.now).score, clocks.wall
        )
        self._due: dict[Run, float] = {}
        facts.scorers.is_awaited = True

    @property
    def is_due(self) -> bool:
        """Whether a candidate is to be tested now."""
        now = self._clocks.now()
        return any(now >= self._due.get(run.run, 0.0) for run in self._watched.runs)

    @property
    def lacks_gauges(self) -> bool:
        """Whether the load of an engine is not known, so that its gauges must be read first."""
        return any(
            self._facts.fresh_gauges(run.run.model, name) is None
            for run in self._watched.runs
            for name in (self._watched.models[run.run.model].baseline, run.run.candidate)
        )

    async def run_due(self) -> None:
        """Test the candidates whose run is new, or whose last test is long ago."""
        runs = [
            (model, run.run)
            for model in list(self._watched.models.values())
            for run in model.runs.values()
        ]
        self._due = {run: self._due[run] for _, run in runs if run in self._due}
        self._facts.scorers.forget_others([run for _, run in runs])
        for model, run in runs:
            if self._clocks.now() >= self._due.get(run, 0.0) and self._has_room(model, run):
                await self._test(model, run)

    def _has_room(self, model: WatchedModel, run: Run) -> bool:
        """Whether the engines are not busy: while they are, nothing is compared either."""
        names = (model.baseline, run.candidate)
        known = [self._facts.fresh_gauges(model.name, name) for name in names]
        return has_headroom(known, self._headroom, 0)

    async def _test(self, model: WatchedModel, run: Run) -> None:
        candidate = model.upstreams[run.candidate]
        baseline = model.upstreams[model.baseline]
        pause = _UNREACHABLE_SECONDS
        try:
            if await candidate.health() and await baseline.health():
                pause = await self._run(model, run)
        finally:
            self._due[run] = self._clocks.now() + pause
            self._facts.scorers.tried.add(run)

    async def _run(self, model: WatchedModel, run: Run) -> float:
        """Run one test; returns the seconds until the next."""
        spent = self._tester.seconds
        test = await self._tester.test(
            model.name,
            model.upstreams[run.candidate],
            model.upstreams[model.baseline],
            [token_ids for token_ids, _ in built_in_sequences()],
        )
        self._facts.budget.charge(self._tester.seconds - spent)
        if test is None:
            return self._settings.seconds
        is_unfit = test.fault in (ScorerFault.SCORER, ScorerFault.BOTH)
        report = log.error if is_unfit else log.info
        report("scorer_test", extra={"candidate": run.candidate, "detail": test.detail})
        if self._facts.scorers.note(run, is_unfit=is_unfit):
            self._outbox.scorer_test(run, test)
        return self._settings.retry_seconds if is_unfit else self._settings.seconds
