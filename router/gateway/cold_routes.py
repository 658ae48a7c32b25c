"""Routes that the gateway answers itself: models, health, readiness, metrics and feedback."""

import json
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penumbra.router.errors import (
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    RequestTooLarge,
    RouteNotFound,
)
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import is_valid_request_id
from penumbra.router.gateway.hot_routes import HOT_PATHS
from penumbra.router.link import feedback

_NOT_ALLOWED = 405


def build_public_app(gateway: Gateway) -> Starlette:
    """Build the ASGI application of the shared port, for everything but the hot routes."""
    routes = [
        Route("/v1/models", _keyed(gateway, list_models)),
        Route("/v1/models/{model:path}", _keyed(gateway, show_model)),
        Route("/metrics", _keyed(gateway, show_metrics)),
        Route(feedback.PATH, take_feedback, methods=["POST"]),
        *_open_routes(),
        *(Route(path.decode(), _refuse_method, methods=["POST"]) for path in HOT_PATHS),
    ]
    return _application(gateway, routes)


def build_internal_app(gateway: Gateway) -> Starlette:
    """Build the ASGI application of one process's own internal port; it asks for no key."""
    routes = [
        *_open_routes(),
        Route("/metrics", show_metrics),
        Route("/debug/snapshot", show_snapshot),
    ]
    return _application(gateway, routes)


def _open_routes() -> list[Route]:
    return [Route("/health", show_health), Route("/ready", show_readiness)]


def _application(gateway: Gateway, routes: list[Route]) -> Starlette:
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, GatewayError: _gateway_error},
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    return app


async def list_models(request: Request) -> Response:
    """GET /v1/models: all models."""
    models = _gateway(request).snapshot.models
    return _json(request, {"object": "list", "data": [_card(name) for name in models]})


async def show_model(request: Request) -> Response:
    """GET /v1/models/{model}: one model."""
    name = request.path_params["model"]
    models = _gateway(request).snapshot.models
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        raise ModelNotFound(f"the model {name!r} is not served here; known: {known}", param="model")
    return _json(request, _card(name))


def _card(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "penumbra"}


async def show_health(request: Request) -> Response:
    """GET /health: the process runs."""
    return _json(request, {"status": "ok"})


async def show_readiness(request: Request) -> Response:
    """GET /ready: the process has a routing table and takes requests."""
    gateway = _gateway(request)
    is_ready = gateway.is_ready
    state = {
        "status": "ready"
        if is_ready
        else "draining"
        if gateway.is_draining
        else "waiting for flags",
        "epoch": gateway.snapshot.epoch,
    }
    return _json(request, state, status=200 if is_ready else 503)


async def show_metrics(request: Request) -> Response:
    """GET /metrics: this process's metrics."""
    exposed = _gateway(request).metrics.expose(request.headers.get("accept"))
    headers = {"x-request-id": _request_id(request), "content-type": exposed.content_type}
    return Response(exposed.body, headers=headers)


async def show_snapshot(request: Request) -> Response:
    """GET /debug/snapshot: the routing table in force."""
    return _json(request, _gateway(request).snapshot.model_dump(mode="json"))


async def take_feedback(request: Request) -> Response:
    """POST /v1/feedback: a user's judgement of an answer (`penumbra.router.link.feedback`)."""
    gateway = _gateway(request)
    caller = gateway.keys.identify(_authorization(request))
    body = feedback.read_feedback(await _small_body(request))
    judged = await gateway.feedback.submit(caller.tenant.name, body)
    return _json(
        request,
        {
            "object": "feedback",
            "request_id": body.request_id,
            "model": judged.model,
            "variant": judged.variant,
            "slice": judged.slice,
        },
    )


async def _small_body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > feedback.LARGEST_BODY_BYTES:
            raise RequestTooLarge(f"the body is larger than {feedback.LARGEST_BODY_BYTES} bytes")
    return body


async def _refuse_method(request: Request) -> Response:
    # POST on the hot paths never comes here: the protocol answers it.
    raise HTTPException(_NOT_ALLOWED, headers={"allow": "POST"})


def _keyed(
    gateway: Gateway, endpoint: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def checked(request: Request) -> Response:
        gateway.keys.identify(_authorization(request))
        return await endpoint(request)

    return checked


def _authorization(request: Request) -> bytes | None:
    found = request.headers.get("authorization")
    return found.encode("latin-1") if found else None


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    if error.status_code == _NOT_ALLOWED:
        refusal: GatewayError = MethodNotAllowed(f"{request.method} is not allowed on {path}")
    else:
        refusal = RouteNotFound(f"there is nothing at {path}")
    return _error_response(request, refusal, dict(error.headers or {}))


async def _gateway_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, GatewayError):
        raise error
    extra = {name.decode(): value.decode() for name, value in error.headers}
    return _error_response(request, error, extra)


def _error_response(request: Request, error: GatewayError, headers: dict[str, str]) -> Response:
    _gateway(request).metrics.errors.cell(error.reported_code).value += 1
    return Response(
        error.body,
        status_code=error.status,
        media_type="application/json",
        headers={**headers, "x-request-id": _request_id(request)},
    )


def _json(request: Request, value: object, status: int = 200) -> Response:
    return Response(
        json.dumps(value),
        status_code=status,
        media_type="application/json",
        headers={"x-request-id": _request_id(request)},
    )


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    if is_valid_request_id(given.encode("latin-1")):
        return given
    return _gateway(request).next_request_id().decode()


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
