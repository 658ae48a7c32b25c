from typing import Any

import pytest

from penumbra.monitoring.observations import Counts, Run, RunReport, Shed, Signal
from penumbra.monitoring.vocabulary import FAILURES, Outcome
from penumbra.router.dispatch.local_guard import Clocks, LocalGuard
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Snapshot, Watch
from penumbra.router.link.observation_outbox import ObservationOutbox
from tests.support.routing_tables import model

RUN = Run("demo", "int8", "run-1")
ENOUGH = 50
NO_COUNTERPART = (
    Shed("facts", "no_counterpart_ttft", 1),
    Shed("facts", "no_counterpart_tpot", 1),
)


class Scene:
    """A guard with a clock, and its reports."""

    def __init__(self) -> None:
        self.now = 0.0
        self.trips = 0
        self.outbox = ObservationOutbox("gateway-0", "life-1")
        clocks = Clocks(lambda: self.now, lambda: 1_000.0)
        self.guard = LocalGuard(self.outbox, clocks, self._count_trip)

    def _count_trip(self) -> None:
        self.trips += 1

    def apply(self, *, run: str = "run-1", flag: Flag | None = None, **fields: Any) -> None:
        watch = Watch.model_validate({"candidate": "int8", "run": run, **fields})
        update = {"watches": (watch,), "flag": flag or Flag(split={"int8": 50})}
        self.model = model().model_copy(update=update)
        self.guard.apply(Snapshot(epoch=1, models={"demo": self.model}))

    def end(self, outcome: Outcome, times: int = 1) -> None:
        watch = self.guard.watch("demo", self.model, "int8")
        assert watch is not None
        for _ in range(times):
            watch.record_end("facts", outcome)

    def baseline_takes(
        self, seconds: float, slice_name: str = "facts", times: int = ENOUGH
    ) -> None:
        watch = self.guard.watch("demo", self.model, "full")
        assert watch is not None
        for _ in range(times):
            watch.record_first_byte(slice_name, seconds, is_stream=True)
            watch.record_pace(slice_name, seconds)

    def candidate_takes(self, seconds: float, slice_name: str = "facts") -> None:
        watch = self.guard.watch("demo", self.model, "int8")
        assert watch is not None
        watch.record_first_byte(slice_name, seconds, is_stream=True)
        watch.record_pace(slice_name, seconds)

    def guarded(self) -> ModelSnapshot:
        return self.guard.block_tripped("demo", self.model)

    def reported(self) -> RunReport:
        report = self.outbox.next_report()
        assert report is not None
        [run] = report.runs
        return run


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.apply()
    return made


def test_a_model_without_a_watch_has_no_watches() -> None:
    scene = Scene()
    plain = model()
    scene.guard.apply(Snapshot(epoch=1, models={"demo": plain}))
    assert scene.guard.watch("demo", plain, "full") is None
    assert scene.guard.watch("demo", plain, "int8") is None
    assert scene.guard.block_tripped("demo", plain) is plain


def test_every_attempt_is_counted_by_slice(scene: Scene) -> None:
    scene.end(Outcome.OK, 4)
    scene.end(Outcome.TIMEOUT)
    run = scene.reported()
    assert run.run == RUN
    assert run.counts == (Counts("facts", Signal.FAILURE, 4, 1),)


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - FAILURES - {Outcome.OK}))
def test_an_attempt_that_says_nothing_of_the_candidate_is_not_counted(
    scene: Scene, outcome: Outcome
) -> None:
    scene.end(outcome, 100)
    assert scene.outbox.is_empty


def test_a_candidate_that_fails_is_out_of_service_at_once(scene: Scene) -> None:
    scene.end(Outcome.SERVER_ERROR, 10)
    assert scene.trips == 1
    assert scene.guarded().flag.blocked == ("int8",)
    [trip] = scene.reported().trips
    assert (trip.signal, trip.at) == ("failure", 1_000.0)


