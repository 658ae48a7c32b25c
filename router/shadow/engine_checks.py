"""Periodic checks of the watched engines: gauges, health, identity, self-tests and scorer tests.

Each is a loop in an owned task. A check that fails is counted and logged, and the next one comes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from penumbra.monitoring import build_facts
from penumbra.monitoring.observations import Run, Trip
from penumbra.router.shadow.admission import read_gauges
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.metrics import ShadowMetrics
from penumbra.router.shadow.reporting import Reporting
from penumbra.router.shadow.scorer_tests import ScorerTests
from penumbra.router.shadow.scoring import Scorer
from penumbra.router.shadow.selftest import built_in_sequences, run_self_test
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import WatchedModel, WatchList
from penumbra.router.upstream.build_probe import probe_build
from penumbra.router.upstream.calls import UpstreamError, fetch, fetch_json, get_request
from penumbra.router.upstream.port import Upstream

log = logging.getLogger(__name__)

UNHEALTHY = "unhealthy"
_GAUGES_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_NEW_RUN_SECONDS = 0.2
"""Interval at which a new run is looked for: none of its requests is compared before."""
_OK = 200


class EngineChecks:
    """The periodic checks of one comparator.

    Args:
        settings: Settings of the process.
        watched: The models and runs whose engines are checked.
        facts: Facts about the engines, shared with the `Comparator`.
        outbox: Takes trips, self-tests and fingerprints.
        clocks: Time.
        metrics: Counts failed checks; shows health and self-tests.
    """

    def __init__(
        self,
        settings: ShadowSettings,
        watched: WatchList,
        facts: EngineFacts,
        outbox: Reporting,
        clocks: Clocks,
        metrics: ShadowMetrics,
    ) -> None:
        self._settings = settings
        self._watched = watched
        self._facts = facts
        self._outbox = outbox
        self._clocks = clocks
        self._metrics = metrics
        self._scorer_tests = ScorerTests(settings, watched, facts, outbox, clocks)
        self._scorer = Scorer(settings.deadlines.score_seconds, clocks.now)
        self._bad_health: dict[Run, int | None] = {}
        """Bad answers in a row; None while the candidate was never seen healthy."""
        self._digests: dict[tuple[Run, str], str] = {}
        self._build_facts: dict[tuple[str, str], dict[str, str]] = {}
        """Model and variant -> facts of the build, as they were told last."""
        self._tests: dict[str, tuple[frozenset[Run], float]] = {}
        """Model -> the runs that its last self-test was reported to, and when the next is due."""

    async def run(self) -> None:
        """Check everything until cancelled."""
        settings = self._settings
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._repeat("gauges", self.read_gauges, settings.headroom.poll_seconds)
            )
            group.create_task(self._repeat("health", self.check_health, settings.health.seconds))
            group.create_task(self._repeat("self_test", self.self_test, _LOOK_SECONDS))
            group.create_task(self._repeat("scorer_test", self.test_scorers, _NEW_RUN_SECONDS))
            group.create_task(self._identify())

    async def _repeat(
        self, work: str, check: Callable[[], Awaitable[None]], seconds: float
    ) -> None:
        while True:
            await self._check(work, check)
            await asyncio.sleep(seconds)

    async def _identify(self) -> None:
        while True:
            # A new run is looked at as soon as its routing table is in force.
            self._watched.has_changed.clear()
            await self._check("identity", self.identify)
            try:
                async with asyncio.timeout(self._settings.fingerprint_seconds):
                    await self._watched.has_changed.wait()
            except TimeoutError:
                pass

    async def _check(self, work: str, check: Callable[[], Awaitable[None]]) -> None:
        try:
            await check()
        except Exception:
            self._metrics.faults.cell(work).value += 1
            log.exception("attendance_failed", extra={"work": work})

    # Gauges

    async def read_gauges(self) -> None:
        """Read every engine's gauges once, all at the same time."""
        async with asyncio.TaskGroup() as group:
            for model, name, upstream in self._builds():
                group.create_task(self._read_gauges(model.name, name, upstream))

    async def _read_gauges(self, model: str, variant: str, upstream: Upstream) -> None:
        try:
            asked = get_request(b"/metrics")
            answer = await fetch(upstream, asked, timeout_seconds=_GAUGES_SECONDS)
        except UpstreamError:
            return  # the known gauges grow stale, and stale gauges count as unknown
        gauges = None
        if answer.status == _OK:
            gauges = read_gauges(answer.body.decode("utf-8", "replace"))
        if gauges is not None:
            self._facts.note_gauges(model, variant, gauges)

    # Health

    async def check_health(self) -> None:
        """Check every watched candidate's health once; too many bad answers in a row trip.

        A bad answer counts only while the baseline's is good: an outage of both says nothing of the
        candidate.
        """
        runs = [run.run for run in self._watched.runs]
        baselines = {run.model: self._watched.models[run.model] for run in runs}
        upstreams = {(run.model, run.candidate): self._upstream(run) for run in runs}
        for name, model in baselines.items():
            upstreams[name, model.baseline] = model.upstreams[model.baseline]
        answers = await asyncio.gather(*(upstream.health() for upstream in upstreams.values()))
        healthy = dict(zip(upstreams, answers, strict=True))
        self._bad_health = {run: self._bad_health.get(run) for run in runs}
        for run in runs:
            is_healthy = healthy[run.model, run.candidate]
            if is_healthy or healthy[run.model, baselines[run.model].baseline]:
                self._note_health(run, is_healthy=is_healthy)
        self._metrics.saw_health(
            {(run.model, run.candidate): healthy[run.model, run.candidate] for run in runs}
        )

    def _note_health(self, run: Run, *, is_healthy: bool) -> None:
        bad = self._bad_health[run]
        if is_healthy:
            self._bad_health[run] = 0
        elif bad is not None:
            self._bad_health[run] = bad + 1
            if bad + 1 == self._settings.health.failures:
                detail = f"{bad + 1} bad answers of its health check in a row"
                log.warning("candidate_unhealthy", extra={"candidate": run.candidate})
                self._outbox.trip(run, Trip(UNHEALTHY, detail, self._clocks.wall()))

    # Identity

    async def identify(self) -> None:
        """Read the fingerprints and limits of all builds; report fingerprints that changed."""
        watched = self._watched
        self._digests = {
            key: digest
            for key, digest in self._digests.items()
            if key[0] in {run.run for run in watched.runs}
        }
        builds = {(model.name, name) for model, name, _ in self._builds()}
        self._build_facts = {k: facts for k, facts in self._build_facts.items() if k in builds}
        for model in list(watched.models.values()):
            lengths = [
                await self._read_context_tokens(upstream) for upstream in model.upstreams.values()
            ]
            known = [length for length in lengths if length is not None]
            if known:
                self._facts.context_tokens[model.name] = min(known)
            await self._read_fingerprints(model)

    async def _read_fingerprints(self, model: WatchedModel) -> None:
        for name, upstream in model.upstreams.items():
            try:
                told = await probe_build(upstream, model.name)
            except UpstreamError:
                continue  # not reachable now: the health check handles that
            # A fact that is not told this time stays as it was.
            known = self._build_facts.get((model.name, name), {})
            facts = self._build_facts[model.name, name] = {**known, **told}
            digest = build_facts.digest(facts)
            for candidate, run in model.runs.items():
                is_concerned = name in (model.baseline, candidate)
                if is_concerned and self._digests.get((run.run, name)) != digest:
                    self._digests[run.run, name] = digest
                    self._outbox.fingerprint(run.run, name, digest, facts)

    async def _read_context_tokens(self, upstream: Upstream) -> int | None:
        try:
            answer: Any = await fetch_json(upstream, get_request(b"/v1/models"))
            lengths = [card.get("max_model_len") for card in answer["data"]]
        except (UpstreamError, KeyError, TypeError, AttributeError):
            return None
        return min((length for length in lengths if isinstance(length, int)), default=None)

    # Self-tests

    async def test_scorers(self) -> None:
        """Test the scorers of candidates whose run is new, or whose last test is long ago."""
        if self._scorer_tests.is_due:
            if self._scorer_tests.lacks_gauges:
                await self.read_gauges()
            await self._scorer_tests.run_due()

    async def self_test(self) -> None:
        """Test the baseline of every model with a new run, or whose last test is long ago."""
        models = self._watched.models
        self._tests = {name: test for name, test in self._tests.items() if name in models}
        for model in list(models.values()):
            runs = frozenset(run.run for run in model.runs.values())
            reported, due = self._tests.get(model.name, (frozenset[Run](), 0.0))
            if runs <= reported and self._clocks.now() < due:
                continue
            # A baseline that still starts, or is gone, does not fail its self-test: the test waits.
            if await model.upstreams[model.baseline].health():
                await self._test(model, runs)

    async def _test(self, model: WatchedModel, runs: frozenset[Run]) -> None:
        settings = self._settings.self_test
        test, seconds = await run_self_test(
            model.upstreams[model.baseline],
            self._facts.recent_sequences(model.name) or built_in_sequences(),
            self._scorer.score,
            settings,
            self._clocks.wall,
        )
        self._facts.budget.charge(seconds)
        pause = settings.seconds if test.is_ok else settings.retry_seconds
        self._tests[model.name] = (runs, self._clocks.now() + pause)
        self._metrics.tested(model.name, test)
        report = log.info if test.is_ok else log.error
        report("self_test", extra={"model": model.name, "detail": test.detail})
        for run in runs:
            self._outbox.self_test(run, test)

    def _builds(self) -> Iterator[tuple[WatchedModel, str, Upstream]]:
        for model in list(self._watched.models.values()):
            for name, upstream in model.upstreams.items():
                yield model, name, upstream

    def _upstream(self, run: Run) -> Upstream:
        return self._watched.models[run.model].upstreams[run.candidate]
