"""Modality of a request: which kinds of content its prompt carries, besides text. Pure.

Looks at the types of content parts only, in chat messages, Responses items and Anthropic blocks,
and into tool results, which hold parts of their own. Nothing here raises.
"""

from collections.abc import Iterator, Mapping
from typing import Any

TEXT, IMAGE, AUDIO, VIDEO, FILE = "text", "image", "audio", "video", "file"
MIXED = "mixed"
"""More than one kind of content besides text."""
UNKNOWN = "unknown"
"""Content of a type that is not known here, or a body that cannot be read."""

MODALITIES = (TEXT, IMAGE, AUDIO, VIDEO, FILE, MIXED, UNKNOWN)

_AUDIO_ROUTES = frozenset({"transcriptions", "translations"})
_PARTS = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal", "thinking"), TEXT),
    **dict.fromkeys(("redacted_thinking", "reasoning_text", "summary_text"), TEXT),
    **dict.fromkeys(("tool_use", "tool_result"), TEXT),
    **dict.fromkeys(("image_url", "input_image", "image", "image_pil", "image_embeds"), IMAGE),
    **dict.fromkeys(("input_audio", "audio_url", "audio_embeds", "audio"), AUDIO),
    **dict.fromkeys(("video_url", "input_video", "video"), VIDEO),
    **dict.fromkeys(("file", "input_file", "document"), FILE),
}
"""Type of a content part -> what it carries; of a tool result the parts in it are looked at too."""
_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning"})
"""Types of Responses items that hold texts or parts."""
_INNER = ("content", "output")
_DEPTH = 4
"""Levels of content in content that are looked at; what lies deeper is unknown."""


def modality_of(route: str, body: Mapping[str, Any]) -> str:
    """Return the modality of a request: one of `MODALITIES`.

    Args:
        route: Name of its route.
        body: Its decoded body.
    """
    if route in _AUDIO_ROUTES:
        return AUDIO
    found = {kind for name in ("messages", "input") for kind in _kinds_of_turns(body.get(name))}
    found.discard(TEXT)
    if not found:
        return TEXT
    if UNKNOWN in found:
        return UNKNOWN
    return MIXED if len(found) > 1 else found.pop()


def _kinds_of_turns(turns: object) -> Iterator[str]:
    if not isinstance(turns, list):
        return
    for turn in turns:
        if not isinstance(turn, dict):
            continue  # a text, or token ids, to embed
        kind = turn.get("type")
        if kind is not None and not (isinstance(kind, str) and kind in _ITEMS):
            yield UNKNOWN
            continue
        for name in _INNER:
            content = turn.get(name)
            if content is not None and not isinstance(content, str):
                yield from _kinds_of_parts(content, _DEPTH)


def _kinds_of_parts(parts: object, depth: int) -> Iterator[str]:
    if not isinstance(parts, list) or not depth:
        yield UNKNOWN
        return
    for part in parts:
        if isinstance(part, str):
            continue
        if not isinstance(part, dict):
            yield UNKNOWN
            continue
        kind = part.get("type")
        yield _PARTS.get(kind, UNKNOWN) if isinstance(kind, str) else UNKNOWN
        inner = part.get("content")
        if inner is not None and not isinstance(inner, str):
            yield from _kinds_of_parts(inner, depth - 1)
