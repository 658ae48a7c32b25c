"""Reads the requests and answers of every route that is compared, by its path. Pure."""

from typing import Any

import msgspec

from penumbra.monitoring.signals import answer as completions_api
from penumbra.monitoring.signals import expectations as completions_requests
from penumbra.monitoring.signals import messages_api, responses_api
from penumbra.monitoring.signals.answer import Answer, payloads
from penumbra.monitoring.signals.expectations import Expectations
from penumbra.monitoring.signals.messages_api import MESSAGES_PATH
from penumbra.monitoring.signals.responses_api import RESPONSES_PATH


def read_answer(path: str, is_stream: bool, raw: bytes) -> Answer | None:
    """Read the whole body of an engine's answer.

    Args:
        path: Path of the request.
        is_stream: Whether it is server-sent events.
        raw: The body.

    Returns:
        The answer; None if there is none in it, or the path is none of those that are compared.
    """
    if path == RESPONSES_PATH:
        if is_stream:
            return responses_api.read_stream(payloads(raw))
        return responses_api.read_whole(raw)
    if path == MESSAGES_PATH:
        return (
            messages_api.read_stream(payloads(raw)) if is_stream else messages_api.read_whole(raw)
        )
    return completions_api.read_answer(path, is_stream, raw)


def expectations(path: str, body: bytes) -> Expectations:
    """Read a request.

    Args:
        path: Its path.
        body: What the client sent. What cannot be read in it is not expected; nothing raises.
    """
    if path not in (RESPONSES_PATH, MESSAGES_PATH):
        return completions_requests.expectations(path, body)
    try:
        wanted: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Expectations()
    if not isinstance(wanted, dict):
        return Expectations()
    if path == RESPONSES_PATH:
        return responses_api.response_expectations(wanted)
    return messages_api.message_expectations(wanted)
