"""Constant traffic that remembers when each request was sent and who answered it."""

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
    """One request."""

    sent_at: float
    """Monotonic seconds."""
    status: int
    variant: str | None
    reason: str | None


@dataclass
class Traffic:
    """All that was answered so far."""

    answered: list[Answered] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[Answered]:
        """What was sent in this time."""
        return [one for one in list(self.answered) if begin <= one.sent_at < end]

    def await_variant(self, variant: str, after: float, timeout: float = 20.0) -> None:
        """Wait until the variant has answered a request that was sent after a moment."""
        eventually(
            lambda: any(
                one.variant == variant and one.sent_at > after for one in list(self.answered)
            ),
            timeout=timeout,
            what=f"an answer of {variant}",
            found=lambda: (self.answered[-3:], self.errors),
        )


@contextmanager
def traffic(gateways: Sequence[GatewayProcess], model: str = "demo") -> Iterator[Traffic]:
    """Many users' requests to each of the gateways, one after another, until the end."""
    seen, is_over = Traffic(), threading.Event()

    def send(gateway: GatewayProcess, dice: random.Random) -> None:
        try:
            while not is_over.wait(_PAUSE_SECONDS):
                sent_at = time.monotonic()
                user = f"user-{dice.randrange(10_000)}"
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
