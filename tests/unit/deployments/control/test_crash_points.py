"""Whatever dies, wherever: no acknowledged report is lost, and none counts twice.

A comparator and a gateway send reports and send each again until it is acknowledged; the control
process dies at any point between receiving, committing, acknowledging and publishing, and starts
again on its SQLite file. In the end the evidence is that of a run in which nothing happened.
"""

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.deployments.control import checkpoints, compaction
from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.state import fold
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.deployments.rollouts.spec import Calibrate, Guardrail
from penumbra.deployments.store.observation_tables import reports as stored_reports
from penumbra.monitoring.observations import Counts, Report, Run, RunReport, Signal
from tests.support.control_plane import FlakyStore, lead, payload, store_url
from tests.support.control_plane import _empty_store as empty_store
from tests.support.evidence_state import state_of
from tests.support.rollouts import NOW, pairs, rollout_spec

SPEC = rollout_spec(
    guardrails=(
        Guardrail(
            signal=Signal.DISPLACEMENT,
            tolerance=Calibrate(calibrate=20),
            action="rollback",
            share=0.5,
        ),
        Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.5),
    )
)
RUN = Run("demo", "int8", "run-1")
NOTHING, BEFORE, AFTER, UNACKNOWLEDGED = range(4)
"""Nothing dies; it dies before the commit, after it, or after publishing but before the answer."""


class Process:
    """One life of the control process."""

    def __init__(self, folder: Path) -> None:
        ticks = count()
        clocks = Clocks(lambda: NOW, lambda: float(next(ticks)))
        self.store = FlakyStore(store_url(folder))
        lead(self.store)
        self.controller = Controller(
            self.store, Publisher(self.store.identity, clocks.monotonic), clocks, 1.0
        )
        self.controller.checkpoint_key = b"a key of the tests"
        self.rollouts = RolloutService(self.controller, clocks, 1.0, "life")

    async def start(self) -> "Process":
        await self.controller.follow()
        await self.controller.configure(payload(), "configuration")
        await self.rollouts.start()
        return self

    async def die(self) -> None:
        await self.rollouts.close()
        self.controller.close()

    @property
    def rollout(self) -> Rollout:
        return self.rollouts.rollout(("demo", "int8"))

    def evidence_state(self) -> Any:
        return state_of(self.rollouts.evidence_book.evidence(self.rollout))


def reports_of(source: str, values: Sequence[float]) -> list[Report]:
    start = 1 if source == "comparator" else 10_000
    return [
        Report(
            source,
            "life-1",
            seq,
            (
                RunReport(
                    RUN,
                    pairs=pairs(4, value, start=start + 10 * seq),
                    counts=(Counts("other", Signal.FAILURE, 5, 0),),
                ),
            ),
        )
        for seq, value in enumerate(values, start=1)
    ]


async def begin(folder: Path) -> Process:
    (folder / "penumbra.db").write_bytes(empty_store())
    process = await Process(folder).start()
    await process.rollouts.put(
        lambda: operator_actions.apply(process.controller.state, SPEC, "try", NOW, "run"),
        "ann",
        "try",
    )
    return process


async def send(process: Process, report: Report, fate: int) -> bool:
    """Whether the report was acknowledged before the process died."""
    process.store.loses_answers = fate == AFTER
    if fate in {BEFORE, AFTER}:
        process.store.failures.append(StoreUnavailable("killed"))
    try:
        await process.rollouts.take_report(report)
    except StoreUnavailable:
        return False
    return fate != UNACKNOWLEDGED


async def in_peace(order: Sequence[Report]) -> tuple[dict[str, Any], Phase]:
    with TemporaryDirectory() as name:
        process = await begin(Path(name))
        for report in order:
            await process.rollouts.take_report(report)
        found = process.evidence_state(), process.rollout.record.phase
        await process.die()
        return found


async def under_fire(
    order: Sequence[Report], fates: Sequence[int], resends: Sequence[bool], restarts: bool
) -> tuple[dict[str, Any], Phase, int, int]:
    always_due = patch.object(checkpoints, "SECONDS", 0.0)
    compacted = patch.multiple(compaction, AFTER_SECONDS=-1.0, PAGE=2)
    with TemporaryDirectory() as name, always_due, compacted:
        folder = Path(name)
        process = await begin(folder)
        fate = iter(fates)
        for number, report in enumerate(order):
            while not await send(process, report, next(fate, NOTHING)):
                process.store.failures.clear()
                if restarts:
                    await process.die()
                    process = await Process(folder).start()
            if resends[number % len(resends)]:
                # The acknowledgement got lost on the link: it is sent again, also concurrently.
                await asyncio.gather(*(process.rollouts.take_report(report) for _ in range(2)))
            else:
                await process.rollouts.keep_house()  # which writes a checkpoint, and compacts
        await process.die()
        process = await Process(folder).start()
        stored = process.store.look(lambda c: len(list(stored_reports(c, "run-1"))))
        rollbacks = sum(
            state.rollouts[RUN.model, RUN.candidate].record.phase is Phase.ROLLED_BACK
            for state in [fold(process.store.events())]
        )
        found = process.evidence_state(), process.rollout.record.phase, stored, rollbacks
        await process.die()
        return found


