"""Shadow answers: the other arm answers the same request in the same way, for the harm checks.

Nothing in the answer is executed: a tool call in it is text that is checked and thrown away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import msgspec

from penumbra.monitoring.signals.answer import CHAT_PATH, Answer
from penumbra.monitoring.signals.by_route import read_answer
from penumbra.monitoring.signals.responses_api import RESPONSES_PATH
from penumbra.router import sse
from penumbra.router.shadow.decode import ask_for_decoding
from penumbra.router.shadow.score_result import TIMEOUT
from penumbra.router.upstream.calls import UpstreamError, fetch
from penumbra.router.upstream.port import Upstream, UpstreamRequest

SHADOW_HEADER = b"x-penumbra-shadow"
"""Header that marks a request as a shadow one in the engine's logs."""

_HEADERS = b"content-type: application/json\r\naccept: application/json\r\n"
_OK = 200
_ANSWER_BYTES = 16 * 1024 * 1024
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_HARMLESS_TOOLS = ("function", "custom", "namespace", None)
"""Types of tools whose calls are text for the client, and run by no engine."""
_MARGIN_TOKENS = 64
_REFUSED = "status_4"
_NOT_NOW = ("status_408", "status_429")
"""Refusals of the moment, which say nothing of the request."""


class Unanswerable(ValueError):
    """The request's body is no JSON object, or no text."""

    code = "unanswerable"


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The result of asking one build for a shadow answer."""

    seconds: float
    answer: Answer | None = None
    problem: str | None = None
    """Why there is no answer: an `Outcome`, a status or `unreadable`; None if there is one."""
    first_seconds: float | None = None
    """Time to the first data of a stream; None if the answer is none."""

    @property
    def is_refusal(self) -> bool:
        """Whether the engine refused the request."""
        problem = self.problem or ""
        return problem.startswith(_REFUSED) and problem not in _NOT_NOW


def read_body(body: bytes) -> dict[str, Any]:
    """Decode a request's body.

    Raises:
        Unanswerable: It is no JSON object.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unanswerable("the body is no JSON object") from error


def cut_body(path: str, body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Copy a request's body with no more tokens allowed than its client waited for."""
    limits = [name for name in _LIMITS if isinstance(body.get(name), int)] or [
        "max_output_tokens" if path == RESPONSES_PATH else "max_tokens"
    ]
    return {**body, **{name: min(body.get(name, tokens), tokens) for name in limits}}


def shadow_request(
    path: str,
    body: dict[str, Any],
    request_id: str,
    baseline_tokens: int,
    most_tokens: int,
    *,
    is_stream: bool,
) -> UpstreamRequest:
    """Make the same request again: bounded and marked as a shadow one.

    Args:
        path: Path of the client's request.
        body: Its body; not changed.
        request_id: Its id.
        baseline_tokens: Length of the answer that the client got.
        most_tokens: Limit where the request sets none: this, or twice the client's answer plus 64
            if that is more. An answer that reaches it has drifted in length, and counts as cut.
        is_stream: Whether the client's answer was a stream: an engine's parsers may say one thing
            in a stream and another in a whole answer, so like is compared with like.
    """
    asked = {name: value for name, value in body.items() if name != "stream_options"}
    asked["stream"] = is_stream
    limits = [name for name in _LIMITS if isinstance(asked.get(name), int)]
    most = max(most_tokens, 2 * baseline_tokens + _MARGIN_TOKENS)
    for name in limits:
        asked[name] = min(asked[name], most)
    if not limits and path == CHAT_PATH:
        # The completions API has a limit of its own, and a small one.
        asked["max_tokens"] = most
    if path == RESPONSES_PATH:
        asked["store"] = False
        if not limits:
            asked["max_output_tokens"] = most
    marks = b"%b: 1\r\nx-request-id: shadow-%b\r\n" % (SHADOW_HEADER, request_id.encode("latin-1"))
    return UpstreamRequest(path.encode("latin-1"), _HEADERS + marks, msgspec.json.encode(asked))


def with_decoding(request: UpstreamRequest) -> UpstreamRequest:
    """Make the shadow request that also asks for the decoding's log-probabilities."""
    body = msgspec.json.decode(request.body, type=dict[str, Any])
    asked = ask_for_decoding(request.path.decode("latin-1"), body)
    return UpstreamRequest(request.path, request.headers, msgspec.json.encode(asked))


def is_repeatable(body: dict[str, Any]) -> bool:
    """Whether a request may be answered again: no engine runs a tool of its own for it."""
    tools = body.get("tools")
    return not isinstance(tools, list) or all(
        isinstance(tool, dict) and tool.get("type") in _HARMLESS_TOOLS for tool in tools
    )


class Generator:
    """Gets shadow answers.

    Args:
        deadline_seconds: Deadline of one answer.
        now: Monotonic clock.
    """

    def __init__(self, deadline_seconds: float, now: Callable[[], float]) -> None:
        self.deadline_seconds = deadline_seconds
        self._now = now
        self._without_decoding: WeakSet[Upstream] = WeakSet()

    async def answer(
        self, upstream: Upstream, request: UpstreamRequest, *, is_decode_wanted: bool = False
    ) -> GenerationResult:
        """Get one answer within the deadline; never raises, and never tries twice.

        Args:
            upstream: The build that answers.
            request: The shadow request.
            is_decode_wanted: Whether the decoding's log-probabilities are asked for as well. An
                engine that answers that with an error is asked without, and from then on at once
                if it answers so.
        """
        if not is_decode_wanted or upstream in self._without_decoding:
            return await self._answer(upstream, request)
        result = await self._answer(upstream, with_decoding(request))
        if not (result.problem or "").startswith("status_"):
            return result
        plain = await self._answer(upstream, request)
        if plain.problem is None:  # else something else is at fault
            self._without_decoding.add(upstream)
        return plain

    async def _answer(self, upstream: Upstream, request: UpstreamRequest) -> GenerationResult:
        began = self._now()
        arrivals: list[float] = []
        try:
            async with asyncio.timeout(self.deadline_seconds):
                raw = await fetch(
                    upstream,
                    request,
                    timeout_seconds=2 * self.deadline_seconds,
                    limit_bytes=_ANSWER_BYTES,
                    on_data=lambda: arrivals.append(self._now()),
                )
        except TimeoutError:
            return GenerationResult(self._now() - began, problem=TIMEOUT)
        except UpstreamError as error:
            return GenerationResult(self._now() - began, problem=error.outcome.value)
        seconds = self._now() - began
        if raw.status != _OK:
            return GenerationResult(seconds, problem=f"status_{raw.status}")
        is_stream = sse.is_named_by(raw.headers)
        answer = read_answer(request.path.decode("latin-1"), is_stream=is_stream, raw=raw.body)
        if answer is None:
            return GenerationResult(seconds, problem="unreadable")
        first_seconds = arrivals[0] - began if is_stream and arrivals else None
        return GenerationResult(seconds, answer, first_seconds=first_seconds)
