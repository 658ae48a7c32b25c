"""Responses that an engine keeps: asked for by id, and cancelled.

    GET /v1/responses/{id}      POST /v1/responses/{id}/cancel

The build that gave the response is asked first, if this gateway process or another one remembers
it, then all builds in turn, baselines first. The first that knows the response answers; to the
others it is unknown, so asking them changes nothing.

Reading order: relay_stored, _Pull.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.errors import RequestNotFound, UpstreamUnavailable
from penumbra.router.gateway.api_keys import Tenant
from penumbra.router.gateway.cold_answers import (
    authorization_of,
    gateway_of,
    read_small_body,
    request_id_of,
)
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import end_to_end, upstream_headers
from penumbra.router.link.messages import Attribution
from penumbra.router.mirror.response_messages import MessagesStripper
from penumbra.router.mirror.route_taps import is_tapped_id
from penumbra.router.upstream.port import Headers, Upstream, UpstreamRequest

_NOT_FOUND = 404
_FIRST_SERVER_ERROR = 500
_ANSWER_SECONDS = 10.0
"""Longest time to the head of one build's answer: it only looks the id up."""
_BUFFER_BYTES = 256 * 1024
_LARGEST_BODY_BYTES = 16 * 1024


class _Pull:
    """A receiver whose answer is awaited, piece by piece; the upstream waits while none is taken.

    Args:
        upstream: The build that is asked.
        request: The request.
    """

    def __init__(self, upstream: Upstream, request: UpstreamRequest) -> None:
        self.status = 0
        self.headers: Headers = []
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._is_over = False
        self._is_failed = False
        self._news = asyncio.Event()
        self._stream = upstream.stream(request, self)

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`."""
        self.status, self.headers = status, headers
        self._news.set()

    def on_body(self, data: bytes) -> None:
        """See `Receiver`."""
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes > _BUFFER_BYTES:
            self._stream.pause()
        self._news.set()

    def on_end(self) -> None:
        """See `Receiver`."""
        self._is_over = True
        self._news.set()

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        self._is_over = self._is_failed = True
        self._news.set()

    def abort(self) -> None:
        """End the answer, if it is not over."""
        self._stream.abort()

    async def head(self, timeout_seconds: float) -> int:
        """Await the status; 0 if the build does not answer in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.status and not self._is_over:
                    await self._wait()
        except TimeoutError:
            return 0
        return self.status

    async def body(self, timeout_seconds: float) -> AsyncIterator[bytes]:
        """The pieces of the body.

        Raises:
            ConnectionError: The answer broke off, or no piece came for `timeout_seconds`.
        """
        try:
            while not self._is_over or self._pieces:
                if self._pieces:
                    piece = self._pieces.popleft()
                    self._bytes -= len(piece)
                    yield piece
                    continue
                self._stream.resume()
                async with asyncio.timeout(timeout_seconds):
                    await self._wait()
        except TimeoutError:
            raise ConnectionError("the engine's answer stalled") from None
        finally:
            self.abort()
        if self._is_failed:
            raise ConnectionError("the engine's answer broke off")

    async def _wait(self) -> None:
        await self._news.wait()
        self._news.clear()


async def _stripped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Take token ids out of a response that was tapped: its client asked for none."""
    stripper = MessagesStripper()
    async for piece in body:
        if stripped := stripper.feed(piece):
            yield stripped
    if rest := stripper.rest():
        yield rest


class _Relayed(StreamingResponse):
    """The answer of a build; its request ends with it, however it ends."""

    def __init__(self, request: Request, pull: _Pull, variant: str, tenant: Tenant) -> None:
        is_tapped = is_tapped_id(request.path_params["response_id"])
        body = pull.body(gateway_of(request).limits.idle_seconds)
        super().__init__(_stripped(body) if is_tapped else body, pull.status)
        self._pull = pull
        self._tenant = tenant
        headers = end_to_end(pull.headers)
        if is_tapped:
            headers = [line for line in headers if line[0] != b"content-length"]
        self.raw_headers = [
            *headers,
            (b"x-request-id", request_id_of(request).encode()),
            (b"x-penumbra-variant", variant.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the answer."""
        try:
            await super().__call__(scope, receive, send)
        except ConnectionError:
            return  # uvicorn closes a connection whose answer is not complete
        finally:
            self._pull.abort()
            self._tenant.leave()


async def relay_stored(request: Request) -> Response:
    """Relay the answer of the build that keeps the response.

    Raises:
        RequestNotFound: No build keeps it.
        UpstreamUnavailable: No build answered.
        GatewayError: The caller is not known, or over its limits.
    """
    gateway = gateway_of(request)
    tenant = gateway.keys.identify(authorization_of(request)).tenant
    body = await read_small_body(request, _LARGEST_BODY_BYTES)
    tenant.enter(gateway.now())
    try:
        pull, variant = await _find(gateway, request, body, tenant.name)
    except BaseException:
        tenant.leave()
        raise
    return _Relayed(request, pull, variant, tenant)


async def _find(gateway: Gateway, request: Request, body: bytes, tenant: str) -> tuple[_Pull, str]:
    """The answer of the build that keeps the response, and the build's name."""
    was_answered = False
    home = await _home_of(gateway, request.path_params["response_id"], tenant)
    for variant, upstream in _in_turn(gateway, home):
        pull = _Pull(upstream, _request_to(request, body))
        try:
            status = await pull.head(_ANSWER_SECONDS)
        except asyncio.CancelledError:
            pull.abort()
            raise
        if 0 < status < _FIRST_SERVER_ERROR and status != _NOT_FOUND:
            return pull, variant
        pull.abort()
        was_answered = was_answered or status == _NOT_FOUND
    if was_answered:
        raise RequestNotFound("no build keeps this response")
    raise UpstreamUnavailable("no build that may keep this response can be reached now; try again")


async def _home_of(gateway: Gateway, response_id: str, tenant: str) -> Attribution | None:
    """The build that gave the response; None if no gateway process remembers it."""
    homes = gateway.feedback.homes
    asked = homes.ask(response_id, tenant)
    if asked is not None:
        await asyncio.shield(asked)  # it is not this request's to cancel
    return homes.find(response_id, tenant)


def _in_turn(gateway: Gateway, home: Attribution | None) -> list[tuple[str, Upstream]]:
    builds, models = gateway.builds, gateway.snapshot.models
    first = builds.get(home.model, {}).get(home.variant) if home is not None else None
    baselines = [
        (models[name].baseline, found[models[name].baseline]) for name, found in builds.items()
    ]
    others = [build for found in builds.values() for build in found.items()]
    homes = [(home.variant, first)] if home is not None and first is not None else []
    return list(dict.fromkeys([*homes, *baselines, *others]))


def _request_to(request: Request, body: bytes) -> UpstreamRequest:
    lines = request.headers.raw
    if is_tapped_id(request.path_params["response_id"]):  # it is stripped, so it comes as it is
        lines = [line for line in lines if line[0] != b"accept-encoding"]
    path, query = request.scope["raw_path"], request.scope["query_string"]
    return UpstreamRequest(
        path + b"?" + query if query else path,
        upstream_headers(lines, dict(lines), request_id_of(request).encode()),
        body,
        b"GET" if request.method == "HEAD" else request.method.encode(),
    )
