"""An answer that is continued: what is known of it, its token counts, and the request for the rest.

A limit on tokens holds for both halves together, so the tokens of the first one are counted: by
what the stream said, else by the baseline's `/tokenize`, else by events, of which each is one token
at least.
"""

import asyncio
from typing import Any

import msgspec

from penumbra.router import sse
from penumbra.router.dispatch import continuation
from penumbra.router.dispatch.continuation import (
    KINDS,
    CannotContinueError,
    Fields,
    StopStrings,
)
from penumbra.router.dispatch.continuation_request import (
    Prefix,
    continuation_body,
    extended_prompt,
)
from penumbra.router.dispatch.sent_progress import SentProgress, choose_prefix, whole_prefix
from penumbra.router.dispatch.splice import Splice, closing_events, usage_of
from penumbra.router.dispatch.stream_end import StreamEnd, end_of
from penumbra.router.dispatch.token_count import count_tokens
from penumbra.router.upstream.port import Upstream, UpstreamRequest

_LOOKED_AT_BYTES = 64 * 1024
_END_BYTES = 16 * 1024
_EVENTS_AT_ONCE = 500
"""Events that are read before other requests have their turn: some two milliseconds."""


async def read_answer(
    upstream: Upstream, request: UpstreamRequest, sent: bytes
) -> "ContinuedAnswer":
    """Read what is known of an answer.

    Args:
        upstream: The build that goes on.
        request: The client's request.
        sent: The bytes of the stream that the client has, whole events only.

    Raises:
        CannotContinueError: The answer cannot be continued.
    """
    kind = KINDS[request.path]
    fields = continuation.read_fields(request.body)
    continuation.check_continuable(kind, fields)
    progress = SentProgress(kind)
    for number, payload in enumerate(sse.payloads(sent), 1):
        progress.read(payload)
        if number % _EVENTS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return ContinuedAnswer(upstream, request, fields, progress)


def is_continuable(request: UpstreamRequest, sent: bytes) -> bool:
    """Whether a stream of which the client has `sent` can be continued and is not over yet.

    Looks at the beginning and the end of what was sent: reasoning and tool calls come first.
    """
    try:
        kind = KINDS[request.path]
        continuation.check_continuable(kind, continuation.read_fields(request.body))
        begin = sent[:_LOOKED_AT_BYTES]
        progress = SentProgress(kind)
        for payload in sse.payloads(begin[: sse.complete_length(begin)]):
            progress.read(payload)
    except (CannotContinueError, KeyError):
        return False
    return end_of(request.path, sent[-_END_BYTES:]) is StreamEnd.OPEN


