"""Every route of the installed vLLM's server is relayed, answered by the gateway, or refused.

The routes are read from the source of its packages: importing them takes half a minute.
"""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from starlette.routing import Route

from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.gateway.cold_routes import build_public_app
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.hot_routes import HOT_PATHS
from penumbra.router.gateway.refused_routes import REFUSED
from penumbra.router.settings import GatewaySettings
from tests.support.documents import ROOT

METHODS = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "websocket"})
OTHER_CALLS = frozenset({"add_api_route", "add_api_websocket_route", "mount", "Mount"})
OTHER_SERVERS = frozenset({"launchers", "cli"})
"""Folders of other processes than the API server."""
OF_FASTAPI = frozenset({("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json")})
COMPUTED = {"app.swagger_ui_oauth2_redirect_url": "/docs/oauth2-redirect", "route.path": None}
"""Path expressions of the source -> the path; None where it repeats routes of other modules."""

RouteOf = tuple[str, str]


def entrypoints() -> Path:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "entrypoints"


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """The calls that may declare a route, with the name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name) and node.func.id == "Mount":
                yield "Mount", node


def decorators(tree: ast.AST) -> set[int]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node for node in ast.walk(tree) if isinstance(node, functions))
    return {id(decorator) for function in found for decorator in function.decorator_list}


def routes_of(path: Path) -> Iterator[RouteOf]:
    tree = ast.parse(path.read_text())
    of_functions = decorators(tree)
    for name, call in calls(tree):
        if name in METHODS and id(call) in of_functions:
            method = name.upper()
        elif name in OTHER_CALLS:
            method = "POST" if name == "add_api_route" else "GET"
        else:
            continue
        target = call.args[0]
        found = target.value if isinstance(target, ast.Constant) else COMPUTED[ast.unparse(target)]
        if isinstance(found, str):
            yield method, found


@pytest.fixture(scope="module")
def engine_routes() -> frozenset[RouteOf]:
    root = entrypoints()
    files = [path for path in root.rglob("*.py") if not OTHER_SERVERS & set(path.parts)]
    return frozenset(route for path in files for route in routes_of(path)) | OF_FASTAPI


@pytest.fixture(scope="module")
def own_routes() -> frozenset[RouteOf]:
    settings = GatewaySettings(snapshot=Snapshot(epoch=1, models={}))
    routes = build_public_app(Gateway(settings, lambda: 0.0)).routes
    return frozenset(
        (method, route.path)
        for route in routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if route.path.encode() not in HOT_PATHS and route.path != "/v1/responses/render"
    )


RELAYED = frozenset(("POST", path.decode()) for path in HOT_PATHS)


def test_every_route_of_an_engine_is_relayed_answered_or_refused(
    engine_routes: frozenset[RouteOf], own_routes: frozenset[RouteOf]
) -> None:
    assert len(engine_routes) > 60
    left = engine_routes - RELAYED - own_routes
    assert sorted(route for route in left if route[1] not in REFUSED) == []


def test_every_relayed_route_is_one_of_an_engine(engine_routes: frozenset[RouteOf]) -> None:
    assert engine_routes >= RELAYED


def test_every_refused_route_is_one_of_an_engine(
    engine_routes: frozenset[RouteOf], own_routes: frozenset[RouteOf]
) -> None:
    paths = {path for _, path in engine_routes}
    answered = {path for _, path in RELAYED | own_routes}
    assert [path for path in REFUSED if path not in paths or path in answered] == []


def test_every_relayed_route_is_on_the_page_of_the_gateway() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text()
    paths = [*(path for _, path in RELAYED), "/v1/responses/{id}", "/v1/responses/{id}/cancel"]
    assert [path for path in paths if f"`{path}`" not in page] == []


def test_every_refused_route_is_on_the_page_of_the_gateway() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text()
    assert [path for path in REFUSED if f"`{path}`" not in page] == []
