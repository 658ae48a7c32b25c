"""A client that reads late or slowly gets its whole answer, and others are served meanwhile.

No client is cut here, however slow the machine is: the limit of its writes is far away.
"""

import time
from typing import Any

import pytest

from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    endless,
    full_response,
    head,
    raw,
)
from tests.support.engine_wire import DONE
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.slow_reading import MEGABYTE, PIECE, wait_until_steady

IDLE_SECONDS = 2.0


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"client_write_seconds": 120.0, "idle_seconds": IDLE_SECONDS}


def test_client_that_reads_again_gets_every_byte(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    total = 30 * MEGABYTE
    full.always(endless(PIECE, total))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        response = client.read_response()
    assert response.status == 200
    assert response.body == PIECE * ((len(response.body) - len(DONE)) // len(PIECE)) + DONE
    assert len(response.body) > total - MEGABYTE


def test_client_that_reads_slowly_is_not_an_idle_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(endless(PIECE, 30 * MEGABYTE))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        time.sleep(1.5 * IDLE_SECONDS)
        response = client.read_response()
    assert response.body.endswith(DONE)
    assert len(full.requests) == 1


@pytest.mark.parametrize("kilobytes", [64, 256, 1024, 2048, 3072, 4096, 6144])
@pytest.mark.parametrize("framing", ["length", "chunked", "events"])
def test_connection_of_an_unread_answer_serves_the_next_request(
    gateway: GatewayProcess, full: ScriptedUpstream, kilobytes: int, framing: str
) -> None:
    body = b'"' + b"x" * (kilobytes * 1024) + b'"'
    chunked = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(body) + LAST_CHUNK
    wires = {
        "length": full_response(200, body),
        "chunked": chunked,
        "events": STREAM_HEAD + chunk(b"data: [" + body + b"]\n\n") + chunk(DONE) + LAST_CHUNK,
    }
    full.next(raw(wires[framing], then=None))
    with gateway.connect(receive_buffer=4096) as slow:
        slow.send_request(CHAT, dumps(chat()))
        full.wait_for_request().finished.wait(0.3)
        with gateway.connect() as quick:
            quick.send_request(CHAT, dumps(chat()))
            assert quick.read_response().status == 200
