"""A rollout from its start to its rollback, in a whole control process inside the test's."""

from dataclasses import dataclass
from typing import Any

from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.rollouts.record import slices_of
from penumbra.monitoring.observations import Counts, Run, SelfTest, Signal
from tests.support.rollouts import aa_pairs, pair, pairs
from tests.support.routing_tables import model
from tests.support.whole_plane import OPENMETRICS, Scraped, WholePlane

MODEL = model()
SLICES = slices_of(MODEL)
FINGERPRINTS = {"full": "f" * 64, "int8": "8" * 64}
GATEWAYS = ("gateway-0", "gateway-1@machine-1", "gateway-1@machine-2")
"""Gateway names as the metrics tell them apart."""
INT8 = {"model": "demo", "candidate": "int8"}
SPEC: dict[str, Any] = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 10.0, 100.0],
    "gates": {"pairs": 20, "slice_pairs": 20, "stage_seconds": 0.0, "horizon": 1000},
    "mirror": {"aa_tolerance": 0.05},
    "required_slices": [],
    "guardrails": [
        {"signal": "displacement", "tolerance": 0.2, "action": "rollback", "share": 0.4},
        {"signal": "harm", "tolerance": 0.2, "action": "rollback", "share": 0.4},
        {"signal": "failure", "tolerance": 0.1, "action": "rollback", "share": 0.2},
        {"signal": "ttft", "tolerance": 0.2, "action": "alert"},
    ],
}
"""Of int8; `required_slices` is empty, so one proven slice is enough to go on."""


@dataclass
class Story:
    """A rollout that went live and was rolled back, scraped on the way."""

    live: Scraped
    view: dict[str, Any]
    """The admin API's view of int8 at the same moment."""
    over: Scraped
    openmetrics: str
    epoch: int


async def tell(plane: WholePlane) -> Story:
    await plane.connect("gateway-0", "machine-1")
    await plane.connect("gateway-1", "machine-1")
    await plane.connect("gateway-1", "machine-2")
    await plane.connect_comparator("machine-1")
    await plane.connect_comparator("machine-2")
    run = Run("demo", "int8", await plane.apply(SPEC))
    await plane.apply(SPEC | {"candidate": "int4", "guardrails": [_calibrated()]})
    test = SelfTest(is_ok=True, largest_gap=0.0, detail="", at=1.0)
    good = [
        pair(number, 0.01 * (number % 5), slice=SLICES[number % 2], harm=0)
        for number in range(1, 81)
    ]
    ttft = tuple(Counts(name, Signal.TTFT, 9, 1) for name in SLICES[:2])
    await plane.report(run, good, counts=ttft, fingerprints=FINGERPRINTS, self_tests=(test,))
    await plane.change("POST", "/rollouts/int8/hold?model=demo")
    await plane.report(run, aa_pairs(5, 0.005, start=500))
    await plane.change("POST", "/flags/demo/kill")
    await plane.change("POST", "/flags/demo/unkill")
    await plane.parts.tick.run_once()
    await plane.parts.rollouts.take_feedback(judgement("1", "full", is_up=True))
    await plane.parts.rollouts.take_feedback(judgement("2", "int8", is_up=False))
    plane.parts.controller.metrics.count_alert("acted")
    live = await plane.settled()
    view = (await plane.client.get("/admin/v1/rollouts/int8?model=demo")).json()
    for start in range(1000, 1100, 5):
        await plane.report(run, pairs(5, 0.9, start=start, slice_name=SLICES[0]))
    await plane.parts.rollouts.close()
    await plane.change("POST", "/rollouts/int4/rollback?model=demo")
    await plane.parts.rollouts.close()
    answer = await plane.client.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    epoch = plane.parts.controller.state.epoch
    return Story(live, view, await plane.settled(), answer.text, epoch)


def _calibrated() -> dict[str, Any]:
    return {
        "signal": "displacement",
        "tolerance": {"calibrate": 300},
        "action": "rollback",
        "share": 1.0,
    }


def judgement(request: str, variant: str, *, is_up: bool) -> UserFeedback:
    return UserFeedback(request, "acme", "demo", variant, SLICES[0], is_up, None, False, {})