class ContinuedAnswer:
    """An answer of which the client has a part.

    Args:
        upstream: The build that goes on.
        request: The client's request.
        fields: Its fields.
        progress: The part that the client has.

    Raises:
        CannotContinueError: The request's stop strings cannot be read.
    """

    def __init__(
        self,
        upstream: Upstream,
        request: UpstreamRequest,
        fields: Fields,
        progress: SentProgress,
    ) -> None:
        self._upstream = upstream
        self._request = request
        self._fields = fields
        self._kind = KINDS[request.path]
        self._stops = StopStrings.of(fields)
        self._is_countable = True
        self.progress = progress
        self.prompt_tokens = progress.prompt_tokens
        """Tokens of the client's own prompt, once they are known."""
        self.wants_usage = continuation.wants_usage(fields) and not progress.has_usage
        """Whether the client waits for a usage event."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the answer itself is missing."""
        return self.progress.is_done or self.progress.finish_reason is not None

    @property
    def prefix(self) -> Prefix:
        """The text to go on from."""
        return choose_prefix(self._kind, self.progress, self._stops)

    def fallback(self, prefix: Prefix) -> Prefix | None:
        """All text that was sent, to go on from if the baseline does not make its end again.

        Returns:
            None if `prefix` is all, or if a chat's template would find nothing to go on from.
        """
        whole = whole_prefix(self.progress, self._stops)
        is_blank = self._kind == "chat" and not whole.text.strip()
        return None if is_blank or whole.text == prefix.text else whole

    def splice(self, prefix: Prefix, tokens: int) -> Splice:
        """Make the splice of a continuation that goes on from `prefix`, of so many tokens."""
        splice = Splice(self._kind, self.progress, prefix, self._stops)
        splice.prompt_tokens, splice.prefix_tokens = self.prompt_tokens, tokens
        return splice

    def is_exhausted(self, tokens: int) -> bool:
        """Whether the limit on tokens leaves nothing to generate after so many."""
        limit = continuation.token_limit(self._kind, self._fields)
        return limit is not None and limit <= tokens

    def request_for_rest(self, prefix: Prefix, tokens: int) -> UpstreamRequest:
        """Make the request for the rest after `prefix`, of so many tokens."""
        body = continuation_body(self._kind, self._fields, prefix, tokens)
        encoded = msgspec.json.encode(body)
        request = self._request
        return UpstreamRequest(request.path, request.headers, encoded, budget=request.budget)

    async def count_prefix(self, prefix: Prefix) -> int:
        """Count the tokens of a prefix, as exactly as the request for the rest needs it."""
        needs_count = continuation.depends_on_count(self._kind, self._fields)
        is_known = prefix.is_exact or not prefix.text or self.is_exhausted(prefix.tokens)
        if is_known or not (needs_count and self._is_countable):
            return prefix.tokens
        return max(prefix.tokens, await self._count_text(prefix))

    @property
    def lacks_prompt_count(self) -> bool:
        """Whether usage is wanted, and the prompt's tokens are not known and may be counted.

        A build that did not count once is not asked again: it would cost a second each time.
        """
        return self.wants_usage and self.prompt_tokens is None and self._is_countable

    async def count_prompt(self) -> None:
        """Count the tokens of the client's own prompt, if the build says how many there are."""
        self._take_prompt_count(await self._count({}))

    async def missing_events(self) -> list[bytes]:
        """Make what a complete answer lacks: its usage, where it can be counted, and its end."""
        if self.progress.is_done:
            return []
        generated = self.progress.tokens
        if self.wants_usage and not self.progress.is_exact:
            generated = max(generated, await self._count_generated())
        if self.lacks_prompt_count:
            await self.count_prompt()
        return closing_events(self._kind, self.progress.head, None, self._usage(generated))

    async def _count_generated(self) -> int:
        """Count the tokens of a complete answer by its text; 0 if they cannot be counted."""
        progress, stop = self.progress, self.progress.stop_reason
        if isinstance(stop, str) and not self._stops.is_included:
            return await self._count_text(Prefix(progress.text + stop))
        counted = await self._count_text(Prefix(progress.text))
        # A token that ended the answer has no text.
        has_end = progress.finish_reason == "stop" and not isinstance(stop, str)
        return counted + has_end if counted else 0

    def exhausted_events(self, tokens: int) -> list[bytes]:
        """Make the end of an answer that its limit cuts off after so many tokens."""
        return closing_events(self._kind, self.progress.head, "length", self._usage(tokens))

    def _usage(self, generated: int) -> dict[str, int] | None:
        if not self.wants_usage or self.prompt_tokens is None:
            return None
        return usage_of(self.prompt_tokens, generated)

    async def _count_text(self, prefix: Prefix) -> int:
        """Count the tokens of a text as what it adds to the prompt; 0 if that is not known."""
        extended = extended_prompt(self._kind, self._fields, prefix)
        own, whole = await asyncio.gather(self._count({}), self._count(extended))
        self._take_prompt_count(own)
        return max(0, whole - own) if own is not None and whole is not None else 0

    async def _count(self, prompt: dict[str, Any]) -> int | None:
        count = await count_tokens(self._upstream, self._kind, self._fields, prompt)
        self._is_countable = self._is_countable and count is not None
        return count

    def _take_prompt_count(self, count: int | None) -> None:
        if self.prompt_tokens is None and count is not None:
            kept = continuation.read_integer(self._fields, "truncate_prompt_tokens", -1)
            self.prompt_tokens = min(count, kept) if kept >= 0 else count
