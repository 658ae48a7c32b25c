"""Changes survive `kill -9` of the control process."""

import random
import threading

import httpx
import pytest

from penumbra.deployments.history.state import fold
from penumbra.deployments.store.store import Store
from tests.support.control_process import ControlProcess

ROUNDS = 4


class Writer(threading.Thread):
    """Changes the split as fast as it is answered, until the control process is gone."""

    def __init__(self, control: ControlProcess, first: int) -> None:
        super().__init__()
        self.acknowledged: list[tuple[int, float]] = []
        self.has_written = threading.Event()
        self._control = control
        self._first = first

    def run(self) -> None:
        for number in range(self._first, 10_000):
            share = (number % 10_000) / 100
            try:
                answer = self._control.split(share)
            except httpx.TransportError:
                return
            self.acknowledged.append((answer["epoch"], share))
            if len(self.acknowledged) >= 20:
                self.has_written.set()


def test_kill_9_while_writing_loses_nothing_that_was_acknowledged(control: ControlProcess) -> None:
    acknowledged: list[tuple[int, float]] = []
    dice = random.Random(20260101)
    for _ in range(ROUNDS):
        writer = Writer(control, first=len(acknowledged) + 100)
        writer.start()
        assert writer.has_written.wait(60.0)
        # Somewhere within a request, at another place each time.
        threading.Event().wait(dice.uniform(0, 0.02))
        control.kill()
        writer.join(60.0)
        assert not writer.is_alive()
        acknowledged += writer.acknowledged
        control.start()
        events = {event.epoch: event for event in _events(control)}
        assert sorted(events) == list(range(1, len(events) + 1))
        for epoch, share in acknowledged:
            assert events[epoch].payload.after.split == {"int8": share}
        # At most the one change under way when it died is there without having been answered.
        assert len(events) - max(epoch for epoch, _ in acknowledged) in (0, 1)
        flag = control.get("/flags/demo")["flag"]
        assert flag == events[len(events)].payload.after.model_dump(mode="json")


def _events(control: ControlProcess) -> list:
    store = Store(f"sqlite:///{control.store_file}")
    try:
        return store.events()
    finally:
        store.close()


def test_every_epoch_can_be_recomputed_after_a_restart(control: ControlProcess) -> None:
    for share in (10, 20, 30):
        control.split(share)
    tables = [control.get(f"/snapshots/{epoch}") for epoch in (1, 2, 3, 4)]
    assert control.stop() == 0
    control.start()
    assert [control.get(f"/snapshots/{epoch}") for epoch in (1, 2, 3, 4)] == tables
    assert [table["models"]["demo"]["flag"]["split"] for table in tables] == [
        {},
        {"int8": 10},
        {"int8": 20},
        {"int8": 30},
    ]
    assert fold(_events(control)).epoch == 4


@pytest.mark.parametrize("writers", [4])
def test_two_who_change_the_same_flag_from_the_same_epoch_cannot_both_win(
    control: ControlProcess, writers: int
) -> None:
    epoch = control.get("/flags/demo")["epoch"]
    statuses: list[int] = []
    barrier = threading.Barrier(writers)

    def write(share: int) -> None:
        barrier.wait()
        answer = httpx.put(
            f"{control.url}/admin/v1/flags/demo",
            json={"flag": {"split": {"int8": share}}, "reason": "race"},
            headers={
                "authorization": "Bearer a-token-of-the-tests",
                "if-match": f'"{epoch}"',
            },
        )
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=write, args=(share,)) for share in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert sorted(statuses) == [200] + [409] * (writers - 1)
