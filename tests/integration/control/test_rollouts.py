"""Rollouts in the real control process, over the real link and the real API."""

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from penumbra.monitoring.observations import Pair, Report
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import (
    COMPARATOR_PATH,
    PATH,
    Beat,
    EpochApplied,
    Hello,
    Probe,
    Push,
    Stored,
    encode,
    from_control,
)
from tests.support.control_process import GATEWAY, OPERATOR, VIEWER, ControlProcess
from tests.support.rollouts import Reporting, pairs

SPEC: dict[str, Any] = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 10, 100],
    "gates": {"pairs": 40, "slice_pairs": 40, "stage_seconds": 0, "horizon": 5000},
    "guardrails": [{"signal": "displacement", "tolerance": 0.3, "action": "rollback", "share": 1}],
}


class Comparator:
    """Sends reports over the link, each until it is acknowledged."""

    def __init__(self, control: ControlProcess) -> None:
        self._control = control
        self._socket: ClientConnection | None = None
        self._stack = ExitStack()
        self._reporting = Reporting()
        self.run = ""

    def connect(self) -> None:
        url = f"{self._control.url.replace('http', 'ws')}{COMPARATOR_PATH}"
        headers = {"authorization": f"Bearer {GATEWAY}"}
        self._socket = self._stack.enter_context(
            connect(url, additional_headers=headers, compression=None)
        )
        self.send(encode(Hello("comparator", os.getpid(), "", 0, "host")))
        while not self.run:
            self.hear()

    def send(self, text: str) -> None:
        assert self._socket is not None
        self._socket.send(text)

    def hear(self) -> Any:
        assert self._socket is not None
        message = from_control(self._socket.recv(timeout=10))
        match message:
            case Probe(nonce=nonce):
                self.send(encode(Beat(nonce)))
            case Push():
                table = message.table()
                watches = table.models["demo"].watches
                self.run = watches[0].run if watches else self.run
                self.send(encode(EpochApplied(table.epoch)))
            case _:
                pass
        return message

    def next(self, observed: tuple[Pair, ...]) -> Report:
        return self._reporting.of_pairs(self.run, observed)

    def deliver(self, report: Report) -> None:
        self.send(encode(report))
        while True:
            message = self.hear()
            if isinstance(message, Stored) and message.seq >= report.seq:
                return

    def close(self) -> None:
        self._stack.close()


@contextmanager
def comparing(control: ControlProcess) -> Iterator[Comparator]:
    comparator = Comparator(control)
    comparator.connect()
    try:
        yield comparator
    finally:
        comparator.close()


def put(control: ControlProcess, spec: dict[str, Any] = SPEC) -> httpx.Response:
    return control.client.put(
        "/rollouts",
        json={"spec": spec, "reason": "try"},
        headers={"authorization": f"Bearer {OPERATOR}"},
    )


def view(control: ControlProcess) -> Any:
    return control.get("/rollouts/int8?model=demo")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlProcess]:
    with ControlProcess(tmp_path) as process:
        yield process


def test_kill_nine_in_a_stream_of_reports_loses_none_and_counts_none_twice(
    control: ControlProcess,
) -> None:
    assert put(control).status_code == 200
    chance = random.Random(20261121)
    sent = 0
    with comparing(control) as comparator:
        for number in range(40):
            observed = pairs(5, 0.0 if number % 2 else 0.1, start=1 + 5 * number)
            report = comparator.next(observed)
            sent += len(observed)
            if number % 8 == 5:
                comparator.send(encode(report))
                # Somewhere between receiving, committing, publishing and acknowledging it.
                time.sleep(chance.random() * 0.02)
                control.kill()
                control.start()
                comparator.close()
                comparator.connect()
            comparator.deliver(report)
        assert view(control)["pairs"] == sent
        aggregate = view(control)["signals"][0]["aggregate"]
        assert aggregate["count"] == sent
        assert aggregate["mean"] == pytest.approx(0.05)
        control.kill()
        control.start()
        assert view(control)["signals"][0]["aggregate"] == aggregate


