"""Calls to a variant off the byte path: score, health, and whole answers.

`fetch` turns the push port into an awaitable answer. `UpstreamCalls` builds two of the port's
four methods on the fourth, in vLLM's dialect of the OpenAI API, so every implementation shares
them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream import scoring_wire
from penumbra.router.upstream.port import (
    Headers,
    Receiver,
    Scores,
    Stream,
    Upstream,
    UpstreamRequest,
)

SCORE_SECONDS = 120.0
"""A score is given up after this, whatever its caller's deadline."""

_JSON_HEADERS = b"content-type: application/json\r\naccept: application/json\r\n"
_OK = 200
_SERVER_ERROR = 500
_SCORE_BYTES = 64 * 1024
_SCORE_BYTES_PER_TOKEN = 1024
_NOT_FINITE = b"not JSON compliant"
_DATA = b"data:"


class UpstreamError(Exception):
    """A variant did not answer, or its answer is not of the kind that was asked for.

    Args:
        outcome: How the attempt ended.
        detail: For logs; holds no content.
    """

    code = "upstream_error"

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail


class NotFinite(UpstreamError):
    """The variant's log-probabilities are not finite: it could not write them as JSON."""

    code = "not_finite"


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class _Collector:
    """Receiver that keeps everything and settles a future."""

    def __init__(self, limit_bytes: int, on_data: Callable[[], None] | None) -> None:
        self._on_data = on_data
        self.settled: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer = Answer()
        self._pieces: list[bytes] = []
        self._left = limit_bytes

    def on_head(self, status: int, headers: Headers) -> None:
        self._answer.status, self._answer.headers = status, headers

    def on_body(self, data: bytes) -> None:
        if self._on_data is not None and _DATA in data:
            self._on_data()
            self._on_data = None
        self._left -= len(data)
        if self._left >= 0:
            self._pieces.append(data)
        else:
            self._fail(Outcome.GARBAGE, "the answer is larger than expected")

    def on_end(self) -> None:
        self._answer.body = b"".join(self._pieces)
        if not self.settled.done():
            self.settled.set_result(self._answer)

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        self._fail(outcome, detail)

    def _fail(self, outcome: Outcome, detail: str) -> None:
        if not self.settled.done():
            self.settled.set_exception(UpstreamError(outcome, detail))


async def fetch(
    upstream: Upstream,
    request: UpstreamRequest,
    *,
    timeout_seconds: float = 30.0,
    limit_bytes: int = 64 * 1024 * 1024,
    on_data: Callable[[], None] | None = None,
) -> Answer:
    """Await the whole answer to `request`, whatever its status.

    Args:
        upstream: The variant that is asked.
        request: The request.
        timeout_seconds: Time for all of the answer.
        limit_bytes: A longer answer is given up.
        on_data: Called once, when the first data of a stream has come; its comments are none.

    Raises:
        UpstreamError: No answer, a broken one, one over `limit_bytes`, or none in time.
    """
    collector = _Collector(limit_bytes, on_data)
    stream = upstream.stream(request, collector)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await collector.settled
    except TimeoutError:
        raise UpstreamError(Outcome.TIMEOUT, f"no answer within {timeout_seconds} s") from None
    finally:
        stream.abort()


def get_request(path: bytes) -> UpstreamRequest:
    """Make a GET request."""
    return UpstreamRequest(path, b"", b"", b"GET")


def json_request(path: str, payload: object) -> UpstreamRequest:
    """Make a POST request with a JSON body."""
    return UpstreamRequest(path.encode(), _JSON_HEADERS, msgspec.json.encode(payload))


async def fetch_json(upstream: Upstream, request: UpstreamRequest) -> Any:
    """Await a 200 answer and decode its JSON body.

    Raises:
        UpstreamError: No answer, another status, or no JSON.
    """
    answer = await fetch(upstream, request)
    if answer.status != _OK:
        raise UpstreamError(Outcome.SERVER_ERROR, f"status {answer.status}")
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        raise UpstreamError(Outcome.GARBAGE, "the answer is not JSON") from error


def _refusal(answer: Answer) -> UpstreamError:
    if answer.status < _SERVER_ERROR:
        return UpstreamError(Outcome.CLIENT_ERROR, f"status {answer.status}")
    # Python's json module, in vLLM's server, about a NaN.
    if _NOT_FINITE in answer.body:
        return NotFinite(Outcome.SERVER_ERROR, "the log-probabilities are not finite")
    return UpstreamError(Outcome.SERVER_ERROR, f"status {answer.status}")


def _scores(
    answer: Answer,
    read: Callable[[bytes, Sequence[int], int], Scores],
    token_ids: Sequence[int],
    start: int,
) -> Scores:
    if answer.status != _OK:
        raise _refusal(answer)
    try:
        return read(answer.body, token_ids, start)
    except scoring_wire.NoScores as error:
        raise UpstreamError(Outcome.GARBAGE, str(error)) from error


class UpstreamCalls:
    """`score` and `health` over `stream`."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._has_short_score: bool | None = None
        """Whether the server has the scoring route of our own replicas; None: not tried yet."""

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """See `Upstream.stream`."""
        raise NotImplementedError

    async def score(self, token_ids: Sequence[int], start: int) -> Scores:
        """See `Upstream.score`: by our own replicas' route if there is one, else by vLLM's API."""
        if not 1 <= start < len(token_ids):
            raise ValueError(f"start is {start}, wanted 1 <= start < {len(token_ids)}")
        if self._has_short_score is not False:
            body = scoring_wire.short_body(token_ids, start)
            answer = await self._fetch_scores(scoring_wire.SHORT_PATH, body, len(token_ids))
            try:
                scores = _scores(answer, scoring_wire.read_short, token_ids, start)
            except UpstreamError:
                # Only a server that has answered on this route before must go on doing so.
                if self._has_short_score:
                    raise
            else:
                self._has_short_score = True
                return scores
        body = scoring_wire.completions_body(self.model, token_ids)
        answer = await self._fetch_scores(scoring_wire.COMPLETIONS_PATH, body, len(token_ids))
        scores = _scores(answer, scoring_wire.read_completion, token_ids, start)
        self._has_short_score = False
        return scores

    async def _fetch_scores(self, path: str, body: dict[str, Any], tokens: int) -> Answer:
        return await fetch(
            self,
            json_request(path, body),
            timeout_seconds=SCORE_SECONDS,
            limit_bytes=_SCORE_BYTES + _SCORE_BYTES_PER_TOKEN * tokens,
        )

    async def health(self) -> bool:
        """See `Upstream.health`."""
        try:
            answer = await fetch(self, get_request(b"/health"), timeout_seconds=2.0)
        except UpstreamError:
            return False
        return answer.status == _OK
