"""Decoding of an engine beside prefills of the tokens that it made. Pure.

The log-probabilities come with an answer whose request asks for them (`ask_for_decoding`). They are
held against the same engine's prefill of the tokens, and, where the two differ, both are held
against the baseline's prefill, which tells which of them is at fault.

Reading order: is_decode_comparable, decoded_of, read_decoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penumbra.monitoring.signals.answer import CHAT_PATH, Answer
from penumbra.monitoring.signals.decode_gap import gap

ARBITRATED = 0.005
"""Gap from which the baseline's prefill of the candidate's tokens is asked for."""

_CONSTRAINTS = (
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decoded:
    """Tokens that an engine made, and its decoding's log-probabilities of them."""

    token_ids: Sequence[int]
    """Prompt and response."""
    start: int
    """Index of the first response token."""
    logprobs: Sequence[float]
    """One for each response token."""


@dataclass(frozen=True, slots=True)
class DecodeReading:
    """One arm's decoding, beside prefills of the same tokens."""

    gap: float
    """Between its decoding and its own prefill, [0, 1]."""
    decode_apart: float | None = None
    """Between its decoding and the baseline's prefill; None if that was not asked for."""
    prefill_apart: float | None = None
    """Between its own prefill and the baseline's; None likewise."""


def is_decode_comparable(body: dict[str, Any]) -> bool:
    """Whether the decoding of this request's answer chooses among all tokens, as prefill does.

    Where a grammar forbids tokens, vLLM's log-probabilities are those of the others alone.
    """
    if any(body.get(name) is not None for name in _CONSTRAINTS):
        return False
    wanted, choice = body.get("response_format"), body.get("tool_choice")
    is_free_form = wanted is None or (isinstance(wanted, dict) and wanted.get("type") == "text")
    return is_free_form and (choice is None or choice in ("auto", "none"))


def ask_for_decoding(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Make the body that also asks for token ids and their log-probabilities.

    Args:
        path: `/v1/chat/completions` or `/v1/completions`.
        body: The request; not changed. A wish of its own for log-probabilities stays.
    """
    asked = {**body, "return_token_ids": True}
    if path == CHAT_PATH:
        asked["logprobs"] = True
    elif asked.get("logprobs") is None:
        asked["logprobs"] = 0
    return asked


def decoded_of(answer: Answer | None, most_tokens: int | None) -> Decoded | None:
    """Take the tokens of an answer's first choice and their log-probabilities; None if untold.

    Args:
        answer: The answer.
        most_tokens: Length to which prompt and response are cut, so that they can be scored.
    """
    if answer is None:
        return None
    choice = answer.choices[0]
    start = len(choice.prompt_token_ids)
    if not start or not choice.logprobs:
        return None
    token_ids = [*choice.prompt_token_ids, *choice.token_ids][:most_tokens]
    if len(token_ids) <= start:
        return None
    return Decoded(token_ids, start, choice.logprobs[: len(token_ids) - start])


def read_decoding(
    decoded: Decoded, own: Sequence[float], baseline: Sequence[float] | None
) -> DecodeReading | None:
    """Hold a decoding against prefills of its tokens.

    Args:
        decoded: The tokens and the decoding's log-probabilities.
        own: The same engine's prefill of them.
        baseline: The baseline's prefill of them; None if it was not asked for.

    Returns:
        None if a log-probability is not finite.
    """
    found = gap(decoded.logprobs, own)
    if found is None:
        return None
    if baseline is None:
        return DecodeReading(found)
    return DecodeReading(found, gap(decoded.logprobs, baseline), gap(own, baseline))