def test_an_acknowledged_rollback_survives_and_is_explained(control: ControlProcess) -> None:
    put(control).raise_for_status()
    with comparing(control) as comparator:
        for start in range(1, 60, 5):
            comparator.deliver(comparator.next(pairs(5, 0.95, start=start)))
    control.kill()
    control.start()
    found = view(control)
    assert (found["stage"], found["verdict"]) == ("rolled_back", "fail")
    assert control.get("/flags/demo")["flag"]["blocked"] == ["int8"]
    told = control.get("/rollouts/int8/explain?model=demo")
    assert told["is_reproduced"] is True
    assert told["recomputed_evidence"] == told["evidence"] >= told["boundary"]
    assert told["culprits"] == ["other"]
    assert len(told["worst"]) == told["pairs"] <= 20
    assert control.post("/rollouts/int8/rearm?model=demo", {}, OPERATOR).status_code == 403
    assert (
        control.post("/rollouts/int8/rearm?model=demo", {}).json()["rollout"]["stage"] == "shadow"
    )


def test_a_rollback_is_answered_once_the_gateways_have_it(control: ControlProcess) -> None:
    put(control).raise_for_status()
    url = f"{control.url.replace('http', 'ws')}{PATH}"
    headers = {"authorization": f"Bearer {GATEWAY}"}
    with (
        connect(url, additional_headers=headers, compression=None) as socket,
        ThreadPoolExecutor() as pool,
    ):
        socket.send(encode(Hello("gateway", os.getpid(), "", 0, "host")))
        table = next_table(socket)
        socket.send(encode(EpochApplied(table.epoch)))
        asked = pool.submit(control.post, "/rollouts/int8/rollback?model=demo", {})
        table = next_table(socket)
        assert table.models["demo"].flag.blocked == ("int8",)
        assert not asked.done()
        socket.send(encode(EpochApplied(table.epoch)))
        answer = asked.result(timeout=10).json()
    assert answer["gateways"] == {"connected": 1, "acknowledged": 1}
    assert answer["epoch"] == table.epoch
    assert answer["propagation_ms"] > 0


def next_table(socket: ClientConnection) -> Snapshot:
    while True:
        message = from_control(socket.recv(timeout=10))
        if isinstance(message, Push):
            return message.table()


def test_a_proven_candidate_goes_live_slice_by_slice(control: ControlProcess) -> None:
    put(control).raise_for_status()
    with comparing(control) as comparator:
        comparator.deliver(comparator.next(pairs(60, 0.0)))
        found = view(control)
        assert (found["verdict"], found["proven"]) == ("pass", ["other"])
        assert found["share"] >= 10
        assert control.get("/flags/demo")["flag"]["split"]["int8"] >= 10
    listed = control.get("/rollouts")["rollouts"]
    assert [rollout["candidate"] for rollout in listed] == ["int8"]
    kinds = [item["kind"] for item in control.get("/history")["items"]]
    assert "rollout" in kinds


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidate": "full"}, "candidate: found"),
        ({"required_slices": ["nosuch"]}, "required_slices: found"),
        ({"alpha": 2}, "alpha: found 2"),
        ({"stages": [1, 5]}, "wanted `shadow` first"),
        ({"unknown": 1}, "found an unknown key"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(
    control: ControlProcess, change: dict[str, Any], words: str
) -> None:
    answer = put(control, SPEC | change)
    assert answer.status_code in {400, 422}
    assert words in answer.json()["error"]["message"]


def test_roles_and_unknown_rollouts(control: ControlProcess) -> None:
    headers = {"authorization": f"Bearer {VIEWER}"}
    body = {"spec": SPEC, "reason": "try"}
    assert control.client.put("/rollouts", json=body, headers=headers).status_code == 403
    missing = control.client.get("/rollouts/int8?model=demo", headers=headers)
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"


def test_the_share_is_the_rollouts_to_change(control: ControlProcess) -> None:
    put(control).raise_for_status()
    answer = control.post("/flags/demo/split", {"split": {"int8": 50}})
    assert answer.status_code == 409
    assert "rollout" in answer.json()["error"]["message"]
    assert control.post("/flags/demo/kill", {}).status_code == 200
    assert control.post("/rollouts/int8/end?model=demo", {}).json()["rollout"]["stage"] == "off"
    control.split(50)
