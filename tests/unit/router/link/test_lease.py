import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.link.lease import FIRST_PERIOD_SECONDS, Lease
from penumbra.router.link.messages import LeaseGrant


def test_before_the_first_grant_nothing_is_fresh() -> None:
    assert not Lease().is_fresh("demo", 0.0)


def test_a_gateway_without_a_control_process_is_unguarded_by_choice() -> None:
    assert Lease(is_needed=False).is_fresh("demo", 1e9)


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    lease = Lease()
    question = lease.ask(100.0)
    # However late the answer is read, it grants nothing beyond 110.
    lease.answered(LeaseGrant(question.nonce, {"demo": 10.0}, 10.0))
    assert lease.is_fresh("demo", 109.9)
    assert not lease.is_fresh("demo", 110.0)
    assert lease.left_seconds("demo", 104.0) == 6.0
    assert lease.left_seconds("demo", 200.0) == 0.0


def test_only_the_models_that_were_named_are_fresh() -> None:
    lease = Lease()
    lease.answered(LeaseGrant(lease.ask(0.0).nonce, {"demo": 10.0, "dead": 0.0}, 10.0))
    assert lease.is_fresh("demo", 0.0)
    assert not lease.is_fresh("dead", 0.0)
    assert not lease.is_fresh("unknown", 0.0)


def test_a_model_that_is_not_granted_any_more_is_not_fresh() -> None:
    lease = Lease()
    lease.answered(LeaseGrant(lease.ask(0.0).nonce, {"demo": 10.0}, 10.0))
    lease.answered(LeaseGrant(lease.ask(1.0).nonce, {}, 10.0))
    assert not lease.is_fresh("demo", 1.0)


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    lease = Lease()
    early, late = lease.ask(0.0), lease.ask(5.0)
    lease.answered(LeaseGrant(late.nonce, {"demo": 10.0}, 10.0))
    lease.answered(LeaseGrant(early.nonce, {}, 10.0))
    assert lease.is_fresh("demo", 14.9)


@pytest.mark.parametrize("nonce", [99, -1])
def test_an_answer_to_a_question_that_was_not_asked_grants_nothing(nonce: int) -> None:
    lease = Lease()
    lease.ask(0.0)
    lease.answered(LeaseGrant(nonce, {"demo": 10.0}, 10.0))
    assert not lease.is_fresh("demo", 0.0)


def test_what_was_revoked_is_not_fresh_whatever_is_still_on_its_way() -> None:
    lease = Lease()
    lease.answered(LeaseGrant(lease.ask(0.0).nonce, {"demo": 10.0}, 10.0))
    asked = lease.ask(1.0)
    lease.revoke()
    lease.answered(LeaseGrant(asked.nonce, {"demo": 10.0}, 10.0))
    assert not lease.is_fresh("demo", 1.0)
    lease.answered(LeaseGrant(lease.ask(2.0).nonce, {"demo": 10.0}, 10.0))
    assert lease.is_fresh("demo", 2.0)


def test_the_same_answer_twice_counts_once() -> None:
    lease = Lease()
    grant = LeaseGrant(lease.ask(0.0).nonce, {"demo": 10.0}, 10.0)
    lease.answered(grant)
    lease.answered(LeaseGrant(lease.ask(1.0).nonce, {}, 10.0))
    lease.answered(grant)
    assert not lease.is_fresh("demo", 1.0)


def test_the_period_follows_the_lease() -> None:
    lease = Lease()
    assert lease.period_seconds == FIRST_PERIOD_SECONDS
    lease.answered(LeaseGrant(lease.ask(0.0).nonce, {"demo": 3.0}, 10.0))
    assert lease.period_seconds == 2.5


def test_questions_without_answers_are_forgotten() -> None:
    lease = Lease()
    first = lease.ask(0.0)
    for second in range(1, 100):
        lease.ask(float(second))
    lease.answered(LeaseGrant(first.nonce, {"demo": 1e6}, 10.0))
    assert not lease.is_fresh("demo", 100.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=20), st.data())
def test_no_order_of_answers_makes_a_lease_longer_than_the_newest_one_granted(
    asked: list[tuple[float, float]], data: st.DataObject
) -> None:
    lease = Lease()
    asked.sort()
    grants = [LeaseGrant(lease.ask(at).nonce, {"demo": seconds}, 10.0) for at, seconds in asked]
    for grant in data.draw(st.permutations(grants)):
        lease.answered(grant)
    until = max((at + seconds for at, seconds in asked), default=0.0)
    assert not lease.is_fresh("demo", until)


def test_a_candidate_that_a_lease_is_not_for_is_not_guarded_and_the_others_are() -> None:
    lease = Lease()
    question = lease.ask(0.0)
    assert question.is_by_candidate
    grant = LeaseGrant(question.nonce, {"demo": 10.0}, 10.0, {"demo": ("int4",)})
    lease.answered(grant)
    assert lease.without("demo") == {"int4"}
    assert lease.is_guarding("demo", "int8", 1.0)
    assert not lease.is_guarding("demo", "int4", 1.0)
    assert not lease.is_guarding("demo", "int8", 10.0)
    lease.answered(LeaseGrant(lease.ask(2.0).nonce, {"demo": 10.0}, 10.0))
    assert lease.is_guarding("demo", "int4", 3.0)
