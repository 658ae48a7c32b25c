"""Views of a rollout show the moment of the request, however long the figures take."""

from pathlib import Path

import pytest

from penumbra.deployments.api.rollout_views import rollout_view
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.events import FlagPayload, Kind
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.monitoring.observations import Run, RunReport
from penumbra.router.flags.routing_table import Flag
from tests.support.control_plane import control_plane, split_change
from tests.support.rollouts import NOW, aa_pairs, pair, pairs, rollout_spec


def test_a_view_shows_the_moment_of_the_request() -> None:
    spec, slices = rollout_spec(), ("json", "other")
    record = RolloutRecord(phase=Phase.SHADOW, since=NOW, run="r-1", slices=slices, cause="c")
    rollout = Rollout(spec=spec, record=record)
    state = State(flags={"demo": Flag()}, rollouts={rollout.key: rollout})
    evidence, run = RunEvidence(spec, "r-1", slices), Run("demo", "int8", "r-1")
    evidence.fold("c", RunReport(run, pairs=(*pairs(10, 0.0), *aa_pairs(3, 0.0))))
    look, same = (rollout_view(state, rollout, evidence, None) for _ in range(2))
    before = look()
    evidence.fold(
        "c", RunReport(run, pairs=pairs(50, 0.9, start=100), fingerprints={"int8": "a" * 64})
    )
    assert same() == before
    signal = before.signals[0]
    assert signal.aggregate is not None
    assert (before.pairs, signal.aggregate.count, signal.is_tripped) == (10, 10, False)
    assert before.instrument.aa[0].aggregate is not None
    assert before.instrument.aa[0].aggregate.count == 3


def test_a_late_regression_is_shown_since_its_onset_and_not_by_the_mean_of_the_run() -> None:
    spec, slices = rollout_spec(), ("json", "other")
    record = RolloutRecord(phase=Phase.SHADOW, since=NOW, run="r-1", slices=slices, cause="c")
    rollout = Rollout(spec=spec, record=record)
    state = State(flags={"demo": Flag()}, rollouts={rollout.key: rollout})
    evidence, run = RunEvidence(spec, "r-1", slices), Run("demo", "int8", "r-1")
    evidence.fold("c", RunReport(run, pairs=pairs(900, 0.0)))
    view = rollout_view(state, rollout, evidence, None)()
    assert [stream.effect for stream in view.signals[0].slices] == [None, None]
    evidence.fold("c", RunReport(run, pairs=pairs(100, 0.5, start=1000)))
    signal = rollout_view(state, rollout, evidence, None)().signals[0]
    assert signal.aggregate is not None
    for stream in (signal.aggregate, signal.slices[1]):
        assert stream.mean == 0.05
        effect = stream.effect
        assert effect is not None
        assert (effect.pairs, effect.tolerance) == (1000, pytest.approx(0.2))
        assert 90 <= effect.since_pairs <= 140
        assert effect.lower < effect.mean <= 0.5 <= effect.upper


def test_the_view_shows_the_family_of_slices_and_the_earlier_runs() -> None:
    spec, slices = rollout_spec(), ("json", "other")
    record = RolloutRecord(
        phase=Phase.SHADOW, since=NOW, run="r-3", slices=slices, cause="c", earlier_runs={"8": 2}
    )
    rollout = Rollout(spec=spec, record=record)
    state = State(flags={"demo": Flag()}, rollouts={rollout.key: rollout})
    evidence, run = evidence_of(rollout), Run("demo", "int8", "r-3")
    evidence.fold("c", RunReport(run, pairs=pairs(30, 0.0), fingerprints={"int8": "8"}))
    proof = rollout_view(state, rollout, evidence, None)().proof
    assert proof is not None
    assert (proof.earlier_runs, proof.alpha) == (2, 0.05 * 0.25 / 6)
    json, other = proof.slices
    assert (json.slice, json.proof, json.is_proven) == ("json", 1.0, False)
    assert other.boundary == 2 / proof.alpha - 1.0
    assert json.boundary == 2 / proof.alpha - other.proof


def test_the_view_shows_how_far_the_traffic_is_from_what_was_proven() -> None:
    spec, slices = rollout_spec(), ("json", "other")
    stale = {"other": "script: han 60% of the latest 300 pairs, was 0%"}
    record = RolloutRecord(
        phase=Phase.PROMOTED, since=NOW, run="r-1", slices=slices, cause="c", stale=stale
    )
    rollout = Rollout(spec=spec, record=record)
    state = State(flags={"demo": Flag()}, rollouts={rollout.key: rollout})
    evidence, run = evidence_of(rollout), Run("demo", "int8", "r-1")
    then = tuple(pair(number, 0.0, script="latin", tokens=9) for number in range(400))
    now = tuple(pair(400 + number, 0.0, script="han") for number in range(150))
    evidence.fold("c", RunReport(run, pairs=then))
    evidence.fold("c", RunReport(run, pairs=now))
    view = rollout_view(state, rollout, evidence, None)()
    assert view.stale == stale
    told = {(each.slice, each.feature): (each.pairs, each.distance) for each in view.workload}
    assert told == {
        ("*", "slices"): (400, 0.0),
        ("other", "script"): (400, 0.5),
    }
    gate = next(gate for gate in view.gates if gate.name == "workload")
    assert gate.is_met  # nothing of it is needed: no slice is proven in the record


async def test_the_history_is_read_backwards_and_lazily(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path) as plane:
        for share in range(1, 6):
            await plane.controller.apply(split_change(share))
        await plane.controller.reset("demo", Flag(), "ann", "afresh")
        found = plane.store.backwards("demo", Kind.SPLIT)
        payload = next(found).payload
        assert isinstance(payload, FlagPayload)
        assert payload.after.split == {"int8": 5.0}
        assert [event.epoch for event in found] == [5, 4, 3, 2]
        assert not list(plane.store.backwards("another", Kind.SPLIT))
