"""Route of the links: a WebSocket for each gateway and each comparator."""

import asyncio
import logging

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.link_door import LinkDoor
from penumbra.deployments.api.refused_logins import Surface
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.link import LinkClosed
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.router.link.messages import COMPARATOR_PATH, PATH, LinkError

log = logging.getLogger(__name__)

_GOING_AWAY = 1001
"""Close code of a process that ends in order."""
_PROTOCOL_ERROR = 1002


class SocketChannel:
    """Adapts a WebSocket to the publisher's `Channel`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        """Sends a message.

        Raises:
            LinkClosed: The connection is closed.
        """
        try:
            await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            # RuntimeError: Starlette raises it if the socket is closed already.
            raise LinkClosed(str(error)) from error

    async def receive(self) -> str:
        """Waits for the next message.

        Raises:
            LinkClosed: The connection is closed, or the message is binary.
        """
        try:
            return await self._socket.receive_text()
        except WebSocketDisconnect as error:
            # Any other code, or none, means that the process, its machine or the network broke.
            raise LinkClosed(str(error), has_ended=error.code == _GOING_AWAY) from error
        except (RuntimeError, KeyError) as error:
            # KeyError: the message is binary, which the protocol does not have.
            raise LinkClosed(str(error)) from error


def link_router(
    publisher: Publisher,
    inbox: LinkInbox,
    access: Access,
    path: str = PATH,
    door: LinkDoor | None = None,
) -> APIRouter:
    """Builds the route of a link; the token of its own kind of process opens it.

    Args:
        publisher: Knows the processes that are connected.
        inbox: Takes their messages.
        access: Knows the token.
        path: Path of the route.
        door: Turns links away while another process leads; None: this one always does.
    """
    router = APIRouter()
    door = door or LinkDoor(lambda: None)
    may_open = access.is_comparator if path == COMPARATOR_PATH else access.is_gateway

    @router.websocket(path)
    async def link(socket: WebSocket) -> None:
        shown = socket.headers.get("authorization")
        if not may_open(shown):
            host = socket.client.host if socket.client else ""
            cause = access.cause_of(shown)
            await asyncio.sleep(access.refused.note(host, Surface.LINK, cause))
            await socket.send_denial_response(
                JSONResponse({"error": {"code": "unauthorized"}}, status_code=401)
            )
            return
        if await door.turn_away(socket):
            return
        await socket.accept()
        try:
            peer = socket.client.host if socket.client else ""
            async with door.inside(socket):
                await publisher.attend(SocketChannel(socket), inbox, peer)
        except (LinkError, TimeoutError) as error:
            log.warning("gateway_link_broken", extra={"error": f"{error}" or "no hello"})
            await socket.close(_PROTOCOL_ERROR)
        except LinkClosed:
            return

    return router
