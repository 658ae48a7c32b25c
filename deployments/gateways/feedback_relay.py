"""Relays users' judgements of answers from the gateways to the store.

A judgement comes to any gateway process; only the one that served the request knows which variant
answered. If that is another one, all others are asked. A request is judged once: the same judgement
again is accepted, because a client may retry; a different one is refused, because evidence that was
counted cannot be taken back.

Reading order: FeedbackRelay.take.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable

from penumbra.deployments.errors import AlreadyJudged, Conflict, DeploymentsError
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.router.link.messages import Attribution, Feedback, FeedbackDone, Found, Seek, encode

log = logging.getLogger(__name__)

SEEK_SECONDS = 2.0
"""Time that the other gateways have to find a request."""
IN_FLIGHT = 256
"""Judgements that are looked for and stored at once; more are refused, to be sent again."""


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

    def take(self, link: Link, feedback: Feedback) -> None:
        """Take a judgement that a gateway passed on; the answer follows when it is settled."""
        if len(self._tasks) >= IN_FLIGHT:
            _answer(link, FeedbackDone(feedback.nonce, None, "control_unavailable"))
            return
        task = asyncio.create_task(self._settle(link, feedback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
                attribution = await self._seek(link, feedback)
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

    async def _seek(self, asking: Link, feedback: Feedback) -> Attribution | None:
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
        seek = encode(Seek(nonce, feedback.request_id, feedback.tenant))
        try:
            for link, _ in waiting:
                link.say((Seek, nonce), seek)
            async with asyncio.timeout(SEEK_SECONDS):
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
