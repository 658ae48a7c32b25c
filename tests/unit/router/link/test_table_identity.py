"""Names of tables: which one may follow which, and what a gateway says of the one in force."""

import pytest

from penumbra.router.flags.routing_table import Flag, Snapshot
from penumbra.router.link.messages import EpochApplied, Hello, Refused, from_control, push_of
from penumbra.router.link.table_identity import (
    Restriction,
    TableName,
    restrictions_of,
    store_of,
    store_text,
)
from penumbra.router.link.table_in_force import TableInForce
from tests.support.routing_tables import snapshot

OWN = TableName("store", 2, 5, "aa")


@pytest.mark.parametrize(
    ("other", "objection"),
    [
        (TableName("store", 2, 5, "aa"), None),
        (TableName("store", 2, 6, "bb"), None),
        (TableName("store", 3, 1, "bb"), None),
        (TableName("other", 1, 1, "bb"), None),
        (TableName("store", 2, 5), None),  # of a control process of before names
        (TableName("store", 2, 5, "bb"), "another epoch 5"),
        (TableName("store", 2, 4, "bb"), "older than epoch 5"),
        (TableName("store", 1, 9, "bb"), "older than generation 2"),
    ],
)
def test_a_table_may_follow_unless_it_is_older_or_of_one_epoch_with_another(
    other: TableName, objection: str | None
) -> None:
    found = OWN.objection_to(other)
    assert found is None if objection is None else objection in (found or "")


def test_a_store_text_of_the_first_generation_is_the_one_of_before() -> None:
    assert store_text("store", 1) == "store"
    assert store_text("store", 2) != store_text("store", 3)
    assert store_of(store_text("store", 2)) == store_of(store_text("store", 1)) == "store"


def test_restrictions_are_what_flags_take_away() -> None:
    flag = Flag(killed=True, blocked=("int8",), quarantined=("json",), split={"int8": 5.0})
    assert restrictions_of(snapshot(flag, epoch=1)) == {
        "demo": Restriction(True, ("int8",), ("json",))
    }
    assert restrictions_of(snapshot(Flag(split={"int8": 5.0}), epoch=1)) == {}


def test_a_restriction_of_one_candidate_is_read_as_one_of_all_by_an_older_control_process() -> None:
    flag = Flag(quarantined=("json",), quarantined_for={"int8": ("greek",)})
    found = restrictions_of(snapshot(flag, epoch=1))["demo"]
    assert found.quarantined == ("json", "greek")
    assert (found.of_all, found.quarantined_for) == (("json",), {"int8": ("greek",)})
    assert Restriction(quarantined=("json",)).of_all == ("json",)


class Gateway:
    """The tables of one gateway."""

    def __init__(self) -> None:
        self.tables: list[Snapshot] = []
        self.in_force = TableInForce(self.tables.append)

    def take(self, epoch: int, digest: str, generation: int = 1) -> EpochApplied | Refused:
        text = push_of("store", snapshot(epoch=epoch), generation, digest)
        push = from_control(text)
        return self.in_force.take(push)


def test_an_epoch_that_comes_twice_with_two_tables_is_never_said_to_be_applied() -> None:
    gateway = Gateway()
    assert gateway.take(5, "aa") == EpochApplied(5, 1, "aa")
    assert isinstance(gateway.take(5, "bb"), Refused)
    assert gateway.take(5, "bb", generation=2) == EpochApplied(5, 2, "bb")
    assert [table.epoch for table in gateway.tables] == [5, 5]


def test_a_lower_epoch_of_a_new_generation_is_put_into_force() -> None:
    gateway = Gateway()
    gateway.take(5, "aa")
    assert gateway.take(3, "cc", generation=2) == EpochApplied(3, 2, "cc")
    assert isinstance(gateway.take(9, "dd"), Refused)
    assert [table.epoch for table in gateway.tables] == [5, 3]


def test_the_table_in_force_is_known_by_its_name_once_it_has_one() -> None:
    gateway = Gateway()
    gateway.take(5, "")  # from a control process of before names
    assert gateway.take(5, "aa") == EpochApplied(5, 1, "aa")
    assert len(gateway.tables) == 1
    assert isinstance(gateway.take(5, "bb"), Refused)


def test_a_hello_names_the_table_in_force() -> None:
    hello = Hello("g", 1, store_text("store", 2), 5, generation=2, digest="aa")
    assert hello.table_name() == OWN
