from typing import Any

import pytest

from penumbra.deployments.api.channel_views import channel_views
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.deployments.rollouts.spec import Guardrail
from penumbra.monitoring.observations import Run, RunReport, Shed, Signal
from penumbra.serve.cli.channel_views import channels_table
from tests.support.rollouts import NOW, pair, rollout_spec

SPEC = rollout_spec()
HARM = Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5)


def told(evidence: RunEvidence, **changes: Any) -> list[tuple[str, bool, str | None]]:
    fields: dict[str, Any] = {
        "phase": Phase.LIVE,
        "stage_index": 1,
        "since": NOW,
        "run": "r-1",
        "slices": ("other",),
        "cause": "test",
        "proven": ("other",),
        "released": {"other": ("chat",)},
    }
    rollout = Rollout(spec=evidence.spec, record=RolloutRecord(**(fields | changes)))
    return [(view.channel, view.is_released, view.why) for view in channel_views(rollout, evidence)]


def evidence(spec: Any = SPEC, **counts: int) -> RunEvidence:
    found = RunEvidence(spec, "r-1", ("other",))
    numbers = iter(range(10_000))
    observed = [
        pair(next(numbers), route=route) for route, count in counts.items() for _ in range(count)
    ]
    found.fold("c", RunReport(Run("demo", "int8", "r-1"), pairs=tuple(observed)))
    return found


def test_status_says_what_stays_on_the_baseline_and_why() -> None:
    found = evidence(chat=60, responses=7)
    sheds = (Shed("other", "route", 3, "embeddings"), Shed("other", "not_tappable", 2, "chat"))
    found.fold("g", RunReport(Run("demo", "int8", "r-1"), sheds=(*sheds, sheds[0])))
    assert told(found) == [
        ("chat", True, None),
        ("responses", False, "7 of 20 pairs"),
        ("embeddings", False, "requests of this route cannot be compared: 6 so far"),
        ("chat", False, "requests that ask for what a comparison would change: 2 so far"),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"quarantined": ("other",)}, "the slice is quarantined"),
        ({"proven": ()}, "the slice as a whole is not proven"),
        (
            {"frozen": "broken", "released": {}},
            "nothing is released while the instrument is broken or the horizon is over",
        ),
    ],
)
def test_a_channel_stays_for_the_sake_of_its_slice(changes: dict[str, Any], why: str) -> None:
    assert told(evidence(chat=60), **changes) == [("chat", False, why)]


def test_a_channel_that_is_not_proven_names_the_signals() -> None:
    spec = rollout_spec(guardrails=(SPEC.guardrails[0], HARM))
    found = told(evidence(spec, chat=60), released={})
    assert found == [("chat", False, "not proven by itself yet: harm")]


def test_a_run_of_an_older_store_releases_what_it_did() -> None:
    assert told(evidence(chat=60, responses=60), released=None) == [
        ("chat", True, None),
        ("responses", False, "the run began before channels were told apart"),
    ]


def test_a_terminal_shows_them() -> None:
    views = [
        {"slice": "other", "channel": "chat", "pairs": 60, "signals": ["harm"], "is_released": True,
         "why": None},
        {"slice": "other", "channel": "score", "pairs": 0, "signals": [], "is_released": False,
         "why": "requests of this route cannot be compared: 6 so far"},
    ]  # fmt: skip
    table = channels_table(views)
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert list(zip(*cells, strict=True)) == [
        ("other", "chat", "60", "harm", "yes"),
        ("other", "score", "0", "-", "no: requests of this route cannot be compared: 6 so far"),
    ]
