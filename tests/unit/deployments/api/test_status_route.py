"""GET /admin/v1/status: what clients of all gateways got in the last minute."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.app import build_api
from penumbra.monitoring.answers import AnswerCount
from tests.support.control_plane import FakeGateway, Plane, control_plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with control_plane(tmp_path) as plane:
        for name in ("gateway-0", "gateway-1"):
            await plane.connect(FakeGateway(name))
        for link in plane.publisher.links:
            link.answers = ()
        yield plane


async def status_of(plane: Plane) -> dict[str, object]:
    app = build_api(plane.controller, plane.publisher, Access({Role.VIEWER: "viewer"}, "gateway"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        headers = {"authorization": "Bearer viewer"}
        answer = await client.get("/admin/v1/status", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_a_quiet_installation_is_healthy(plane: Plane) -> None:
    assert await status_of(plane) == {
        "epoch": 1,
        "gateways": 2,
        "untold": [],
        "health": "healthy",
        "generation": 1,
        "is_leading": True,
        "unconfirmed": [],
        "problems": [],
        "models": [],
    }


async def test_the_answers_of_all_gateways_are_added_up(plane: Plane) -> None:
    first, second = plane.publisher.links
    first.answers = (AnswerCount("demo", "full", "2xx", 60), AnswerCount("demo", "full", "5xx", 2))
    second.answers = (AnswerCount("demo", "full", "5xx", 35), AnswerCount("demo", "int8", "2xx", 3))
    found = await status_of(plane)
    assert found["health"] == "degraded"
    assert found["problems"] == ["37 % of demo's answers failed in the last minute (5xx of full)"]
    assert found["models"] == [
        {
            "model": "demo",
            "answers": 100,
            "failed": 37,
            "failed_ratio": 0.37,
            "refused": 0,
            "refused_ratio": 0.0,
            "by_variant": [
                {"variant": "full", "code": "2xx", "count": 60},
                {"variant": "full", "code": "5xx", "count": 37},
                {"variant": "int8", "code": "2xx", "count": 3},
            ],
        }
    ]


async def test_a_gateway_of_before_that_does_not_tell_is_named(plane: Plane) -> None:
    plane.publisher.links[1].answers = None
    assert (await status_of(plane))["untold"] == ["gateway-1"]


async def test_a_gateway_that_is_gone_counts_no_more(plane: Plane) -> None:
    gateway = FakeGateway("gateway-2")
    await plane.connect(gateway)
    plane.publisher.links[2].answers = (AnswerCount("demo", "full", "5xx", 100),)
    assert (await status_of(plane))["health"] == "degraded"
    gateway.leave()
    await plane.attending[-1]
    assert (await status_of(plane))["health"] == "healthy"
