"""The guard's signs of life, and the leases that follow from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.deployments.gateways.liveness import (
    OLDEST_SECONDS,
    GuardLiveness,
    live_candidates,
    needs_comparator,
)
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Snapshot, Watch
from tests.support.routing_tables import model

HOST = "machine-1"


def watched(**fields: object) -> ModelSnapshot:
    watch = Watch.model_validate({"candidate": "int8", "run": "run-1", **fields})
    return model().model_copy(update={"watches": (watch,)})


PLAIN = Snapshot(epoch=1, models={"demo": model()})
MIRRORED = Snapshot(epoch=1, models={"demo": watched(mirror=1.0), "plain": model()})


def test_nothing_is_granted_before_the_first_tick() -> None:
    assert GuardLiveness(10.0).grant(PLAIN, HOST, 0.0) == {"demo": 0.0}


def test_a_lease_is_what_is_left_since_the_last_tick_began() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(100.0)
    assert liveness.grant(PLAIN, HOST, 103.0) == {"demo": 7.0}
    assert liveness.grant(PLAIN, HOST, 110.0) == {"demo": 0.0}
    assert liveness.grant(PLAIN, HOST, 500.0) == {"demo": 0.0}


def test_a_mirrored_model_needs_the_comparator_of_the_gateways_machine() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(100.0)
    assert liveness.grant(MIRRORED, HOST, 100.0) == {"demo": 0.0, "plain": 10.0}
    liveness.note_beat("machine-2", 100.0)
    assert liveness.grant(MIRRORED, HOST, 100.0)["demo"] == 0.0
    liveness.note_beat(HOST, 98.0)
    assert liveness.grant(MIRRORED, HOST, 100.0)["demo"] == 8.0


def test_a_comparator_that_falls_silent_ends_only_what_it_guards() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_beat(HOST, 100.0)
    liveness.note_tick(109.0)
    assert liveness.grant(MIRRORED, HOST, 110.0) == {"demo": 0.0, "plain": 9.0}


def test_a_report_that_cannot_be_stored_ends_the_leases() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_arrival("report", 100.0)
    liveness.note_tick(106.0)
    assert liveness.grant(PLAIN, HOST, 106.0) == {"demo": 4.0}
    liveness.note_stored("report")
    assert liveness.grant(PLAIN, HOST, 106.0) == {"demo": 10.0}


def test_signs_of_life_that_arrive_late_take_nothing_back() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(105.0)
    liveness.note_tick(100.0)
    liveness.note_beat(HOST, 105.0)
    liveness.note_beat(HOST, 100.0)
    assert liveness.grant(MIRRORED, HOST, 105.0) == {"demo": 10.0, "plain": 10.0}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"mirror": 0.1}, True),
        ({"mirror_slices": {"facts": 0.0}}, False),
        ({"mirror_slices": {"facts": 0.5}}, True),
    ],
)
def test_a_model_that_mirrors_nothing_needs_no_comparator(
    fields: dict[str, object], wanted: bool
) -> None:
    assert needs_comparator(watched(**fields)) is wanted


@given(
    st.lists(st.tuples(st.sampled_from(["tick", "beat", "other"]), st.floats(0, 100)), max_size=30),
    st.floats(100, 200),
)
def test_a_lease_ends_within_its_length_of_the_oldest_sign_of_life(
    signs: list[tuple[str, float]], now: float
) -> None:
    liveness = GuardLiveness(10.0)
    for kind, at in sorted(signs, key=lambda sign: sign[1]):
        match kind:
            case "tick":
                liveness.note_tick(at)
            case "beat":
                liveness.note_beat(HOST, at)
            case _:
                liveness.note_beat("another", at)
    ticked = max((at for kind, at in signs if kind == "tick"), default=float("-inf"))
    beaten = max((at for kind, at in signs if kind == "beat"), default=float("-inf"))
    granted = liveness.grant(MIRRORED, HOST, now)
    assert now + granted["plain"] <= max(now, ticked + 10.0) + 1e-9
    assert now + granted["demo"] <= max(now, min(ticked, beaten) + 10.0) + 1e-9


def test_the_age_of_a_guard_is_what_its_lease_has_lost_on_the_worst_machine() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(100.0)
    liveness.note_beat(HOST, 99.0)
    liveness.note_beat("machine-2", 97.0)
    hosts = [HOST, "machine-2"]
    assert liveness.ages(MIRRORED, hosts, 101.0) == {"demo": 4.0, "plain": 1.0}
    left = min(liveness.grant(MIRRORED, host, 101.0)["demo"] for host in hosts)
    assert left == 10.0 - 4.0
    # Without a gateway no request is served, so no comparator is needed.
    assert liveness.ages(MIRRORED, [], 101.0) == {"demo": 1.0, "plain": 1.0}


def test_the_age_goes_on_growing_once_the_lease_is_over_up_to_a_day() -> None:
    liveness = GuardLiveness(10.0)
    assert liveness.ages(PLAIN, [HOST], 5.0) == {"demo": OLDEST_SECONDS}
    liveness.note_tick(100.0)
    assert liveness.ages(PLAIN, [HOST], 150.0) == {"demo": 50.0}
    assert liveness.ages(MIRRORED, [HOST], 150.0) == {"demo": OLDEST_SECONDS, "plain": 50.0}


def test_a_report_that_waits_ages_the_guard() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_arrival("report", 100.0)
    liveness.note_tick(106.0)
    assert liveness.ages(PLAIN, [HOST], 107.0) == {"demo": 7.0}


def live(**flag: object) -> Snapshot:
    return Snapshot(
        epoch=1,
        models={
            "demo": watched(mirror=1.0).model_copy(update={"flag": Flag.model_validate(flag)}),
            "plain": model(),
        },
    )


LIVE = live(split={"int8": 10})


def alive(at: float) -> GuardLiveness:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(at)
    liveness.note_beat(HOST, at)
    return liveness


def test_a_live_candidate_without_evidence_has_no_lease_at_the_gateway_that_tells() -> None:
    liveness = alive(100.0)
    assert liveness.note_stopped("one", None, {"demo": ("int8",)}, 100.0)
    assert not liveness.note_stopped("one", None, {"demo": ("int8",)}, 101.0)
    assert liveness.grant(LIVE, HOST, 101.0, "one") == {"demo": 0.0, "plain": 9.0}
    assert liveness.grant(LIVE, HOST, 101.0, "two") == {"demo": 9.0, "plain": 9.0}
    assert liveness.stopped(HOST, "one") == {"demo": {"int8"}}
    assert liveness.ages(LIVE, [HOST], 107.0) == {"demo": 7.0, "plain": 7.0}
    liveness.note_tick(107.0)
    liveness.note_beat(HOST, 107.0)
    assert liveness.ages(LIVE, [HOST], 107.0) == {"demo": 7.0, "plain": 0.0}
    assert liveness.note_stopped("one", None, {}, 108.0)
    assert liveness.grant(LIVE, HOST, 108.0, "one")["demo"] == 9.0
    assert liveness.ages(LIVE, [HOST], 108.0)["demo"] == 1.0


def test_a_comparator_tells_for_every_gateway_of_its_machine() -> None:
    liveness = alive(100.0)
    liveness.note_beat("machine-2", 100.0)
    liveness.note_stopped("c", HOST, {"demo": ("int8",)}, 100.0)
    assert liveness.grant(LIVE, HOST, 100.0, "one")["demo"] == 0.0
    assert liveness.grant(LIVE, "machine-2", 100.0, "two")["demo"] == 10.0
    liveness.forget("c")
    assert liveness.grant(LIVE, HOST, 100.0, "one")["demo"] == 10.0


def test_one_that_gets_no_traffic_may_lack_evidence() -> None:
    liveness = alive(100.0)
    liveness.note_stopped("one", None, {"demo": ("int8", "int4"), "plain": ("x",)}, 100.0)
    shadow = live(split={"int8": 0})
    assert liveness.grant(shadow, HOST, 100.0, "one") == {"demo": 10.0, "plain": 10.0}
    assert liveness.ages(shadow, [HOST], 103.0)["demo"] == 3.0


@pytest.mark.parametrize(
    ("flag", "found"),
    [
        ({}, set()),
        ({"split": {"int8": 1}}, {"int8"}),
        ({"split": {"int8": 1}, "blocked": ("int8",)}, set()),
        ({"split": {"int4": 1}}, set()),  # no rollout watches it
        ({"pins": ({"kind": "tenant", "subject": "acme", "variant": "int8"},)}, set()),
        ({"rules": ({"name": "r", "match": {}, "variant": "int8"},)}, {"int8"}),
        ({"rules": ({"name": "r", "match": {}, "split": {"int8": 5}},)}, {"int8"}),
    ],
)
def test_candidates_that_may_get_traffic(flag: dict[str, object], found: set[str]) -> None:
    assert live_candidates(live(**flag).models["demo"]) == found


def test_a_gateway_that_is_cut_off_may_serve_a_candidate_until_its_lease_is_out() -> None:
    liveness = alive(100.0)
    liveness.grant(LIVE, HOST, 102.0, "link-1")
    assert liveness.cut_off_until(102.0) < 102.0  # it is connected, and acknowledges
    liveness.forget("link-1", "gateway-0")
    assert liveness.cut_off_until(103.0) == 110.0
    assert liveness.cut_off_until(110.0) < 110.0
    liveness.grant(LIVE, HOST, 104.0, "link-2")
    liveness.forget("link-2", "gateway-0")
    liveness.welcome("gateway-0")
    assert liveness.cut_off_until(105.0) < 105.0


def test_one_that_has_ended_or_has_no_candidate_to_serve_is_not_waited_for() -> None:
    liveness = alive(100.0)
    liveness.grant(LIVE, HOST, 102.0, "link-1")
    liveness.forget("link-1")
    liveness.grant(live(), HOST, 102.0, "link-2")
    liveness.forget("link-2", "gateway-1")
    assert liveness.cut_off_until(102.0) <= 102.0


# Leases of single candidates

BOTH = Snapshot(
    epoch=1,
    models={
        "demo": model(Flag(split={"int8": 50.0, "int4": 50.0})).model_copy(
            update={
                "watches": tuple(
                    Watch(candidate=name, run=f"{name}-1", mirror=1.0) for name in ("int8", "int4")
                )
            }
        )
    },
)


def granting(stopped: tuple[str, ...]) -> GuardLiveness:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(100.0)
    liveness.note_beat(HOST, 100.0)
    liveness.note_stopped("gateway", None, {"demo": stopped} if stopped else {}, 100.0)
    return liveness


@pytest.mark.parametrize(
    ("stopped", "seconds", "without"),
    [
        ((), 10.0, {}),
        (("int4",), 10.0, {"demo": ("int4",)}),
        (("int8", "int4"), 0.0, {"demo": ("int4", "int8")}),
        (("int3",), 10.0, {}),
    ],
)
def test_a_candidate_whose_evidence_has_stopped_takes_no_other_ones_lease(
    stopped: tuple[str, ...], seconds: float, without: dict[str, tuple[str, ...]]
) -> None:
    liveness = granting(stopped)
    found = liveness.grant(BOTH, HOST, 100.0, "gateway", is_by_candidate=True)
    assert found == {"demo": seconds}
    assert liveness.without(BOTH, HOST, "gateway") == without
    assert liveness.without(BOTH, "elsewhere", "another") == {}


def test_an_older_gateway_has_no_lease_of_a_model_where_one_candidate_is_unobserved() -> None:
    assert granting(("int4",)).grant(BOTH, HOST, 100.0, "gateway") == {"demo": 0.0}
