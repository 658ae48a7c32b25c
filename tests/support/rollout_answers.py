"""Answers of the admin API about rollouts, built from the API's own models."""

from datetime import UTC, datetime
from typing import Any

from penumbra.deployments.api.rollout_schemas import (
    AdvanceConditionView,
    DiagnosticsView,
    ExplainView,
    InstrumentView,
    PathPoint,
    RollbackView,
    RolloutSummary,
    RolloutView,
    WorstPair,
)
from penumbra.deployments.api.signal_schemas import (
    SignalView,
    StreamView,
)
from penumbra.deployments.rollouts.spec import RolloutSpec

SINCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CAUSE = "displacement: evidence 342 reached 333.3 (facts)"


def stream(name: str | None, count: int = 40, mean: float = 0.001, **more: Any) -> StreamView:
    fields: dict[str, Any] = {
        "slice": name,
        "count": count,
        "mean": mean if count else None,
        "tolerance": 0.005,
        "evidence": 0.4,
        "proof": 2.5,
        "is_proven": False,
        "lower": 0.0 if count else None,
        "upper": 0.02 if count else None,
    }
    return StreamView(**(fields | more))


def displacement(**more: Any) -> SignalView:
    fields: dict[str, Any] = {
        "signal": "displacement",
        "action": "rollback",
        "alpha": 0.003,
        "evidence": 12.4,
        "boundary": 333.3,
        "proof_boundary": 20.0,
        "is_tripped": False,
        "culprits": [],
        "calibrating": None,
        "aggregate": stream(None, 80),
        "slices": [
            stream("facts"),
            stream("sort", 40, proof=21.0, is_proven=True),
            stream("other", 0),
        ],
    }
    return SignalView(**(fields | more))


def summary(**more: Any) -> RolloutSummary:
    fields: dict[str, Any] = {
        "model": "demo",
        "candidate": "int8",
        "stage": "shadow",
        "is_held": False,
        "held_cause": None,
        "frozen_cause": None,
        "verdict": None,
        "share": 0.0,
        "since": SINCE,
        "cause": "applied: try int8",
        "run": "r-1",
        "pairs": 80,
        "proven": ["sort"],
        "quarantined": [],
    }
    return RolloutSummary(**(fields | more))


def rollback() -> RollbackView:
    return RollbackView(
        epoch=9,
        at=SINCE,
        cause=CAUSE,
        observed_at=SINCE,
        observed_to_durable_ms=6.25,
        durable_to_acknowledged_ms=3.5,
        gateways=2,
    )


def view(signals: list[SignalView] | None = None, **more: Any) -> dict[str, Any]:
    """One rollout in full, as JSON."""
    fields: dict[str, Any] = {
        **summary().model_dump(),
        "epoch": 7,
        "spec": RolloutSpec(model="demo", candidate="int8"),
        "slices": ["facts", "sort", "other"],
        "signals": signals if signals is not None else [displacement()],
        "gates": [
            AdvanceConditionView(name="pairs", is_met=True, found="400", wanted="300"),
            AdvanceConditionView(
                name="slices", is_met=False, found="proven: sort", wanted="proven: facts, sort"
            ),
        ],
        "next_stage": "1",
        "instrument": InstrumentView(
            is_ok=True,
            detail=None,
            aa=[displacement(aggregate=stream(None, 4, 0.0))],
            last_self_test_at=SINCE,
            last_self_test_gap=0.0,
        ),
        "diagnostics": DiagnosticsView(
            kl=0.0001,
            agreement=0.999,
            divergence=7.0,
            engine_seconds=3.2,
            missing_ratio=0.0,
            repeats=2,
            sheds={"age": 3},
            failed_checks={"json": 1},
        ),
        "channels": [],
        "fingerprints": {},
        "builds": {},
        "calibration": None,
        "last_rollback": None,
    }
    return RolloutView(**(fields | more)).model_dump(mode="json")


def rolled_back() -> dict[str, Any]:
    """A rollout that the guard has ended."""
    tripped = displacement(evidence=342.0, is_tripped=True, culprits=["facts"])
    return view(
        [tripped],
        stage="rolled_back",
        verdict="fail",
        cause=CAUSE,
        last_rollback=rollback(),
        next_stage=None,
    )


def explained(**more: Any) -> dict[str, Any]:
    """Explanation of a rollback, as JSON."""
    fields: dict[str, Any] = {
        "model": "demo",
        "candidate": "int2",
        "action": "rollback",
        "epoch": 9,
        "at": SINCE,
        "actor": "guard",
        "cause": CAUSE,
        "run": "r-1",
        "signal": "displacement",
        "detail": None,
        "evidence": 342.0,
        "boundary": 333.3,
        "path": [PathPoint(count=n, evidence=342 ** (n / 37)) for n in range(1, 38)],
        "pairs": 37,
        "culprits": ["facts"],
        "suspect": "facts",
        "worst": [
            WorstPair(
                request_id="req-1",
                slice="facts",
                displacement=0.1301,
                harm=1,
                failed=["length"],
                failed_baseline=[],
                missing=None,
            )
        ],
        "times": rollback(),
        "recomputed_verdict": "fail",
        "recomputed_evidence": 342.0,
        "is_reproduced": True,
    }
    return ExplainView(**(fields | more)).model_dump(mode="json")
