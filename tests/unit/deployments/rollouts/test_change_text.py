"""Names of rollout changes: the label value and the sentence."""

from typing import Any

import pytest

from penumbra.deployments.rollouts.change_text import change_of, sentence
from penumbra.deployments.rollouts.payload import Decided, RolloutPayload
from penumbra.deployments.rollouts.record import Graduation, Hold, Phase, Rollout, RolloutRecord
from penumbra.monitoring.telemetry.labels import CHANGE
from penumbra.router.flags.routing_table import Flag, Scope
from tests.support.rollouts import NOW, rollout_spec

SPEC = rollout_spec(candidate="int2")


def at(phase: Phase, **fields: Any) -> Rollout:
    told = {"since": NOW, "run": "r-1", "slices": ("facts", "other"), "cause": "because"}
    return Rollout(spec=SPEC, record=RolloutRecord(phase=phase, **{**told, **fields}))


def payload(
    before: Rollout | None, after: Rollout, decided: Decided | None = None
) -> RolloutPayload:
    return RolloutPayload(
        before=before, after=after, flag_before=Flag(), flag_after=Flag(), decided=decided
    )


def decided(**fields: Any) -> Decided:
    told: dict[str, Any] = {
        "action": "rollback",
        "signal": "displacement",
        "evidence": 412.345,
        "boundary": 333.333,
        "culprits": ("facts",),
        "detail": "x",
        "pairs": 31,
        "report": ("c", "life", 1),
        "observed_at": None,
    }
    return Decided(**(told | fields))


LIVE = at(Phase.LIVE, stage_index=1)
BACK = at(Phase.ROLLED_BACK, stage_index=1, cause="not_finite: NaN")
HELD = at(Phase.LIVE, stage_index=1, held=Hold(by="operator", cause="wait"))
GRADUATED = at(Phase.OFF, graduated=Graduation(baseline="full", kept_until=NOW))

CASES = [
    ("applied", None, at(Phase.SHADOW)),
    ("applied", at(Phase.OFF), at(Phase.SHADOW, run="r-2")),
    ("advanced", at(Phase.SHADOW), LIVE),
    ("advanced", LIVE, at(Phase.LIVE, stage_index=2)),
    ("promoted", at(Phase.LIVE, stage_index=2), at(Phase.PROMOTED, stage_index=2)),
    ("held", LIVE, HELD),
    ("resumed", HELD, LIVE),
    ("quarantined", LIVE, at(Phase.LIVE, stage_index=1, quarantined=("facts",))),
    ("rolled_back", LIVE, BACK),
    ("rearmed", BACK, at(Phase.SHADOW, run="r-2")),
    ("restarted", LIVE, at(Phase.SHADOW, run="r-2")),
    ("restarted", at(Phase.SHADOW), at(Phase.SHADOW, run="r-2")),
    ("graduated", at(Phase.PROMOTED, stage_index=2), GRADUATED),
    ("rolled_back", GRADUATED, BACK),
    ("ended", LIVE, at(Phase.OFF)),
    ("stale", LIVE, at(Phase.LIVE, stage_index=1, stale={"facts": "script: han"})),
    ("renewed", at(Phase.LIVE, stage_index=1, stale={"facts": "script: han"}), LIVE),
    ("other", at(Phase.SHADOW), at(Phase.SHADOW, fingerprints={"full": "a"})),
]


@pytest.mark.parametrize(("change", "before", "after"), CASES, ids=[case[0] for case in CASES])
def test_a_change_has_one_word(change: str, before: Rollout | None, after: Rollout) -> None:
    assert change_of(payload(before, after)) == change


def test_every_word_is_a_label_and_every_label_a_word() -> None:
    assert {case[0] for case in CASES} == set(CHANGE.values)


def test_another_spec_is_an_application() -> None:
    after = at(Phase.SHADOW, run="r-2").model_copy(update={"spec": rollout_spec(alpha=0.01)})
    assert change_of(payload(at(Phase.SHADOW), after)) == "applied"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (decided(), "displacement, facts (evidence 412.3 of 333.3), 31 pairs"),
        (decided(culprits=(), suspect="facts"), "displacement, most of it in facts (evidence 412"),
        (decided(culprits=(), pairs=1), "displacement, all slices together (evidence 412.3 of"),
        (decided(signal="not_finite", evidence=None), "not_finite: NaN, 31 pairs"),
        (None, "not_finite: NaN"),
    ],
)
def test_a_rollback_says_from_where_and_why(found: Decided | None, words: str) -> None:
    text = sentence(payload(LIVE, BACK, found), "guard")
    assert text.startswith(f"int2 of demo was rolled back from 10 %: {words}")


def test_one_pair_is_one_pair() -> None:
    assert sentence(payload(LIVE, BACK, decided(pairs=1)), "guard").endswith(", 1 pair")


def test_a_person_is_named() -> None:
    text = sentence(payload(LIVE, HELD), "alice")
    assert text == "int2 of demo is held at 10 % by alice: because"


def test_a_stale_proof_is_told_with_its_cause() -> None:
    after = at(Phase.PROMOTED, stale={"facts": "script: han"}, cause="proven on another workload")
    text = sentence(payload(at(Phase.PROMOTED), after), "guard")
    assert text == "int2 of demo has a stale proof at promoted: proven on another workload"


def test_lost_slices_are_named() -> None:
    after = at(Phase.LIVE, stage_index=1, quarantined=("facts",))
    found = decided(action="quarantine")
    assert sentence(payload(LIVE, after, found), "guard") == (
        "int2 of demo lost the slices facts at 10 %:"
        " displacement, facts (evidence 412.3 of 333.3), 31 pairs"
    )


@pytest.mark.parametrize(("change", "before", "after"), CASES, ids=[case[0] for case in CASES])
def test_every_change_has_a_sentence(change: str, before: Rollout | None, after: Rollout) -> None:
    del change
    assert sentence(payload(before, after), "guard").startswith("int2 of demo ")


def test_a_rollout_that_begins_says_its_scope() -> None:
    spec = rollout_spec(candidate="int2", scope=Scope(slices=("facts",), tenants=("acme", "b")))
    after = at(Phase.SHADOW).model_copy(update={"spec": spec})
    assert sentence(payload(None, after), "guard") == (
        "int2 of demo has a rollout, at shadow (only slices facts, tenants acme|b): because"
    )
