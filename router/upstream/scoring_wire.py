"""Requests for scores and the reading of their answers, in two dialects. Pure.

vLLM's completions API scores any prompt of token ids, on any server. Our own replicas have a route
that answers with the response's rows only, as two arrays (`penumbra.serve.hosting.scoring`).
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from penumbra.router.upstream.port import Scores

COMPLETIONS_PATH = "/v1/completions"
SHORT_PATH = "/penumbra/v1/score"

_MINUS_INFINITY = -9999.0
"""The number that vLLM writes for minus infinity."""


class NoScores(ValueError):
    """The answer does not hold the scores that were asked for."""

    code = "no_scores"


class _Row(msgspec.Struct):
    logprob: float | None = None
    """`null` where a server writes NaN so."""
    rank: int | None = None


class _Choice(msgspec.Struct):
    prompt_logprobs: list[dict[int, _Row] | None]


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Short(msgspec.Struct):
    logprobs: list[float | None]
    top_ids: list[int]
    top_logprobs: list[float | None] = []
    """Empty from replicas of an older version."""


_read_completion = msgspec.json.Decoder(_Completion).decode
_read_short = msgspec.json.Decoder(_Short).decode


def completions_body(model: str, token_ids: Sequence[int]) -> dict[str, Any]:
    """Make the body of a request to the completions API.

    vLLM never reads its prefix cache for such a request, so earlier requests cannot change the
    answer. One alternative in each row tells which token would have been chosen greedily.
    """
    return {
        "model": model,
        "prompt": token_ids,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 1,
        "add_special_tokens": False,
    }


def short_body(token_ids: Sequence[int], start: int) -> dict[str, Any]:
    """Make the body of a request to our own replicas."""
    return {"token_ids": token_ids, "start": start}


def read_completion(body: bytes, token_ids: Sequence[int], start: int) -> Scores:
    """Read the scores from an answer of the completions API.

    Raises:
        NoScores: There are none, or not of these tokens.
    """
    try:
        rows = _read_completion(body).choices[0].prompt_logprobs
        if len(rows) != len(token_ids):
            raise NoScores(f"{len(rows)} rows for {len(token_ids)} tokens")
        scored = [_read_row(rows[index], token_ids[index]) for index in range(start, len(rows))]
    except (msgspec.MsgspecError, LookupError) as error:
        raise NoScores("no prompt_logprobs in the answer") from error
    logprobs, tops, top_logprobs = zip(*scored, strict=True)
    return Scores(logprobs, tops, top_logprobs)


def read_short(body: bytes, token_ids: Sequence[int], start: int) -> Scores:
    """Read the scores from an answer of our own replicas.

    Raises:
        NoScores: There are none, or not of these tokens.
    """
    try:
        told = _read_short(body)
    except msgspec.MsgspecError as error:
        raise NoScores("no scores in the answer") from error
    if not len(told.logprobs) == len(told.top_ids) == len(token_ids) - start:
        raise NoScores(f"{len(told.logprobs)} scores for {len(token_ids) - start} tokens")
    is_whole = len(told.top_logprobs) == len(told.logprobs)
    top_logprobs = _numbers(told.top_logprobs) if is_whole else ()
    return Scores(_numbers(told.logprobs), tuple(told.top_ids), top_logprobs)


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)


def _read_row(row: dict[int, _Row] | None, token_id: int) -> tuple[float, int, float]:
    """Read the token's log-probability, the likeliest token, and that one's."""
    if row is None:
        raise NoScores("a row without log-probabilities")
    logprob = row[token_id].logprob
    if logprob is None:
        return math.nan, token_id, math.nan
    ranked = [key for key, entry in row.items() if entry.rank == 1]
    # Without ranks, the likeliest of those listed; the given token wins a tie.
    top = ranked[0] if ranked else max(row, key=lambda key: (_weight(row[key]), key == token_id))
    return -math.inf if logprob <= _MINUS_INFINITY else logprob, top, _weight(row[top])


def _weight(entry: _Row) -> float:
    return -math.inf if entry.logprob is None else entry.logprob
