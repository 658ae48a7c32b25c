"""Requests of the tests of continued streams, and the text that their client must see."""

import json
from typing import Any

from tests.support.engine_wire import TEXT
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, StreamView, chat, completion
from tests.support.scripted_connection import RecordedRequest
from tests.support.scripted_upstream import ScriptedUpstream


def stream_body(path: str, **more: Any) -> dict[str, Any]:
    """A streamed request of the route."""
    make = chat if path == CHAT else completion
    return make(stream=True, **more)


def events_before(path: str, words: int) -> int:
    """Number of events that an engine has sent after so many words."""
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
    for name in ("id", "created", "model", "object"):
        assert len(view.distinct(name)) == 1, view.distinct(name)
    assert str(view.objects[0]["id"]).split("-")[1] == "int8"
    if path == CHAT:
        assert view.roles == ["assistant"]
    return view


def continuation_of(full: ScriptedUpstream, path: str) -> RecordedRequest:
    """The request by which the baseline was asked to go on; those that count tokens are others."""
    (request,) = (request for request in full.requests if request.target == path)
    return request


def body_of_continuation(full: ScriptedUpstream, path: str) -> dict[str, Any]:
    """The body of that request."""
    body: dict[str, Any] = json.loads(continuation_of(full, path).body)
    return body
