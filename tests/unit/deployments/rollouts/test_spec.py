"""Rollout specs that are accepted, and the watches that gateways get."""

from typing import Any

import pytest
from pydantic import ValidationError

from penumbra.deployments.evidence.guardrail_monitor import alpha_of
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.flag_effects import watch_of
from penumbra.deployments.rollouts.record import (
    Phase,
    Rollout,
    RolloutRecord,
)
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail
from penumbra.monitoring.observations import Signal
from penumbra.router.flags.routing_table import Watch
from tests.support.rollouts import NOW, rollout_spec

DISPLACEMENT = Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.2, action="rollback", share=0.5)


def watch(*guardrails: Guardrail, **changes: Any) -> Watch:
    spec = rollout_spec(guardrails=(DISPLACEMENT, *guardrails), **changes)
    record = RolloutRecord(phase=Phase.SHADOW, since=NOW, run="r-1", slices=("other",), cause="c")
    found = watch_of(Rollout(spec=spec, record=record))
    assert found is not None
    return found


def test_the_gateways_share_half_of_what_failure_may_spend() -> None:
    failure = Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.4)
    found = watch(failure, alpha=0.01, gateways=4)
    assert found.failure_alpha == pytest.approx(0.01 * 0.4 / 2 / 4)
    assert found.failure_tolerance == 0.01


@pytest.mark.parametrize("action", ["hold", "alert"])
def test_gateways_take_nothing_away_where_failures_may_not(action: Any) -> None:
    assert watch().failure_alpha is None
    failure = Guardrail(signal=Signal.FAILURE, tolerance=0.01, action=action)
    assert watch(failure).failure_alpha is None


def test_what_is_late_is_one_factor() -> None:
    ttft = Guardrail(signal=Signal.TTFT, tolerance=0.2, action="hold", factor=3.0)
    assert watch(ttft).latency_factor == 3.0
    with pytest.raises(ValidationError, match="wanted the same for both"):
        watch(ttft, Guardrail(signal=Signal.TPOT, tolerance=0.2, action="hold"))


@pytest.mark.parametrize("share", [0.001, 12.345])
def test_a_stage_is_a_share_that_a_flag_can_give(share: float) -> None:
    with pytest.raises(ValidationError, match="a multiple of"):
        rollout_spec(stages=("shadow", share))


def test_the_horizon_is_within_what_is_remembered_of_prompts() -> None:
    with pytest.raises(ValidationError, match="250000"):
        AdvanceRules(horizon=250_001)


def test_horizon_of_failures_is_said_in_requests() -> None:
    failure = Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.4)
    rules = AdvanceRules(horizon=5000, failure_requests=1_000_000)
    spec = rollout_spec(guardrails=(DISPLACEMENT, failure), gates=rules)
    monitors = RunEvidence(spec, "r-1", ("other",)).monitors
    assert monitors[Signal.FAILURE].spec.horizon == 1_000_000
    assert monitors[Signal.DISPLACEMENT].spec.horizon == 5000
    assert watch(failure, gates=rules).failure_requests == 1_000_000


def test_horizon_of_failures_that_is_left_out_is_as_it_was_in_older_stores() -> None:
    failure = Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.4)
    rules = AdvanceRules(horizon=5000)
    spec = rollout_spec(guardrails=(DISPLACEMENT, failure), gates=rules)
    assert RunEvidence(spec, "r-1", ("other",)).monitors[Signal.FAILURE].spec.horizon == 5000
    assert "failure_requests" not in watch(failure, gates=rules).model_dump(exclude_defaults=True)


def test_alpha_is_divided_among_the_candidates_that_share_it() -> None:
    failure = Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.4)
    spec = rollout_spec(guardrails=(DISPLACEMENT, failure), candidates=2)
    alone = rollout_spec(guardrails=(DISPLACEMENT, failure))
    for guardrail in spec.guardrails:
        assert alpha_of(spec, guardrail) == alpha_of(alone, guardrail) / 2
    found = watch(failure, alpha=0.01, gateways=4, candidates=2)
    assert found.failure_alpha == pytest.approx(0.01 / 2 * 0.4 / 2 / 4)
    latency = Guardrail(signal=Signal.TTFT, tolerance=0.1, action="hold")
    assert alpha_of(spec, latency) == spec.alpha
