"""Answers of the ASGI routes: JSON and errors, each with the id of its request."""

import asyncio
import json

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penumbra.router.errors import (
    BadRequest,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    RequestTimeout,
    RequestTooLarge,
    RouteNotFound,
)
from penumbra.router.gateway.error_bodies import error_body_for
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import is_valid_request_id
from penumbra.router.gateway.refused_routes import REFUSED

_NOT_ALLOWED = 405


def gateway_of(request: Request) -> Gateway:
    """The process that got the request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def authorization_of(request: Request) -> bytes | None:
    """The `authorization` header as it was sent."""
    found = request.headers.get("authorization")
    return found.encode("latin-1") if found else None


def request_id_of(request: Request) -> str:
    """The client's id of the request if it is valid, else one of this process."""
    given = request.headers.get("x-request-id", "")
    if is_valid_request_id(given.encode("latin-1")):
        return given
    return gateway_of(request).next_request_id().decode()


def json_answer(request: Request, value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(
        json.dumps(value),
        status_code=status,
        media_type="application/json",
        headers={"x-request-id": request_id_of(request)},
    )


async def read_small_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body of a request.

    Raises:
        RequestTooLarge: It is larger than `limit_bytes`.
        RequestTimeout: It does not arrive within `limits.body_seconds`.
        BadRequest: The client left before its end.
    """
    pieces, size = [], 0
    limit = gateway_of(request).limits.body_seconds
    try:
        async with asyncio.timeout(limit):
            async for piece in request.stream():
                pieces.append(piece)
                size += len(piece)
                if size > limit_bytes:
                    raise RequestTooLarge(f"the body is larger than {limit_bytes} bytes")
    except TimeoutError:
        raise RequestTimeout(
            f"the body did not arrive within {limit:g} s", headers=((b"connection", b"close"),)
        ) from None
    except ClientDisconnect as error:
        raise BadRequest("the client left before the end of its body") from error
    return b"".join(pieces)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The answer where no route takes a request."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    if error.status_code == _NOT_ALLOWED:
        refusal: GatewayError = MethodNotAllowed(f"{request.method} is not allowed on {path}")
    elif path in REFUSED:
        refusal = RouteNotFound(f"{path} of an engine is not relayed: {REFUSED[path]}")
    else:
        refusal = RouteNotFound(f"there is nothing at {path}")
    return _error_answer(request, refusal, dict(error.headers or {}))


async def answer_gateway_error(request: Request, error: Exception) -> Response:
    """The answer to a request that a route refuses."""
    if not isinstance(error, GatewayError):
        raise error
    extra = {name.decode(): value.decode() for name, value in error.headers}
    return _error_answer(request, error, extra)


async def answer_fault(request: Request, error: Exception) -> Response:
    """The answer to a request that met a fault of the gateway's own, which the server logs."""
    del error
    fault = InternalError("the gateway failed on this request; it is logged")
    return _error_answer(request, fault, {})


def _error_answer(request: Request, error: GatewayError, headers: dict[str, str]) -> Response:
    gateway_of(request).metrics.errors.cell(error.reported_code).value += 1
    return Response(
        error_body_for(request.url.path.encode(), error),
        status_code=error.status,
        media_type="application/json",
        headers={**headers, "x-request-id": request_id_of(request)},
    )
