"""Answers as clients got them are counted, and /ready tells of failed ones within seconds."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from penumbra.monitoring.answers import AnswerCode
from tests.support.behaviours import (
    close_before_head,
    dying_stream,
    endless,
    engine,
    error_event,
    full_response,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import DONE, Engine, engine_error, event
from tests.support.gateway_process import GatewayProcess, counting, eventually
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_connection import Behaviour
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.slow_reading import MEGABYTE, PIECE, wait_until_steady

RESPONSES = "/v1/responses"
SEEN = "penumbra_answers_total"
SEEN_SECONDS = 10.0
"""How soon a page that operators look at must tell of it: seconds, not minutes."""
FULL = Engine("full", created=1_700_000_001)


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"connect_seconds": 0.4, "client_write_seconds": 2.0}


@pytest.fixture
def fresh(
    settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway of which no client has seen anything yet."""
    with GatewayProcess(settings, tmp_path_factory.mktemp("gateway")) as process:
        yield process


def ready(gateway: GatewayProcess, **options: Any) -> dict[str, Any]:
    answer = gateway.get("/ready", **options)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("status", "code"),
    [(200, "2xx"), (302, "3xx"), (400, "4xx"), (401, "401"), (403, "403"), (404, "404"),
     (422, "4xx"), (429, "429"), (500, "5xx"), (504, "5xx")],
)  # fmt: skip
def test_an_answer_of_the_baseline_is_counted_as_the_client_got_it(
    gateway: GatewayProcess, full: ScriptedUpstream, status: int, code: str
) -> None:
    full.next(respond(status, engine_error("no", status)))
    labels = {"model": "demo", "variant": "full", "role": "baseline", "code": code}
    with counting(gateway, SEEN, **labels):
        assert gateway.post(CHAT, chat()).status == status


def test_a_stream_is_counted_when_it_begins(gateway: GatewayProcess) -> None:
    with counting(gateway, SEEN, variant="full", code="2xx"):
        assert gateway.post(CHAT, chat(stream=True)).status == 200


def test_an_error_of_the_gateway_is_counted_as_no_answer(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.close_connections()
    with full.refusing(), counting(gateway, SEEN, model="demo", code="unanswered"):
        assert gateway.post(CHAT, chat()).status == 503


def test_what_the_baseline_answers_in_place_of_a_candidate_is_the_baselines(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(respond(500, engine_error("no", 500)))
    with (
        counting(gateway, SEEN, model="demo-candidate", variant="full", code="2xx"),
        counting(gateway, SEEN, by=0, model="demo-candidate", variant="int8"),
    ):
        assert gateway.post(CHAT, chat("demo-candidate")).status == 200


def test_a_stream_that_breaks_off_is_counted_twice_as_begun_and_as_broken(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(dying_stream(FULL, after_events=3))
    with (
        counting(gateway, SEEN, variant="full", code="2xx"),
        counting(gateway, SEEN, variant="full", code="broken_off"),
        gateway.connect() as client,
    ):
        # What cannot be continued: several choices.
        client.send_request(CHAT, dumps(chat(stream=True, n=2)))
        assert b"upstream_died" in client.read_to_eof()


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(respond(200, b"<html>", [("content-type", "text/html")]), id="html"),
        pytest.param(respond(200, b""), id="empty"),
        pytest.param(respond(200, b'{"choices": ['), id="half"),
        pytest.param(respond(200, engine_error("no", 500)), id="error-object"),
    ],
)
def test_an_answer_of_the_baseline_that_is_none_is_told(
    gateway: GatewayProcess, full: ScriptedUpstream, behaviour: Behaviour
) -> None:
    full.next(behaviour)
    with counting(gateway, SEEN, variant="full", code="broken_off"):
        assert gateway.post(CHAT, chat()).status == 200


@pytest.mark.parametrize(
    ("route", "events"),
    [
        (CHAT, [event({"choices": [{"index": 0, "delta": {"content": "a"}}]}), error_event()]),
        (CHAT, [error_event(), DONE]),
        (
            "/v1/responses",
            [event({"type": "response.created"}), event({"type": "response.failed"})],
        ),
    ],
)
def test_a_stream_that_ends_with_an_error_event_is_told(
    gateway: GatewayProcess, full: ScriptedUpstream, route: str, events: list[bytes]
) -> None:
    full.always(stream_of(*events))
    with counting(gateway, SEEN, variant="full", code="broken_off"):
        # What cannot be continued: several choices.
        body = chat(stream=True, n=2)
        with gateway.connect() as client:
            client.send_request(route, dumps(body), {"connection": "close"})
            client.read_to_eof()


def test_mistakes_of_clients_are_no_answers_of_a_variant(gateway: GatewayProcess) -> None:
    with counting(gateway, SEEN, by=0):
        assert gateway.post(CHAT, b"{").status == 400
        assert gateway.post(CHAT, chat("no-such-model")).status == 404


def test_a_client_that_does_not_read_breaks_its_answer_off_itself(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(endless(PIECE, 100 * MEGABYTE))
    with (
        counting(gateway, SEEN, by=0, code="broken_off"),
        gateway.connect(receive_buffer=65536) as client,
    ):
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        full.requests[-1].finished.wait(20)


def test_every_code_has_a_series_before_its_first_answer(fresh: GatewayProcess) -> None:
    text = fresh.get("/metrics", is_internal=True).body.decode()
    samples = re.findall(rf"^{SEEN}{{(.*)}} (.*)$", text, re.M)
    codes = {code for labels, _ in samples for code in re.findall(r'code="(.*?)"', labels)}
    assert codes == set(AnswerCode)
    assert {value for _, value in samples} == {"0.0"}


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (500, "100 % of demo's answers failed in the last minute (5xx of full)"),
        (401, "100 % of demo's answers were refusals in the last minute (401 of full)"),
        (404, "100 % of demo's answers were refusals in the last minute (404 of full)"),
    ],
)
@pytest.mark.parametrize("is_internal", [False, True])
def test_ready_says_within_seconds_what_clients_get(
    fresh: GatewayProcess, full: ScriptedUpstream, status: int, problem: str, is_internal: bool
) -> None:
    assert ready(fresh, is_internal=is_internal)["health"] == "healthy"
    full.always(respond(status, engine_error("no", status)))
    for _ in range(6):
        assert fresh.post(CHAT, chat()).status == status
    eventually(
        lambda: ready(fresh, is_internal=is_internal).get("problems") == [problem],
        timeout=SEEN_SECONDS,
        what=problem,
        found=lambda: ready(fresh, is_internal=is_internal),
    )
    assert ready(fresh, is_internal=is_internal)["health"] == "degraded"


def test_clients_mistakes_and_a_single_failure_leave_a_gateway_healthy(
    fresh: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(raw(full_response(500, engine_error("no", 500)), then=None))
    fresh.post(CHAT, chat())
    for _ in range(10):
        assert fresh.post(CHAT, chat("no-such-model")).status == 404
    full.always(respond(400, engine_error("no", 400)))
    for _ in range(20):
        assert fresh.post(CHAT, chat()).status == 400
    assert ready(fresh) == {"status": "ready", "epoch": 7, "health": "healthy", "problems": []}


def test_a_candidate_that_the_baseline_replaces_is_no_problem_of_clients(
    fresh: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    int8.always(close_before_head())
    full.always(engine(FULL))
    for _ in range(10):
        assert fresh.post(CHAT, chat("demo-candidate")).status == 200
    assert ready(fresh)["health"] == "healthy"
