"""What one asks the control process about everybody's metrics; no token, like /metrics."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from penumbra.deployments.metrics.aggregate import Aggregate
from penumbra.deployments.metrics.discovery import Discovery

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TARGETS_PATH = "/metrics/targets"
ALL_PATH = "/metrics/all"


def metrics_router(discovery: Discovery, aggregate: Aggregate) -> APIRouter:
    """The routes beside /metrics.

    Args:
        discovery: Knows the targets.
        aggregate: Fetches their pages.
    """
    router = APIRouter(tags=["probes"])

    @router.get(TARGETS_PATH)
    async def targets(request: Request) -> JSONResponse:
        """Prometheus's HTTP service discovery: every process's page and its labels."""
        found = discovery.targets(_host(request))
        return JSONResponse([target.group() for target in found])

    @router.get(ALL_PATH)
    async def everything(request: Request) -> Response:
        """Every process's page in one, with the labels `process` and `process_kind`."""
        found = discovery.targets(_host(request))
        return Response(await aggregate.text(found), media_type=_CONTENT_TYPE)

    return router


def _host(request: Request) -> str:
    """Under which this process was reached."""
    try:
        return request.url.hostname or ""
    except ValueError:
        return ""  # whoever asks so has other worries
