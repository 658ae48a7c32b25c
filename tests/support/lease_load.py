"""Constant traffic that records the time of each request and the variant that answered it."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat

_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Answered:
    """One request and its answer."""

    sent_at: float
    """Monotonic seconds."""
    status: int
    variant: str | None
    reason: str | None


@dataclass
class Traffic:
    """All requests that were answered so far."""

    answered: list[Answered] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[Answered]:
        """Requests that were sent in this time."""
        return [request for request in list(self.answered) if begin <= request.sent_at < end]

    def await_variant(self, variant: str, after: float, timeout: float = 60.0) -> None:
        """Wait until the variant has answered a request that was sent after a moment."""
        eventually(
            lambda: any(
                request.variant == variant and request.sent_at > after
                for request in list(self.answered)
            ),
            timeout=timeout,
            what=f"an answer of {variant}",
            found=lambda: (self.answered[-3:], self.errors),
        )


@contextmanager
def traffic(gateways: Sequence[GatewayProcess], model: str = "demo") -> Iterator[Traffic]:
    """Send requests of many users to each gateway, one after another, until the end."""
    seen, is_over = Traffic(), threading.Event()

    def send(gateway: GatewayProcess, rng: random.Random) -> None:
        try:
            while not is_over.wait(_PAUSE_SECONDS):
                sent_at = time.monotonic()
                user = f"user-{rng.randrange(10_000)}"
                answer = gateway.post(CHAT, chat(model), {"x-user-id": user})
                variant = answer.header("x-penumbra-variant")
                reason = answer.header("x-penumbra-reason")
                seen.answered.append(Answered(sent_at, answer.status, variant, reason))
        except (OSError, AssertionError) as error:  # a client that gets no answer: a failed test
            seen.errors.append(error)

    senders = [
        threading.Thread(target=send, args=(gateway, random.Random(number)))
        for number, gateway in enumerate(gateways)
    ]
    for sender in senders:
        sender.start()
    try:
        yield seen
    finally:
        is_over.set()
        for sender in senders:
            sender.join(30.0)
    assert not seen.errors, seen.errors
