import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router import sse


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 0),
        (b"data: 1", 0),
        (b"data: 1\n", 0),
        (b"\n\n", 2),
        (b"data: 1\n\n", 9),
        (b"data: 1\n\ndata: 2", 9),
        (b"data: 1\r\n\r\nda", 11),
        (b"data: 1\r\n\r\ndata: 2\n\nd", 20),
    ],
)
def test_complete_length_ends_after_the_last_whole_event(data: bytes, length: int) -> None:
    assert sse.complete_length(data) == length


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_payloads_reads_back_what_was_written(values: list[str]) -> None:
    encoded = [json.dumps({"v": value}).encode() for value in values]
    stream = b"".join(b"data: " + item + b"\n\n" for item in encoded)
    assert list(sse.payloads(stream)) == encoded


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_never_taken_for_an_error_event(text: str) -> None:
    for content in (text, "error", f'data: {{"error"{text}', f'"error": {text}'):
        event = {"choices": [{"delta": {"content": content}}]}
        for ascii_only in (True, False):
            encoded = json.dumps(event, ensure_ascii=ascii_only).encode()
            assert not sse.has_error_event(b"data: " + encoded + b"\n\n")


@pytest.mark.parametrize(
    "event",
    [b'{"error": {"message": "x"}}', b'{ "error":{}, "x": 1, "error": "y"}', b'{"object":"error"}'],
)
def test_an_error_event_is_seen_among_others(event: bytes) -> None:
    assert sse.has_error_event(b"data: {}\n\ndata:" + event + b"\n\ndata: {}\n\n")


def test_payloads_leaves_out_comments_and_joins_lines() -> None:
    assert list(sse.payloads(b": ping\n\nevent: x\ndata: a\ndata: b\n\n")) == [b"a\nb"]


@pytest.mark.parametrize(
    ("data", "sound"),
    [
        (b"data: {}", None),
        (b": ping\n\n", None),
        (b"data: {}\n\n", True),
        (b"data: [DONE]\n\n", False),
        (b'event: response.created\ndata: {"response": {"error": null}}\n\n', True),
        (b'data: {"error": null}\n\n', True),
        (b'data: {"object": "error"}\n\n', False),
        (b'data: {"error": {"message": "x"}}\n\n', False),
        (b"data: []\n\n", False),
        (b"data: {\n\n", False),
        (b"data: \xff\n\n", False),
    ],
)
def test_first_event_is_sound(data: bytes, sound: bool | None) -> None:
    assert sse.first_event_is_sound(data) is sound


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"message": "x"}}', True),
        (b'{"object": "error", "message": "x"}', True),
        (b'{"detail": "Not Found"}', False),
        (b"<html>503</html>", False),
        (b"", False),
        (b"[]", False),
        (b'{"error": "x"}', False),
    ],
)
def test_is_engine_error_tells_engines_from_proxies(body: bytes, expected: bool) -> None:
    assert sse.is_engine_error(body) is expected
