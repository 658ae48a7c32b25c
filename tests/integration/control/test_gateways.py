"""The control process and real gateway processes together, in front of two scripted builds."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penumbra.router.flags.evaluate import Context, evaluate
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.slices import CompiledSlices, slice_of
from tests.support.behaviours import engine
from tests.support.control_process import ADMIN, GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

GATEWAYS = 2
SLICES = [
    {"name": "greek", "match": {"scripts": ["greek"]}},
    {"name": "json", "match": {"json_mode": True}},
]
PROMPTS = ("Tell me about cities .", "Πες μου για πόλεις .")


class Installation:
    """One control process, some gateways."""

    def __init__(self, control: ControlProcess, gateways: list[GatewayProcess]) -> None:
        self.control = control
        self.gateways = gateways

    def await_epoch(self, epoch: int) -> None:
        for gateway in self.gateways:
            eventually(
                lambda gateway=gateway: self.epoch(gateway) == epoch,
                timeout=15.0,
                what=f"epoch {epoch}",
                found=lambda gateway=gateway: self.epoch(gateway),
            )

    def epoch(self, gateway: GatewayProcess) -> int:
        answer = gateway.get("/debug/snapshot", is_internal=True)
        return int(answer.json()["epoch"])


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    builds = [
        ScriptedUpstream(name, engine(Engine(name, created=number)))
        for number, name in enumerate(("full", "int8"), start=1)
    ]
    for build in builds:
        build.start()
    model = {**external(**{build.name: build.url for build in builds}), "slices": SLICES}
    with ControlProcess(tmp_path, {"demo": model}) as control:
        settings = {
            "control_url": control.url,
            "snapshot": {"epoch": 0, "models": {"demo": model}},
        }
        gateways = [
            GatewayProcess(
                {**settings, "gateway_id": f"gateway-{number}"},
                tmp_path,
                {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
            )
            for number in range(GATEWAYS)
        ]
        try:
            for gateway in gateways:
                gateway.start()
            installation = Installation(control, gateways)
            installation.await_epoch(1)
            yield installation
        finally:
            for gateway in gateways:
                gateway.stop()
            for build in builds:
                build.stop()


def ask(gateway: GatewayProcess, user: str, **fields: Any) -> RawResponse:
    answer = gateway.post(CHAT, chat(**fields), {"x-user-id": user})
    assert answer.status == 200, answer.body
    return answer


def test_a_change_is_in_force_on_every_gateway_when_it_is_answered(
    installation: Installation,
) -> None:
    for share, variant in ((100, "int8"), (0, "full"), (100, "int8")):
        changed = installation.control.split(share)
        assert changed["gateways"] == {"connected": GATEWAYS, "acknowledged": GATEWAYS}
        for gateway in installation.gateways:
            answer = ask(gateway, "ann")
            assert answer.header("x-penumbra-variant") == variant
            assert answer.header("x-penumbra-epoch") == str(changed["epoch"])


def test_gateways_serve_on_without_control_and_are_brought_up_to_date_after(
    installation: Installation,
) -> None:
    control = installation.control
    epoch = control.split(100)["epoch"]
    control.kill()
    for gateway in installation.gateways:
        answer = ask(gateway, "ann")
        assert answer.header("x-penumbra-variant") == "int8"
        assert answer.header("x-penumbra-epoch") == str(epoch)
    control.start()
    eventually(
        lambda: len(control.get("/gateways")["gateways"]) == GATEWAYS,
        timeout=15.0,
        what="every gateway to be back",
    )
    killed = control.post("/flags/demo/kill", {}).json()
    assert killed["gateways"] == {"connected": GATEWAYS, "acknowledged": GATEWAYS}
    for gateway in installation.gateways:
        assert ask(gateway, "ann").header("x-penumbra-reason") == "KILL_SWITCH"


def test_every_answer_under_flipping_flags_agrees_with_its_epoch(
    installation: Installation,
) -> None:
    """The expected variant comes from the history alone."""
    traffic = [
        Traffic(gateway, random.Random(number))
        for number, gateway in enumerate(installation.gateways * 2)
    ]
    for sender in traffic:
        sender.start()
    _flip(installation.control, random.Random(7), times=30)
    for sender in traffic:
        sender.stop()
    seen = [exchange for sender in traffic for exchange in sender.seen]

    epochs = {int(answer.header("x-penumbra-epoch") or 0) for _, _, answer in seen}
    tables = {
        epoch: Snapshot.model_validate(installation.control.get(f"/snapshots/{epoch}"))
        for epoch in epochs
    }
    for user, body, answer in seen:
        assert answer.status == 200
        table = tables[int(answer.header("x-penumbra-epoch") or 0)]
        decision = evaluate(table, _context(user, body, table))
        assert answer.header("x-penumbra-variant") == decision.variant
        assert answer.header("x-penumbra-reason") == decision.reason.value
    assert len(epochs) > 10
    assert {answer.header("x-penumbra-variant") for _, _, answer in seen} == {"full", "int8"}


class Traffic(threading.Thread):
    """Sends requests of many users, slices and formats, one after another, until stopped."""

    def __init__(self, gateway: GatewayProcess, dice: random.Random) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any], RawResponse]] = []
        self._gateway = gateway
        self._dice = dice
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.is_set():
            user = f"user-{self._dice.randrange(1000)}"
            body = chat(messages=[{"role": "user", "content": self._dice.choice(PROMPTS)}])
            if self._dice.random() < 0.3:
                body["response_format"] = {"type": "json_object"}
            answer = self._gateway.post(CHAT, body, {"x-user-id": user})
            self.seen.append((user, body, answer))

    def stop(self) -> None:
        self._is_over.set()
        self.join(30.0)


def _flip(control: ControlProcess, dice: random.Random, times: int) -> None:
    for _ in range(times):
        flag = {
            "split": {"int8": dice.choice([0, 10, 30, 70, 100])},
            "quarantined": dice.choice([[], ["greek"], ["json", "other"]]),
            "killed": dice.random() < 0.2,
        }
        epoch = control.get("/flags/demo")["epoch"]
        changed = control.client.put(
            "/flags/demo",
            json={"flag": flag, "reason": "flip"},
            headers={"authorization": f"Bearer {ADMIN}", "if-match": str(epoch)},
        )
        assert changed.status_code == 200, changed.text


def _context(user: str, body: dict[str, Any], table: Snapshot) -> Context:
    features = RequestFeatures.of(body)
    rules = CompiledSlices(table.models["demo"].slices)
    return Context(
        model="demo",
        tenant="anonymous",
        headers={},
        targeting_key=user,
        slice=slice_of(rules, "anonymous", {}, features),
        request_id="",
        features=features,
    )