def test_a_candidate_that_seldom_fails_stays(scene: Scene) -> None:
    for _ in range(20):
        scene.end(Outcome.OK, 300)
        scene.end(Outcome.TIMEOUT)
    assert scene.trips == 0
    assert scene.guarded() is scene.model


def test_a_tripped_candidate_stays_out_until_the_run_changes(scene: Scene) -> None:
    scene.end(Outcome.DIED, 10)
    scene.apply()
    assert scene.guarded().flag.blocked == ("int8",)
    scene.apply(run="run-2")
    assert scene.guarded().flag.blocked == ()
    assert scene.trips == 1


def test_what_the_flag_blocks_already_is_not_blocked_twice(scene: Scene) -> None:
    scene.end(Outcome.DIED, 10)
    scene.apply(flag=Flag(split={"int8": 50}, blocked=("int8",)))
    assert scene.guarded() is scene.model


def test_a_run_that_goes_on_keeps_what_was_seen(scene: Scene) -> None:
    scene.end(Outcome.REFUSED)
    scene.apply()
    scene.end(Outcome.REFUSED)
    assert scene.trips == 1


def test_latency_is_not_judged_without_enough_of_the_baseline(scene: Scene) -> None:
    scene.baseline_takes(1.0, times=ENOUGH - 1)
    scene.candidate_takes(100.0)
    assert scene.reported() == RunReport(RUN, sheds=NO_COUNTERPART)


def test_an_answer_beyond_the_factor_is_late(scene: Scene) -> None:
    scene.baseline_takes(1.0)
    scene.candidate_takes(1.4)
    scene.candidate_takes(1.7)
    assert scene.reported().counts == (
        Counts("facts", Signal.TTFT, 1, 1),
        Counts("facts", Signal.TPOT, 1, 1),
    )


def test_a_slice_is_compared_with_itself_alone(scene: Scene) -> None:
    scene.baseline_takes(1.0, "facts", times=1000)
    scene.baseline_takes(10.0, "long")
    scene.candidate_takes(12.0, "long")
    scene.candidate_takes(12.0, "rare")
    report = scene.reported()
    assert report.counts == (
        Counts("long", Signal.TTFT, 1, 0),
        Counts("long", Signal.TPOT, 1, 0),
    )
    assert report.sheds == (
        Shed("rare", "no_counterpart_ttft", 1),
        Shed("rare", "no_counterpart_tpot", 1),
    )


def test_old_latencies_of_the_baseline_are_forgotten(scene: Scene) -> None:
    scene.baseline_takes(1.0)
    scene.now = 1_000.0
    scene.candidate_takes(100.0)
    assert scene.reported() == RunReport(RUN, sheds=NO_COUNTERPART)


def test_what_is_not_judged_here_is_left_to_a_shadow_answer(scene: Scene) -> None:
    watch = scene.guard.watch("demo", scene.model, "int8")
    assert watch is not None
    assert watch.record_first_byte("facts", 1.0, is_stream=True)
    assert watch.record_pace("facts", 1.0)
    scene.baseline_takes(1.0)
    assert not watch.record_first_byte("facts", 1.0, is_stream=True)
    assert not watch.record_pace("facts", 1.0)
    assert watch.record_first_byte("facts", 1.0, is_stream=False)


def test_the_baselines_times_may_always_be_held_against_a_shadow_answer(scene: Scene) -> None:
    watch = scene.guard.watch("demo", scene.model, "full")
    assert watch is not None
    assert watch.record_first_byte("facts", 1.0, is_stream=True)
    assert watch.record_pace("facts", 1.0)


def test_without_an_alpha_of_its_own_a_gateway_counts_and_does_not_trip() -> None:
    scene = Scene()
    scene.apply(failure_alpha=None)
    scene.end(Outcome.TIMEOUT, 100)
    assert scene.trips == 0
    assert scene.reported().counts == (Counts("facts", Signal.FAILURE, 0, 100),)
