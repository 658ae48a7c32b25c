"""The control process's HTTP API: the admin routes for people and tools, probes and metrics.

Every change names its actor (`x-penumbra-actor`) and its reason (`reason`). It is answered when it
is durable and the gateways have it, or when the time for that is over.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.docs_page import HEADERS, docs_page
from penumbra.deployments.api.flag_routes import admin_router
from penumbra.deployments.api.probe_answers import HEALTH_ANSWERS, METRICS_ANSWERS, READY_ANSWERS
from penumbra.deployments.api.refused_logins import Cause, RefusedLogins, Surface
from penumbra.deployments.api.status_route import status_router
from penumbra.deployments.config import error_words
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.errors import DeploymentsError, Forbidden, Unauthorized
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.monitoring.log_limit import LogLimit
from penumbra.router.errors import error_type

log = logging.getLogger(__name__)

VERSION = "1"


def build_api(
    controller: Controller,
    publisher: Publisher,
    access: Access,
    now: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Builds the ASGI application of the control process.

    Args:
        controller: A started controller.
        publisher: The controller's publisher.
        access: The tokens and roles.
        now: Monotonic clock of the publisher.
    """
    app = FastAPI(
        title="Penumbra control",
        version=VERSION,
        summary="Variant flags and rollouts: their state, their changes and their history.",
        # FastAPI's page would load scripts from elsewhere; ours loads nothing.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(admin_router(controller, publisher, access, now))
    app.include_router(status_router(controller, publisher, access))
    _add_probes(app, controller, publisher)
    add_error_handlers(app, access.refused, now)
    controller.metrics.expose("logins", access.refused.series)
    return app


def add_error_handlers(
    app: FastAPI,
    refused: RefusedLogins | None = None,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Answer every error with an error object; note refused logins, and answer them later."""
    answers = _RefusalAnswers(now)

    async def answer_refused_login(request: Request, error: Exception) -> JSONResponse:
        if refused is not None:
            await asyncio.sleep(_note(refused, request, error))
        return await answers.answer(request, error)

    app.add_exception_handler(Unauthorized, answer_refused_login)
    app.add_exception_handler(Forbidden, answer_refused_login)
    app.add_exception_handler(DeploymentsError, answers.answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_failure)


def _add_probes(app: FastAPI, controller: Controller, publisher: Publisher) -> None:
    @app.get("/health", tags=["probes"], responses=HEALTH_ANSWERS)
    async def health() -> JSONResponse:
        """Answer 200 if the process is alive and its store answers in time, else 503 and why."""
        stuck = controller.stuck_seconds
        if stuck:
            reason = f"the store has not answered for {stuck:.0f} s"
            return JSONResponse({"status": "stuck", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ok"})

    @app.get("/ready", tags=["probes"], responses=READY_ANSWERS)
    async def ready() -> JSONResponse:
        """Answer 200 if this process leads and its last write succeeded, else 503."""
        status = "behind the store" if controller.has_lost_track else "ready"
        if controller.standing.is_beginning:
            status = "beginning to lead"
        if controller.standing.leader_address is not None:
            status = "standby"
        body = {
            "status": status,
            "epoch": controller.state.epoch,
            "gateways": len(publisher.links),
            **_set_aside(controller),
        }
        return JSONResponse(body, status_code=200 if status == "ready" else 503)

    @app.get("/metrics", tags=["probes"], response_class=Response, responses=METRICS_ANSWERS)
    async def metrics(request: Request) -> Response:
        """Return the metrics, as OpenMetrics if the client accepts it, else as Prometheus text."""
        text, content_type = await controller.metrics.scrape(request.headers.get("accept"))
        return Response(text, headers={"content-type": content_type})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers=HEADERS)


def _set_aside(controller: Controller) -> dict[str, dict[str, str]]:
    """Models (`*`: all) that get the baseline because an event cannot be read, and which."""
    aside = controller.state.aside
    return {"set_aside": {name: found.text for name, found in aside.items()}} if aside else {}


def _error_response(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    more: Mapping[str, str] | None = None,
) -> JSONResponse:
    message, param = _sendable(message), None if param is None else _sendable(param)
    error = {"message": message, "type": error_type(status), "param": param, "code": code}
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": error}, status_code=status, headers={**headers, **(more or {})})


def _sendable(text: str) -> str:
    """The text in UTF-8: a lone surrogate, which JSON may hold, is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _note(refused: RefusedLogins, request: Request, error: Exception) -> float:
    surface = Surface.ALERTS if request.url.path.endswith("/v1/alerts") else Surface.ADMIN
    address = request.client.host if request.client else ""
    is_known = isinstance(error, Forbidden)
    shown = request.headers.get("authorization")
    cause = Cause.NOT_ALLOWED if is_known else refused.cause_of(shown)
    return refused.note(address, surface, cause)


class _RefusalAnswers:
    def __init__(self, now: Callable[[], float]) -> None:
        self._failures = LogLimit(now)

    async def answer(self, request: Request, error: Exception) -> JSONResponse:
        del request
        if not isinstance(error, DeploymentsError):
            raise error
        if error.status >= 500 and (left_out := self._failures.take(error.code)) is not None:
            log.error(
                "change_failed",
                extra={"code": error.code, "detail": error.message, "repeated": left_out},
            )
        return _error_response(error.status, error.message, error.code, error.param)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    del request
    if not isinstance(error, RequestValidationError):
        raise error
    details: list[dict[str, Any]] = list(error.errors())
    texts = []
    for detail in details:
        path = error_words.path_text(detail["loc"])
        found = "nothing" if detail["type"] == "missing" else error_words.shown(detail.get("input"))
        texts.append(f"{path}: found {found}: {detail['msg']}")
    param = error_words.path_text(details[0]["loc"]) if details else None
    return _error_response(400, "; ".join(texts), "request_invalid", param)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "route_not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "request_invalid")
    text = f"{request.method} {request.url.path}: {error.detail}"
    # Of a 405 the headers name the methods that are allowed.
    return _error_response(error.status_code, text, code, more=error.headers)


async def _answer_failure(request: Request, error: Exception) -> JSONResponse:
    log.error("request_failed", extra={"path": request.url.path}, exc_info=error)
    return _error_response(
        500, "something went wrong here; the log of the control process says what", "internal"
    )
