"""The end of a stream: what its last events say about how complete the answer is. Pure.

A stream that has said how its answer ended is complete, also if its `[DONE]` is missing: nothing of
the answer is lost with it.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any

from penumbra.router import sse


class StreamEnd(Enum):
    """State of a stream's answer when its last event has come."""

    MARKED = "marked"
    """The stream has the last event of its API, or its API has none that is known here."""
    FINISHED = "finished"
    """The answer is complete, and the mark of the stream's end is missing."""
    FAILED = "failed"
    """The engine says that the answer failed."""
    OPEN = "open"
    """The answer is not complete."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the answer is missing."""
        return self in (StreamEnd.MARKED, StreamEnd.FINISHED)


_MARKS = {
    "response.completed": StreamEnd.MARKED,
    "response.incomplete": StreamEnd.MARKED,
    "response.failed": StreamEnd.FAILED,
    "message_stop": StreamEnd.MARKED,
}
"""Types of the events that end a stream of `/v1/responses` and `/v1/messages`."""
_ROUTES = (b"/chat/completions", b"/completions", b"/responses", b"/messages")
"""Ends of the paths whose streams have a known last event."""


def end_of(path: bytes, events: bytes) -> StreamEnd:
    """Read how complete the answer of a stream is.

    It is finished if every choice that the events mention has its finish reason, or if they report
    the whole answer's usage.

    Args:
        path: The route, query and all.
        events: The end of the stream, as much of it as is kept; its first event may be cut.
    """
    is_counted = False
    is_finished: dict[object, bool] = {}
    for payload in sse.payloads(events):
        if payload == b"[DONE]":
            return StreamEnd.MARKED
        event = sse.read_object(payload)
        if event is None:
            continue
        if sse.is_error(event):
            return StreamEnd.FAILED
        mark = event.get("type")
        if isinstance(mark, str) and mark in _MARKS:
            return _MARKS[mark]
        choices = event.get("choices")
        is_counted = is_counted or (choices == [] and isinstance(event.get("usage"), dict))
        for index, has_reason in _ends(choices):
            is_finished[index] = has_reason or is_finished.get(index, False)
    if all(is_finished.values()) and (is_counted or is_finished):
        return StreamEnd.FINISHED
    is_known = path.partition(b"?")[0].rstrip(b"/").endswith(_ROUTES)
    return StreamEnd.OPEN if is_known or is_finished else StreamEnd.MARKED


def _ends(choices: Any) -> Iterable[tuple[object, bool]]:
    """Yield the index of each choice and whether it has its finish reason."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            reason, index = choice.get("finish_reason"), choice.get("index")
            is_index = isinstance(index, int)
            yield (index if is_index else None), isinstance(reason, str) and bool(reason)
