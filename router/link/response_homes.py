"""Homes of stored responses: the variants that gave the responses which requests go on from.

Only the engine that made a response knows its history, so a request with `previous_response_id`
must go to the same build. This process remembers the last responses that it relayed; of the others
it asks the control process, which asks the other gateways.

Reading order: ResponseHomes.find, ResponseHomes.ask.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penumbra.router.link.messages import Attribution, Locate, Located
from penumbra.router.link.served import Served

ASK_SECONDS = 0.5
"""Longest time that a request waits to learn where its history is."""
IN_FLIGHT = 64
"""Requests that wait at once; more are decided without asking."""
LONGEST_ID = 256


@dataclass(slots=True)
class _Question:
    response_id: str
    tenant: str
    answered: asyncio.Future[None]
    timer: asyncio.TimerHandle


class ResponseHomes:
    """The homes of the stored responses that one gateway process knows."""

    def __init__(self) -> None:
        self._served = Served()
        self._send: Callable[[Locate], None] | None = None
        self._nonces = itertools.count(1)
        self._questions: dict[int, _Question] = {}

    def note(self, response_id: str, server: tuple[Attribution, str]) -> None:
        """Note the variant that gave a response, and the tenant that it was for."""
        if len(response_id) <= LONGEST_ID:
            self._served.remember(response_id.encode("utf-8", "surrogatepass"), server)

    def find(self, response_id: object, tenant: str) -> Attribution | None:
        """Return where a tenant's response was made; None if this process does not know it."""
        if not isinstance(response_id, str) or len(response_id) > LONGEST_ID:
            return None
        return self._served.find(response_id, tenant)

    @contextlib.contextmanager
    def connected(self, send: Callable[[Locate], None]) -> Iterator[None]:
        """Ask for as long as the block runs; outside of it nothing can be asked.

        Args:
            send: Passes a question to the control process; must not wait.
        """
        self._send = send
        try:
            yield
        finally:
            self._send = None

    def ask(self, response_id: object, tenant: str) -> asyncio.Future[None] | None:
        """Ask where a response was made; `find` may know it when the future is done.

        Returns:
            A future that is done within `ASK_SECONDS`; None if it is no use to ask, or none can be
            asked now.
        """
        if self._send is None or len(self._questions) >= IN_FLIGHT:
            return None
        if not isinstance(response_id, str) or not 0 < len(response_id) <= LONGEST_ID:
            return None
        if self._served.find(response_id, tenant) is not None:
            return None
        loop = asyncio.get_running_loop()
        nonce, answered = next(self._nonces), loop.create_future()
        timer = loop.call_later(ASK_SECONDS, self._settle, nonce, None)
        self._questions[nonce] = _Question(response_id, tenant, answered, timer)
        self._send(Locate(nonce, response_id, tenant))
        return answered

    def located(self, message: Located) -> None:
        """Take the answer of the control process."""
        self._settle(message.nonce, message.attribution)

    def _settle(self, nonce: int, attribution: Attribution | None) -> None:
        question = self._questions.pop(nonce, None)
        if question is None:
            return
        question.timer.cancel()
        if attribution is not None:
            self.note(question.response_id, (attribution, question.tenant))
        question.answered.set_result(None)
