from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.shadow.ordered_results import OrderedResults


class Delivered:
    def __init__(self) -> None:
        self.results: list[tuple[Hashable, int]] = []

    def __call__(self, key: Hashable, result: int) -> None:
        self.results.append((key, result))


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_results_come_in_the_order_of_admission(order: list[int], without: set[int]) -> None:
    delivered = Delivered()
    in_order: OrderedResults[int] = OrderedResults(delivered)
    slots = [in_order.open("run") for _ in range(8)]
    for number in order:
        slots[number].close(None if number in without else number)
    assert [result for _, result in delivered.results] == sorted(set(range(8)) - without)
    assert in_order.open_slots == 0


def test_a_result_waits_for_those_before_it() -> None:
    delivered = Delivered()
    in_order: OrderedResults[int] = OrderedResults(delivered)
    first, second = in_order.open("run"), in_order.open("run")
    second.close(2)
    assert delivered.results == []
    first.close(1)
    assert delivered.results == [("run", 1), ("run", 2)]


def test_keys_do_not_wait_for_each_other() -> None:
    delivered = Delivered()
    in_order: OrderedResults[int] = OrderedResults(delivered)
    in_order.open("slow")
    in_order.open("quick").close(1)
    assert delivered.results == [("quick", 1)]


def test_only_the_first_close_counts() -> None:
    delivered = Delivered()
    in_order: OrderedResults[int] = OrderedResults(delivered)
    slot = in_order.open("run")
    slot.close(1)
    slot.close(2)
    assert delivered.results == [("run", 1)]
