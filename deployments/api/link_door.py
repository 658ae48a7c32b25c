"""The door of the links: open while this process leads, and shut when another one takes over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi.responses import JSONResponse
from starlette.websockets import WebSocket

from penumbra.router.link.messages import LEADER_HEADER

_TRY_AGAIN_LATER = 1013
_REASON_BYTES = 123
_CLOSE_SECONDS = 1.0


class LinkDoor:
    """All links of one control process.

    Args:
        leader_address: Returns the address of the process that leads in place of this one (it may
            be empty); None if this one leads.
    """

    def __init__(self, leader_address: Callable[[], str | None]) -> None:
        self._leader_address = leader_address
        self._sockets: set[WebSocket] = set()

    async def turn_away(self, socket: WebSocket) -> bool:
        """Refuse a link that belongs to another process, with its address; returns whether."""
        address = self._leader_address()
        if address is None:
            return False
        body = {"error": {"code": "not_leader", "leader": address}}
        headers = {LEADER_HEADER: address} if address else None
        await socket.send_denial_response(JSONResponse(body, status_code=503, headers=headers))
        return True

    @asynccontextmanager
    async def inside(self, socket: WebSocket) -> AsyncIterator[None]:
        """Count a link as open."""
        self._sockets.add(socket)
        try:
            yield
        finally:
            self._sockets.discard(socket)

    async def shut(self) -> None:
        """Close all links, so that their processes look for the leader."""
        reason = (self._leader_address() or "")[:_REASON_BYTES]
        closing = [_close(socket, reason) for socket in tuple(self._sockets)]
        # Whatever becomes of one of them: it is closed already, or its process is gone.
        await asyncio.gather(*closing, return_exceptions=True)


async def _close(socket: WebSocket, reason: str) -> None:
    async with asyncio.timeout(_CLOSE_SECONDS):
        await socket.close(_TRY_AGAIN_LATER, reason)
