"""Rollout specs, and reports of observations, for tests."""

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Arm, Pair, Report, Run, RunReport, Signal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rollout_spec(**changes: Any) -> RolloutSpec:
    """A rollout of int8 with gates that a test can pass."""
    fields: dict[str, Any] = {
        "model": "demo",
        "candidate": "int8",
        "stages": ("shadow", 10.0, 100.0),
        "gates": AdvanceRules(
            pairs=20, slice_pairs=20, stage_seconds=60.0, stage_pairs=20, horizon=1000
        ),
        "guardrails": (
            Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.2, action="rollback", share=0.5),
            Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.5),
        ),
    }
    return RolloutSpec(**(fields | changes))


def pair(number: int, displacement: float = 0.0, **changes: Any) -> Pair:
    """A candidate pair of a prompt of its own."""
    fields: dict[str, Any] = {
        "request_id": f"r{number}",
        "slice": "other",
        "cluster": number,
        "displacement": displacement,
        "at": 1_767_000_000.0 + number,
    }
    return Pair(**(fields | changes))


def pairs(
    count: int,
    displacement: float,
    *,
    start: int = 1,
    slice_name: str = "other",
    answered_by: str = "full",
) -> tuple[Pair, ...]:
    """Pairs that are alike but for their prompts."""
    return tuple(
        pair(number, displacement, slice=slice_name, answered_by=answered_by)
        for number in range(start, start + count)
    )


def aa_pairs(count: int, displacement: float, *, start: int = 1) -> tuple[Pair, ...]:
    """Pairs of the baseline with itself."""
    return tuple(
        pair(number, displacement, arm=Arm.BASELINE) for number in range(start, start + count)
    )


class Reporting:
    """A process that reports; its reports are numbered from 1."""

    def __init__(self, source: str = "comparator", process_start_id: str = "life-1") -> None:
        self._source = source
        self._process_start_id = process_start_id
        self._seq = itertools.count(1)

    def report(self, *runs: RunReport) -> Report:
        """The next report."""
        return Report(self._source, self._process_start_id, next(self._seq), runs)

    def of_pairs(self, run: str, observed: Sequence[Pair]) -> Report:
        """The next report, of pairs of int8."""
        return self.report(RunReport(Run("demo", "int8", run), pairs=tuple(observed)))


def in_batches(observed: Sequence[Pair], size: int) -> Iterable[Sequence[Pair]]:
    """Consecutive parts of at most `size` pairs."""
    return (observed[at : at + size] for at in range(0, len(observed), size))
