"""Kills that an operator gave a gateway itself: in force at once, over restarts, until a flag's."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Snapshot, Variant
from penumbra.router.gateway import emergency_routes
from penumbra.router.gateway.cold_routes import build_internal_app
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.settings import GatewaySettings

TOKEN = "token-of-the-gateways"
PATH = emergency_routes.PATH


def table(epoch: int, **flag: Any) -> Snapshot:
    variants = {name: Variant(url=f"http://{name}.test") for name in ("full", "int8")}
    model = ModelSnapshot(baseline="full", variants=variants, flag=Flag(**flag))
    return Snapshot(epoch=epoch, models={"demo": model})


def gateway_of(folder: Path, first: Snapshot | None = None) -> Gateway:
    settings = GatewaySettings(snapshot=first or table(0), kills_file=folder / "kills.json")
    return Gateway(settings, lambda: 0.0)


def is_killed(gateway: Gateway) -> bool:
    return gateway._models["demo"].snapshot.flag.killed


def ask(gateway: Gateway, method: str = "POST", token: str = TOKEN, **body: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(build_internal_app(gateway, lambda: TOKEN))
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
            content = {"model": "demo", "reason": "it lies", "actor": "ann"} | body
            return await client.request(method, PATH, json=content, headers=headers)

    return asyncio.run(work())


def test_a_kill_is_in_force_at_once_and_with_every_table_that_is_not_killed(
    tmp_path: Path,
) -> None:
    gateway = gateway_of(tmp_path)
    gateway.apply(table(1, split={"int8": 100.0}))
    answer = ask(gateway)
    assert answer.json() == {
        "gateway": "gateway-0", "model": "demo", "by_flag": False, "kept": True,
    }  # fmt: skip
    assert is_killed(gateway)
    gateway.apply(table(2, split={"int8": 50.0}))
    assert is_killed(gateway)
    assert gateway.emergency.reasons == {"demo": "it lies (ann)"}
    assert ask(gateway, "GET").json() == {"kills": {"demo": "it lies (ann)"}}


def test_a_restart_keeps_it(tmp_path: Path) -> None:
    ask(gateway_of(tmp_path))
    assert (tmp_path / "kills.json").stat().st_mode & 0o777 == 0o600
    again = gateway_of(tmp_path)
    assert is_killed(again)
    again.apply(table(1, split={"int8": 100.0}))
    assert is_killed(again)


def test_a_killed_flag_takes_it_over_and_an_operator_ends_that(tmp_path: Path) -> None:
    gateway = gateway_of(tmp_path)
    ask(gateway)
    gateway.apply(table(1, killed=True))
    assert gateway.emergency.reasons == {}
    gateway.apply(table(2))
    assert not is_killed(gateway)
    assert not is_killed(gateway_of(tmp_path))


def test_a_table_that_is_refused_ends_nothing(tmp_path: Path) -> None:
    gateway = gateway_of(tmp_path)
    ask(gateway)
    bad = table(1, killed=True)
    model = bad.models["demo"]
    variants = model.variants | {"int4": Variant(url="nowhere")}
    model = model.model_copy(update={"variants": variants})
    with pytest.raises(ValueError, match="nowhere"):
        gateway.apply(bad.model_copy(update={"models": {"demo": model}}))
    assert is_killed(gateway)
    assert gateway.emergency.reasons


def test_a_model_whose_flag_is_killed_already_needs_no_other_kill(tmp_path: Path) -> None:
    gateway = gateway_of(tmp_path, table(0, killed=True))
    assert ask(gateway).json()["by_flag"]
    assert gateway.emergency.reasons == {}


def test_another_token_kills_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(emergency_routes, "_REFUSAL_SECONDS", 0.0)
    gateway = gateway_of(tmp_path)
    assert ask(gateway, token="another").status_code == 401
    assert ask(gateway, "GET", token="another").status_code == 401
    assert not is_killed(gateway)


def test_a_gateway_without_a_token_has_nothing_there(tmp_path: Path) -> None:
    async def work() -> int:
        transport = httpx.ASGITransport(build_internal_app(gateway_of(tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
            headers = {"authorization": "Bearer "}
            return (await client.get(PATH, headers=headers)).status_code

    assert asyncio.run(work()) == 404


def test_what_names_no_model_is_refused(tmp_path: Path) -> None:
    gateway = gateway_of(tmp_path)
    assert ask(gateway, model="dmo").status_code == 404
    assert "known: demo" in ask(gateway, model="dmo").json()["error"]["message"]
    assert ask(gateway, reason="").status_code == 400
    assert ask(gateway, more=1).status_code == 400
    assert not is_killed(gateway)


def test_a_kill_that_cannot_be_written_down_is_in_force_and_says_so(tmp_path: Path) -> None:
    gateway = gateway_of(tmp_path / "missing")
    assert ask(gateway).json()["kept"] is False
    assert is_killed(gateway)
