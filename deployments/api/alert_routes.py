"""Route of Alertmanager's webhook: `POST /admin/v1/alerts`."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.types import Message

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.flag_routes import ERRORS
from penumbra.deployments.api.flag_schemas import ErrorBody
from penumbra.deployments.control.alert_handler import AlertHandler
from penumbra.deployments.errors import RequestTooLarge
from penumbra.deployments.history.alerts import AlertsView, Notification, Result

LARGEST_BODY_BYTES = 1024 * 1024

_FAILED = 503
_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="AlertToken",
    description="The token in PENUMBRA_ALERT_TOKEN, which opens this route only; or an admin's.",
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **{status: ERRORS[status] for status in (400, 401, 403)},
    413: {"model": ErrorBody},
    _FAILED: {"model": AlertsView, "description": "An alert failed: send all of them again."},
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def alerts_router(handler: AlertHandler, access: Access) -> APIRouter:
    """Builds the webhook's route.

    Args:
        handler: Acts on alerts.
        access: Knows the tokens that may send alerts.
    """

    class GuardedRoute(APIRoute):
        """Checks the token before it reads the body, and reads no more than the largest body."""

        def get_route_handler(self) -> Handler:
            """Wraps FastAPI's handler of the route."""
            handle = super().get_route_handler()

            async def check_and_handle(request: Request) -> Response:
                access.require_alerts(request.headers.get("authorization"))
                return await handle(Request(request.scope, _replay(await _read_body(request))))

            return check_and_handle

    router = APIRouter(prefix="/admin/v1", tags=["alerts"], route_class=GuardedRoute)

    @router.post("/alerts", responses=_ANSWERS, dependencies=[Depends(_BEARER)])
    async def take_alerts(body: Notification) -> AlertsView:
        """Take Alertmanager's notification (version 4), and return the result of each alert.

        Only a firing alert with the label `penumbra_action: rollback` does anything: it takes the
        candidate that its labels `model` and `candidate` name out of service. Each firing
        (`fingerprint` and `startsAt`) does so at most once.
        """
        results = [await handler.take(alert) for alert in body.alerts]
        view = AlertsView(results=results)
        if any(outcome.result is Result.FAILED for outcome in results):
            return JSONResponse(view.model_dump(mode="json"), _FAILED)  # type: ignore[return-value]
        return view

    return router


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY_BYTES:
            raise RequestTooLarge(f"the body is larger than {LARGEST_BODY_BYTES} bytes")
    return bytes(body)


def _replay(body: bytes) -> Callable[[], Coroutine[Any, Any, Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
