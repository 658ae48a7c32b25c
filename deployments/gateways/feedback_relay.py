"""Relays users' judgements of answers to the store, and finds the builds of stored responses.

A judgement comes to any gateway process; only the one that served the request knows which variant
answered. If that is another one, all others are asked. A request is judged once: the same judgement
again is accepted, because a client may retry; a different one is refused, because evidence that was
counted cannot be taken back.

A gateway may also ask which build gave a response that a request goes on from. Then only the other
gateways are asked, and nothing is stored.

Reading order: FeedbackRelay.take, FeedbackRelay.locate.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from penumbra.deployments.errors import AlreadyJudged, Conflict, DeploymentsError
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.router.link.messages import (
    Attribution,
    Feedback,
    FeedbackDone,
    Found,
    Locate,
    Located,
    Seek,
    encode,
)

log = logging.getLogger(__name__)

SEEK_SECONDS = 2.0
"""Time that the other gateways have to find a request."""
LOCATE_SECONDS = 0.4
"""Time that they have to find a response: a client waits meanwhile."""
IN_FLIGHT = 256
"""Judgements and responses that are looked for at once; more are refused, to be sent again."""


async def refuse_feedback(judgement: UserFeedback) -> None:
    """Refuse a judgement: this control process stores none."""
    raise Conflict(f"judgements are not stored here (model {judgement.model})")


class FeedbackRelay:
    """Takes judgements from all gateways, and answers each when it is settled.

    Args:
        links: Returns the gateways that are connected now.
        take_feedback: Makes a judgement durable and counts it. Does nothing if it is stored
            already; raises AlreadyJudged if a different one is, StoreUnavailable if it cannot be
            stored now.
    """

    def __init__(
        self,
        links: Callable[[], Iterable[Link]],
        take_feedback: Callable[[UserFeedback], Awaitable[None]],
    ) -> None:
        self._links = links
        self._take_feedback = take_feedback
        self._nonces = itertools.count(1)
        self._sought: dict[tuple[Link, int], asyncio.Future[Attribution | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, link: Link, message: Feedback | Found) -> None:
        """Handle a judgement, or a gateway's answer whether it served a request."""
        if isinstance(message, Feedback):
            self.take(link, message)
        else:
            self.take_found(link, message)

    def refuse(self, link: Link, feedback: Feedback) -> None:
        """Answer a judgement that is not taken from this link."""
        _answer(link, FeedbackDone(feedback.nonce, None, "control_unavailable"))

    def take(self, link: Link, feedback: Feedback) -> None:
        """Take a judgement that a gateway passed on; the answer follows when it is settled."""
        if len(self._tasks) >= IN_FLIGHT:
            _answer(link, FeedbackDone(feedback.nonce, None, "control_unavailable"))
            return
        self._start(self._settle(link, feedback))

    def locate(self, link: Link, question: Locate) -> None:
        """Take a gateway's question which build gave a response; the answer follows."""
        if len(self._tasks) >= IN_FLIGHT:
            link.say((Located, question.nonce), encode(Located(question.nonce, None)))
            return
        self._start(self._find_home(link, question))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_home(self, link: Link, question: Locate) -> None:
        attribution = None
        with contextlib.suppress(TimeoutError):
            seek = question.response_id, question.tenant
            attribution = await self._seek(link, *seek, LOCATE_SECONDS)
        link.say((Located, question.nonce), encode(Located(question.nonce, attribution)))

    def take_found(self, link: Link, found: Found) -> None:
        """Take a gateway's answer whether it served a request."""
        waiting = self._sought.get((link, found.nonce))
        if waiting is not None and not waiting.done():
            waiting.set_result(found.attribution)

    def forget(self, link: Link) -> None:
        """Wait no more for answers of a gateway that is gone."""
        for (asked, _), waiting in self._sought.items():
            if asked is link and not waiting.done():
                waiting.set_result(None)

    async def _settle(self, link: Link, feedback: Feedback) -> None:
        attribution, error = feedback.attribution, None
        try:
            if attribution is None:
                seek = feedback.request_id, feedback.tenant
                attribution = await self._seek(link, *seek, SEEK_SECONDS)
            if attribution is not None:
                await self._take_feedback(_judgement_of(feedback, attribution))
        except TimeoutError:
            error = "control_unavailable"
        except DeploymentsError as refusal:
            error = "feedback_exists" if refusal.code == AlreadyJudged.code else None
            error = error or "control_unavailable"
        except Exception:
            log.exception("feedback_not_stored")
            error = "control_unavailable"
        _answer(link, FeedbackDone(feedback.nonce, attribution, error))

    async def _seek(
        self, asking: Link, request_id: str, tenant: str, seconds: float
    ) -> Attribution | None:
        """Ask all the other gateways at once.

        Raises:
            TimeoutError: None that answered served the request, but one has not answered.
        """
        nonce = next(self._nonces)
        loop = asyncio.get_running_loop()
        waiting: dict[tuple[Link, int], asyncio.Future[Attribution | None]] = {
            (link, nonce): loop.create_future() for link in self._links() if link is not asking
        }
        self._sought |= waiting
        seek = encode(Seek(nonce, request_id, tenant))
        try:
            for link, _ in waiting:
                link.say((Seek, nonce), seek)
            async with asyncio.timeout(seconds):
                for answer in asyncio.as_completed(waiting.values()):
                    if (attribution := await answer) is not None:
                        return attribution
            return None
        finally:
            for key in waiting:
                del self._sought[key]


def _judgement_of(feedback: Feedback, attribution: Attribution) -> UserFeedback:
    return UserFeedback(
        request_id=feedback.request_id,
        tenant=feedback.tenant,
        model=attribution.model,
        variant=attribution.variant,
        slice=attribution.slice,
        thumb=feedback.thumb,
        score=feedback.score,
        is_escalated=feedback.is_escalated,
        metadata=feedback.metadata,
    )


def _answer(link: Link, done: FeedbackDone) -> None:
    link.say((FeedbackDone, done.nonce), encode(done))
