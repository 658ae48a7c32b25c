"""A stream whose engine dies in the middle goes on, word for word, on the baseline."""

import json
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8, model
from tests.support.behaviours import End, dying_stream, engine, error_event
from tests.support.engine_wire import DONE, TEXT, TOKENS, Engine, prompt_tokens
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, COMPLETIONS, StreamView, chat, completion
from tests.support.scripted_upstream import ScriptedUpstream

ROUTES = [CHAT, COMPLETIONS]


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"idle_seconds": 0.4}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return {"demo": model(full, int8, flag={"split": {"int8": 100}})}


@pytest.fixture(params=ROUTES)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def body_for(path: str, **more: Any) -> dict[str, Any]:
    make = chat if path == CHAT else completion
    return make(stream=True, **more)


def events_before(path: str, words: int) -> int:
    """How many events an engine has sent when it has said so many words."""
    return words + (path == CHAT)


def assert_undisturbed(response: RawResponse, path: str, text: str = TEXT) -> StreamView:
    """The client sees one stream of one engine, from its first word to `[DONE]`."""
    assert response.header("x-penumbra-variant") == "int8"
    assert response.header("x-penumbra-failover") is None
    view = StreamView.of(response)
    assert view.errors == []
    assert view.text == text
    assert len(view.finish_reasons) == 1
    assert (view.done_count, view.payloads[-1]) == (1, b"[DONE]")
    assert view.choices[-1]["finish_reason"]
    for name in ("id", "created", "model", "object"):
        assert len(view.distinct(name)) == 1, view.distinct(name)
    assert str(view.objects[0]["id"]).split("-")[1] == "int8"
    if path == CHAT:
        assert view.roles == ["assistant"]
    return view


