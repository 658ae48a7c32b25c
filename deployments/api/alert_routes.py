"""Route of Alertmanager's webhook: `POST /admin/v1/alerts`."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from penumbra.deployments.actors import ALERTMANAGER
from penumbra.deployments.api.access import Access
from penumbra.deployments.api.flag_routes import ERRORS
from penumbra.deployments.api.flag_schemas import ErrorBody
from penumbra.deployments.api.guarded_route import CallerCheck, GuardedRoute, body_of_most
from penumbra.deployments.control import authorship
from penumbra.deployments.control.alert_handler import AlertHandler
from penumbra.deployments.control.authorship import Author
from penumbra.deployments.history.alerts import AlertsView, Notification, Result
from penumbra.router.bounds import SPEC_BODY_BYTES

_FAILED = 503
_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="AlertToken",
    description="The token in PENUMBRA_ALERT_TOKEN, which opens this route only; or an admin's.",
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **{status: ERRORS[status] for status in (400, 401, 403, 408, 413, 431, 500)},
    _FAILED: {
        "model": AlertsView | ErrorBody,
        "description": "An alert failed, or another process leads: send all of them again.",
    },
}


def alerts_router(handler: AlertHandler, access: Access) -> APIRouter:
    """Builds the webhook's route.

    Args:
        handler: Acts on alerts.
        access: Knows the tokens that may send alerts.
    """
    may_send = Depends(_MaySendAlerts(access))
    router = APIRouter(prefix="/admin/v1", tags=["alerts"], route_class=GuardedRoute)

    @router.post(
        "/alerts",
        responses=_ANSWERS,
        dependencies=[Depends(_BEARER), may_send, body_of_most(SPEC_BODY_BYTES)],
    )
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


class _MaySendAlerts(CallerCheck):
    def __init__(self, access: Access) -> None:
        self._access = access

    async def prepare(self, request: Request) -> None:
        """See CallerCheck."""
        await self._access.prepare(request.headers.get("authorization"))

    def check(self, request: Request) -> None:
        """See CallerCheck."""
        shown = request.headers.get("authorization")

        def still_may() -> None:
            self._access.require_alerts(shown)

        still_may()
        authorship.begin(Author(ALERTMANAGER, self._access.authority_of(shown), still_may))

    def __call__(self) -> None:
        """Do nothing: the route checks before it reads the body."""
