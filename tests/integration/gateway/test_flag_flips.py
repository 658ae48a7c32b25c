"""Flag changes under load: no request fails, and each follows the table that it names."""

import asyncio
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from penumbra.router.flags.evaluate import Context, compile_model, evaluate
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.slices import slice_of
from tests.support.control_process import ADMIN, GATEWAY, ControlProcess, external
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, dumps
from tests.support.scripted_upstream import ScriptedUpstream

REQUESTS = 2_000
FLIPS = 50
CLIENTS = 16
GATEWAYS = 2
Z = 5.0
"""Standard errors that a share may be off: one false alarm in some million."""

SLICES = [
    {"name": "greek", "match": {"scripts": ["greek"]}},
    {"name": "json", "match": {"json_mode": True}},
]
PROMPTS = ["Sort these words .", "Ταξινόμησε αυτές τις λέξεις .", "Answer in JSON ."]
GOLD = {"name": "gold", "match": {"headers": {"x-plan": ["gold"]}}, "variant": "int8"}
GREEK = {"name": "greek-half", "match": {"slices": ["greek"]}, "split": {"int8": 50}}

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("split", {"split": {"int8": 30}}),
    ("pin", {"kind": "key", "subject": "vip", "variant": "int8"}),
    ("split", {"split": {"int8": 70}}),
    ("kill", {}),
    ("unkill", {}),
    ("split", {"split": {}}),
    ("put", {"flag": {"split": {"int8": 30}, "rules": [GOLD, GREEK]}}),
    ("put", {"flag": {"split": {"int8": 30}, "blocked": ["int8"]}}),
    ("put", {"flag": {"split": {"int8": 30}, "quarantined": ["greek", "json"]}}),
    ("split", {"split": {"int8": 100}}),
]


@dataclass(frozen=True)
class Observed:
    """One request and the headers with which the gateway answered it."""

    client: int
    headers: dict[str, str]
    body: bytes
    status: int
    variant: str
    reason: str
    epoch: int
    failover: str | None


@pytest.fixture(scope="module")
def control(
    full: ScriptedUpstream, int8: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlProcess]:
    demo = external(full=full.url, int8=int8.url) | {"slices": SLICES}
    demo["flag"] = {"split": {"int8": 10}}
    with ControlProcess(tmp_path_factory.mktemp("control"), {"demo": demo}) as process:
        yield process


