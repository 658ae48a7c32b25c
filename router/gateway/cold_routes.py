"""Routes that the gateway answers itself: models, health, readiness, metrics and feedback."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penumbra.monitoring.answers import by_model, find_problems
from penumbra.router.errors import GatewayError, InvalidKey, ModelNotFound
from penumbra.router.gateway.cold_answers import (
    answer_fault,
    answer_gateway_error,
    answer_http_error,
    authorization_of,
    gateway_of,
    json_answer,
    read_small_body,
    request_id_of,
)
from penumbra.router.gateway.cross_origin import cross_origin_middleware
from penumbra.router.gateway.emergency_routes import emergency_routes
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.hot_routes import HOT_PATHS
from penumbra.router.gateway.model_cards import ModelCards
from penumbra.router.gateway.stored_responses import relay_stored
from penumbra.router.link import feedback

_NOT_FOUND = 404
_NOT_ALLOWED = 405


def build_public_app(gateway: Gateway) -> Starlette:
    """Build the ASGI application of the shared port, for everything but the hot routes."""
    routes = [
        Route("/v1/models", _keyed(gateway, list_models)),
        Route("/v1/models/{model:path}", _keyed(gateway, show_model)),
        Route("/metrics", _keyed(gateway, show_metrics)),
        # Before the route of stored responses, whose id it would be taken for.
        Route("/v1/responses/render", _refuse_path, methods=["GET", "POST"]),
        Route("/v1/responses/{response_id}", relay_stored),
        Route("/v1/responses/{response_id}/cancel", relay_stored, methods=["POST"]),
        Route(feedback.PATH, take_feedback, methods=["POST"]),
        *_open_routes(),
        *(Route(path.decode(), _refuse_method, methods=["POST"]) for path in HOT_PATHS),
    ]
    return _application(gateway, routes, is_internal=False)


def build_internal_app(
    gateway: Gateway, read_token: Callable[[], str | None] = lambda: None
) -> Starlette:
    """Build the ASGI application of one process's own internal port; it asks for no key.

    Args:
        gateway: The process.
        read_token: Reads the gateways' token, which an operator's emergency routes want.
    """
    routes = [
        *emergency_routes(read_token),
        *_open_routes(),
        Route("/metrics", show_metrics),
        Route("/debug/snapshot", show_snapshot),
    ]
    return _application(gateway, routes, is_internal=True)


def _open_routes() -> list[Route]:
    return [Route("/health", show_health), Route("/ready", show_readiness)]


def _application(gateway: Gateway, routes: list[Route], *, is_internal: bool) -> Starlette:
    app = Starlette(
        routes=routes,
        # The internal port is for no browser.
        middleware=cross_origin_middleware(() if is_internal else gateway.settings.allowed_origins),
        exception_handlers={
            HTTPException: answer_http_error,
            GatewayError: answer_gateway_error,
            Exception: answer_fault,
        },
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    app.state.model_cards = ModelCards(gateway.now)
    app.state.is_internal = is_internal
    return app


async def list_models(request: Request) -> Response:
    """GET /v1/models: all models."""
    cards = await _fresh_cards(request)
    models, builds = gateway_of(request).snapshot.models, gateway_of(request).builds
    data = [cards.card(name, models[name].baseline, builds[name]) for name in models]
    return json_answer(request, {"object": "list", "data": data})


async def show_model(request: Request) -> Response:
    """GET /v1/models/{model}: one model."""
    name = request.path_params["model"]
    cards = await _fresh_cards(request)
    models, builds = gateway_of(request).snapshot.models, gateway_of(request).builds
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        raise ModelNotFound(f"the model {name!r} is not served here; known: {known}", param="model")
    return json_answer(request, cards.card(name, models[name].baseline, builds[name]))


async def _fresh_cards(request: Request) -> ModelCards:
    cards: ModelCards = request.app.state.model_cards
    await cards.refresh(gateway_of(request).builds)
    return cards


async def show_health(request: Request) -> Response:
    """GET /health: the process runs."""
    return json_answer(request, {"status": "ok"})


async def show_readiness(request: Request) -> Response:
    """GET /ready: the process has a routing table and takes requests.

    The body also says what this process's clients got in the last minute. That is no reason to send
    requests elsewhere, so it does not change the status.
    """
    gateway = gateway_of(request)
    is_ready = gateway.is_ready
    problems = find_problems(by_model(gateway.recent_answers.counts()))
    state: dict[str, object] = {
        "status": "ready"
        if is_ready
        else "draining"
        if gateway.is_draining
        else "waiting for flags",
        "epoch": gateway.snapshot.epoch,
        "health": "degraded" if problems else "healthy",
    }
    if _may_read(request):
        state["problems"] = problems
    return json_answer(request, state, status=200 if is_ready else 503)


def _may_read(request: Request) -> bool:
    """Whether the caller may know models and variants: it has a key, or none is asked for."""
    if request.app.state.is_internal:
        return True
    try:
        gateway_of(request).keys.identify(authorization_of(request))
    except InvalidKey:
        return False
    return True


async def show_metrics(request: Request) -> Response:
    """GET /metrics: this process's metrics."""
    exposed = gateway_of(request).metrics.expose(request.headers.get("accept"))
    headers = {"x-request-id": request_id_of(request), "content-type": exposed.content_type}
    return Response(exposed.body, headers=headers)


async def show_snapshot(request: Request) -> Response:
    """GET /debug/snapshot: the routing table in force, without the keys' digests."""
    table = gateway_of(request).snapshot.model_dump(mode="json", exclude={"keys"})
    return json_answer(request, table)


async def take_feedback(request: Request) -> Response:
    """POST /v1/feedback: a user's judgement of an answer (`penumbra.router.link.feedback`)."""
    gateway = gateway_of(request)
    caller = gateway.keys.identify(authorization_of(request))
    body = feedback.read_feedback(await read_small_body(request, feedback.LARGEST_BODY_BYTES))
    judged = await gateway.feedback.submit(caller.tenant.name, body)
    return json_answer(
        request,
        {
            "object": "feedback",
            "request_id": body.request_id,
            "model": judged.model,
            "variant": judged.variant,
            "slice": judged.slice,
        },
    )


async def _refuse_path(request: Request) -> Response:
    raise HTTPException(_NOT_FOUND)


async def _refuse_method(request: Request) -> Response:
    # POST on the hot paths never comes here: the protocol answers it.
    raise HTTPException(_NOT_ALLOWED, headers={"allow": "POST"})


def _keyed(
    gateway: Gateway, endpoint: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def checked(request: Request) -> Response:
        gateway.keys.identify(authorization_of(request))
        return await endpoint(request)

    return checked
