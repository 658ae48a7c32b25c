"""Makes a client's disconnect abort the engine's request when the answer is not streamed.

Ray Serve cancels the task of a request whose client has gone. vLLM waits for the disconnect in its
own way: it runs its handler in a second task, and cancels that one when `http.disconnect` arrives.
Cancelled from outside, it leaves the second task running, and the engine generates to the end in
vain. The middleware keeps the cancellation from vLLM, which finds the disconnect in `receive()`.
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

ABORT_SECONDS = 5.0
"""Time that the application has to end by itself after the client has gone."""


class DisconnectMiddleware:
    """ASGI middleware for vLLM's application inside a Ray Serve replica."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application in a task that a cancellation does not reach at once."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        task = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=ABORT_SECONDS)
            task.cancel()  # Cancelled for another reason (a timeout): it saw no disconnect.
            raise