@pytest.fixture(scope="module")
def gateways(
    control: ControlProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[GatewayProcess]]:
    folder = tmp_path_factory.mktemp("gateways")
    snapshot = Snapshot.model_validate(control.get("/snapshots/1")).model_dump(mode="json")
    processes = [
        GatewayProcess(
            {"snapshot": snapshot, "control_url": control.url, "gateway_id": f"gateway-{number}"},
            folder,
            {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
        )
        for number in range(GATEWAYS)
    ]
    try:
        for process in processes:
            process.start()
        eventually(
            lambda: len(control.get("/gateways")["gateways"]) == GATEWAYS,
            what="the gateways to be connected",
        )
        yield processes
    finally:
        for process in processes:
            process.stop()


@pytest.fixture(scope="module")
def observed(control: ControlProcess, gateways: list[GatewayProcess]) -> list[Observed]:
    """All requests made while the flags were flipped."""
    return asyncio.run(flip_while_asking(control, gateways))


async def flip_while_asking(
    control: ControlProcess, gateways: list[GatewayProcess]
) -> list[Observed]:
    numbers = itertools.count()
    seen: list[Observed] = []
    has_flipped = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for client in range(CLIENTS):
            port = gateways[client % len(gateways)].port
            tasks.create_task(ask(client, port, numbers, seen, has_flipped))
        tasks.create_task(flip(control, seen, has_flipped))
    return seen


async def flip(control: ControlProcess, seen: list[Observed], has_flipped: asyncio.Event) -> None:
    """Make the changes, spread over the requests."""
    for number, change in zip(range(FLIPS), itertools.cycle(CHANGES), strict=False):
        while len(seen) < number * REQUESTS // FLIPS:  # noqa: ASYNC110  -- it may be thousands
            await asyncio.sleep(0.001)
        await asyncio.to_thread(apply, control, *change)
    has_flipped.set()


def apply(control: ControlProcess, verb: str, body: dict[str, Any]) -> None:
    if verb == "put":
        epoch = control.get("/flags/demo")["epoch"]
        headers = {"authorization": f"Bearer {ADMIN}", "if-match": f'"{epoch}"'}
        # Named, or a whole flag leaves them as they are.
        safety = {"killed": False, "blocked": [], "quarantined": [], "pins": []}
        whole = {"reason": "test", "flag": safety | body["flag"]}
        answer = control.client.put("/flags/demo", json=whole, headers=headers)
    else:
        answer = control.post(f"/flags/demo/{verb}", body)
    answer.raise_for_status()
    assert answer.json()["gateways"] == {"connected": GATEWAYS, "acknowledged": GATEWAYS}


async def ask(
    client: int, port: int, numbers: Iterator[int], seen: list[Observed], has_flipped: asyncio.Event
) -> None:
    """One client: a request after the other on one connection; its last one after the last flip."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        is_last = False
        while not is_last:
            is_last = len(seen) >= REQUESTS and has_flipped.is_set()
            headers, body = request_number(next(numbers))
            writer.write(request_bytes(CHAT, body, headers))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            answers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            await reader.readexactly(int(answers["content-length"]))
            seen.append(
                Observed(
                    client,
                    headers,
                    body,
                    int(head.split(" ")[1]),
                    answers.get("x-penumbra-variant", ""),
                    answers.get("x-penumbra-reason", ""),
                    int(answers.get("x-penumbra-epoch", "-1")),
                    answers.get("x-penumbra-failover"),
                )
            )
    finally:
        writer.close()
        await writer.wait_closed()


def request_number(number: int) -> tuple[dict[str, str], bytes]:
    headers = {"x-user-id": "vip" if number % 25 == 0 else f"user-{number}"}
    if number % 7 == 0:
        headers["x-plan"] = "gold"
    body: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}],
    }
    if number % len(PROMPTS) == 2:
        body["response_format"] = {"type": "json_object"}
    return headers, dumps(body)


def replayed(item: Observed, table: Snapshot) -> tuple[str, str]:
    """Variant and reason recomputed from the table alone."""
    compiled = compile_model("demo", table.models["demo"])
    features = RequestFeatures.of(json.loads(item.body))
    context = Context(
        model="demo",
        tenant="anonymous",
        headers=item.headers,
        targeting_key=item.headers["x-user-id"],
        slice=slice_of(compiled.slices, "anonymous", item.headers, features),
        request_id="any",
        features=features,
    )
    decision = evaluate(compiled, context)
    return decision.variant, decision.reason.value


@pytest.fixture(scope="module")
def tables(control: ControlProcess, observed: list[Observed]) -> dict[int, Snapshot]:
    """The table of each epoch that was seen, from the control process's history."""
    epochs = {item.epoch for item in observed}
    return {epoch: Snapshot.model_validate(control.get(f"/snapshots/{epoch}")) for epoch in epochs}


def test_no_request_fails_while_flags_flip(observed: list[Observed]) -> None:
    assert len(observed) >= REQUESTS
    assert [item for item in observed if item.status != 200 or item.failover] == []


def test_every_answer_follows_the_table_that_it_names(
    observed: list[Observed], tables: dict[int, Snapshot]
) -> None:
    wrong = [
        item
        for item in observed
        if replayed(item, tables[item.epoch]) != (item.variant, item.reason)
    ]
    assert wrong == []


def test_flips_took_effect_while_requests_flowed(
    control: ControlProcess, observed: list[Observed]
) -> None:
    changes = control.get("/history?limit=1000")["items"]
    assert len([item for item in changes if item["kind"] != "config"]) >= FLIPS
    assert len({item.epoch for item in observed}) > FLIPS // 2
    assert {item.reason for item in observed} >= {
        "SPLIT", "PIN", "KILL_SWITCH", "GUARD", "QUARANTINE", "TARGETING_MATCH",
    }  # fmt: skip


def test_epochs_never_go_back_on_one_connection(
    gateways: list[GatewayProcess], observed: list[Observed]
) -> None:
    assert all(item.epoch >= 1 for item in observed)
    for process in gateways:
        shown = process.get("/debug/snapshot", is_internal=True).json()
        assert shown["epoch"] == max(item.epoch for item in observed)
    for client in range(CLIENTS):
        epochs = [item.epoch for item in observed if item.client == client]
        assert epochs == sorted(epochs)


def is_plain_split(table: Snapshot, share: float) -> bool:
    """Whether nothing takes shares away; otherwise only some requests report SPLIT."""
    flag = table.models["demo"].flag
    return flag.split == {"int8": share} and not flag.blocked


@pytest.mark.parametrize("share", [30, 70])
def test_shares_are_within_binomial_bounds(
    observed: list[Observed], tables: dict[int, Snapshot], share: int
) -> None:
    drawn = [
        item.variant == "int8"
        for item in observed
        if item.reason == "SPLIT" and is_plain_split(tables[item.epoch], share)
    ]
    count, p = len(drawn), share / 100
    assert count > 50
    assert abs(sum(drawn) - count * p) <= Z * math.sqrt(count * p * (1 - p))


def test_gateway_serves_on_when_the_control_process_is_lost(
    control: ControlProcess,
    gateways: list[GatewayProcess],
    observed: list[Observed],
) -> None:
    control.kill()
    headers, body = request_number(1)
    for process in gateways:
        response = process.post(CHAT, body, headers)
        assert response.status == 200
        assert int(response.header("x-penumbra-epoch") or 0) >= max(item.epoch for item in observed)
        assert process.get("/ready").status == 200
