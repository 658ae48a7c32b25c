"""The door of the links: a standby turns them away with the leader's address."""

from contextlib import AsyncExitStack
from typing import cast

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.link_door import LinkDoor
from penumbra.deployments.api.link_route import link_router
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.router.link.messages import LEADER_HEADER, PATH, Hello, encode
from tests.support.control_plane import refuse_report

TOKEN = "token-of-the-gateways"


class House:
    """A link's route with a door, and the leader that it knows of."""

    def __init__(self) -> None:
        self.leader: str | None = None
        self.door = LinkDoor(lambda: self.leader)
        publisher = Publisher("store", lambda: 0.0)
        inbox = LinkInbox(GuardLiveness(10.0), lambda: 0.0, refuse_report)
        app = FastAPI()
        app.include_router(link_router(publisher, inbox, Access({}, TOKEN), door=self.door))

        @app.post("/shut")
        async def shut() -> None:
            self.leader = "http://b:1"
            await self.door.shut()

        self.client = TestClient(app, headers={"authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize(("leader", "named"), [("http://b:1", "http://b:1"), ("", None)])
def test_a_standby_turns_a_link_away_and_names_the_leader_it_knows(
    leader: str, named: str | None
) -> None:
    house = House()
    house.leader = leader
    with pytest.raises(WebSocketDisconnect) as refused, house.client.websocket_connect(PATH):
        pass
    assert refused.value.status_code == 503  # type: ignore[attr-defined]
    assert refused.value.headers.get(LEADER_HEADER) == named  # type: ignore[attr-defined]


def test_a_leader_that_is_followed_closes_its_links_and_names_the_next_one() -> None:
    house = House()
    with house.client as client, client.websocket_connect(PATH) as socket:
        socket.send_text(encode(Hello("g", 1, "", 0)))
        client.post("/shut")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert (closed.value.code, closed.value.reason) == (1013, "http://b:1")


async def test_a_link_that_cannot_be_closed_keeps_no_other_open() -> None:
    closed = []

    class Socket:
        def __init__(self, error: BaseException | None) -> None:
            self._error = error

        async def close(self, code: int, reason: str) -> None:
            if self._error is not None:
                raise self._error
            closed.append((code, reason))

    door = LinkDoor(lambda: "http://b:1")
    async with AsyncExitStack() as inside:
        for error in (WebSocketDisconnect(1006), None, OSError("reset"), None):
            await inside.enter_async_context(door.inside(cast("WebSocket", Socket(error))))
        await door.shut()
    assert closed == [(1013, "http://b:1")] * 2
