import pytest

from penumbra.monitoring.vocabulary import FAILURES, Outcome, Reason
from penumbra.router.dispatch.plan import live_candidates, plan
from penumbra.router.flags.evaluate import Decision
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Variant


def model(**flag: object) -> ModelSnapshot:
    variants = {name: Variant(url=f"http://{name}") for name in ("full", "int8", "int4")}
    return ModelSnapshot(baseline="full", variants=variants, flag=Flag.model_validate(flag))


@pytest.mark.parametrize("outcome", sorted(FAILURES))
def test_a_failed_candidate_is_followed_by_the_baseline(outcome: Outcome) -> None:
    order = plan(Decision("int8", Reason.SPLIT), model(), "other", is_lease_fresh=True)
    following = order.following(0, outcome)
    assert following is not None
    assert order.attempts[following] == "full"


def test_only_a_refusal_moves_on_from_the_baseline() -> None:
    flagged = model(split={"int8": 5})
    order = plan(Decision("full", Reason.SPLIT), flagged, "other", is_lease_fresh=True)
    assert order.attempts == ("full", "full", "int8")
    assert order.following(0, Outcome.REFUSED) == 1
    assert order.following(1, Outcome.REFUSED) == 2
    assert order.following(2, Outcome.REFUSED) is None
    for outcome in FAILURES - {Outcome.REFUSED}:
        assert order.following(0, outcome) is None


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ({}, ()),
        ({"split": {"int8": 0}}, ()),
        ({"split": {"int8": 10, "int4": 20}}, ("int4",)),
        ({"split": {"int8": 10, "int4": 20}, "blocked": ("int4",)}, ("int8",)),
        ({"split": {"int8": 10}, "killed": True}, ()),
        ({"split": {"int8": 10}, "quarantined": ("greek",)}, ()),
    ],
)
def test_only_a_candidate_with_a_live_share_stands_in(
    flag: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert live_candidates(model(**flag), "greek") == expected


def test_no_candidate_stands_in_without_a_fresh_lease() -> None:
    flagged = model(split={"int8": 50})
    order = plan(Decision("full", Reason.LEASE_EXPIRED), flagged, "other", is_lease_fresh=False)
    assert order.attempts == ("full", "full")
