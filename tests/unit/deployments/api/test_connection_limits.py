"""Bounds on the number of connections without a valid token."""

from dataclasses import dataclass

from penumbra.deployments.api.connection_limits import ConnectionLimits, Connections

ROOMY = 1_000_000


@dataclass(eq=False)
class FakeConnection:
    host: str = "10.0.0.1"
    is_aborted: bool = False

    def abort(self) -> None:
        self.is_aborted = True


def connections(most: int, descriptors: int = ROOMY) -> Connections:
    return Connections(
        lambda shown: shown is not None, ConnectionLimits(unknown=most), None, lambda: descriptors
    )


def test_one_more_than_may_be_closes_the_oldest() -> None:
    held = connections(3)
    all_of = [FakeConnection() for _ in range(5)]
    for each in all_of:
        held.admit(each)
    assert [each.is_aborted for each in all_of] == [True, True, False, False, False]
    assert len(held) == 3


def test_the_host_that_holds_most_makes_room() -> None:
    held = connections(3)
    lone, *flood = FakeConnection("10.0.0.7"), FakeConnection(), FakeConnection(), FakeConnection()
    for each in (lone, *flood):
        held.admit(each)
    assert not lone.is_aborted
    assert [each.is_aborted for each in flood] == [True, False, False]


def test_connection_is_counted_once_and_forgotten() -> None:
    held = connections(2)
    one = FakeConnection()
    held.admit(one)
    held.admit(one)
    assert len(held) == 1
    held.forget(one)
    held.forget(one)
    assert len(held) == 0


def test_few_descriptors_bound_the_number_too() -> None:
    held = connections(256, descriptors=8)
    for _ in range(10):
        held.admit(FakeConnection())
    assert len(held) == 2
