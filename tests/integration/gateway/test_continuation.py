"""Continuation: a stream whose engine dies goes on, word for word, on the baseline."""

import contextlib
import json
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8, model
from tests.support.behaviours import End, dying_stream, engine, error_event
from tests.support.continued import assert_undisturbed, events_before, stream_body
from tests.support.engine_wire import DONE, TEXT, TOKENS, Engine
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, StreamView
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"idle_seconds": 0.4}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return {"demo": model(full, int8, flag={"split": {"int8": 100}})}


ENDS: list[End] = ["fin", "rst", "end", "hang"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("words", [1, 5, len(TOKENS) - 1, len(TOKENS)])
def test_stream_goes_on_where_it_broke(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, words: int, end: End
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, words), end=end))
    assert_undisturbed(gateway.post(path, stream_body(path)), path)


@pytest.mark.parametrize(
    "cut",
    [1, 6, 20, -40, -3, -2, -1, "in_a_character"],
)
def test_part_of_an_event_never_reaches_the_client(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, cut: int | str
) -> None:
    def part(data: bytes) -> bytes:
        return data[: data.index("Α".encode()) + 1] if isinstance(cut, str) else data[:cut]

    words = TOKENS.index(" Αθήνα")
    after = events_before(path, words)
    int8.always(dying_stream(INT8, after_events=after, partial=part))
    assert_undisturbed(gateway.post(path, stream_body(path)), path)


@pytest.mark.parametrize("end", ENDS)
def test_stream_that_broke_before_its_first_word_goes_on(
    gateway: GatewayProcess, int8: ScriptedUpstream, end: End
) -> None:
    int8.always(dying_stream(INT8, after_events=1, end=end))
    assert_undisturbed(gateway.post(CHAT, stream_body(CHAT)), CHAT)


def test_events_that_came_together_with_a_part_are_not_lost(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    events = INT8.events(path, stream_body(path))
    after = events_before(path, 1)
    together = b"".join(events[after : after + 3]) + events[after + 3][:25]
    int8.always(dying_stream(INT8, after_events=0, partial=b"".join(events[:after]) + together))
    assert_undisturbed(gateway.post(path, stream_body(path)), path)


@pytest.mark.parametrize(
    "error",
    [
        error_event(),
        error_event() + DONE,
        error_event()[:-1] + b"\n\n" + DONE,
        b'data: {"error": {"message": "x"}}\n\n',
        b": ping\n\n" + error_event(),
    ],
    ids=["alone", "with_done", "with_blank_lines", "with_blanks", "after_comment"],
)
@pytest.mark.parametrize("end", ["end", "hang"])
def test_error_event_in_the_middle_counts_as_dying(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, error: bytes, end: End
) -> None:
    after = events_before(path, 4)
    int8.always(dying_stream(INT8, after_events=after, partial=error, end=end))
    assert_undisturbed(gateway.post(path, stream_body(path)), path)


def test_text_that_looks_like_an_error_is_text(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    words = ('data: {"error"', ' "error": {', " data: [DONE]", "\n\ndata: [DONE]\n\n", " end")
    int8.always(engine(Engine("int8", tokens=words)))
    response = gateway.post(CHAT, stream_body(CHAT))
    assert StreamView.of(response).text == "".join(words)
    assert full.requests == []


def test_stream_that_broke_after_its_finish_reason_is_completed(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, len(TOKENS)) + 1))
    assert_undisturbed(gateway.post(path, stream_body(path)), path)
    assert [request for request in full.requests if request.target == path] == []


def test_stream_that_broke_after_a_finish_reason_with_text_is_completed(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, 4)))
    body = stream_body(path, max_tokens=4)
    view = assert_undisturbed(gateway.post(path, body), path, "".join(TOKENS[:4]))
    assert view.finish_reasons == ["length"]


def test_death_is_counted_on_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=4))
    died = {"model": "demo", "outcome": "died"}
    with (
        counting(gateway, "penumbra_upstream_attempts_total", variant="int8", **died),
        counting(gateway, "penumbra_upstream_attempts_total", variant="full", outcome="ok"),
        counting(gateway, "penumbra_failovers_total", from_variant="int8", **died),
        counting(gateway, "penumbra_failovers_total"),
    ):
        gateway.post(path, stream_body(path))


