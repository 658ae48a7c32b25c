"""`POST /v1/feedback`: what a user thought of an answer, by the answer's request id.

    {"request_id": "req-...", "thumb": "up" | "down", "score": 0..1, "escalated": true | false,
     "metadata": {...}}

At least one of thumb, score and escalated is wanted. Each gateway process remembers who served its
last requests; a judgement that comes to another one is passed through the control process. It is
answered when it is durable.

Reading order: FeedbackBody, Served, FeedbackSubmitter.submit.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from penumbra.router.errors import BadRequest, ControlUnavailable, FeedbackExists, RequestNotFound
from penumbra.router.link.messages import Attribution, Feedback, FeedbackDone, Found, Seek

PATH = "/v1/feedback"
LARGEST_BODY_BYTES = 16 * 1024
LARGEST_METADATA_BYTES = 4 * 1024
DEEPEST_METADATA = 12
"""Objects and lists within each other: three processes read and write it, and each must be able
to."""
REMEMBERED = 100_000
"""Requests, at most, whose server one process remembers; at least half as many."""
ANSWER_SECONDS = 5.0
IN_FLIGHT = 256


class FeedbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a judgement."""

    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """The `x-request-id` of the answer."""
    thumb: Literal["up", "down"] | None = None
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    escalated: bool | None = None
    """Whether somebody had to step in."""
    metadata: dict[str, Any] = {}
    """Kept with it, up to 4 KiB and 12 levels; never looked at."""


_decode = msgspec.json.Decoder(FeedbackBody).decode


def read_feedback(body: bytes) -> FeedbackBody:
    """Read a judgement.

    Raises:
        BadRequest: It is none; says why.
    """
    try:
        feedback = _decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(f"no feedback: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("the body is not JSON", code="invalid_json") from error
    if feedback.thumb is None and feedback.score is None and feedback.escalated is None:
        raise BadRequest("found no judgement, wanted thumb, score or escalated")
    if not _is_shallow(feedback.metadata, DEEPEST_METADATA):
        raise BadRequest(
            f"metadata is nested deeper than {DEEPEST_METADATA} levels", param="metadata"
        )
    if len(msgspec.json.encode(feedback.metadata)) > LARGEST_METADATA_BYTES:
        raise BadRequest(
            f"metadata is larger than {LARGEST_METADATA_BYTES} bytes", param="metadata"
        )
    return feedback


def _is_shallow(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in inner)


class Served:
    """Who served the last requests: two generations, so that remembering costs one insertion.

    Args:
        limit: How many requests are remembered at most.
    """

    __slots__ = ("_earlier", "_half", "_latest")

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._half = limit // 2
        self._latest: dict[bytes, tuple[Attribution, str]] = {}
        self._earlier: dict[bytes, tuple[Attribution, str]] = {}

    def remember(self, request_id: bytes, server: tuple[Attribution, str]) -> None:
        """A request was answered.

        Args:
            request_id: Its id.
            server: Who answered it, and which tenant had asked; shared between requests.
        """
        if len(self._latest) >= self._half:
            self._earlier, self._latest = self._latest, {}
        self._latest[request_id] = server

    def find(self, request_id: str, tenant: str) -> Attribution | None:
        """Who answered a tenant's request; None: nobody here, or not too long ago."""
        try:
            key = request_id.encode("latin-1")
        except UnicodeEncodeError:
            return None
        found = self._latest.get(key) or self._earlier.get(key)
        return found[0] if found is not None and found[1] == tenant else None


class FeedbackSubmitter:
    """One gateway process's part in taking judgements.

    Args:
        served: Who served its requests.
    """

    def __init__(self, served: Served) -> None:
        self._send: Callable[[Feedback], None] | None = None
        self._served = served
        self._nonces = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[FeedbackDone]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether judgements can be passed to the control process now."""
        return self._send is not None

    @contextlib.contextmanager
    def connected(self, send: Callable[[Feedback], None]) -> Iterator[None]:
        """Take judgements for as long as the block runs; outside of it they are refused.

        Args:
            send: Passes a judgement to the control process; must not wait.
        """
        self._send = send
        try:
            yield
        finally:
            self._send = None

    async def submit(self, tenant: str, body: FeedbackBody) -> Attribution:
        """Hand a judgement over; when this returns it is durable.

        Returns:
            Whose answer was judged.

        Raises:
            RequestNotFound: Nobody remembers the request, or it was another tenant's.
            FeedbackExists: It was judged differently before.
            ControlUnavailable: It could not be stored now.
        """
        if self._send is None or len(self._waiting) >= IN_FLIGHT:
            raise ControlUnavailable("feedback cannot be stored now; send it again")
        nonce = next(self._nonces)
        answer = self._waiting[nonce] = asyncio.get_running_loop().create_future()
        try:
            self._send(self._message(nonce, tenant, body))
            async with asyncio.timeout(ANSWER_SECONDS):
                done = await answer
        except TimeoutError:
            raise ControlUnavailable("feedback was not confirmed in time; send it again") from None
        finally:
            del self._waiting[nonce]
        return _settled(done, body.request_id)

    def _message(self, nonce: int, tenant: str, body: FeedbackBody) -> Feedback:
        return Feedback(
            nonce=nonce,
            request_id=body.request_id,
            tenant=tenant,
            attribution=self._served.find(body.request_id, tenant),
            thumb=None if body.thumb is None else body.thumb == "up",
            score=body.score,
            is_escalated=bool(body.escalated),
            metadata=body.metadata,
        )

    def done(self, done: FeedbackDone) -> None:
        """The control process has answered."""
        waiting = self._waiting.get(done.nonce)
        if waiting is not None and not waiting.done():
            waiting.set_result(done)

    def found(self, seek: Seek) -> Found:
        """The answer to another process's question."""
        return Found(seek.nonce, self._served.find(seek.request_id, seek.tenant))


def _settled(done: FeedbackDone, request_id: str) -> Attribution:
    if done.error == FeedbackExists.code:
        raise FeedbackExists(f"the request {request_id!r} was judged differently before")
    if done.error is not None:
        raise ControlUnavailable("feedback could not be stored now; send it again")
    if done.attribution is None:
        raise RequestNotFound(
            f"no request {request_id!r} of this tenant is remembered", param="request_id"
        )
    return done.attribution
