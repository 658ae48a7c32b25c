import random

import pytest

from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.shadow.queue import MirrorQueue
from penumbra.router.shadow.settings import QueueLimits
from tests.support.mirrored import mirrored


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Queue:
    """A queue with its clock and the requests that it shed."""

    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.shed: list[tuple[str, ShedReason]] = []
        self.queue = MirrorQueue(QueueLimits.model_validate(limits), self._note, self.clock)

    def _note(self, request: MirrorFrame, reason: ShedReason) -> None:
        self.shed.append((request.request_id, reason))

    def put(self, name: str, size: int = 1, model: str = "demo") -> bool:
        return self.queue.put(mirrored(name, model=model, answered_at=self.clock.now), size)

    def take(self, obstacle: ShedReason | None = None) -> str | None:
        taken = self.queue.take(lambda model: obstacle)
        return taken.request_id if taken else None


def test_first_in_first_out() -> None:
    queue = Queue()
    for name in "abc":
        queue.put(name)
    assert [queue.take() for _ in range(4)] == ["a", "b", "c", None]
    assert (queue.queue.items, queue.queue.bytes) == (0, 0)


def test_the_newest_is_shed_when_too_many_wait() -> None:
    queue = Queue(items=2)
    assert [queue.put(name) for name in "abc"] == [True, True, False]
    assert queue.shed == [("c", ShedReason.QUEUE_ITEMS)]


def test_the_newest_is_shed_when_too_many_bytes_wait_whatever_its_own_size() -> None:
    for size in (1, 1_000_000):
        queue = Queue(bytes=100)
        assert queue.put("fits", 99)
        assert queue.put("is over by itself", size)
        assert not queue.put("comes too late", 1)
        assert queue.shed == [("comes too late", ShedReason.QUEUE_BYTES)]


def test_shedding_does_not_depend_on_length() -> None:
    dice = random.Random(8)
    queue = Queue(bytes=2_000)
    offered = dict.fromkeys((10, 1000), 0)
    taken = dict(offered)
    for number in range(20_000):
        size = dice.choice((10, 1_000))
        offered[size] += 1
        taken[size] += queue.put(str(number), size)
        if dice.random() < 0.45:
            queue.take()
    rates = [taken[size] / offered[size] for size in offered]
    # Some 10 000 of each: the difference of two equal rates stays below .03 (4 sd).
    assert abs(rates[0] - rates[1]) < 0.03
    assert rates[0] < 0.9


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        (ShedReason.BUSY, ShedReason.BUSY),
        (ShedReason.BUDGET, ShedReason.BUDGET),
        (None, ShedReason.AGE),
    ],
)
def test_a_request_that_grows_too_old_is_shed_with_the_obstacle_as_reason(
    obstacle: ShedReason | None, reason: ShedReason
) -> None:
    queue = Queue(age_seconds=5)
    queue.put("old")
    if obstacle is not None:
        assert queue.take(obstacle) is None
    queue.clock.now += 4
    queue.put("young")
    queue.clock.now += 2
    queue.queue.shed_old()
    assert queue.shed == [("old", reason)]
    assert queue.take() == "young"


def test_models_take_turns() -> None:
    queue = Queue()
    for name in ("a1", "a2", "a3"):
        queue.put(name, model="a")
    queue.put("b1", model="b")
    assert [queue.take() for _ in range(4)] == ["a1", "b1", "a2", "a3"]


def test_one_models_engines_do_not_hold_up_another_model() -> None:
    queue = Queue()
    queue.put("a1", model="a")
    queue.put("b1", model="b")
    taken = queue.queue.take(lambda model: ShedReason.BUSY if model == "a" else None)
    assert taken is not None
    assert taken.request_id == "b1"
    assert queue.queue.items == 1


def test_clear_sheds_everything() -> None:
    queue = Queue()
    queue.put("a", 5)
    queue.put("b", 5, model="other")
    queue.queue.clear(ShedReason.STOPPING)
    assert queue.shed == [("a", ShedReason.STOPPING), ("b", ShedReason.STOPPING)]
    assert (queue.queue.items, queue.queue.bytes) == (0, 0)
