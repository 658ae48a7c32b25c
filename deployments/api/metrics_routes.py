"""Routes with the metrics of all processes; they need no token, like /metrics."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from penumbra.deployments.api.probe_answers import PAGE_ANSWERS, TARGETS_ANSWERS
from penumbra.deployments.metrics.aggregate import Aggregate
from penumbra.deployments.metrics.discovery import Discovery

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TARGETS_PATH = "/metrics/targets"
ALL_PATH = "/metrics/all"


def metrics_router(discovery: Discovery, aggregate: Aggregate) -> APIRouter:
    """Builds the routes below /metrics.

    Args:
        discovery: Lists the targets.
        aggregate: Fetches their pages.
    """
    router = APIRouter(tags=["probes"])

    @router.get(TARGETS_PATH, responses=TARGETS_ANSWERS)
    async def targets(request: Request) -> JSONResponse:
        """List every process's metrics page and labels, as Prometheus's HTTP service discovery."""
        found = discovery.targets(_host(request))
        return JSONResponse([target.group() for target in found])

    @router.get(ALL_PATH, response_class=Response, responses=PAGE_ANSWERS)
    async def everything(request: Request) -> Response:
        """Return all processes' metrics on one page, labelled `process` and `process_kind`."""
        found = discovery.targets(_host(request))
        return Response(await aggregate.text(found), media_type=_CONTENT_TYPE)

    return router


def _host(request: Request) -> str:
    """Returns the host under which this process was reached; empty if the header is malformed."""
    try:
        return request.url.hostname or ""
    except ValueError:
        return ""
