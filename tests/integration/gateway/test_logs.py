"""The log: JSON lines that hold no text of clients or models."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import (
    JSON_TYPE,
    STREAM_HEAD,
    chunk,
    dying_stream,
    error_event,
    hang,
    head,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import Engine, engine_error, event
from tests.support.gateway_process import GatewayProcess, key_settings
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, COMPLETIONS, dumps
from tests.support.scripted_connection import Behaviour
from tests.support.scripted_upstream import ScriptedUpstream

CANARY = "canary-7f3a"
"""Part of every prompt, answer and key of this module."""
TALKER = Engine("int8", tokens=(CANARY, f" {CANARY}", " end"))


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"candidate_first_byte_seconds": 0.3, "idle_seconds": 0.3, "header_seconds": 0.5}


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    return [key_settings("acme", f"{CANARY}-key", may_pin=True)]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"ENGINE_KEY": f"{CANARY}-engine", "PENUMBRA_GATEWAY_TOKEN": f"{CANARY}-token"}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    demo = model(full, int8, flag={"split": {"int8": 100}})
    demo["variants"]["int8"] = {"url": int8.url, "api_key_env": "ENGINE_KEY"}
    return {"demo": demo}


BEHAVIOURS: dict[str, Behaviour] = {
    "engine_error": respond(400, engine_error(f"bad prompt: {CANARY}", 400)),
    "server_error": respond(500, engine_error(CANARY, 500)),
    "html": respond(404, CANARY.encode(), [("content-type", "text/html")]),
    "garbage": raw(CANARY.encode() * 20),
    "garbage_header": raw(b"HTTP/1.1 200 OK\r\n" + CANARY.encode() + b"\x00: x\r\n\r\n"),
    "hang": hang(),
    "dies_in_the_body": raw(head(200, [JSON_TYPE, ("content-length", "999")]) + CANARY.encode()),
    "dies_in_the_stream": dying_stream(TALKER, after_events=2),
    "dies_within_an_event": dying_stream(TALKER, after_events=2, partial=lambda data: data[:-4]),
    "broken_chunk": raw(STREAM_HEAD + chunk(event({"choices": []})) + CANARY.encode() + b"\r\n"),
    "error_event": stream_of(error_event(CANARY)),
    "error_event_later": dying_stream(TALKER, after_events=2, partial=error_event(CANARY)),
    "broken_first_event": stream_of(b"data: " + CANARY.encode() + b"\n\n"),
    "extra_bytes": raw(head(200, [JSON_TYPE, ("content-length", "2")]) + b"{}" + CANARY.encode()),
}

BODIES: dict[str, bytes] = {
    "good": dumps({"model": "demo", "messages": [{"role": "user", "content": CANARY}]}),
    "stream": dumps({"model": "demo", "stream": True, "prompt": CANARY, "messages": []}),
    "n": dumps({"model": "demo", "stream": True, "n": 2, "prompt": CANARY, "messages": []}),
    "not_json": b'{"prompt":"' + CANARY.encode(),
    "unknown_model": dumps({"model": f"{CANARY}-model", "prompt": CANARY}),
    "twice": f'{{"model":"demo","user":"{CANARY}","user":"{CANARY}"}}'.encode(),
    "user": dumps({"model": "demo", "messages": [], "user": f"{CANARY}-user"}),
}


def say_everything(gateway: GatewayProcess, int8: ScriptedUpstream) -> None:
    headers = {
        "authorization": f"Bearer {CANARY}-key",
        "cookie": CANARY,
        "x-user-id": f"{CANARY}-user",
        "x-session-id": f"{CANARY}-session",
    }
    for behaviour in BEHAVIOURS.values():
        int8.always(behaviour)
        for body in BODIES.values():
            for path in (CHAT, COMPLETIONS):
                with gateway.connect() as client:
                    client.send_request(path, body, {**headers, "connection": "close"})
                    client.read_to_eof()
    for more in ({"authorization": f"Bearer {CANARY}"}, {"x-penumbra-variant": CANARY}):
        gateway.post(CHAT, BODIES["good"], {**headers, **more})
    malformed = [
        f"POST /{CANARY} HTTP/1.1\r\nhost: x\r\n{CANARY}\r\n\r\n".encode(),
        request_bytes(f"/{CANARY}?q={CANARY}", BODIES["good"], {"connection": "close"}),
        CANARY.encode() * 10,
        f"POST {CHAT} HTTP/1.1\r\nx-a: {CANARY}\r\n".encode(),
    ]
    for data in malformed:
        with gateway.connect() as client:
            client.send(data)
            client.read_to_eof()


@pytest.fixture(scope="module")
def spoken(gateway: GatewayProcess, int8: ScriptedUpstream) -> GatewayProcess:
    say_everything(gateway, int8)
    return gateway


def test_log_lines_are_json_objects_with_an_event(spoken: GatewayProcess) -> None:
    lines = [json.loads(line) for line in spoken.log_text().splitlines()]
    assert lines
    for line in lines:
        assert isinstance(line, dict)
        assert line.get("event"), line
        assert line.get("level"), line


def test_log_holds_nothing_that_was_said(spoken: GatewayProcess) -> None:
    assert [line for line in spoken.log_text().splitlines() if CANARY in line] == []


def test_log_has_no_traceback(spoken: GatewayProcess) -> None:
    assert "Traceback" not in spoken.log_text()


def test_standard_output_stays_empty(spoken: GatewayProcess) -> None:
    assert spoken.stdout_text() == ""


def test_metrics_hold_nothing_that_was_said(spoken: GatewayProcess) -> None:
    assert CANARY.encode() not in spoken.get("/metrics", is_internal=True).body


def test_debug_snapshot_holds_no_key(spoken: GatewayProcess) -> None:
    assert CANARY.encode() not in spoken.get("/debug/snapshot", is_internal=True).body


def test_settings_error_holds_no_key(settings: dict[str, Any], tmp_path: Path) -> None:
    broken = [{**settings["keys"][0], "sha256": f"{CANARY}-in-clear"}]
    process = GatewayProcess({**settings, "keys": broken}, tmp_path)
    process.start(wait=False)
    assert process.process.wait(60) != 0
    assert "sha256" in process.log_text()
    assert CANARY not in process.log_text()


@pytest.fixture
def lonely(settings: dict[str, Any], tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway whose control process cannot be reached."""
    control = {"control_url": "http://127.0.0.1:9"}
    token = {"PENUMBRA_GATEWAY_TOKEN": f"{CANARY}-token", "PATH": os.environ["PATH"]}
    with GatewayProcess({**settings, **control}, tmp_path, token) as process:
        yield process


def test_gateway_without_its_control_process_serves_its_first_table(
    lonely: GatewayProcess,
) -> None:
    headers = {"authorization": f"Bearer {CANARY}-key"}
    response = lonely.post(CHAT, BODIES["good"], headers)
    assert (response.status, response.header("x-penumbra-epoch")) == (200, "7")
    assert CANARY not in lonely.log_text()
