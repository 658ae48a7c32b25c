"""The comparator's own loopback port: /health and /metrics."""

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penumbra.router.shadow.comparator import Comparator


def build_internal_app(comparator: Comparator) -> Starlette:
    """Make the ASGI application; it asks for no keys, so it is for a loopback port only."""
    app = Starlette(routes=[Route("/health", show_health), Route("/metrics", show_metrics)])
    app.state.comparator = comparator
    return app


async def show_health(request: Request) -> Response:
    """GET /health: tell that the process runs, and which runs it watches."""
    comparator: Comparator = request.app.state.comparator
    told = {
        "status": "ok",
        "epoch": comparator.watched.epoch,
        "runs": [
            {"model": run.run.model, "candidate": run.run.candidate, "run": run.run.id}
            for run in comparator.watched.runs
        ],
    }
    return Response(json.dumps(told), media_type="application/json")


async def show_metrics(request: Request) -> Response:
    """GET /metrics: expose this process's metrics."""
    comparator: Comparator = request.app.state.comparator
    exposed = comparator.metrics.expose(request.headers.get("accept"))
    return Response(exposed.body, headers={"content-type": exposed.content_type})
