"""Answers as clients got them: their codes, their counts and a judgement of a minute. Pure.

A gateway counts every answer by model, variant and code. Its status page, the control process and
`penumbra status` judge the counts of the last minute by the same words, `find_problems`.
"""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec


class AnswerCode(StrEnum):
    """Kinds of answers: the status that a client got, or what it got in place of an answer."""

    OK = "2xx"
    REDIRECT = "3xx"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    TOO_MANY = "429"
    CLIENT_ERROR = "4xx"
    """Any other 4xx of a variant."""
    SERVER_ERROR = "5xx"
    BROKEN_OFF = "broken_off"
    """An answer that was cut, ended with an error event, or is none by its content: no JSON object,
    or one with an error. It was counted before by its status."""
    UNANSWERED = "unanswered"
    """An error of the gateway's own, because no variant gave an answer that could be passed on."""


FAILED = frozenset({AnswerCode.SERVER_ERROR, AnswerCode.BROKEN_OFF, AnswerCode.UNANSWERED})
"""Answers that failed for the client, and not by the client's fault: what the SLO counts."""
REFUSED = frozenset(
    {
        AnswerCode.REDIRECT,
        AnswerCode.UNAUTHORIZED,
        AnswerCode.FORBIDDEN,
        AnswerCode.NOT_FOUND,
        AnswerCode.TOO_MANY,
    }
)
"""Refusals by a variant that a wrong key, name, address or limit on the operator's side gives."""
JUDGED = frozenset({AnswerCode.OK, AnswerCode.SERVER_ERROR, AnswerCode.UNANSWERED})
"""Answers that the SLO counts as a whole. A broken one was counted before, by its status."""

_OWN_CODES = {
    int(code): code
    for code in (
        AnswerCode.UNAUTHORIZED,
        AnswerCode.FORBIDDEN,
        AnswerCode.NOT_FOUND,
        AnswerCode.TOO_MANY,
    )
}


def code_of(status: int) -> AnswerCode:
    """The code of an answer of a variant by its HTTP status."""
    if status < 300:
        return AnswerCode.OK
    if status < 400:
        return AnswerCode.REDIRECT
    if status < 500:
        return _OWN_CODES.get(status, AnswerCode.CLIENT_ERROR)
    return AnswerCode.SERVER_ERROR


class AnswerCount(msgspec.Struct, frozen=True):
    """The number of answers of one kind within the last minute. It is a part of a link message."""

    model: str
    variant: str
    """The variant that answered, or was to answer last."""
    code: str
    """An `AnswerCode`, or a code that only a newer gateway has."""
    count: Annotated[int, msgspec.Meta(ge=0)]


MOST_COUNTS = 4096
"""Kinds of answers in one message: models x variants x codes."""


class ModelAnswers(msgspec.Struct, frozen=True):
    """The answers of one model within the last minute, over all gateways that were counted."""

    model: str
    answers: int
    failed: int
    refused: int
    counts: tuple[AnswerCount, ...]
    """By variant and code, the most frequent first."""


LEAST_FAILED = 3
"""Failed answers within the minute, below which a share of them says nothing."""
LEAST_FAILED_RATIO = 0.01
"""Share of failed answers at which a model is degraded: ten times what the SLO allows."""
LEAST_REFUSED = 5
LEAST_REFUSED_RATIO = 0.05
"""The same of refusals. One client that asks for what a build lacks should not reach it."""

_WORDS = {AnswerCode.BROKEN_OFF.value: "broken off", AnswerCode.UNANSWERED.value: "no answer"}
_MOST_CAUSES = 3


def by_model(counts: Iterable[AnswerCount]) -> tuple[ModelAnswers, ...]:
    """Add up the counts of several gateways, model by model."""
    sums: Counter[tuple[str, str, str]] = Counter()
    for part in counts:
        sums[part.model, part.variant, part.code] += part.count
    merged = [AnswerCount(*key, count) for key, count in sums.most_common() if count]
    names = sorted({count.model for count in merged})
    return tuple(
        _of_model(name, tuple(count for count in merged if count.model == name)) for name in names
    )


def _of_model(model: str, counts: tuple[AnswerCount, ...]) -> ModelAnswers:
    failed = sum(count.count for count in counts if count.code in FAILED)
    refused = sum(count.count for count in counts if count.code in REFUSED)
    # The beginning of a stream that broke off may be older than the minute.
    whole = sum(count.count for count in counts if count.code != AnswerCode.BROKEN_OFF)
    return ModelAnswers(model, max(whole, failed), failed, refused, counts)


def find_problems(models: Iterable[ModelAnswers]) -> tuple[str, ...]:
    """Say which models are degraded, by what their clients got in the last minute.

    Returns:
        One text for each problem: `37 % of demo's answers failed in the last minute (5xx of full)`.
    """
    return tuple(text for model in models for text in _problems_of(model))


def _problems_of(model: ModelAnswers) -> list[str]:
    texts = []
    whole = max(1, model.answers)
    if model.failed >= LEAST_FAILED and model.failed / whole >= LEAST_FAILED_RATIO:
        share = _percent(model.failed / whole)
        causes = _causes(model.counts, FAILED)
        texts.append(f"{share} of {model.model}'s answers failed in the last minute ({causes})")
    if model.refused >= LEAST_REFUSED and model.refused / whole >= LEAST_REFUSED_RATIO:
        share = _percent(model.refused / whole)
        causes = _causes(model.counts, REFUSED)
        texts.append(
            f"{share} of {model.model}'s answers were refusals in the last minute ({causes})"
        )
    return texts


def _causes(counts: Iterable[AnswerCount], codes: frozenset[AnswerCode]) -> str:
    causes = [
        f"{_WORDS.get(count.code, count.code)} of {count.variant}"
        for count in counts
        if count.code in codes
    ]
    return ", ".join(causes[:_MOST_CAUSES])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"
