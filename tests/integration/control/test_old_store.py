"""A store written before modules moved and got other names opens, says the same, and goes on.

The fixture was written by the commit before the move: a rollout that was promoted, rolled back by
the guard and re-armed, flags changed in every way, feedback, and an alert that was acted on.
`answers.json` holds what its control process said of it.
"""

import json
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penumbra.deployments.control.alert_handler import AlertHandler
from penumbra.deployments.history.alerts import Alert, Result
from penumbra.deployments.rollouts.record import Phase
from penumbra.monitoring.observations import Run
from tests.support.control_story import FINGERPRINTS, SLICES
from tests.support.rollouts import Reporting, pairs
from tests.support.whole_plane import WholePlane, whole_plane

OLD = Path(__file__).parents[2] / "fixtures" / "store_before_the_move"
ANSWERS: dict[str, Any] = json.loads((OLD / "answers.json").read_text())
RUN = Run("demo", "int8", ANSWERS["/rollouts/int8?model=demo"]["run"])


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[WholePlane]:
    shutil.copy(OLD / "penumbra.db", tmp_path)
    async with whole_plane(tmp_path) as opened:
        opened.reporting = Reporting(process_start_id="after-the-move")
        yield opened


@pytest.mark.parametrize("path", sorted(ANSWERS))
async def test_control_process_says_of_an_old_store_what_the_old_one_said(
    plane: WholePlane, path: str
) -> None:
    answer = await plane.client.get(f"/admin/v1{path}")
    assert answer.status_code == 200, answer.text
    before = _without_age(ANSWERS[path])
    if before.get("gates"):
        fine = {"found": "within", "is_met": True, "wanted": "within the tolerances"}
        before["gates"].insert(-1, {"name": "noise", **fine})
    for signal in before.get("signals", []):
        signal["proof_boundary"] = pytest.approx(20.0 / 0.75)  # the first of all runs
        if signal["signal"] in ("displacement", "harm") and signal["aggregate"]:
            for stream in (signal, signal["aggregate"]):  # the candidate answered none: 0.5
                stream["evidence"] = (stream["evidence"] + 0.5) / 2
        if signal["signal"] == "ttft":  # a tenth of its alpha is for floors
            signal |= {"alpha": pytest.approx(0.009), "boundary": pytest.approx(100.0 / 0.9)}
        if signal["calibrating"]:  # each slice by its own pairs, and half of the alpha for that
            told = ", ".join(f"{name} 0" for name in before["slices"])
            signal |= {
                "alpha": 0.005,
                "boundary": 200.0,
                "calibrating": f"{told} of 300 pairs each",
            }
    assert _as_before(_without_age(answer.json()), before) == before


async def test_run_of_an_old_store_goes_on_to_its_rollback(plane: WholePlane) -> None:
    before = plane.parts.controller.state.rollouts["demo", "int8"]
    assert (before.record.run, before.record.phase) == (RUN.id, Phase.SHADOW)
    for start in range(3000, 3100, 5):
        observed = pairs(5, 0.9, start=start, slice_name=SLICES[0])
        await plane.report(RUN, observed, fingerprints=FINGERPRINTS)
    view = (await plane.client.get("/admin/v1/rollouts/int8?model=demo")).json()
    assert view["stage"] == "rolled_back"
    explained = (await plane.client.get("/admin/v1/rollouts/int8/explain?model=demo")).json()
    assert explained["is_reproduced"] is True
    assert explained["epoch"] > ANSWERS["/flags"]["epoch"]


async def test_alert_of_an_old_store_is_not_acted_on_again(plane: WholePlane) -> None:
    fired = Alert.model_validate(
        {
            "status": "firing",
            "labels": {"model": "demo", "candidate": "int4", "penumbra_action": "rollback"},
            "startsAt": "2026-01-01T00:00:00Z",
            "fingerprint": "0123456789abcdef",
        }
    )
    handler = AlertHandler(plane.parts.rollouts, plane.parts.controller, lambda: datetime.now(UTC))
    outcome = await handler.take(fired)
    assert outcome.result is Result.ALREADY_ACTED
    assert "dealt with before" in outcome.detail


_ADDED_WITH_DEFAULTS = {
    "answered_by", "beside_shadow", "broken_seconds", "builds", "candidates", "channels", "cluster",
    "earlier_runs", "effect", "effects", "failure_requests", "floors", "guard_alpha", "horizon",
    "model_alpha", "proof", "proven_live", "stage_pairs",
    "without_counterpart", "workload", "workload_seconds", "workload_shift",
}  # fmt: skip


def _without_age(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer but for how long the stage has lasted: that depends on when one asks.

    Nor does it hold the gates that are new and say nothing of this store.
    """
    gates = answer.get("gates", [])
    left_out = {"time", "stage_pairs", "live", "workload"}
    return answer | {"gates": [gate for gate in gates if gate["name"] not in left_out]}


def _as_before(now: Any, before: Any) -> Any:
    """An answer but for the fields that were added since and say nothing of this store."""
    if isinstance(now, dict) and isinstance(before, dict):
        return {
            name: _as_before(value, before.get(name))
            for name, value in now.items()
            if name in before or (value and name not in _ADDED_WITH_DEFAULTS)
        }
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        return [_as_before(*both) for both in zip(now, before, strict=True)]
    return now


async def test_a_proposal_is_planned_against_an_old_store_and_changes_it(
    plane: WholePlane,
) -> None:
    shown = (await plane.client.get("/admin/v1/configuration")).json()
    assert shown["keys"] is None
    models = {
        name: {
            "baseline": model["baseline"],
            "variants": {v: {"url": found["url"]} for v, found in model["variants"].items()},
            "slices": model["slices"],
        }
        for name, model in shown["models"].items()
    }
    same = await plane.change("PUT", "/configuration", models=models)
    assert (same["changed"], same["steps"]) == (False, [])
    keys = [{"tenant": "acme", "sha256": "a" * 64}]
    later = await plane.change(
        "PUT", "/configuration", models=models, keys=keys, expected_epoch=shown["epoch"]
    )
    assert (later["changed"], len(later["steps"])) == (True, 1)
