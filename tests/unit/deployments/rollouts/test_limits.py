"""Ranges of a rollout's numbers, and the promise that arithmetic holds within them."""

from math import isfinite
from typing import Any

import pytest

from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.rollouts.limits import LEAST_ALPHA, LEAST_PART, MARGIN, spec_problems
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.deployments.rollouts.spec import (
    AdvanceRules,
    Calibrate,
    Guardrail,
    MirrorRates,
    RolloutSpec,
)
from penumbra.monitoring.observations import Counts, Run, RunReport, Signal
from penumbra.monitoring.stats.failure import FailureProcess
from tests.support.rollouts import NOW, pair, rollout_spec


def harm(**changes: Any) -> Guardrail:
    fields: dict[str, Any] = {"signal": Signal.HARM, "tolerance": 0.02, "action": "rollback"}
    return Guardrail(**({"share": 0.5} | fields | changes))


FAILURE = Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.5)

PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "alpha": ({"alpha": 5e-324}, "alpha: found 5e-324, wanted at least 1e-09"),
    "promotion": ({"promotion_alpha": 1e-10}, "promotion_alpha: found 1e-10, wanted at least"),
    "share": (
        {"guardrails": (harm(), FAILURE.model_copy(update={"share": 1e-10}))},
        "guardrails[1].share: found 1e-10, wanted at least 8e-10 with alpha 0.01",
    ),
    "tolerance": (
        {"guardrails": (harm(tolerance=1e-9),)},
        "guardrails[0].tolerance: found 1e-09, wanted 1e-06 to 1 - 1e-06",
    ),
    "slice": (
        {"guardrails": (harm(slices={"json": 5e-324}),)},
        "guardrails[0].slices.json: found 5e-324, wanted 1e-06",
    ),
    "factor": ({"guardrails": (harm(factor=5e-324),)}, "guardrails[0].factor: found 5e-324"),
    "aa": ({"mirror": MirrorRates(aa_tolerance=5e-324)}, "mirror.aa_tolerance: found 5e-324"),
    "pairs": ({"gates": AdvanceRules(pairs=10**400)}, "gates.pairs: found a number of more than"),
    "slices": ({"gates": AdvanceRules(slice_pairs=10**9)}, "gates.slice_pairs: found 1000000000"),
    "time": ({"gates": AdvanceRules(stage_seconds=float("inf"))}, "gates.stage_seconds: found inf"),
    "requests": ({"gates": AdvanceRules(failure_requests=2**63)}, "gates.failure_requests: found"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_number_out_of_its_range_is_named_with_what_was_found_and_wanted(name: str) -> None:
    changes, text = PROBLEMS[name]
    problems = [*spec_problems(rollout_spec(**changes))]
    assert len(problems) == 1
    assert problems[0].startswith(text)


def test_the_default_rollout_is_within_all_ranges() -> None:
    assert [*spec_problems(RolloutSpec(model="demo", candidate="int8"))] == []


def test_evidence_is_finite_and_can_trip_at_the_ends_of_all_ranges() -> None:
    calibrated = Guardrail(
        signal=Signal.DISPLACEMENT,
        tolerance=Calibrate(calibrate=20),
        slices={"json": MARGIN},
        action="rollback",
        share=0.4,
    )
    spec = rollout_spec(
        alpha=LEAST_ALPHA,
        promotion_alpha=LEAST_ALPHA,
        guardrails=(
            calibrated,
            harm(tolerance=1 - MARGIN, share=0.3),
            FAILURE.model_copy(update={"tolerance": MARGIN, "share": 0.3}),
        ),
    )
    assert [*spec_problems(spec)] == []
    record = RolloutRecord(
        phase=Phase.SHADOW, since=NOW, run="r-1", slices=("json", "other"), cause="c"
    )
    evidence = evidence_of(Rollout(spec=spec, record=record))
    bad = tuple(
        pair(number, 1.0, harm=1, slice=("json", "other")[number % 2]) for number in range(200)
    )
    counts = (Counts("json", Signal.FAILURE, 1_000_000_000, 1_000_000_000),)
    evidence.fold("c", RunReport(Run("demo", "int8", "r-1"), pairs=bad, counts=counts))
    findings = evidence.findings()
    assert {each.signal for each in findings.tripped} >= {"displacement", "failure"}
    assert all(isfinite(each.evidence) and isfinite(each.boundary) for each in findings.tripped)


def test_a_gateway_trips_at_the_least_part_of_alpha() -> None:
    process = FailureProcess(MARGIN, LEAST_PART)
    for number in range(1, 20):
        if process.observe(is_failure=True):
            assert number > 1
            return
    raise AssertionError("it never trips")