ENDS: list[End] = ["fin", "rst", "end", "hang"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("words", [0, 1, 5, len(TOKENS) - 1, len(TOKENS)])
def test_stream_goes_on_where_it_broke(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, words: int, end: End
) -> None:
    if words == 0 and path == COMPLETIONS:
        pytest.skip("before the first event another attempt answers, see test_failover")
    int8.always(dying_stream(INT8, after_events=events_before(path, words), end=end))
    assert_undisturbed(gateway.post(path, body_for(path)), path)


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
    assert_undisturbed(gateway.post(path, body_for(path)), path)


def test_events_that_came_together_with_a_part_are_not_lost(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    events = INT8.events(path, body_for(path))
    after = events_before(path, 1)
    together = b"".join(events[after : after + 3]) + events[after + 3][:25]
    int8.always(dying_stream(INT8, after_events=0, partial=b"".join(events[:after]) + together))
    assert_undisturbed(gateway.post(path, body_for(path)), path)


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
    assert_undisturbed(gateway.post(path, body_for(path)), path)


def test_text_that_looks_like_an_error_is_text(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    words = ('data: {"error"', ' "error": {', " data: [DONE]", "\n\ndata: [DONE]\n\n", " end")
    int8.always(engine(Engine("int8", tokens=words)))
    response = gateway.post(CHAT, body_for(CHAT))
    assert StreamView.of(response).text == "".join(words)
    assert full.requests == []


@pytest.mark.parametrize("words", [1, 5])
def test_chat_continuation_asks_for_the_rest_of_the_message(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, words: int
) -> None:
    body = body_for(CHAT, seed=12345678901234567890, temperature=0.1, x_vendor={"é": [1.5, None]})
    int8.always(dying_stream(INT8, after_events=events_before(CHAT, words)))
    gateway.post(CHAT, body)
    request = full.wait_for_request()
    sent = "".join(TOKENS[:words])
    asked = json.loads(request.body)
    assert request.target == CHAT
    assert asked.pop("messages") == [*body.pop("messages"), {"role": "assistant", "content": sent}]
    assert (asked.pop("continue_final_message"), asked.pop("add_generation_prompt")) == (
        True,
        False,
    )
    assert without_usage(asked) == body


@pytest.mark.parametrize("words", [1, 5])
def test_completion_continuation_asks_for_the_rest_of_the_text(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, words: int
) -> None:
    body = body_for(COMPLETIONS, seed=12345678901234567890, stop=["X"], x_vendor={"é": [1.5, None]})
    int8.always(dying_stream(INT8, after_events=words))
    gateway.post(COMPLETIONS, body)
    request = full.wait_for_request()
    asked = json.loads(request.body)
    assert request.target == COMPLETIONS
    assert asked.pop("prompt") == body.pop("prompt") + "".join(TOKENS[:words])
    assert without_usage(asked) == body


def without_usage(asked: dict[str, Any]) -> dict[str, Any]:
    """The request without what the gateway may ask for to count tokens."""
    asked.pop("stream_options", None)
    return asked


def test_continuation_keeps_the_request_id(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=3))
    gateway.post(path, body_for(path), {"x-request-id": "mine", "authorization": "Bearer secret"})
    request = full.wait_for_request()
    assert request.header("x-request-id") == "mine"
    assert request.header("authorization") is None


@pytest.mark.parametrize("names", [["max_tokens"], ["max_completion_tokens"]])
@pytest.mark.parametrize("limit", [6, 9, 100])
def test_token_limit_holds_for_both_halves_together(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    path: str,
    names: list[str],
    limit: int,
) -> None:
    if path == COMPLETIONS and names != ["max_tokens"]:
        pytest.skip("completions know max_tokens only")
    body = body_for(path, **dict.fromkeys(names, limit))
    int8.always(dying_stream(INT8, after_events=events_before(path, 5)))
    view = assert_undisturbed(gateway.post(path, body), path, "".join(TOKENS[:limit]))
    assert view.finish_reasons == ["length" if limit < len(TOKENS) else "stop"]
    asked = json.loads(full.wait_for_request().body)
    assert [asked[name] for name in names] == [limit - 5]


def test_both_token_limits_are_reduced(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(CHAT, 5)))
    gateway.post(CHAT, body_for(CHAT, max_tokens=50, max_completion_tokens=40))
    asked = json.loads(full.wait_for_request().body)
    assert (asked["max_tokens"], asked["max_completion_tokens"]) == (45, 35)


def test_words_without_text_count_against_the_limit(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    # A byte-level tokenizer: the first half of a character makes an event without text.
    halves = Engine("int8", tokens=("Zürich", "", " lies", "", " at", " the"))
    int8.always(dying_stream(halves, after_events=events_before(CHAT, 5)))
    gateway.post(CHAT, body_for(CHAT, max_tokens=50))
    assert json.loads(full.wait_for_request().body)["max_tokens"] == 45


def test_stream_that_used_up_its_limit_is_ended_not_continued(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, 5)))
    view = assert_undisturbed(
        gateway.post(path, body_for(path, max_tokens=5)), path, "".join(TOKENS[:5])
    )
    assert view.finish_reasons == ["length"]
    assert [request for request in full.requests if request.target == path] == []


@pytest.mark.parametrize("words", [1, 7])
def test_usage_counts_both_halves_once(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, words: int
) -> None:
    body = body_for(path, stream_options={"include_usage": True})
    int8.always(dying_stream(INT8, after_events=events_before(path, words)))
    view = StreamView.of(gateway.post(path, body))
    asked, made = prompt_tokens(body), len(TOKENS) + 1
    assert [dict(usage) for usage in view.usages] == [
        {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}
    ]
    assert view.objects[-1]["choices"] == []
    assert view.text == TEXT


@pytest.mark.parametrize(
    "options", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}]
)
def test_usage_that_was_not_asked_for_is_not_sent(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, options: dict[str, Any]
) -> None:
    int8.always(dying_stream(INT8, after_events=4))
    assert StreamView.of(gateway.post(path, body_for(path, **options))).usages == []


def test_stream_that_broke_after_its_finish_reason_is_completed(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, len(TOKENS)) + 1))
    assert_undisturbed(gateway.post(path, body_for(path)), path)
    assert [request for request in full.requests if request.target == path] == []


