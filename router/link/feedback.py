"""`POST /v1/feedback`: a user's judgement of an answer, by the answer's request id.

    {"request_id": "req-...", "thumb": "up" | "down", "score": 0..1, "escalated": true | false,
     "metadata": {...}}

At least one of thumb, score and escalated is needed. Each gateway process remembers which variant
served its last requests. Every judgement goes to the control process, which asks the other gateways
if this one does not know the request. It is answered when it is durable.

Reading order: FeedbackBody, FeedbackSubmitter.submit.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from penumbra.router.errors import BadRequest, ControlUnavailable, FeedbackExists, RequestNotFound
from penumbra.router.link.messages import Attribution, Feedback, FeedbackDone, Found, Locate, Seek
from penumbra.router.link.response_homes import ResponseHomes
from penumbra.router.link.served import Served

PATH = "/v1/feedback"
LARGEST_BODY_BYTES = 16 * 1024
LARGEST_METADATA_BYTES = 4 * 1024
DEEPEST_METADATA = 12
"""Levels of nested objects and lists: three processes read and write the metadata, and each must be
able to."""
ANSWER_SECONDS = 5.0
IN_FLIGHT = 256


class FeedbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a judgement."""

    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """The `x-request-id` of the answer."""
    thumb: Literal["up", "down"] | None = None
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    escalated: bool | None = None
    """Whether a person had to step in."""
    metadata: dict[str, Any] = {}
    """Stored with the judgement, up to 4 KiB and 12 levels; never interpreted."""


_decode = msgspec.json.Decoder(FeedbackBody).decode


def read_feedback(body: bytes) -> FeedbackBody:
    """Read a judgement.

    Raises:
        BadRequest: It is no judgement; says why.
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


class FeedbackSubmitter:
    """Passes the judgements of one gateway process to the control process.

    Args:
        served: The variants that served the requests of this process.
        homes: The variants that gave the stored responses that it relayed.
    """

    def __init__(self, served: Served, homes: ResponseHomes | None = None) -> None:
        self.homes = homes or ResponseHomes()
        self._send: Callable[[Feedback], None] | None = None
        self._served = served
        self._nonces = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[FeedbackDone]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether judgements can be passed to the control process now."""
        return self._send is not None

    @contextlib.contextmanager
    def connected(self, send: Callable[[Feedback | Locate], None]) -> Iterator[None]:
        """Take judgements for as long as the block runs; outside of it they are refused.

        Args:
            send: Passes a judgement, or a question, to the control process; must not wait.
        """
        self._send = send
        try:
            with self.homes.connected(send):
                yield
        finally:
            self._send = None

    async def submit(self, tenant: str, body: FeedbackBody) -> Attribution:
        """Hand a judgement over; when this returns it is durable.

        Returns:
            The variant whose answer was judged.

        Raises:
            RequestNotFound: No gateway remembers the request, or it was another tenant's.
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
        return _attribution_of(done, body.request_id)

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
        """Take the answer of the control process."""
        waiting = self._waiting.get(done.nonce)
        if waiting is not None and not waiting.done():
            waiting.set_result(done)

    def found(self, seek: Seek) -> Found:
        """Answer the question whether this process served a request, or relayed a response."""
        found = self._served.find(seek.request_id, seek.tenant)
        return Found(seek.nonce, found or self.homes.find(seek.request_id, seek.tenant))


def _attribution_of(done: FeedbackDone, request_id: str) -> Attribution:
    if done.error == FeedbackExists.code:
        raise FeedbackExists(f"the request {request_id!r} was judged differently before")
    if done.error is not None:
        raise ControlUnavailable("feedback could not be stored now; send it again")
    if done.attribution is None:
        raise RequestNotFound(
            f"no request {request_id!r} of this tenant is remembered", param="request_id"
        )
    return done.attribution
