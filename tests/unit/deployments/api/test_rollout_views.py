"""Views of a rollout show the moment of the request, however long the figures take."""

from pathlib import Path

from penumbra.deployments.api.rollout_views import rollout_view
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.events import FlagPayload, Kind
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.monitoring.observations import Run, RunReport
from penumbra.router.flags.routing_table import Flag
from tests.support.control_plane import control_plane, split_change
from tests.support.rollouts import NOW, aa_pairs, pairs, rollout_spec


def test_a_view_shows_the_moment_of_the_request() -> None:
    spec, slices = rollout_spec(), ("json", "other")
    record = RolloutRecord(phase=Phase.SHADOW, since=NOW, run="r-1", slices=slices, cause="c")
    rollout = Rollout(spec=spec, record=record)
    state = State(flags={"demo": Flag()}, rollouts={rollout.key: rollout})
    evidence, run = RunEvidence(spec, "r-1", slices), Run("demo", "int8", "r-1")
    evidence.fold("c", RunReport(run, pairs=(*pairs(10, 0.0), *aa_pairs(3, 0.0))))
    look, same = (rollout_view(state, rollout, evidence, NOW, None) for _ in range(2))
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
