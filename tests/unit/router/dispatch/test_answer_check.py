"""Answers of a candidate, and what is none."""

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.answer_check import (
    SCAN_BYTES,
    AnswerKind,
    body_fault,
    is_proper,
    whole_fault,
)

WHOLE, STREAM = AnswerKind(is_stream=False), AnswerKind(is_stream=True)
GOOD = b'{"id":"c-1","choices":[]}'


@pytest.mark.parametrize("body", [GOOD, b'{"error":null,"id":1}', b' {"error":{}}\n', b"{}"])
def test_an_object_without_an_error_is_an_answer(body: bytes) -> None:
    assert whole_fault(200, body, WHOLE, is_event_stream=False) is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Outcome.GARBAGE),
        (b"null", Outcome.GARBAGE),
        (b"[]", Outcome.GARBAGE),
        (b'"text"', Outcome.GARBAGE),
        (b"<html>back in a minute</html>", Outcome.GARBAGE),
        (b"\x00\xff\x00", Outcome.GARBAGE),
        (b'{"id":"c-1","choices":[{"ind', Outcome.GARBAGE),
        (b'{"choices":[{"message":{"content":"x"}', Outcome.GARBAGE),
        (b'{"id":1}{"id":2}', Outcome.GARBAGE),
        (b'{"error":{"message":"engine failed"}}', Outcome.SERVER_ERROR),
        (b'{"error":"engine failed"}', Outcome.SERVER_ERROR),
        (b'{"object":"error","message":"no"}', Outcome.SERVER_ERROR),
    ],
)
def test_anything_else_under_status_200_is_not(body: bytes, fault: Outcome) -> None:
    assert whole_fault(200, body, WHOLE, is_event_stream=False) is fault


@pytest.mark.parametrize("status", [204, 205, 301, 304, 307])
def test_a_status_without_an_answer_is_none(status: int) -> None:
    assert whole_fault(status, GOOD, WHOLE, is_event_stream=False) is Outcome.GARBAGE
    assert not is_proper(status, GOOD, WHOLE)


def test_a_whole_answer_to_a_request_for_a_stream_is_none() -> None:
    assert whole_fault(200, GOOD, STREAM, is_event_stream=False) is Outcome.GARBAGE


def test_a_large_body_is_looked_at_by_its_ends() -> None:
    filler = b'{"text":"' + b"x" * SCAN_BYTES
    assert body_fault(filler + b'"}\n') is None
    assert body_fault(filler) is Outcome.GARBAGE


def test_bytes_that_need_not_be_json_must_be_there() -> None:
    kind = AnswerKind(is_json=False)
    assert whole_fault(200, b"ID3", kind, is_event_stream=False) is None
    assert whole_fault(200, b"", kind, is_event_stream=False) is Outcome.GARBAGE
