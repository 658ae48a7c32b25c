"""Changes and reports that cannot be folded: refused before they are stored, and harmless."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penumbra.deployments.control.controller import Change
from penumbra.deployments.errors import ChangeUnfoldable, ReportRefused, RolloutRefused
from penumbra.deployments.history.config_effects import draft_of
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.flag_edits import set_killed
from penumbra.deployments.history.state import fold
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail, MirrorRates, RolloutSpec
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Counts, Report, Run, RunReport, Signal
from tests.support.control_plane import control_plane, store_url
from tests.support.rollouts import NOW, Reporting, pairs, rollout_spec
from tests.support.running_rollouts import running_rollouts

KILL = Change(Kind.KILL, "ann", "stop", {"demo": set_killed(True)})

UNFOLDABLE: dict[str, dict[str, Any]] = {
    "alpha": {"alpha": 5e-324},
    "tolerance": {
        "guardrails": (
            Guardrail(signal=Signal.DISPLACEMENT, tolerance=5e-324, action="rollback", share=1.0),
        )
    },
    "aa_tolerance": {"mirror": MirrorRates(aa_tolerance=5e-324)},
    "share": {
        "guardrails": (
            Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5),
            Guardrail(signal=Signal.FAILURE, tolerance=0.1, action="rollback", share=5e-324),
        )
    },
    "endless": {"gates": AdvanceRules(stage_seconds=float("inf"))},
    "failure_requests": {"gates": AdvanceRules(failure_requests=10**400)},
}


def begun(spec: RolloutSpec) -> Rollout:
    """A rollout that has just begun, whatever its spec says."""
    record = RolloutRecord(
        phase=Phase.SHADOW, since=NOW, run="run-1", slices=("json", "other"), cause="try"
    )
    return Rollout(spec=spec, record=record)


@pytest.mark.parametrize("name", UNFOLDABLE)
async def test_a_change_that_cannot_be_folded_is_refused_and_leaves_the_store_as_it_was(
    tmp_path: Path, name: str
) -> None:
    async with control_plane(tmp_path) as plane:
        state = plane.controller.state
        draft = draft_of(state, begun(rollout_spec(**UNFOLDABLE[name])), "ann", "try")
        async with plane.controller.writing():
            with pytest.raises(ChangeUnfoldable):
                await plane.controller.commit([draft])
        assert plane.controller.state is state
        assert not plane.controller.is_behind
        assert (await plane.controller.apply(KILL)).is_changed
        assert fold(Store(store_url(tmp_path)).events()).models["demo"].flag.killed


async def test_a_rollout_with_a_number_that_arithmetic_does_not_survive_is_refused_with_its_name(
    tmp_path: Path,
) -> None:
    async with running_rollouts(tmp_path) as running:
        with pytest.raises(RolloutRefused, match=r"alpha: found 5e-324, wanted at least"):
            await running.apply(rollout_spec(alpha=5e-324))
        await running.apply()
        assert running.rollout.record.phase is Phase.SHADOW


BAD_REPORTS = {
    "seq": Report("gateway-0", "life-1", 2**63, ()),
    "negative seq": Report("gateway-0", "life-1", -(2**63) - 1, ()),
    "source": Report("g" * 300, "life-1", 1, ()),
    "nul": Report("gate\0way", "life-1", 1, ()),
    "counts": Report(
        "gateway-0",
        "life-1",
        1,
        (
            RunReport(
                Run("demo", "int8", "run-1"), counts=(Counts("other", Signal.FAILURE, 10**400, 0),)
            ),
        ),
    ),
    "run": Report("gateway-0", "life-1", 1, (RunReport(Run("demo", "int8", "r" * 100)),)),
}


@pytest.mark.parametrize("name", BAD_REPORTS)
async def test_a_report_that_cannot_be_counted_is_refused_and_the_others_of_its_commit_are_stored(
    tmp_path: Path, name: str
) -> None:
    async with running_rollouts(tmp_path) as running:
        await running.apply()
        good = Reporting().of_pairs("run-1", pairs(3, 0.0))
        taken, refused = await asyncio.gather(
            running.rollouts.take_report(good),
            running.rollouts.take_report(BAD_REPORTS[name]),
            return_exceptions=True,
        )
        assert taken is None
        assert isinstance(refused, ReportRefused)
        assert running.rollouts.evidence_book.evidence(running.rollout).totals.asked == 3
        again = running.fresh()
        await again.start()
        assert again.evidence_book.evidence(running.rollout).totals.asked == 3


async def test_a_report_whose_fold_fails_is_refused_and_leaves_no_trace_in_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penumbra.deployments.evidence.run_evidence import RunEvidence

    fold_run = RunEvidence.fold

    def fails_late(self: RunEvidence, source: str, report: RunReport, *more: str) -> None:
        fold_run(self, source, report, *more)
        if source == "unheard-of":
            raise ArithmeticError("a fault of ours")

    monkeypatch.setattr(RunEvidence, "fold", fails_late)
    async with running_rollouts(tmp_path) as running:
        await running.apply()
        bad = Reporting("unheard-of").of_pairs("run-1", pairs(5, 0.0, start=50))
        with pytest.raises(ReportRefused, match="a fault of ours"):
            await running.rollouts.take_report(bad)
        await running.rollouts.take_report(Reporting().of_pairs("run-1", pairs(3, 0.0)))
        assert running.rollouts.evidence_book.evidence(running.rollout).totals.asked == 3
