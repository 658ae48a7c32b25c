"""Identities over the admin API: who may, since when, and what the history says of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.access_routes import access_router
from penumbra.deployments.api.app import build_api
from penumbra.deployments.control.access_service import AccessService
from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.stored_fold import fold_stored
from penumbra.deployments.history.events import Event
from penumbra.deployments.history.identities import Identities
from penumbra.deployments.history.state import EMPTY
from tests.support.control_plane import START, Plane, control_plane, payload
from tests.support.routing_tables import model

ADMIN = {"authorization": "Bearer admin-token"}
DAY = 86400


class Office:
    """The admin API of one control process, whose wall clock is set by hand."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.now: datetime = START
        self.access = Access({Role.ADMIN: "admin-token", Role.VIEWER: "viewer-token"}, "g-token")
        self.access.now = lambda: self.now
        self.access.identities = lambda: plane.controller.state.identities
        app = build_api(plane.controller, plane.publisher, self.access)
        service = AccessService(plane.controller, self.access.now)
        app.include_router(access_router(service, self.access, self.access.now))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://control/admin/v1",
        )

    async def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        given = {name.replace("_", "-"): value.encode() for name, value in headers.items()}
        body = body if body is None else {"reason": "test"} | body
        return await self.client.request(method, path, json=body, headers=ADMIN | given)

    async def add(self, name: str = "alice", role: str = "operator", **more: Any) -> str:
        """Add an identity; returns its token."""
        answer = await self.ask("POST", "/access", {"name": name, "role": role} | more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def kill(self, token: str, **headers: str) -> httpx.Response:
        bearer = f"Bearer {token}"
        return await self.ask("POST", "/flags/demo/kill", {}, authorization=bearer, **headers)

    async def unkill(self) -> None:
        assert (await self.ask("POST", "/flags/demo/unkill", {})).status_code == 200

    async def last(self) -> Event:
        return (await self.plane.controller.read(lambda store: store.latest(1)))[0]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with control_plane(tmp_path, config=payload(demo=model())) as plane:
        office = Office(plane)
        yield office
        await office.client.aclose()


async def test_change_is_recorded_with_identity_and_role_whatever_the_client_says(
    office: Office,
) -> None:
    token = await office.add("Zoë")
    assert (await office.kill(token, x_penumbra_actor="mallory")).status_code == 200
    event = await office.last()
    assert event.actor == "Zoë"
    assert (event.authority.role, event.authority.identity) == ("operator", "Zoë")
    assert event.authority.note == "mallory"
    items = (await office.ask("GET", "/history")).json()["items"]
    told = [(item["actor"], item["identity"], item["role"], item["note"]) for item in items[-2:]]
    assert told == [("admin", None, "admin", None), ("Zoë", "Zoë", "operator", "mallory")]
    assert items[-2]["access"] == "Zoë (operator) added"


async def test_name_given_with_a_shared_token_is_a_claim(office: Office) -> None:
    await office.add("alice")
    assert (await office.kill("admin-token", x_penumbra_actor="alice")).status_code == 200
    event = await office.last()
    assert (event.actor, event.authority.identity, event.authority.role) == ("alice", None, "admin")


async def test_role_of_an_identity_bounds_what_it_may(office: Office) -> None:
    viewer, admin = await office.add("v", "viewer"), await office.add("a", "admin")
    refused = await office.kill(viewer)
    assert refused.status_code == 403
    assert "found the role viewer" in refused.text
    operator = await office.add("o")
    for token, status in ((viewer, 403), (operator, 403), (admin, 200)):
        found = await office.ask("GET", "/access", authorization=f"Bearer {token}")
        assert found.status_code == status


async def test_token_is_told_once_and_stored_nowhere(office: Office) -> None:
    token = await office.add()
    assert token.startswith("pt-")
    assert len(token) > 40
    assert token not in (await office.ask("GET", "/access")).text
    assert token not in (await office.ask("GET", "/history")).text
    stored = await office.plane.controller.read(lambda store: store.stored())
    assert all(token not in event.model_dump_json() for event in stored)


async def test_revoked_identity_is_refused_at_once_and_counted_as_such(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    token = await office.add()
    revoked = await office.client.delete("/access/alice", params={"reason": "left"}, headers=ADMIN)
    assert revoked.status_code == 200
    answer = await office.kill(token)
    assert answer.status_code == 401
    assert "revoked" in answer.text
    assert office.access.refused.counts["admin", "revoked_token"] == 1
    assert [vars(each)["reason"] for each in caplog.records if each.msg == "login_refused"] == [
        "revoked_token"
    ]
    assert token not in caplog.text
    assert not office.access.knows(f"Bearer {token}")


async def test_expired_token_is_refused_and_counted_as_such(office: Office) -> None:
    token = await office.add(expires_seconds=90 * DAY)
    assert office.access.knows(f"Bearer {token}")
    office.now = START + timedelta(days=90)
    answer = await office.kill(token)
    assert answer.status_code == 401
    assert "expired" in answer.text
    assert office.access.refused.counts["admin", "expired_token"] == 1


async def test_rotation_keeps_the_token_of_before_for_the_grace_time(office: Office) -> None:
    first = await office.add()
    answer = await office.ask("POST", "/access/alice/rotate", {"grace_seconds": 3600})
    second = answer.json()["token"]
    assert [token["is_valid"] for token in answer.json()["tokens"]] == [True, True]
    for token in (first, second):
        assert (await office.kill(token)).status_code == 200
        await office.unkill()
    office.now += timedelta(hours=1)
    assert (await office.kill(first)).status_code == 401
    assert (await office.kill(second)).status_code == 200


async def test_change_that_waited_for_its_turn_is_not_made_once_its_identity_is_revoked(
    office: Office,
) -> None:
    token = await office.add()
    async with office.plane.controller.writing():
        waiting = asyncio.create_task(office.kill(token))
        await asyncio.sleep(0.05)  # its token was looked at: it waits for its turn
        known = office.access.identities()
        office.access.identities = Identities  # as after the revocation
    answer = await waiting
    office.access.identities = lambda: known
    assert answer.status_code == 401
    assert not office.plane.controller.state.flags["demo"].killed


async def test_admin_of_the_environment_is_let_in_whatever_identities_there_are(
    office: Office,
) -> None:
    token = await office.add("boss", "admin")
    bearer = f"Bearer {token}"
    gone = await office.client.delete(
        "/access/boss", params={"reason": "x"}, headers={"authorization": bearer}
    )
    assert gone.status_code == 200  # itself
    assert (await office.ask("GET", "/access")).json()["identities"] == []
    assert (await office.kill("admin-token")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/access", {"name": "alice", "role": "viewer"}, 409),
        ("POST", "/access", {"name": "a/b", "role": "viewer"}, 400),
        ("POST", "/access", {"name": "bob", "role": "root"}, 400),
        ("POST", "/access", {"name": "bob", "role": "viewer", "expires_seconds": 10**12}, 400),
        ("POST", "/access", {"name": "bob", "role": "viewer", "expires_seconds": 0}, 400),
        ("POST", "/access/bob/rotate", {}, 404),
        ("POST", "/access/alice/rotate", {"grace_seconds": -1}, 400),
        ("DELETE", "/access/bob?reason=x", None, 404),
        ("DELETE", "/access/alice", None, 400),
    ],
)
async def test_what_makes_no_sense_is_refused(
    office: Office, method: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    await office.add()
    epoch = office.plane.controller.state.epoch
    assert (await office.ask(method, path, body)).status_code == status
    assert office.plane.controller.state.epoch == epoch


async def test_identities_survive_a_restart_and_a_checkpoint(office: Office) -> None:
    await office.add("山田", expires_seconds=DAY)
    controller = office.plane.controller
    wanted = controller.state.identities
    assert [*wanted.by_name] == ["山田"]
    kept = kept_objects.pack(kept_objects.dump(controller.kept_state), b"key")
    read = kept_objects.load(kept, b"key", type(controller.kept_state))
    assert read.state.identities == wanted
    stored = await controller.read(lambda store: store.stored())
    assert fold_stored(EMPTY, stored).identities == wanted
