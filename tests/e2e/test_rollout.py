"""Rollouts on real engines: who is stopped, who is not, and what it is told to have been."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.deployments.config.rollout_loader import load_rollout
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.serve.demo.tasks import SLICES
from penumbra.serve.demo.traffic import Traffic, TrafficCounts
from tests.e2e.conftest import TWIN
from tests.support.installation import Installation

EXAMPLES = Path(__file__).parents[2] / "deployments" / "examples" / "rollouts"
CLIENTS = 10
POLL_SECONDS = 0.2
HURT = {"facts", "arithmetic"}
"""The slices that two bits hurt most by docs/slice-table.md."""
MOST_PAIRS = 120
"""Pairs to the rollback of two bits depend on which prompts come: drawn 20,000 times from 900 real
pairs, half took up to 45, 93 % up to 60, 99.99 % up to 100 (docs/benchmarks.md)."""

View = dict[str, Any]


@dataclass(frozen=True)
class Admin:
    """The admin API of the stack."""

    http: httpx.AsyncClient

    async def apply(self, spec: RolloutSpec) -> None:
        body = {"spec": spec.model_dump(mode="json"), "reason": "e2e"}
        answer = await self.http.put("/rollouts", json=body)
        assert answer.is_success, answer.text

    async def end(self, candidate: str) -> None:
        answer = await self.http.post(
            f"/rollouts/{candidate}/end", params={"model": "demo"}, json={"reason": "e2e"}
        )
        assert answer.is_success, answer.text

    async def view(self, candidate: str, part: str = "") -> View:
        answer = await self.http.get(f"/rollouts/{candidate}{part}", params={"model": "demo"})
        answer.raise_for_status()
        view: View = answer.json()
        return view


@pytest.fixture
async def admin(stack: Installation) -> AsyncIterator[Admin]:
    headers = {"authorization": f"Bearer {stack.admin_token}"}
    url = f"{stack.state.admin_url}/admin/v1"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        yield Admin(http)


def spec_of(name: str, **more: Any) -> RolloutSpec:
    return load_rollout(EXAMPLES / f"{name}.yaml").model_copy(update=more)


async def run(
    admin: Admin,
    url: str,
    spec: RolloutSpec,
    until: Callable[[View], bool],
    seconds: float,
    seed: int,
    slices: tuple[str, ...] = SLICES,
) -> tuple[View, TrafficCounts]:
    """Compare fresh prompts until the rollout is as wanted, or stopped, or the time is over."""
    traffic = Traffic(url, CLIENTS, seed, slices)
    await admin.apply(spec)
    deadline = time.monotonic() + seconds
    async with traffic.flowing():
        while True:
            view = await admin.view(spec.candidate)
            is_over = view["stage"] == "rolled_back" or time.monotonic() > deadline
            if until(view) or is_over:
                break
            await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(POLL_SECONDS)
    return view, traffic.counts


def displacement_of(view: View) -> View:
    found: View = next(signal for signal in view["signals"] if signal["signal"] == "displacement")
    return found


async def test_two_bits_are_stopped_on_shadow_evidence_soon(
    stack: Installation, admin: Admin
) -> None:
    view, counts = await run(
        admin, stack.gateway_url, spec_of("int2"), lambda _: False, 120, seed=11
    )
    assert view["stage"] == "rolled_back", view
    explained = await admin.view("int2", "/explain")
    print(f"int2: {explained['cause']}, {explained['times']}")
    assert explained["pairs"] <= MOST_PAIRS
    assert explained["signal"] == "displacement"
    assert "facts" in explained["culprits"]
    assert set(explained["culprits"]) <= HURT
    assert explained["is_reproduced"] is True
    assert "facts" in {pair["slice"] for pair in explained["worst"][:3]}
    assert counts.errors == []
    assert set(counts.by_variant) == {"full"}


async def test_int8_is_not_stopped_and_its_slices_are_proven(
    stack: Installation, admin: Admin
) -> None:
    spec = spec_of("int8", stages=("shadow",))
    slices = ("arithmetic", "json")
    url = stack.gateway_url
    view, counts = await run(
        admin, url, spec, lambda one: set(slices) <= set(one["proven"]), 240, 12, slices
    )
    await admin.end("int8")
    print(f"int8: {view['pairs']} pairs, proven {view['proven']}, sheds {view['diagnostics']}")
    assert view["stage"] == "shadow"
    assert set(view["proven"]) == set(slices)
    assert view["instrument"]["is_ok"]
    assert counts.errors == []
    assert set(counts.by_variant) == {"full"}


async def test_the_baseline_s_twin_is_not_stopped(stack: Installation, admin: Admin) -> None:
    spec = spec_of("int2", candidate=TWIN)
    view, counts = await run(
        admin, stack.gateway_url, spec, lambda one: one["pairs"] >= 400, 240, 13
    )
    await admin.end(TWIN)
    displacement = displacement_of(view)
    print(f"twin: {view['pairs']} pairs, {displacement['aggregate']}")
    assert view["stage"] == "shadow"
    assert view["pairs"] >= 400
    assert displacement["evidence"] < displacement["boundary"] / 10
    assert displacement["aggregate"]["mean"] < 0.001
    assert counts.errors == []
