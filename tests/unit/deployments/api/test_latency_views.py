"""Views of latencies: what was judged, what was not, and the floors of both."""

from penumbra.deployments.api.latency_views import latency_fields
from penumbra.deployments.api.signal_schemas import FloorView
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.spec import Guardrail
from penumbra.monitoring.observations import Run, RunReport, Shed, Signal, no_counterpart
from tests.support.rollouts import pair, rollout_spec

RUN = Run("demo", "int8", "run-1")
BLOCK = 250


def evidence(shadow: int, live: int, unjudged: int) -> RunEvidence:
    guardrails = (
        Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5),
        Guardrail(signal=Signal.TPOT, tolerance=0.2, action="hold", factor=2.0),
    )
    found = RunEvidence(rollout_spec(guardrails=guardrails), "run-1", ("json", "other"))
    observed = [pair(n, slice="json", answered_by="full", pace_ratio=0.5) for n in range(shadow)]
    observed += [
        pair(10_000 + n, slice="json", answered_by="int8", pace_ratio=0.5) for n in range(live)
    ]
    shed = Shed("json", no_counterpart(Signal.TPOT), unjudged)
    found.fold("c", RunReport(RUN, pairs=tuple(observed), sheds=(shed,)))
    return found


def test_answers_that_a_shadow_one_judged_are_not_told_as_unjudged() -> None:
    fields = latency_fields(Signal.TPOT, evidence(BLOCK, live=40, unjudged=100))
    assert fields["without_counterpart"] == {"json": 60}
    assert fields["beside_shadow"] == {"json": 40}
    assert fields["floors"] == [
        FloorView(slice="json", time="pace", pairs=0, wanted_pairs=BLOCK, latest=2.0)
    ]


def test_a_floor_that_is_not_known_says_how_far_it_is() -> None:
    fields = latency_fields(Signal.TPOT, evidence(BLOCK - 1, live=40, unjudged=100))
    assert (fields["without_counterpart"], fields["beside_shadow"]) == ({"json": 100}, {})
    assert fields["floors"] == [
        FloorView(slice="json", time="pace", pairs=BLOCK - 1, wanted_pairs=BLOCK, latest=None)
    ]


def test_pairs_that_come_before_their_gateways_counts_make_no_negative_one() -> None:
    fields = latency_fields(Signal.TPOT, evidence(BLOCK, live=40, unjudged=10))
    assert (fields["without_counterpart"], fields["beside_shadow"]) == ({}, {"json": 40})


def test_other_signals_and_latencies_without_a_guardrail_have_no_floors() -> None:
    found = evidence(BLOCK, live=1, unjudged=1)
    assert latency_fields(Signal.HARM, found) == {}
    assert latency_fields(Signal.TTFT, found)["floors"] == []
