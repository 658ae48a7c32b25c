"""The `Upstream` port: the one interface between the router and the builds that answer.

`stream` pushes: the upstream calls its receiver from the event loop, once per piece of the answer,
with no task and no await between a socket and the client (docs/adr/0002).
`penumbra.router.upstream.calls.fetch` turns a stream into an awaitable answer where speed does not
matter. Two implementations pass one contract suite (`tests/contract`):
`penumbra.router.upstream.http.HttpUpstream` and `penumbra.router.upstream.fake.FakeUpstream`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from penumbra.monitoring.vocabulary import Outcome

Headers = list[tuple[bytes, bytes]]
"""Header lines in order; names in lower case."""


class AttemptBudget(msgspec.Struct):
    """The sends that one client's request may still cost, at all variants together.

    A send begins with the first byte that is written to a connection; a connect that failed is
    none. So a request that kills its server reaches two servers at most, with the repeats by the
    request's plan and those by a pool together.
    """

    left: int = 2
    kept: int = 0
    """Those among them that a pool leaves for a later attempt: it repeats a request only by the
    rest."""

    @property
    def can_repeat(self) -> bool:
        """Whether a pool may send the request once more by itself."""
        return self.left > self.kept


class UpstreamRequest(msgspec.Struct):
    """One request as it is sent to an upstream."""

    path: bytes
    """Origin-form target: path and query, e.g. `/v1/chat/completions`."""
    headers: bytes
    """Header lines ready for the wire (`name: value\\r\\n` each), without host and length."""
    body: bytes
    method: bytes = b"POST"
    budget: AttemptBudget = msgspec.field(default_factory=AttemptBudget)
    """Shared by all requests that stand for one request of a client."""


class Receiver(Protocol):
    """Takes an answer: `on_head`, any number of `on_body`, then `on_end`; or `on_fail`.

    Exactly one of `on_end` and `on_fail` is called, last, unless the stream is aborted; then
    nothing more is called. None of them may raise.
    """

    def on_head(self, status: int, headers: Headers) -> None:
        """Take the status and headers of the final (not 1xx) response."""

    def on_body(self, data: bytes) -> None:
        """Take the next piece of the body, de-chunked, never empty."""

    def on_end(self) -> None:
        """Take note that the answer is complete."""

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """Take note that the answer failed. `detail` is for logs; it never holds content."""


class Stream(Protocol):
    """An answer under way. Its properties hold after its end as well."""

    @property
    def was_sent(self) -> bool:
        """Whether a byte of the request may have reached a server."""

    @property
    def was_reused(self) -> bool:
        """Whether the request went out on a connection that had carried another one before.

        Closed without an answer, such a connection says nothing about its server, which may have
        been about to close it.
        """

    def abort(self) -> None:
        """Stop the answer and the engine's work on it. Safe to call at any time before the end."""

    def pause(self) -> None:
        """Stop reading until `resume`: the client does not keep up."""

    def resume(self) -> None:
        """Go on reading."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of given tokens by a build; the fields have one length."""

    logprobs: tuple[float, ...]
    """Natural log-probability of each token given all before it, <= 0; NaN or minus infinity where
    the build broke down."""
    top_ids: tuple[int, ...]
    """The token that the build would have chosen greedily in place of each."""
    top_logprobs: tuple[float, ...] = ()
    """Natural log-probability of each of those; empty if the server does not tell it."""


class Upstream(Protocol):
    """One variant that answers."""

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """Send `request` and push its answer to `receiver`.

        Failures, a refused connection included, arrive through `receiver.on_fail`, never before
        `stream` has returned. The first byte sent takes one from `request.budget`; with none left
        the request is not sent and fails with `Outcome.REFUSED`. With a limit of the gateway's own
        in the way it fails with `Outcome.GATEWAY_LIMIT`.
        """

    async def score(self, token_ids: Sequence[int], start: int) -> Scores:
        """Teacher-force `token_ids` through the build, prefill only.

        Args:
            token_ids: Prompt and answer, at least two tokens.
            start: Index of the first token to score, 1 <= start < len(token_ids).

        Returns:
            One entry for each token from `start` on: len(token_ids) - start.

        Raises:
            UpstreamError: The variant did not answer, or gave no scores of these tokens. There is a
                generous time limit; a caller that wants another sets a deadline around the call.
        """

    async def health(self) -> bool:
        """Whether the variant says that it can answer. Never raises."""
