"""Flags, links, signs of life and feedback, as Prometheus gets them."""

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given

from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.liveness import OLDEST_SECONDS, GuardLiveness
from penumbra.deployments.history.state import State
from penumbra.deployments.metrics.control_metrics import Series
from penumbra.deployments.metrics.flag_series import (
    feedback_series,
    flag_series,
    guard_series,
    link_series,
    shares_of,
)
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.metric import Metric
from penumbra.router.flags.routing_table import Flag, Snapshot
from penumbra.router.link.messages import Hello
from tests.support.control_plane import FakeGateway
from tests.support.rollouts import NOW, rollout_spec
from tests.support.routing_tables import VARIANTS, flags, model


def values(series: Iterable[Series], metric: Metric) -> Mapping[tuple[str, ...], float]:
    [found] = [own for one, own in series if one is metric]
    return found


def link(name: str, host: str = "", pid: int = 1, epoch: int = 0) -> Link:
    hello = Hello(gateway=name, pid=pid, store="", epoch=0, host=host)
    made = Link(hello, FakeGateway(name), 0.0)
    made.epoch = epoch
    return made


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [
        (Flag(), (1.0, 0.0, 0.0)),
        (Flag(split={"int8": 25.0, "int4": 12.5}), (0.625, 0.25, 0.125)),
        (Flag(split={"int8": 25.0, "int4": 12.5}, blocked=("int8",)), (0.875, 0.0, 0.125)),
        (Flag(split={"int8": 25.0}, killed=True), (1.0, 0.0, 0.0)),
        (Flag(split={"int8": 100.0}), (0.0, 1.0, 0.0)),
    ],
)
def test_shares_are_those_that_act_now(flag: Flag, wanted: tuple[float, ...]) -> None:
    shares = shares_of(model(flag, ("full", "int8", "int4")))
    assert tuple(shares.values()) == wanted


@given(flags())
def test_shares_are_of_all_variants_and_add_up(flag: Flag) -> None:
    shares = shares_of(model(flag))
    assert tuple(shares) == VARIANTS
    assert all(share >= 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1.0)


def test_quarantine_and_kill_switch_are_of_every_slice_and_model() -> None:
    state = State(models={"demo": model(Flag(quarantined=("json",), killed=True)), "b": model()})
    series = list(flag_series(state))
    assert values(series, control.KILLED) == {("demo",): 1.0, ("b",): 0.0}
    quarantined = values(series, control.QUARANTINED)
    assert [key for key, value in quarantined.items() if value] == [("demo", "json")]
    assert len(quarantined) == 6


def test_fingerprints_are_those_of_the_latest_run_that_knows_them() -> None:
    def rollout(candidate: str, phase: Phase, digest: str) -> Rollout:
        record = RolloutRecord(
            phase=phase, since=NOW, run="r-1", slices=("other",), cause="c",
            fingerprints={"full": digest * 64, candidate: "c" * 64},
        )  # fmt: skip
        return Rollout(spec=rollout_spec(candidate=candidate), record=record)

    known = [rollout("int8", Phase.SHADOW, "a"), rollout("int4", Phase.OFF, "b")]
    state = State(models={"demo": model()}, rollouts={rollout.key: rollout for rollout in known})
    assert set(values(flag_series(state), control.VARIANT_INFO)) == {
        ("demo", "full", "baseline", "a" * 16),
        ("demo", "int8", "candidate", "c" * 16),
        ("demo", "int4", "candidate", "c" * 16),
        ("demo", "int3", "candidate", ""),
    }


def test_gateways_of_one_name_are_told_apart_by_their_machines() -> None:
    links = [
        link("a", "m1", epoch=3),
        link("b", "m1", epoch=3),
        link("b", "m2", epoch=2),
        # The same process, connected again before its broken link was noticed.
        link("c", "m1", pid=7, epoch=1),
        link("c", "m1", pid=8, epoch=3),
    ]
    series = list(link_series(links, 3))
    assert values(series, control.GATEWAY_EPOCH) == {
        ("a",): 3, ("b@m1",): 3, ("b@m2",): 2, ("c",): 1,
    }  # fmt: skip
    assert values(series, control.OUTDATED_GATEWAYS) == {(): 2}
    assert values(series, control.GATEWAYS) == {(): 5}


def test_a_guard_that_never_lived_has_the_greatest_age_there_is() -> None:
    snapshot = Snapshot(epoch=1, models={"demo": model()})
    liveness = GuardLiveness(10.0)
    series = list(guard_series(liveness, snapshot, ["m1"], 5.0))
    assert values(series, control.GUARD_AGE) == {("demo",): OLDEST_SECONDS}
    liveness.note_tick(2.0)
    series = list(guard_series(liveness, snapshot, ["m1"], 5.0))
    assert values(series, control.GUARD_AGE) == {("demo",): 3.0}
    assert values(series, control.GUARD_LEASE) == {(): 10.0}


def test_feedback_begins_at_zero_and_is_counted_by_judgement() -> None:
    state = State(models={"demo": model()})
    counts = {("demo", "int8", "json", False): 2, ("gone", "int8", "json", False): 9}
    found = values(feedback_series(state, counts), control.FEEDBACK)
    assert found["demo", "int8", "candidate", "json", "not_content"] == 2
    assert found["demo", "full", "baseline", "json", "content"] == 0
    assert len(found) == len(VARIANTS) * 3 * 2
    assert sum(found.values()) == 2
