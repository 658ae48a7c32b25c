"""Lacks of a build are read from its refusals and remembered for a while."""

import json
from typing import Any

import pytest

from penumbra.router.dispatch.capabilities import (
    FIRST_SECONDS,
    LONGEST_SECONDS,
    MOST_LACKS,
    Capabilities,
    Lack,
    read_lack,
)

CHAT = b"/v1/chat/completions"
CONTEXT = (
    "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens"
    " (10 in the messages, 2990 in the completion)."
)


def error(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": "BadRequestError", **more}}).encode()


def test_a_missing_route_is_one_without_an_error_of_the_engine() -> None:
    assert read_lack(b"/rerank?x=1", 404, b'{"detail":"Not Found"}') == Lack("route", "/rerank")
    assert read_lack(CHAT, 501, b"<html>") == Lack("route", CHAT.decode())
    assert read_lack(CHAT, 404, error("The model `demo` does not exist.")) is None


def test_a_short_context_is_read_with_its_length() -> None:
    assert read_lack(CHAT, 400, error(CONTEXT)) == Lack("context", tokens=2048)
    coded = error("too long", code="context_length_exceeded")
    assert read_lack(CHAT, 400, coded) == Lack("context")


def test_a_refused_parameter_is_read_with_its_name() -> None:
    told = error("logit_bias is not supported by this build", param="logit_bias")
    assert read_lack(CHAT, 400, told) == Lack("parameter", "logit_bias")
    detail = {"detail": [{"loc": ["body", "min_p"], "type": "extra_forbidden", "msg": "no"}]}
    assert read_lack(CHAT, 422, json.dumps(detail).encode()) == Lack("parameter", "min_p")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, error("wrong key")),
        (429, error("too many requests")),
        (400, error("no chat template is set")),
        (400, error("messages are not supported", param="messages")),
        (400, b"<html>"),
        (400, b'{"error": 5}'),
    ],
)
def test_other_refusals_name_no_lack(status: int, body: bytes) -> None:
    assert read_lack(CHAT, status, body) is None


def test_a_lack_holds_for_requests_like_it_and_is_forgotten_in_time() -> None:
    known = Capabilities()
    known.note(Lack("route", "/rerank"), 0.0)
    known.note(Lack("parameter", "min_p"), 0.0)
    known.note(Lack("context", tokens=100), 0.0)
    assert known.lacks(b"/rerank?x", b"{}", None, 1.0)
    assert known.lacks(CHAT, b'{"min_p":0.1}', None, 1.0)
    assert known.lacks(CHAT, b"{}", 101, 1.0)
    assert known.lacks(CHAT, b"x" * 808, None, 1.0)
    assert not known.lacks(CHAT, b"x" * 400, 50, 1.0)
    assert not known.lacks(b"/rerank", b'{"min_p":0.1}', 101, FIRST_SECONDS)


def test_a_lack_that_is_proven_again_is_believed_longer() -> None:
    known, now = Capabilities(), 0.0
    for seconds in (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, LONGEST_SECONDS, LONGEST_SECONDS):
        known.note(Lack("route", "/rerank"), now)
        assert known.lacks(b"/rerank", b"", None, now + seconds - 0.1)
        now += seconds
        assert not known.lacks(b"/rerank", b"", None, now)


def test_the_memory_is_bounded() -> None:
    known = Capabilities()
    for number in range(MOST_LACKS + 10):
        known.note(Lack("parameter", f"p{number}"), 0.0)
    assert not known.lacks(CHAT, f'{{"p{MOST_LACKS}":1}}'.encode(), None, 1.0)
