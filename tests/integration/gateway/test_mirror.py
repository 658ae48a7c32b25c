"""Mirrored requests: the bytes of the client, the frames of the comparator, and the sheds."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.selection import hash64
from tests.integration.gateway.conftest import EPOCH, model
from tests.support.behaviours import (
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    close_before_head,
    dying_stream,
    engine,
    respond,
)
from tests.support.engine_wire import TOKENS, Engine, encode, engine_error
from tests.support.frame_sink import FrameSink
from tests.support.gateway_process import GatewayProcess, counting, eventually
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, COMPLETIONS, chat, dumps, request_for
from tests.support.scripted_connection import Exchange
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.tapped_answers import BLANKS, Ids, as_event, written

FIELD = b"return_token_ids"
SHEDS = "penumbra_mirror_sheds_total"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
# Tokens without text: a character that takes two, and one that a tool parser swallows.
BUILD = Engine("full", tokens=("Z", "", "ü", *TOKENS[1:]), silent=(3, 4))
SLICES = [
    {"name": "greek", "match": {"scripts": ["greek"]}},
    {"name": "unmirrored", "match": {"tenants": ["of-no-key"]}},
]
UNMIRRORED = "unmirrored"
"""A slice that only a client can name, and that is not mirrored."""


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    def watched(rate: float, generate: float = 0.0, **more: Any) -> dict[str, Any]:
        # The candidate fails here so often that the gateway itself would take it out of service.
        watch = {"candidate": "int8", "run": "run-1", "mirror": rate, "failure_tolerance": 0.99}
        watch["mirror_slices"] = {UNMIRRORED: 0.0}
        watch["generate"] = generate
        return {**model(full, int8, **more), "watches": [watch], "slices": SLICES}

    return {
        "demo": watched(1.0),
        "half": watched(0.5),
        "decoded": watched(1.0, generate=1.0),
        "live": watched(1.0, flag={"split": {"int8": 100}}),
        "unwatched": model(full, int8),
    }


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameSink]:
    with FrameSink(tmp_path_factory.mktemp("sink") / "shadow.sock") as sink:
        yield sink


@pytest.fixture(scope="module")
def settings(models: dict[str, Any], sink: FrameSink) -> dict[str, Any]:
    return {"snapshot": {"epoch": EPOCH, "models": models}, "shadow_socket": str(sink.path)}


@pytest.fixture(autouse=True)
def _connected(gateway: GatewayProcess, sink: FrameSink) -> None:
    sink.wait_for_connection()
    eventually(lambda: gateway.metric("penumbra_comparator_connected") == 1)


def _comparable(response: RawResponse, request_id: str) -> tuple[Any, ...]:
    headers = [line for line in response.headers if line[0] != "x-request-id"]
    assert response.header("x-request-id") == request_id
    body = re.sub(rb"-full-\d+", b"-full-N", response.body)
    if response.framing == "length":
        assert response.header("content-length") == str(len(response.body))
        headers = [line for line in headers if line[0] != "content-length"]
    return response.status, response.framing, headers, body


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", ["demo", "decoded"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 2},
        {"tools": TOOLS},
        {"tools": TOOLS, "n": 2, "max_tokens": 7},
        {"logprobs": 1},
        {"max_tokens": 3},
        {"echo": True},
        {"return_token_ids": True},
        {"return_token_ids": False},
        {"stream_options": {"include_usage": True}},
    ],
    ids=json.dumps,
)
def test_a_mirrored_client_gets_the_bytes_that_it_would_have_got(
    path: str,
    is_stream: bool,
    name: str,
    more: dict[str, Any],
    gateway: GatewayProcess,
    full: ScriptedUpstream,
) -> None:
    full.always(engine(BUILD))
    body = request_for(path, **({"stream": True} if is_stream else {}), **more, model=name)
    headers = {"x-request-id": "r-1"}
    mirrored = gateway.post(path, body, headers)
    unmirrored = gateway.post(path, body, {**headers, "x-penumbra-slice": UNMIRRORED})
    assert _comparable(mirrored, "r-1") == _comparable(unmirrored, "r-1")
    tapped, plain = [json.loads(request.body) for request in full.wait_for_requests(2)]
    assert plain == body
    is_tapped = not {"echo", "return_token_ids"} & more.keys()
    is_decoded = is_tapped and name == "decoded" and "logprobs" not in more
    rows = {"logprobs": True if path == CHAT else 0} if is_decoded else {}
    assert tapped == ({**body, **rows, "return_token_ids": True} if is_tapped else body)


def test_the_comparator_gets_the_request_and_the_engines_answer(
    gateway: GatewayProcess, full: ScriptedUpstream, sink: FrameSink
) -> None:
    body = chat(messages=[{"role": "user", "content": "Τι καιρό κάνει ;"}], temperature=0.5)
    headers = {"x-request-id": "r-77", "x-session-id": "s-1", "x-user-id": "u"}
    with counting(gateway, "penumbra_mirrored_requests_total", model="demo", candidate="int8"):
        response = gateway.post(CHAT, body, headers)
    frame = sink.frame_of("r-77")
    prompt = json.dumps(body["messages"]).encode()
    assert frame == MirrorFrame(
        request_id="r-77",
        model="demo",
        variant="full",
        candidates=("int8",),
        slice="greek",
        epoch=EPOCH,
        path=CHAT,
        prompt_hash=hash64(prompt),
        session=frame.session,
        body=dumps(body),
        is_stream=False,
        answer=frame.answer,
        answered_at=frame.answered_at,
        first_byte_seconds=frame.first_byte_seconds,
        total_seconds=frame.total_seconds,
        own_id=frame.own_id,
        root=frame.root,
        latencies=("ttft",),
    )
    assert frame.root not in (0, frame.prompt_hash)
    assert frame.own_id.startswith("req-")
    assert frame.session > 0
    assert 0 < frame.first_byte_seconds <= frame.total_seconds < 5
    answer = json.loads(frame.answer)
    assert answer["choices"][0].pop("token_ids")
    assert answer.pop("prompt_token_ids")
    shown = response.json()
    assert shown["choices"][0].pop("token_ids") is shown.pop("prompt_token_ids") is None
    assert answer == shown


def test_a_client_that_repeats_its_request_id_is_mirrored_at_the_rate(
    gateway: GatewayProcess, sink: FrameSink
) -> None:
    count, mirrored = 200, "penumbra_mirrored_requests_total"
    body = dumps(request_for(COMPLETIONS, "half"))
    before = gateway.metric(mirrored, model="half")
    with gateway.connect() as client:
        for _ in range(count):
            client.send_request(COMPLETIONS, body, {"x-request-id": "same"})
            assert client.read_response().header("x-request-id") == "same"
    found = gateway.metric(mirrored, model="half") - before
    # Five standard deviations of a binomial share of one half.
    assert abs(found - count / 2) < 5 * (count / 4) ** 0.5
    assert sink.frame_of("same").own_id != "same"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_ids_in_another_spelling_reach_no_client_and_hold_no_event_back(
    line_end: bytes, gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    choice = {"index": 0, "delta": {"content": "Zürich"}, "finish_reason": None}
    event = {"choices": [{**choice, "token_ids": Ids([5, 6])}]}
    tapped, plain = (
        as_event(written(event, 1, BLANKS, has_ids=has_ids), line_end) for has_ids in (True, False)
    )
    gate = full.gate()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD + chunk(tapped))
        await gate.passed()
        await exchange.send(chunk(b"data: [DONE]" + 2 * line_end) + LAST_CHUNK)

    full.always(answer)
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        client.read_head()
        assert client.read_chunk() == plain
        gate.open()
        assert b"".join(client.read_chunks()) == b"data: [DONE]" + 2 * line_end


def test_a_stream_is_handed_over_as_the_engine_sent_it(
    gateway: GatewayProcess, sink: FrameSink
) -> None:
    response = gateway.post(CHAT, chat(stream=True), {"x-request-id": "streamed"})
    frame = sink.frame_of("streamed")
    assert frame.is_stream
    assert frame.answer.endswith(b"data: [DONE]\n\n")
    assert frame.answer.count(b'"token_ids":[') == len(TOKENS) + 1
    assert b'token_ids":[' not in response.body


def test_a_live_candidates_answer_is_handed_over_as_its_own(
    gateway: GatewayProcess, sink: FrameSink
) -> None:
    response = gateway.post(CHAT, chat("live"), {"x-request-id": "live"})
    assert response.header("x-penumbra-variant") == "int8"
    frame = sink.frame_of("live")
    assert (frame.model, frame.variant, frame.candidates) == ("live", "int8", ("int8",))


def test_a_live_candidates_times_go_to_the_comparator_while_no_baseline_answers(
    gateway: GatewayProcess, sink: FrameSink
) -> None:
    for number in range(2):  # the first stream tells how many tokens an event has
        gateway.post(CHAT, chat("live", stream=True), {"x-request-id": f"alone-{number}"})
    frame = sink.frame_of("alone-1")
    assert (frame.variant, frame.latencies) == ("int8", ("ttft", "tpot"))


def test_an_answer_that_the_baseline_gave_instead_is_handed_over_as_the_baselines(
    gateway: GatewayProcess, int8: ScriptedUpstream, sink: FrameSink
) -> None:
    int8.next(close_before_head(), close_before_head())
    response = gateway.post(CHAT, chat("live"), {"x-request-id": "instead"})
    assert response.header("x-penumbra-variant") == "full"
    frame = sink.frame_of("instead")
    assert frame.variant == "full"
    assert json.loads(frame.answer)["id"].startswith("chatcmpl-full")
    assert frame.latencies == ()  # its time began with the attempt before


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_tapped_stream_that_dies_is_continued_and_not_compared(
    path: str, gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    # A token that is silent without a tool parser's word, then death within an event.
    build = Engine("int8")
    partial = lambda following: following[:-12]  # noqa: E731 - cut within `"token_ids":[...]`
    int8.next(dying_stream(build, after_events=4, partial=partial))
    body = request_for(path, "live", stream=True)
    with counting(gateway, SHEDS, model="live", reason="continued"):
        response = gateway.post(path, body)
    assert b'token_ids":[' not in response.body
    events = [json.loads(each[6:]) for each in response.events[:-1]]
    pieces = [each["choices"][0].get("delta", each["choices"][0]) for each in events]
    text = "".join(piece.get("content") or piece.get("text") or "" for piece in pieces)
    assert text == "".join(TOKENS)
    assert FIELD in int8.requests[0].body
    assert FIELD not in full.requests[0].body


def test_an_engines_error_is_the_clients_and_is_not_compared(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    refusal = engine_error("max_tokens is too large", 400)
    full.next(respond(400, refusal))
    with counting(gateway, SHEDS, model="demo", reason="error"):
        response = gateway.post(CHAT, chat())
    assert (response.status, response.body) == (400, refusal)
    assert len(full.requests) == 1


@pytest.mark.parametrize("status", [500, 429, 408])
def test_a_request_that_the_baseline_failed_is_handed_over(
    gateway: GatewayProcess, full: ScriptedUpstream, sink: FrameSink, status: int
) -> None:
    full.next(respond(status, engine_error("out of memory", status)))
    with counting(gateway, SHEDS, by=0, model="demo", reason="error"):
        assert gateway.post(CHAT, chat(), {"x-request-id": f"failed-{status}"}).status == status
        frame = sink.frame_of(f"failed-{status}")
    assert (frame.variant, frame.candidates, frame.partial_for) == ("full", (), ("int8",))
    assert (frame.problem, frame.answer) == (f"status_{status}", b"")
    assert not frame.is_partial


def test_a_server_that_refuses_the_field_gets_the_request_as_it_was(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(respond(400, engine_error("unknown field: return_token_ids", 400)))
    with counting(gateway, SHEDS, model="demo", reason="refused"):
        response = gateway.post(CHAT, chat())
    assert response.status == 200
    assert [FIELD in request.body for request in full.requests] == [True, False]


def test_no_refusal_shows_the_client_a_field_that_it_did_not_send(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    def complain(sent: bytes) -> bytes:
        return encode({"error": {"message": "bad", "input": json.loads(sent)}})

    async def echo(exchange: Any) -> None:
        await respond(400, complain(exchange.request.body))(exchange)

    full.always(echo)
    body = chat(temperature="hot")
    assert gateway.post(CHAT, body).body == complain(dumps(body))


def test_a_client_that_leaves_is_counted(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    gate = full.gate()
    full.always(engine(BUILD, gate=gate))
    with counting(gateway, SHEDS, model="demo", reason="client_gone"), gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        assert gate.reached.wait(30)
    gate.open()  # not before: the answer could come with the news that the client has left


def test_what_a_client_got_before_it_left_is_handed_over(
    gateway: GatewayProcess, full: ScriptedUpstream, sink: FrameSink
) -> None:
    gate = full.gate()
    full.always(dying_stream(BUILD, after_events=4, gate=gate))
    with (
        counting(gateway, SHEDS, by=0, model="demo", reason="client_gone"),
        gateway.connect() as client,
    ):
        client.send_request(CHAT, dumps(chat(stream=True)), {"x-request-id": "left"})
        got = b""
        while got.count(b"data:") < 2:
            got += client.socket.recv(65536)
        client.close()
        frame = sink.frame_of("left")
    gate.open()
    assert (frame.variant, frame.candidates, frame.partial_for) == ("full", (), ("int8",))
    assert _ids_of(frame)


def test_a_model_without_a_watch_is_not_tapped(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gateway.post(CHAT, chat("unwatched"))
    assert FIELD not in full.wait_for_request().body


@pytest.mark.parametrize("path", ["/v1/responses", "/tokenize", "/v1/embeddings"])
def test_other_routes_are_not_mirrored(
    path: str, gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    assert gateway.post(path, request_for(path)).status == 200
    assert FIELD not in full.wait_for_request().body


def test_an_answer_too_large_to_keep_is_relayed_stripped_and_not_compared(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    choice = {"index": 0, "message": {"content": "x" * 9_000_000}, "token_ids": list(range(99_999))}
    full.always(respond(200, encode({"choices": [choice], "prompt_token_ids": [1, 2]})))
    with counting(gateway, SHEDS, model="demo", reason="too_large"):
        response = gateway.post(CHAT, chat())
    assert response.body == encode(
        {"choices": [{**choice, "token_ids": None}], "prompt_token_ids": None}
    )


# The comparator's end


def test_without_a_comparator_nothing_is_tapped_and_each_is_counted(
    gateway: GatewayProcess, full: ScriptedUpstream, sink: FrameSink
) -> None:
    made = sink.connections
    sink.stop()
    try:
        eventually(lambda: gateway.metric("penumbra_comparator_connected") == 0)
        with counting(gateway, SHEDS, by=3, model="demo", reason="no_comparator"):
            for _ in range(3):
                assert gateway.post(CHAT, chat()).status == 200
        assert not any(FIELD in request.body for request in full.requests)
    finally:
        sink.start()
    sink.wait_for_connection(made + 1)
    eventually(lambda: gateway.metric("penumbra_comparator_connected") == 1)
    gateway.post(CHAT, chat(), {"x-request-id": "back"})
    sink.frame_of("back")


def test_a_comparator_that_hangs_costs_evidence_and_no_answer(
    gateway: GatewayProcess, full: ScriptedUpstream, sink: FrameSink, tmp_path: Path
) -> None:
    prompt = [{"role": "user", "content": "x" * 1_000_000}]
    sink.pause()
    try:
        for _ in range(24):
            assert gateway.post(CHAT, chat(messages=prompt)).status == 200
        assert gateway.metric(SHEDS, model="demo", reason="buffer_full") >= 4
        assert 16_000_000 < gateway.metric("penumbra_mirror_buffer_bytes") < 20_000_000
        full.requests.clear()
        assert gateway.post(CHAT, chat()).status == 200
        assert FIELD not in full.wait_for_request().body
    finally:
        sink.resume()
    eventually(lambda: gateway.metric("penumbra_mirror_buffer_bytes") == 0)
    gateway.post(CHAT, chat(), {"x-request-id": "resumed"})
    sink.frame_of("resumed")


def test_frames_stay_whole_under_many_requests_at_once(
    gateway: GatewayProcess, sink: FrameSink
) -> None:
    ids = [f"many-{number}" for number in range(50)]
    clients = [gateway.connect() for _ in ids]
    for client, request_id in zip(clients, ids, strict=True):
        client.send_request(CHAT, dumps(chat(stream=True)), {"x-request-id": request_id})
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    assert len({_ids_of(sink.frame_of(each)) for each in ids}) == 1


def _ids_of(frame: MirrorFrame) -> tuple[int, ...]:
    found = re.findall(rb'"token_ids":\[([0-9,]*)\]', frame.answer)
    return tuple(itertools.chain.from_iterable(map(int, each.split(b",")) for each in found))
