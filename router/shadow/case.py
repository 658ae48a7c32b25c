"""Cases: mirrored requests, read so that they can be compared.

Token ids carry text only, and Anthropic's messages tell none. Such a request is compared by harm
alone: both builds answer it, and nothing is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from penumbra.monitoring.signals.answer import Answer
from penumbra.monitoring.signals.by_route import expectations, read_answer
from penumbra.monitoring.signals.expectations import Expectations
from penumbra.router.flags.modality import TEXT, UNKNOWN, modality_of
from penumbra.router.flags.request_routes import CHAT, MESSAGES, route_of
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.shadow.decode import is_decode_comparable
from penumbra.router.shadow.generation import Unanswerable, read_body


@dataclass(frozen=True, slots=True)
class Case:
    """A mirrored request that can be compared."""

    mirrored: MirrorFrame
    body: dict[str, Any]
    answer: Answer
    expected: Expectations
    token_ids: Sequence[int]
    """Tokens of prompt and answer; empty where they are not known, and harm alone is compared."""
    start: int
    """Index of the first response token."""
    route: str = CHAT
    modality: str = TEXT
    most_tokens: int | None = None
    """Length of the longest sequence that can be scored, if known."""

    @property
    def is_decode_comparable(self) -> bool:
        """Whether the client's answer told its log-probabilities, and prefills have such ones."""
        is_told = bool(self.token_ids) and bool(self.answer.choices[0].logprobs)
        return is_told and is_decode_comparable(self.body)

    @property
    def tokens(self) -> int:
        """Response tokens that are scored."""
        return len(self.token_ids) - self.start


def read_case(mirrored: MirrorFrame, context_tokens: int | None) -> Case | ShedReason:
    """Read a mirrored request into a case, or tell why it cannot be compared.

    Args:
        mirrored: The request; of several choices the first is scored.
        context_tokens: Longest sequence that all builds take, if known: a score wants room for one
            more token, so the end of an answer that filled the context is left out.
    """
    try:
        body = read_body(mirrored.body)
    except Unanswerable:
        return ShedReason.UNREADABLE
    route = route_of(mirrored.path.encode("latin-1"))
    modality = modality_of(route, body)
    if modality == UNKNOWN:
        return ShedReason.NOT_TEXT
    answer = read_answer(mirrored.path, is_stream=mirrored.is_stream, raw=mirrored.answer)
    if answer is None:
        return ShedReason.UNREADABLE
    expected = _expected(mirrored)
    if route == MESSAGES or modality != TEXT:
        return Case(mirrored, body, answer, expected, (), 0, route, modality)
    most_tokens = None if context_tokens is None else context_tokens - 1
    found = _tokens(answer, most_tokens)
    if isinstance(found, ShedReason):
        return found
    return Case(mirrored, body, answer, expected, *found, route, most_tokens=most_tokens)


def _expected(mirrored: MirrorFrame) -> Expectations:
    found = expectations(mirrored.path, mirrored.body)
    return msgspec.structs.replace(found, is_partial=mirrored.is_partial)


def _tokens(answer: Answer, most_tokens: int | None) -> tuple[list[int], int] | ShedReason:
    """The tokens to score and the index of the response's first, or why there are none."""
    prompt, said = answer.choices[0].prompt_token_ids, answer.choices[0].token_ids
    if not prompt or not said:
        return ShedReason.UNREADABLE
    if answer.completion_tokens is not None and _ids(answer) < answer.completion_tokens:
        return ShedReason.IDS_MISSING
    token_ids = [*prompt, *said][:most_tokens]
    return (token_ids, len(prompt)) if len(token_ids) > len(prompt) else ShedReason.TOO_LONG


def _ids(answer: Answer) -> int:
    return sum(len(choice.token_ids) for choice in answer.choices)
