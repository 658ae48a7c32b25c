"""Routes that look at the token before they read a body, and read no more of it than its bound.

FastAPI reads a body before it runs a route's dependencies. A `GuardedRoute` first runs those that
are a `CallerCheck`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message

from penumbra.deployments.api.connection_limits import ConnectionLimits
from penumbra.deployments.control import authorship
from penumbra.deployments.errors import RequestInvalid, RequestTooLarge, RequestTooSlow
from penumbra.router.bounds import ADMIN_BODY_BYTES

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class CallerCheck:
    """A dependency that tells by a request's head whether its sender may send it."""

    async def prepare(self, request: Request) -> None:
        """Fetch what the check needs; raises the error that is the answer if that cannot be had."""

    def check(self, request: Request) -> None:
        """Check the sender; raises the error that is the answer."""
        raise NotImplementedError


class BodyBound:
    """A dependency that states the largest body of its route.

    Args:
        most_bytes: The bound.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    def __call__(self) -> None:
        """Do nothing: the route reads the bound before it reads the body."""


def body_of_most(most_bytes: int) -> Any:
    """Make a dependency: the route's body has at most so many bytes, 413 beyond."""
    return Depends(BodyBound(most_bytes))


class GuardedRoute(APIRoute):
    """Checks the caller before it reads the body; reads it within its bound and its time."""

    seconds = ConnectionLimits().body_seconds
    """Time for the body."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler of the route."""
        handle = super().get_route_handler()
        calls = list(_calls(self.dependant))
        checks = [call for call in calls if isinstance(call, CallerCheck)]
        bounds = [call.most_bytes for call in calls if isinstance(call, BodyBound)]
        most_bytes = max(bounds, default=ADMIN_BODY_BYTES)
        has_body = self.body_field is not None

        async def check_and_handle(request: Request) -> Response:
            with authorship.request():
                for each in checks:
                    await each.prepare(request)
                    each.check(request)
                if has_body:
                    body = await _read_in_time(request, most_bytes, self.seconds)
                    request = Request(request.scope, _replay(body))
                return await handle(request)

        return check_and_handle


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls(each)


async def _read_in_time(request: Request, most_bytes: int, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, most_bytes)
    except TimeoutError as error:
        raise RequestTooSlow(f"the body did not come within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise RequestInvalid("the connection ended within the body") from error


async def _read(request: Request, most_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(body)


def _too_large(most_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {most_bytes} bytes, the most of this route")


def _replay(body: bytes) -> Callable[[], Coroutine[Any, Any, Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
