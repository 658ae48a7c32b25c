"""The control process to try next, of several."""

import pytest

from penumbra.router.link.control_addresses import ControlAddresses

A, B, C = (f"http://control-{name}:8090" for name in "abc")


def at(name: str) -> str:
    return f"ws://control-{name}:8090/link"


def test_one_address_is_tried_again_after_a_pause_each_time() -> None:
    addresses = ControlAddresses([A], "/link")
    assert [addresses.turn() for _ in range(3)] == [True, True, True]
    assert addresses.link == at("a")


def test_all_are_tried_in_turn_before_a_pause() -> None:
    addresses = ControlAddresses([A, B, C], "/link")
    seen = [(addresses.link, addresses.turn()) for _ in range(6)]
    assert seen == [(at("a"), False), (at("b"), False), (at("c"), True)] * 2


def test_the_leader_that_a_standby_names_is_tried_next() -> None:
    addresses = ControlAddresses([A, B, C], "/link")
    assert not addresses.turn(f"{C}/")
    assert addresses.link == at("c")


@pytest.mark.parametrize("named", ["http://elsewhere:1", A, "", "no address"])
def test_the_token_goes_to_no_address_that_was_not_given(named: str) -> None:
    addresses = ControlAddresses([A, B], "/link")
    addresses.turn(named)
    assert addresses.link == at("b")


def test_two_that_name_each_other_do_not_spare_the_pause() -> None:
    addresses = ControlAddresses([A, B], "/link")
    assert [addresses.turn(B), addresses.turn(A), addresses.turn(B)] == [False, True, False]


def test_an_address_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="control_url"):
        ControlAddresses([A, "control-b"], "/link")
