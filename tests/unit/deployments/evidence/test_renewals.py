"""A proof goes stale when the workload leaves it, and is made anew on the pairs after that."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.gates import advance_conditions
from penumbra.deployments.rollouts.record import Phase, RolloutRecord
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail
from penumbra.deployments.rollouts.transitions import StepKind
from penumbra.monitoring.observations import AnsweredBy, Pair, Run, RunReport, Signal
from penumbra.monitoring.stats.release import share_of_run
from tests.support.rollouts import NOW, pair, rollout_spec

RUN = Run("demo", "int8", "run-1")
SLICES = ("json", "other")
ENGLISH = {"script": "latin", "prompt_tokens": 40, "tokens": 60}
RUSSIAN = {"script": "cyrillic", "prompt_tokens": 40, "tokens": 60}
GATES = {
    "pairs": 20,
    "slice_pairs": 100,
    "stage_seconds": 0.0,
    "horizon": 20_000,
    "workload_seconds": 0.0,
}


class Traffic:
    """A rollout whose pairs are folded and decided by, in reports of ten."""

    def __init__(self, runs: dict[str, int] | None = None, **changes: Any) -> None:
        guardrails = (
            Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.2, action="rollback", share=0.5),
            Guardrail(signal=Signal.HARM, tolerance=0.2, action="rollback", share=0.5),
        )
        gates = AdvanceRules(**(GATES | changes.pop("gates", {})))
        self.spec = rollout_spec(gates=gates, guardrails=guardrails, **changes)
        self.evidence = RunEvidence(self.spec, "run-1", SLICES, runs)
        self.record = RolloutRecord(
            phase=Phase.SHADOW, since=NOW, run="run-1", slices=SLICES, cause="begun", released={}
        )
        self.did: list[StepKind] = []
        self.causes: list[str] = []
        self._number = 0
        self.reports: list[RunReport] = []

    def send(self, count: int, *, bad: float = 0.0, **told: Any) -> "Traffic":
        """Pairs that are alike; a share of them is bad."""
        fields: dict[str, Any] = {"answered_by": "full", "harm": 0} | told
        for first in range(0, count, 10):
            observed = []
            for number in range(first, min(first + 10, count)):
                self._number += 1
                is_bad = bad and number % round(1 / bad) == 0
                worse = {"harm": 1} if is_bad else {}
                observed.append(pair(self._number, **(fields | worse)))
            self._decide(observed)
        return self

    def _decide(self, observed: Iterable[Pair]) -> None:
        report = RunReport(RUN, pairs=tuple(observed))
        self.reports.append(report)
        self.evidence.fold("c", report)
        now = NOW + timedelta(seconds=self._number)
        self.record, steps = decide(self.spec, self.record, self.evidence.findings(), now)
        self.did += [step.did for step in steps]
        self.causes += [step.cause for step in steps]

    def promoted(self) -> "Traffic":
        """Shadow, then live, in English, until it is promoted."""
        self.send(400, **ENGLISH)
        assert self.record.phase is Phase.LIVE
        return self.send(400, answered_by="int8", **ENGLISH)

    @property
    def gate(self) -> Any:
        found = advance_conditions(self.spec, self.record, self.evidence.findings())
        return next(each for each in found if each.name == "workload")


def test_a_promoted_candidate_whose_users_change_their_language_has_a_stale_proof() -> None:
    traffic = Traffic().promoted()
    assert traffic.record.phase is Phase.PROMOTED
    assert not traffic.record.stale
    traffic.send(100, answered_by="int8", **RUSSIAN)
    assert traffic.record.stale["other"].startswith("script: cyrillic")
    assert traffic.record.phase is Phase.PROMOTED  # guardrails keep watching
    assert "other" in traffic.record.proven
    assert "other" not in traffic.record.proven_live
    assert "proven on another workload: other, script: cyrillic" in " ".join(traffic.causes)


def test_it_is_proven_again_on_the_pairs_after_that_and_has_their_profile() -> None:
    traffic = Traffic().promoted().send(700, answered_by="int8", **RUSSIAN)
    assert traffic.did.count(StepKind.STALE) == traffic.did.count(StepKind.RENEW) == 1
    assert traffic.record.stale == {}
    assert "other" in traffic.record.proven_live
    traffic.send(2000, answered_by="int8", **RUSSIAN)
    assert traffic.record.stale == {}
    traffic.send(100, answered_by="int8", **ENGLISH)
    assert traffic.record.stale["other"].startswith("script: latin")
    assert traffic.record.revalidations == 2


def test_longer_prompts_make_it_stale_as_well() -> None:
    traffic = Traffic().promoted()
    traffic.send(100, answered_by="int8", **ENGLISH | {"prompt_tokens": 4000})
    assert traffic.record.stale["other"].startswith("prompt length: ")


def test_nothing_of_before_proves_it_again() -> None:
    traffic = Traffic().send(3000, **ENGLISH)  # a proof of thousands of nats
    traffic.send(600, bad=0.25, **RUSSIAN)  # over the tolerance, though not enough to be tripped
    assert traffic.record.phase is not Phase.ROLLED_BACK
    assert "other" in traffic.record.stale
    assert StepKind.RENEW not in traffic.did


def test_an_advance_waits_for_a_stale_proof() -> None:
    traffic = Traffic(gates={"stage_seconds": 1e9}).send(400, **ENGLISH)
    assert traffic.gate.is_met
    traffic.send(100, **RUSSIAN)
    assert not traffic.gate.is_met
    assert traffic.gate.found.startswith("other proven on another: script: cyrillic")
    traffic.send(400, **RUSSIAN)
    assert traffic.gate.is_met


@pytest.mark.parametrize(
    ("required", "stale", "is_met"),
    [
        (None, ("json",), False),
        (None, (AGGREGATE,), False),
        (("other",), ("json",), True),
        (("json",), ("json",), False),
        ((), ("json",), True),
        ((), ("json", "other"), False),
    ],
)
def test_only_a_proof_that_is_needed_is_waited_for(
    required: tuple[str, ...] | None, stale: tuple[str, ...], is_met: bool
) -> None:
    traffic = Traffic(required_slices=required)
    update = {"proven": SLICES, "stale": dict.fromkeys(stale, "script: han")}
    traffic.record = traffic.record.model_copy(update=update)
    assert traffic.gate.is_met is is_met


def test_another_mix_of_slices_makes_the_whole_stale_and_not_the_slices() -> None:
    traffic = Traffic().send(400, **ENGLISH).send(100, slice="json", **ENGLISH)
    assert list(traffic.record.stale) == [AGGREGATE]
    traffic.send(300, slice="json", **ENGLISH)
    assert traffic.record.stale == {}


def test_a_slice_that_is_not_released_yet_waits_until_it_is_proven_on_the_traffic_of_now() -> None:
    traffic = Traffic(gates={"pairs": 5000})
    for number in range(5):  # too few pairs of each to release it
        traffic.send(80, route=f"route-{number}", **ENGLISH)
    assert "other" in traffic.evidence.findings().proven
    assert not traffic.record.proven
    traffic.send(50, route="route-5", **RUSSIAN).send(50, route="route-6", **RUSSIAN)
    assert "other" in traffic.evidence.findings().stale
    assert not traffic.record.proven
    assert traffic.record.revalidations == 1
    traffic.send(400, route="route-0", **RUSSIAN)
    assert traffic.record.proven == ("other",)


def test_each_validation_has_the_share_of_alpha_of_a_further_run() -> None:
    traffic = Traffic(runs={"": 2}).promoted().send(100, answered_by="int8", **RUSSIAN)
    proofs = traffic.evidence.proofs
    assert proofs.alpha == pytest.approx(0.05 * share_of_run(2))
    renewal = proofs.renewals.proofs_of("other", AnsweredBy.CANDIDATE)
    assert renewal is not None
    assert renewal.alpha == pytest.approx(0.05 * share_of_run(3))


def test_the_next_run_comes_after_the_validations_of_this_one() -> None:
    traffic = Traffic().promoted().send(100, answered_by="int8", **RUSSIAN)
    assert traffic.record.revalidations == 1
    assert traffic.record.runs_so_far == {"": 2}


def test_the_same_reports_give_the_same_proofs_again() -> None:
    traffic = Traffic().promoted().send(350, answered_by="int8", **RUSSIAN)
    again = RunEvidence(traffic.spec, "run-1", SLICES)
    for report in traffic.reports:
        again.fold("c", report)
    assert again.findings() == traffic.evidence.findings()


def test_pairs_of_an_older_comparator_keep_their_proofs() -> None:
    traffic = Traffic()
    traffic.send(400, tokens=60).send(1000, answered_by="int8", tokens=60)
    assert traffic.record.phase is Phase.PROMOTED
    assert StepKind.STALE not in traffic.did


def test_a_record_of_an_older_store_has_no_stale_proofs() -> None:
    record = Traffic().promoted().record
    stored = record.model_dump(mode="json", exclude={"stale", "revalidations"})
    read = RolloutRecord.model_validate(stored)
    assert (read.stale, read.revalidations) == ({}, 0)


def test_a_quarantined_slice_is_not_stale() -> None:
    traffic = Traffic().promoted()
    quarantined = {"quarantined": ("other",), "proven": ("json",)}
    traffic.record = traffic.record.model_copy(update=quarantined)
    traffic.send(100, answered_by="int8", **RUSSIAN)
    assert traffic.record.stale == {}


def test_a_broken_instrument_proves_nothing_again() -> None:
    traffic = Traffic().promoted().send(100, answered_by="int8", **RUSSIAN)
    assert traffic.record.stale
    traffic.record = traffic.record.model_copy(update={"frozen": "the self-test failed"})
    findings = traffic.evidence.findings()
    update = {"stale": {}, "broken": "the self-test failed"}
    findings = type(findings)(**{**_fields(findings), **update})
    record, _ = decide(traffic.spec, traffic.record, findings, NOW)
    assert record.stale == traffic.record.stale


def _fields(findings: Any) -> dict[str, Any]:
    return {name: getattr(findings, name) for name in findings.__dataclass_fields__}
