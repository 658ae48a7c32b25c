"""Streams that are larger than every buffer between an engine and a client that does not read."""

import time

from tests.support.engine_wire import event
from tests.support.scripted_upstream import ScriptedUpstream

MEGABYTE = 1024 * 1024
PIECE = event({"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]})


def wait_until_steady(upstream: ScriptedUpstream) -> None:
    """Wait until the engine is held up, or at least slow. Polls: a standstill has no event."""
    request = upstream.wait_for_request()
    while True:
        before = request.sent_bytes
        time.sleep(0.3)
        if before and request.sent_bytes == before:
            return
