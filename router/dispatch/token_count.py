"""Token counts by a build's own tokenizer, for streams that are continued.

`/tokenize` is vLLM's, and many servers in front of it do not offer it. No answer waits for it for
longer than `COUNT_SECONDS`: without a count only a figure is a guess.
"""

from typing import Any, Final

import msgspec

from penumbra.router.dispatch.continuation import CannotContinueError, Fields, Kind, value_of
from penumbra.router.upstream.calls import UpstreamError, fetch, json_request
from penumbra.router.upstream.port import Upstream

COUNT_SECONDS: Final = 1.0
_OK = 200
_ANSWER_BYTES = 16 * 1024 * 1024
"""The answer names every token: some eight bytes each."""
_FIELDS: Final[dict[Kind, tuple[str, ...]]] = {
    "completions": ("model", "prompt", "add_special_tokens"),
    "chat": (
        "model", "messages", "continue_final_message", "add_generation_prompt", "chat_template",
        "chat_template_kwargs", "add_special_tokens", "media_io_kwargs", "mm_processor_kwargs",
    ),
}  # fmt: skip
_TEMPLATE_ARGUMENTS = ("documents", "reasoning_effort")
"""Fields of a chat request that reach its template; `/tokenize` takes them as its arguments."""


class _Counted(msgspec.Struct):
    count: int


async def count_tokens(
    upstream: Upstream, kind: Kind, fields: Fields, prompt: dict[str, Any]
) -> int | None:
    """Count the tokens of a request's prompt.

    Args:
        upstream: The build that is asked.
        kind: The API of the request.
        fields: The request.
        prompt: Fields that replace the request's own.

    Returns:
        None if the build does not say, or not in time.
    """
    request: dict[str, Any] = {**fields, **prompt}
    wanted = {name: request[name] for name in _FIELDS[kind] if name in request}
    try:
        if kind == "chat":
            wanted.update(_template_arguments(fields))
        answer = await fetch(
            upstream,
            json_request("/tokenize", wanted),
            timeout_seconds=COUNT_SECONDS,
            limit_bytes=_ANSWER_BYTES,
        )
    except (UpstreamError, CannotContinueError):
        return None
    if answer.status != _OK:
        return None
    try:
        count = msgspec.json.decode(answer.body, type=_Counted).count
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return count if count > 0 else None


def _template_arguments(fields: Fields) -> dict[str, Any]:
    """The template's arguments as vLLM makes them of a chat request."""
    given = {name: fields[name] for name in _TEMPLATE_ARGUMENTS if _is_given(fields, name)}
    if not given:
        return {}
    own = value_of(fields, "chat_template_kwargs")
    arguments: dict[str, Any] = dict(own) if isinstance(own, dict) else {}
    if "reasoning_effort" in given and "enable_thinking" not in arguments:
        arguments["enable_thinking"] = bytes(given["reasoning_effort"]) != b'"none"'
    return {"chat_template_kwargs": {**arguments, **given}}


def _is_given(fields: Fields, name: str) -> bool:
    return name in fields and bytes(fields[name]) != b"null"
