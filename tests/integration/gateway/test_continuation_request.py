"""The request that continues a stream on the baseline, and the tokens that are counted."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import INT8, model
from tests.support.behaviours import dying_stream
from tests.support.continued import (
    assert_undisturbed,
    body_of_continuation,
    continuation_of,
    events_before,
    stream_body,
)
from tests.support.engine_wire import TEXT, TOKENS, Engine, prompt_tokens
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, COMPLETIONS, StreamView
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"idle_seconds": 0.4}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return {"demo": model(full, int8, flag={"split": {"int8": 100}})}


@pytest.mark.parametrize("words", [1, 5])
def test_chat_continuation_asks_for_the_rest_of_the_message(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, words: int
) -> None:
    body = stream_body(CHAT, seed=12345678901234567890, temperature=0.1, x_new={"é": [1.5, None]})
    int8.always(dying_stream(INT8, after_events=events_before(CHAT, words)))
    gateway.post(CHAT, body)
    sent = "".join(TOKENS[:words])
    asked = body_of_continuation(full, CHAT)
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
    body = stream_body(COMPLETIONS, seed=12345678901234567890, stop=["X"], x_new={"é": [1.5, None]})
    int8.always(dying_stream(INT8, after_events=words))
    gateway.post(COMPLETIONS, body)
    asked = body_of_continuation(full, COMPLETIONS)
    assert asked.pop("prompt") == body.pop("prompt") + "".join(TOKENS[:words])
    assert asked.pop("max_tokens") == 16 - words
    assert without_usage(asked) == body


def without_usage(asked: dict[str, Any]) -> dict[str, Any]:
    """The request without the fields that the gateway may add to count tokens."""
    asked.pop("stream_options", None)
    return asked


def test_continuation_keeps_the_request_id(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=3))
    gateway.post(
        path, stream_body(path), {"x-request-id": "mine", "authorization": "Bearer secret"}
    )
    request = continuation_of(full, path)
    assert request.header("x-request-id") == "mine"
    assert request.header("authorization") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [(CHAT, "max_tokens"), (CHAT, "max_completion_tokens"), (COMPLETIONS, "max_tokens")],
)
@pytest.mark.parametrize("limit", [6, 9, 100])
def test_token_limit_holds_for_both_halves_together(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    path: str,
    name: str,
    limit: int,
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, 5)))
    response = gateway.post(path, stream_body(path, **{name: limit}))
    view = assert_undisturbed(response, path, "".join(TOKENS[:limit]))
    assert view.finish_reasons == ["length" if limit < len(TOKENS) else "stop"]
    assert body_of_continuation(full, path)[name] == limit - 5


def test_both_token_limits_are_reduced(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(CHAT, 5)))
    gateway.post(CHAT, stream_body(CHAT, max_tokens=50, max_completion_tokens=40))
    asked = body_of_continuation(full, CHAT)
    assert (asked["max_tokens"], asked["max_completion_tokens"]) == (45, 35)


def test_words_without_text_count_against_the_limit(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    # A byte-level tokenizer: the first half of a character makes an event without text.
    halves = Engine("int8", tokens=("Zürich", "", " lies", "", " at", " the"))
    int8.always(dying_stream(halves, after_events=events_before(CHAT, 5)))
    gateway.post(CHAT, stream_body(CHAT, max_tokens=50))
    assert body_of_continuation(full, CHAT)["max_tokens"] == 45


def test_stream_that_used_up_its_limit_is_ended_not_continued(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, 5)))
    view = assert_undisturbed(
        gateway.post(path, stream_body(path, max_tokens=5)), path, "".join(TOKENS[:5])
    )
    assert view.finish_reasons == ["length"]
    assert [request for request in full.requests if request.target == path] == []


@pytest.mark.parametrize("words", [1, 7])
def test_usage_counts_both_halves_once(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, words: int
) -> None:
    body = stream_body(path, stream_options={"include_usage": True})
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
    assert StreamView.of(gateway.post(path, stream_body(path, **options))).usages == []


def test_stream_that_broke_after_its_finish_reason_still_gets_usage(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    body = stream_body(path, stream_options={"include_usage": True})
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
    body = stream_body(path, stream_options={"include_usage": True})
    after = events_before(path, len(TOKENS)) + 2
    int8.always(dying_stream(INT8, after_events=after))
    assert len(assert_undisturbed_usage(gateway.post(path, body))) == 1
