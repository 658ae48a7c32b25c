"""Alertmanager's webhook: `POST /admin/v1/alerts`."""

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
    description="The token in PENUMBRA_ALERT_TOKEN, which is good for nothing else; or an admin's.",
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **{status: ERRORS[status] for status in (400, 401, 403)},
    413: {"model": ErrorBody},
    _FAILED: {"model": AlertsView, "description": "One failed: send them again."},
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def alerts_router(desk: AlertHandler, access: Access) -> APIRouter:
    """The webhook's route.

    Args:
        desk: Acts.
        access: Who may bring alerts.
    """

    class Guarded(APIRoute):
        """Looks at the token before it reads a body, and reads no more of that than is taken."""

        def get_route_handler(self) -> Handler:
            """See FastAPI."""
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                access.require_alerts(request.headers.get("authorization"))
                return await handle(Request(request.scope, _again(await _body(request))))

            return guarded

    router = APIRouter(prefix="/admin/v1", tags=["alerts"], route_class=Guarded)

    @router.post("/alerts", responses=_ANSWERS, dependencies=[Depends(_BEARER)])
    async def take_alerts(body: Notification) -> AlertsView:
        """Take Alertmanager's notification (version 4), and say what became of each alert.

        Only a firing alert with the label `penumbra_action: rollback` does anything: it takes the
        candidate that its labels `model` and `candidate` name out of service. Each firing
        (`fingerprint` and `startsAt`) does so at most once.
        """
        results = [await desk.take(alert) for alert in body.alerts]
        view = AlertsView(results=results)
        if any(one.result is Result.FAILED for one in results):
            return JSONResponse(view.model_dump(mode="json"), _FAILED)  # type: ignore[return-value]
        return view

    return router


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY_BYTES:
            raise RequestTooLarge(f"the body is larger than {LARGEST_BODY_BYTES} bytes")
    return bytes(body)


def _again(body: bytes) -> Callable[[], Coroutine[Any, Any, Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