def test_error_event_is_counted_as_a_death(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=4, partial=error_event(), end="end"))
    with counting(gateway, "penumbra_failovers_total", from_variant="int8", outcome="died"):
        gateway.post(path, stream_body(path))


def test_candidate_that_dies_under_many_streams_is_not_seen(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    gate = int8.gate()
    int8.always(dying_stream(INT8, after_events=events_before(path, 5), gate=gate))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(100)]
        for client in clients:
            client.send_request(path, json.dumps(stream_body(path)).encode())
        int8.wait_for_requests(100)
        gate.open()
        responses = [client.read_response() for client in clients]
    views = [assert_undisturbed(response, path) for response in responses]
    assert len({view.objects[0]["id"] for view in views}) == 100


@pytest.mark.parametrize("end", ENDS)
def test_dying_baseline_is_continued_on_the_baseline(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, end: End
) -> None:
    full.next(dying_stream(FULL, after_events=events_before(path, 6), end=end))
    response = gateway.post(path, stream_body(path), {"x-penumbra-variant": "full"})
    view = StreamView.of(response)
    assert response.header("x-penumbra-variant") == "full"
    assert (view.text, view.finish_reasons, view.done_count) == (TEXT, ["stop"], 1)
    assert view.errors == []
    assert len(view.distinct("id")) == 1


CONTINUABLE: dict[str, dict[str, Any]] = {
    "n_1": {"n": 1},
    "n_null": {"n": None},
    "tools_null": {"tools": None},
    "no_tools": {"tools": []},
    "format_null": {"response_format": None},
    "format_text": {"response_format": {"type": "text"}},
    "logprobs_null": {"logprobs": None},
    "stop": {"stop": ["never"]},
    "user": {"user": "u"},
    "min_tokens": {"min_tokens": 8},
    "ignore_eos": {"ignore_eos": False},
}


@pytest.mark.parametrize("more", CONTINUABLE.values(), ids=CONTINUABLE.keys())
def test_stream_goes_on_with(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, more: dict[str, Any]
) -> None:
    int8.always(dying_stream(INT8, after_events=4))
    assert_undisturbed(gateway.post(path, stream_body(path, **more)), path)


@pytest.mark.parametrize("more", [{"logprobs": False}, {"echo": False}])
def test_chat_stream_goes_on_with(
    gateway: GatewayProcess, int8: ScriptedUpstream, more: dict[str, Any]
) -> None:
    int8.always(dying_stream(INT8, after_events=4))
    assert_undisturbed(gateway.post(CHAT, stream_body(CHAT, **more)), CHAT)


def test_message_that_the_client_itself_continues_goes_on_in_one_message(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    begun = [{"role": "user", "content": "Go on ."}, {"role": "assistant", "content": TOKENS[0]}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    int8.always(dying_stream(INT8, after_events=events_before(CHAT, 3)))
    response = gateway.post(CHAT, {**stream_body(CHAT, **more), "messages": begun})
    assert StreamView.of(response).text == "".join(TOKENS[1:])
    asked = json.loads(full.wait_for_request().body)
    assert asked["messages"][-1] == {"role": "assistant", "content": "".join(TOKENS[:4])}


def test_message_in_parts_goes_on(gateway: GatewayProcess, int8: ScriptedUpstream) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "In parts ."}]}]
    int8.always(dying_stream(INT8, after_events=4))
    assert_undisturbed(gateway.post(CHAT, {**stream_body(CHAT), "messages": parts}), CHAT)


def test_events_reach_the_client_before_the_engine_dies(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    gate = int8.gate()
    int8.always(dying_stream(INT8, after_events=events_before(path, 3), gate=gate))
    with gateway.connect() as client:
        client.send_request(path, json.dumps(stream_body(path)).encode())
        client.read_until(f'"{TOKENS[2]}"'.encode())
        assert gate.reached.wait(30)
        gate.open()
        rest = client.read_until(b"data: [DONE]\n\n")
    assert f'"{TOKENS[2]}"'.encode() not in rest
    assert f'"{TOKENS[3]}"'.encode() in rest