def test_stream_that_broke_after_a_finish_reason_with_text_is_completed(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, 4)))
    body = body_for(path, max_tokens=4)
    view = assert_undisturbed(gateway.post(path, body), path, "".join(TOKENS[:4]))
    assert view.finish_reasons == ["length"]


def test_stream_that_broke_after_its_finish_reason_still_gets_usage(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    body = body_for(path, stream_options={"include_usage": True})
    int8.always(dying_stream(INT8, after_events=events_before(path, len(TOKENS)) + 1))
    (usage,) = assert_undisturbed_usage(gateway.post(path, body))
    assert usage["prompt_tokens"] == prompt_tokens(body)
    # The engine counts the end token as well; that one cannot be seen in the stream.
    assert usage["completion_tokens"] in (len(TOKENS), len(TOKENS) + 1)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def assert_undisturbed_usage(response: RawResponse) -> list[dict[str, Any]]:
    view = StreamView.of(response)
    assert (view.text, view.finish_reasons, view.done_count) == (TEXT, ["stop"], 1)
    return view.usages


def test_stream_that_broke_after_usage_only_gets_its_end(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    body = body_for(path, stream_options={"include_usage": True})
    after = events_before(path, len(TOKENS)) + 2
    int8.always(dying_stream(INT8, after_events=after))
    assert len(assert_undisturbed_usage(gateway.post(path, body))) == 1


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
        gateway.post(path, body_for(path))


def test_error_event_is_counted_as_a_death(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=4, partial=error_event(), end="end"))
    with counting(gateway, "penumbra_failovers_total", from_variant="int8", outcome="died"):
        gateway.post(path, body_for(path))


@pytest.mark.parametrize("end", ENDS)
def test_dying_baseline_is_continued_on_the_baseline(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, end: End
) -> None:
    full.next(dying_stream(FULL, after_events=events_before(path, 6), end=end))
    response = gateway.post(path, body_for(path), {"x-penumbra-variant": "full"})
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
    assert_undisturbed(gateway.post(path, body_for(path, **more)), path)


@pytest.mark.parametrize("more", [{"logprobs": False}, {"echo": False}])
def test_chat_stream_goes_on_with(
    gateway: GatewayProcess, int8: ScriptedUpstream, more: dict[str, Any]
) -> None:
    int8.always(dying_stream(INT8, after_events=4))
    assert_undisturbed(gateway.post(CHAT, body_for(CHAT, **more)), CHAT)


def test_message_that_the_client_itself_continues_goes_on_in_one_message(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    begun = [{"role": "user", "content": "Go on ."}, {"role": "assistant", "content": TOKENS[0]}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    int8.always(dying_stream(INT8, after_events=events_before(CHAT, 3)))
    response = gateway.post(CHAT, {**body_for(CHAT, **more), "messages": begun})
    assert StreamView.of(response).text == "".join(TOKENS[1:])
    asked = json.loads(full.wait_for_request().body)
    assert asked["messages"][-1] == {"role": "assistant", "content": "".join(TOKENS[:4])}


def test_message_in_parts_goes_on(gateway: GatewayProcess, int8: ScriptedUpstream) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "In parts ."}]}]
    int8.always(dying_stream(INT8, after_events=4))
    assert_undisturbed(gateway.post(CHAT, {**body_for(CHAT), "messages": parts}), CHAT)


def test_events_reach_the_client_before_the_engine_dies(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    gate = int8.gate()
    int8.always(dying_stream(INT8, after_events=events_before(path, 3), gate=gate))
    with gateway.connect() as client:
        client.send_request(path, json.dumps(body_for(path)).encode())
        client.read_until(f'"{TOKENS[2]}"'.encode())
        assert gate.reached.wait(5)
        gate.open()
        rest = client.read_until(b"data: [DONE]\n\n")
    assert f'"{TOKENS[2]}"'.encode() not in rest
    assert f'"{TOKENS[3]}"'.encode() in rest