@given(
    comparator=st.lists(st.sampled_from([0.0, 0.02, 0.9]), min_size=1, max_size=8),
    gateway=st.lists(st.sampled_from([0.0, 0.9]), max_size=4),
    mix=st.randoms(use_true_random=False),
    fates=st.lists(st.sampled_from([NOTHING, NOTHING, BEFORE, AFTER, UNACKNOWLEDGED]), max_size=20),
    resends=st.lists(st.booleans(), min_size=1, max_size=4),
    restarts=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_nothing_acknowledged_is_lost_and_nothing_counts_twice(
    comparator: list[float],
    gateway: list[float],
    mix: Any,
    fates: list[int],
    resends: list[bool],
    restarts: bool,
) -> None:
    queues = [reports_of("comparator", comparator), reports_of("gateway-1", gateway)]
    order = []
    while any(queues):
        order.append(mix.choice([queue for queue in queues if queue]).pop(0))

    async def both() -> None:
        expected, phase = await in_peace(order)
        found, phase_found, stored, rollbacks = await under_fire(order, fates, resends, restarts)
        assert found == expected
        assert phase_found is phase
        assert stored == len(order)
        assert rollbacks == (phase is Phase.ROLLED_BACK)

    asyncio.run(both())


class Source:
    """A comparator or gateway that may die: what was not acknowledged dies with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives = count(1)
        self.begin()

    def begin(self) -> None:
        self.process_start_id, self.seq = f"life-{next(self.lives)}", count(1)

    def report(self, start: int, value: float) -> Report:
        observed = pairs(4, value, start=start)
        return Report(
            self.name, self.process_start_id, next(self.seq), (RunReport(RUN, pairs=observed),)
        )


async def with_dying_sources(
    values: Sequence[float], fates: Sequence[int], deaths: Sequence[int]
) -> tuple[dict[str, Any], set[Any], list[Report], int]:
    """Every prompt comes twice, for a comparator that begins anew has forgotten its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        process = await begin(folder)
        sources = [Source("comparator-0"), Source("comparator-1")]
        acknowledged = set()
        fate = iter(fates)
        for number, value in enumerate([*values, *values]):
            source = sources[number % 2]
            report = source.report(1 + 10 * (number % len(values)), value)
            while not await send(process, report, next(fate, NOTHING)):
                process.store.failures.clear()
                await process.die()
                process = await Process(folder).start()
                if deaths[number % len(deaths)] == 1:
                    source.begin()
                    break
            else:
                acknowledged.add((report.source, report.process_start_id, report.seq))
            if deaths[number % len(deaths)] == 2:
                source.begin()
        await process.die()
        process = await Process(folder).start()
        stored = list(process.store.look(lambda c: list(stored_reports(c, "run-1"))))
        evidence = process.rollouts.evidence_book.evidence(process.rollout)
        found = state_of(evidence), acknowledged, stored, sum(evidence.pairs.values())
        await process.die()
        return found


@given(
    values=st.lists(st.sampled_from([0.0, 0.02]), min_size=6, max_size=10),
    fates=st.lists(st.sampled_from([NOTHING, NOTHING, BEFORE, AFTER, UNACKNOWLEDGED]), max_size=20),
    deaths=st.lists(st.sampled_from([0, 0, 1, 2]), min_size=1, max_size=7),
)
@settings(max_examples=25, deadline=None)
def test_after_any_deaths_acknowledged_reports_count_and_no_prompt_counts_twice(
    values: list[float], fates: list[int], deaths: list[int]
) -> None:
    async def both() -> None:
        found, acknowledged, stored, clusters = await with_dying_sources(values, fates, deaths)
        names = [(report.source, report.process_start_id, report.seq) for report in stored]
        assert acknowledged <= set(names)
        assert len(names) == len(set(names))
        runs = [run for report in stored for run in report.runs]
        prompts = {pair.cluster for run in runs for pair in run.pairs}
        assert clusters == len(prompts)
        assert found == (await in_peace(stored))[0]

    asyncio.run(both())
